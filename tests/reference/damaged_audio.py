"""Audio files of many kinds with seeded damage: flipped header bytes, cuts, insertions, other sizes."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import soundfile

KINDS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"),
         ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
         ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "ALAC_16"), ("W64", "PCM_16"))
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
HEADER = 96  # bytes in which most of the damage is done


def sound(kind: str, subtype: str, rng: np.random.Generator) -> bytes:
    """A third of a second of a tone and noise."""
    rate = 8000 if subtype in ("GSM610", "OPUS") else int(rng.choice([8000, 16000, 44100]))
    channels = 1 if subtype == "GSM610" else int(rng.integers(1, 3))
    time = np.arange(rate // 3)[:, None] / rate
    samples = 0.3 * np.sin(2 * np.pi * 440 * time * np.arange(1, channels + 1))
    samples += 0.01 * rng.normal(size=samples.shape)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four faults."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(out) < 8:
            break
        at = int(rng.integers(min(HEADER, len(out) - 4) if rng.random() < 0.7 else len(out) - 4))
        match int(rng.integers(7)):
            case 0:
                out[at] ^= 1 << int(rng.integers(8))
            case 1:
                out[at] = int(rng.integers(256))
            case 2:
                del out[at:at + int(rng.integers(1, 64))]
            case 3:
                out[at:at] = rng.bytes(int(rng.integers(1, 64)))
            case 4:
                del out[at if rng.random() < 0.3 else int(rng.integers(len(out))):]
            case 5:
                value = EXTREMES[int(rng.integers(len(EXTREMES)))]
                out[at:at + 4] = struct.pack("<I" if rng.random() < 0.5 else ">I", value)
            case 6:
                out[at:at + 64] = out[:64]
    return bytes(out)


def damaged_files(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(name, content); the same for the same seed."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        kind, subtype = KINDS[i % len(KINDS)]
        yield f"{i:04d}.{kind.lower()}", damaged(sound(kind, subtype, rng), rng)
