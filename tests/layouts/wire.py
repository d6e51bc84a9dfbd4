"""Protocol buffers and TFRecords written byte by byte, from their specifications alone."""

from __future__ import annotations

import struct

import numpy as np

from music_diffusion.notes.notes import Notes

# Wire types of protocol buffers.
VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64 bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | str | int | float) -> bytes:
    """A field of a message: bytes (also messages), text, an integer or a double."""
    if isinstance(value, float):
        return varint(number << 3 | DOUBLE) + struct.pack("<d", value)
    if isinstance(value, str | bytes):
        value = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | BYTES) + varint(len(value)) + value
    return varint(number << 3 | VARINT) + varint(int(value))


def example(features: dict[str, list | np.ndarray]) -> bytes:
    """A tf.train.Example: lists of bytes or integers, arrays of float32."""
    out = b""
    for name, values in features.items():
        if isinstance(values, np.ndarray):
            feature = field(2, field(1, values.astype("<f4").tobytes()))
        elif isinstance(values[0], bytes):
            feature = field(1, b"".join(field(1, v) for v in values))
        else:
            feature = field(3, field(1, b"".join(varint(v) for v in values)))
        out += field(1, field(1, name) + field(2, feature))
    return field(1, out)


def note_sequence(notes: Notes, pedal: tuple[tuple[float, int], ...] = (),
                  instruments: tuple[int, ...] = (), **texts: str) -> bytes:
    """A note-seq NoteSequence in seconds.

    notes: on the `instruments`, or all on 0. pedal: (seconds, value) of instrument 0. texts: id,
    filename.
    """
    out = b"".join(field({"id": 1, "filename": 2}[name], text) for name, text in texts.items())
    out += field(4, 220)  # ticks_per_quarter
    out += field(7, field(2, 120.0))  # tempos: qpm
    for n in range(len(notes)):
        values = (int(notes.pitch[n]), int(notes.velocity[n]), float(notes.start[n]), float(notes.end[n]))
        note = b"".join(field(number, value) for number, value in enumerate(values, start=1))
        note += field(7, instruments[n]) if instruments else b""
        out += field(8, note + field(8, int(notes.program[n])) + field(9, bool(notes.is_drum[n])))
    for time, value in pedal:
        out += field(11, field(1, time) + field(2, 64) + field(3, value))
    return out + field(9, notes.duration)  # total_time


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit: reflected polynomial 0x82F63B78 (RFC 3720, B.4)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _table()


def tf_record(message: bytes) -> bytes:
    """One record of a TFRecord file."""
    def masked(data: bytes) -> bytes:
        crc = crc32c(data)
        rotated = crc >> 15 | crc << 17 & 0xFFFFFFFF
        return struct.pack("<I", (rotated + 0xA282EAD8) % 2**32)

    length = struct.pack("<Q", len(message))
    return length + masked(length) + message + masked(message)
