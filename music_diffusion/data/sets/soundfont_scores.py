"""Scores to play: a folder of MIDI files, by split and source."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
from collections.abc import Sequence

from music_diffusion.data.items import SPLITS
from music_diffusion.data.splits import share
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import restored
from music_diffusion.tables import read_table

MANIFEST = "manifest.csv"
COLUMNS = ("path", "source", "split")
HELD_OUT = 0.05  # share of the files for validation, and again for test, where no table decides

Sources = dict[str, list[str]]  # source → paths below the folder


def find_scores(folder: str) -> dict[str, Sources]:
    """Finds the scores of a folder by split and source.

    They are those of `manifest.csv` (columns path, source, split) if there is one, else all MIDI files
    below the folder, as one source; then a hash of each one's path decides on its split.

    Raises:
      UserError: the folder is missing, has neither, or a table with other columns.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"{folder}: no such folder; give one of MIDI files")
    table = root / MANIFEST
    return _of_table(table) if table.is_file() else _of_files(root)


def of_split(scores: dict[str, Sources], split: str, folder: str) -> Sources:
    """Returns the scores of a split. Raises UserError where it has none."""
    if not scores.get(split):
        raise UserError(f"{folder}: no scores of split {split}; add MIDI files, or give them that split "
                        f"in {MANIFEST}, or ask for 0 hours of it")
    return scores[split]


@functools.lru_cache(maxsize=1024)  # reading one takes as long as rendering seconds of it; 100 MB
def read_score(path: str) -> Notes:
    """Reads the notes of a MIDI file."""
    return read_midi(path)


def _of_table(table: pathlib.Path) -> dict[str, Sources]:
    result: dict[str, Sources] = {split: {} for split in SPLITS}
    for row in read_table(table, COLUMNS, advice=f"it needs the columns {', '.join(COLUMNS)}"):
        if row["split"] in SPLITS and row["path"]:
            result[row["split"]].setdefault(row["source"], []).append(restored(row["path"]))
    return result


def _of_files(root: pathlib.Path) -> dict[str, Sources]:
    paths = sorted(p.relative_to(root).as_posix() for p in root.rglob("*")
                   if p.suffix.lower() in (".mid", ".midi") and p.is_file())
    if not paths:
        raise UserError(f"{root}: neither {MANIFEST} nor MIDI files there; give a folder of scores")
    result: dict[str, list[str]] = collections.defaultdict(list)
    for path, split in zip(paths, _splits(paths), strict=True):
        result[split].append(path)
    return {split: {os.path.basename(root.resolve()): result[split]} for split in SPLITS if result[split]}


def _splits(paths: Sequence[str]) -> list[str]:
    """Returns the split of every path, by hashes, so that new files do not move old ones.

    With two files or more at least one is for validation.
    """
    drawn = [share(0, "split", path) for path in paths]
    splits = ["validation" if x < HELD_OUT else "test" if x < 2 * HELD_OUT else "train" for x in drawn]
    if "validation" not in splits and len(paths) > 1:
        splits[drawn.index(min(drawn))] = "validation"
    if "train" not in splits:
        splits[drawn.index(max(drawn))] = "train"
    return splits
