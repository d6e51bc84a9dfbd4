"""Bach Violin Dataset: a work in one file, a movement in another, and one without its audio."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
from layouts.common import Truth, scale, tones, write_wav

from music_diffusion.notes.notes import Notes

RATE = 24000  # Hz; one that both MP3 and Opus have
COLUMNS = ("filename", "collection", "violinist", "violinist_name", "work", "title", "mov",
           "movement", "source_filename", "start", "end", "length", "repeat1", "repeat2",
           "score_filename", "baroque_tuning")
# filename, collection, mov, source_filename, start, seconds
MOVEMENTS = (
    ("emil-telmanyi_bwv1001_mov1", "emil-telmanyi", "1", "emil-telmanyi_bwv1001.mp3", 1, 3),
    ("emil-telmanyi_bwv1001_mov2", "emil-telmanyi", "2", "emil-telmanyi_bwv1001.mp3", 4, 2),
    ("minji-kim_bwv1001_mov1", "misc", "1", "minji-kim_bwv1001_mov1.opus", 1, 2),
    ("shunske-sato_bwv1001_mov1", "shunske-sato", "1", "shunske-sato_bwv1001.opus", 0, 2),
)


def build(folder: pathlib.Path) -> list[Truth]:
    """Writes it; silence stands before the movements that do not begin at 0."""
    truths, rows = [], []
    sources: dict[str, np.ndarray] = {}
    for i, (name, collection, mov, source, start, seconds) in enumerate(MOVEMENTS):
        violinist = name.partition("_")[0]
        # The last note of the alignment has no length, as there are some in the data set.
        times = np.arange(5) * 0.32 + 0.128
        ends = np.append(times[:-1] + 0.256, times[-1])
        notes = Notes(times, np.maximum(ends, times + 0.01), scale(count=5, pitch=60 + 3 * i).pitch,
                      np.full(5, 64), np.full(5, 40), np.full(5, False))
        write_table(folder / "notes" / collection / f"{name}.csv",
                    ("onset", "offset", "pitch", "velocity"),
                    [(12 * j, 12 * j + 12, pitch, 64) for j, pitch in enumerate(notes.pitch)])
        write_table(folder / "alignments" / collection / f"{name}.csv", ("start", "end"),
                    [(round(a, 3), round(b, 3)) for a, b in zip(times, ends, strict=True)])
        rows.append((name, collection, violinist, violinist.title(), "BWV1001",
                     "Sonata No. 1 in G minor", mov, "Adagio", source, clock(start),
                     clock(start + seconds), clock(seconds), "-", "-", f"bwv1001_mov{mov}", 0))
        if collection == "shunske-sato":
            continue
        samples = tones(notes, seconds, RATE)
        before = sources.get(f"{collection}/{source}", np.zeros(0, np.float32))
        gap = np.zeros(start * RATE - len(before), np.float32)
        sources[f"{collection}/{source}"] = np.concatenate([before, gap, samples])
        truths.append(Truth(name=name, split=None, samples=samples, sample_rate=RATE, notes=notes,
                            velocities=False, performance=violinist, style="violin",
                            piece=f"bwv1001_mov{mov}"))
    for source, samples in sources.items():
        opus = {"format": "OGG", "subtype": "OPUS"} if source.endswith("opus") else {}
        write_wav(folder / "audio" / source, samples, RATE, channels=2, **opus)
    write_table(folder / "info.csv", COLUMNS, rows)
    return truths


def clock(seconds: int) -> str:
    return f"0:{seconds // 60:02d}:{seconds % 60:02d}"


def write_table(path: pathlib.Path, header, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([header, *rows])
