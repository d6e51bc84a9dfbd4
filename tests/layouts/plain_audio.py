"""A folder of audio in several formats, with and without folders of splits."""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

RATE = 4000  # Hz
FILES = {"song.wav": None, "album/song.flac": None, "album/train/one.wav": "train",
         "Validation/two.aiff": "validation", "dev/test/three.wav": "validation",
         "test/four.au": "test"}


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it, with files that are no audio between."""
    truths = []
    for i, (path, split) in enumerate(FILES.items()):
        samples = tones(scale(pitch=50 + 3 * i), 2.0, RATE)
        write_wav(folder / path, samples, RATE, channels=1 + i % 2)
        truths.append(Truth(name=path, split=split, samples=samples, sample_rate=RATE))
    (folder / "album" / "cover.jpg").write_bytes(b"\xff\xd8")
    (folder / "album" / "live.m4a").write_bytes(b"ftyp")
    return truths
