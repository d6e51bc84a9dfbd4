"""GTZAN as Kaggle's archive has it, with the filtered lists of Kereliuk et al. beside.

`genres_original/GENRE/GENRE.00000.wav`, one channel of 16 bits; 30 s at 22050 Hz there.
"""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

RATE = 4000  # Hz
SPLITS = {"blues.00000": "train", "blues.00001": None, "classical.00000": "train",
          "classical.00001": "validation", "classical.00002": "test", "jazz.00000": "validation"}


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it; blues.00001 is on no list, and jazz.00054 is damaged."""
    truths = []
    for i, (name, split) in enumerate(SPLITS.items()):
        genre = name.partition(".")[0]
        samples = tones(scale(pitch=50 + 2 * i), 2.0, RATE)
        write_wav(folder / "genres_original" / genre / f"{name}.wav", samples, RATE)
        if split:
            truths.append(Truth(name=f"{genre}/{name}", split=split, samples=samples,
                                sample_rate=RATE, style=genre))
    (folder / "genres_original" / "jazz" / "jazz.00054.wav").write_bytes(b"\0" * 1000)
    for split, stem in (("train", "train"), ("validation", "valid"), ("test", "test")):
        names = [n for n, s in SPLITS.items() if s == split] + ["jazz.00054"] * (split == "train")
        lines = [f"{name.partition('.')[0]}/{name}.wav\n" for name in names]
        (folder / f"{stem}_filtered.txt").write_text("".join(lines))
    return truths
