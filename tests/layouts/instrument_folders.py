"""Recordings by instrument, as PrioteasaAndrei/music-style-transfer-ldm downloads them.

`downloads/INSTRUMENT/TITLE.mp3`; here of 5, 4, 3 and 2 seconds, and two of the violin.
"""

from __future__ import annotations

import pathlib

from layouts.common import Truth, scale, tones, write_wav

RATE = 16000  # Hz
SECONDS = {"piano/piano_solo_00": 5.0, "guitar/guitar_solo_00": 4.0, "harp/harp_solo_00": 3.0,
           "violin/violin_solo_00": 2.0, "violin/violin_solo_01": 3.0}


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it."""
    truths = []
    for i, (path, seconds) in enumerate(SECONDS.items()):
        samples = tones(scale(pitch=50 + 5 * i, count=10, step=0.5), seconds, RATE)
        write_wav(folder / "downloads" / f"{path}.mp3", samples, RATE)
        truths.append(Truth(name=f"{path}.mp3", split=None, samples=samples, sample_rate=RATE,
                            style=path.partition("/")[0]))
    return truths
