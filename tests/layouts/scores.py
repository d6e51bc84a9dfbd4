"""A folder of scores with its table, for renders."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes


def part(program: int, pitch: int, count: int = 40, drum: bool = False, gap: float = 0.15) -> Notes:
    """One key, over and over."""
    start = 0.05 + gap * np.arange(count)
    return Notes(start, start + 0.6 * gap, np.full(count, pitch), np.full(count, 100),
                 np.full(count, program), np.full(count, drum))


def build(folder: pathlib.Path, rows: Sequence[tuple[str, str, str, Notes | None]]) -> str:
    """Writes manifest.csv and the MIDI files of rows (path, source, split, notes); None: no file."""
    folder.mkdir(exist_ok=True)
    for name, _, _, notes in rows:
        if notes is not None:
            write_midi(notes, folder / name)
    table = ["path,source,split", *(f"{name},{source},{split}" for name, source, split, _ in rows)]
    (folder / "manifest.csv").write_text("\n".join(table) + "\n")
    return str(folder)
