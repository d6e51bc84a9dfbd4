"""StarNet: `starnet-p1/001.0.wav` …, six files for each track, and the ten test excerpts beside.

0 clarinet and vibraphone, 1 clarinet, 2 vibraphone, 3 strings and piano, 4 strings, 5 piano.
Audio has 44100 Hz there, or 16000 in the reduced version.
"""

from __future__ import annotations

import pathlib

import numpy as np
from layouts.common import Truth, scale, tones, write_wav

RATE = 2000  # Hz
TRACKS = {"starnet-p1/001": "train", "starnet-p2/056": "validation", "music_star_test/001": "test"}
DOMAINS = ("clarinet_vibraphone", "clarinet", "vibraphone", "strings_piano", "strings", "piano")
PAIRS = (("piano", "vibraphone"), ("clarinet", "strings"), ("strings_piano", "clarinet_vibraphone"))
PROGRAMS = {"clarinet": 71, "vibraphone": 11, "strings": 48, "piano": 0}


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it; the truths are of all six conversions."""
    truths = []
    for i, (path, split) in enumerate(TRACKS.items()):
        sounds = domains(i)
        for number, domain in enumerate(DOMAINS):
            write_wav(folder / f"{path}.{number}.wav", sounds[domain], RATE)
        track = "test-001" if split == "test" else path[-3:]
        for source, target in [*PAIRS, *(pair[::-1] for pair in PAIRS)]:
            parts = target.split("_") if "_" in target else ()
            truths.append(Truth(
                name=f"{source}_to_{target}/{track}", split=split, samples=sounds[target],
                sample_rate=RATE, source=sounds[source], style=target, piece=track,
                stems={PROGRAMS[part]: sounds[part] for part in parts}))
    return truths


def domains(track: int) -> dict[str, np.ndarray]:
    """Domain → samples: the same notes, louder or softer; one domain is a little longer."""
    high, low = (tones(scale(pitch=pitch + 3 * track), 2.0, RATE) for pitch in (60, 45))
    longer = np.zeros(7, np.float32)
    sounds = {"clarinet": 0.5 * high, "vibraphone": 0.4 * low,
              "strings": np.append(0.3 * high, longer), "piano": np.append(0.2 * low, longer)}
    return sounds | {pair: sounds[pair.split("_")[0]] + sounds[pair.split("_")[1]]
                     for pair in ("clarinet_vibraphone", "strings_piano")}
