"""Wrappers of MIDI files: gzip, RIFF, a header of another system."""

from __future__ import annotations

import zlib

from music_diffusion.errors import UserError

MAX_BYTES = 64 << 20  # of a MIDI file; the largest "black MIDI" scores have some ten millions
HEAD = b"MThd"
JUNK = 4096  # bytes before the header in which it is looked for; MacBinary has 128
GZIP, RIFF, RMID = b"\x1f\x8b", b"RIFF", b"RMID"


def unwrap(data: bytes, name: str) -> tuple[bytes, list[str]]:
    """Returns the bytes from MThd on, and what is wrong with the wrapping, a sentence each.

    Raises:
      UserError: the file is empty, too large, or holds no MIDI file.
    """
    warnings: list[str] = []
    if not data:
        raise UserError(f"{name}: the file is empty")
    if data.startswith(GZIP):
        data, warnings = _decompress(data, name)
    if len(data) > MAX_BYTES:
        raise UserError(f"{name}: more than {MAX_BYTES >> 20} MB; split it into shorter pieces")
    if data.startswith(HEAD):
        return data, warnings
    if data.startswith(RIFF) and data[8:12] == RMID:
        return _riff_data(data, name), warnings
    at = data.find(HEAD + b"\0\0\0", 0, JUNK)
    if at < 0:
        raise UserError(f"{name}: not a MIDI file (it does not begin with MThd)")
    if at != 128:  # MacBinary's length
        warnings.append(f"{at} bytes before the MIDI header are not MIDI")
    return data[at:], warnings


def _decompress(data: bytes, name: str) -> tuple[bytes, list[str]]:
    stream = zlib.decompressobj(wbits=31)
    out, warnings = bytearray(), []
    try:
        # A piece at a time, so that what stands before a damaged place is not lost.
        for at in range(0, len(data), 4096):
            out += stream.decompress(data[at:at + 4096], MAX_BYTES + 1 - len(out))
            if len(out) > MAX_BYTES or stream.eof:
                break
    except zlib.error:
        pass  # said below: the stream has not come to its end
    if not out:
        raise UserError(f"{name}: damaged gzip data; download the file again")
    if not stream.eof and len(out) <= MAX_BYTES:
        warnings.append("the gzip data are damaged or truncated")
    return bytes(out), warnings


def _riff_data(data: bytes, name: str) -> bytes:
    """Returns the data chunk of a RIFF file of the kind RMID."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4:at + 8], "little")
        if data[at:at + 4] == b"data" and data[at + 8:at + 12] == HEAD:
            return data[at + 8:at + 8 + size]
        at += 8 + size + size % 2
    at = data.find(HEAD)
    if at < 0:
        raise UserError(f"{name}: a RIFF file without MIDI data")
    return data[at:]
