"""Recordings of performances as plain files, to compare a performance with, and pieces for it to play.

    DST/train/NAME.flac, NAME.mid     the references of every performance
    DST/test/NAME.flac, NAME.mid      pieces that are rendered
    DST/performances.csv              file, group (the performance), seconds
"""

from __future__ import annotations

import collections
import csv
import functools
import os
import pathlib
from collections.abc import Sequence

from music_diffusion.data.items import SPLITS, Item, Listing
from music_diffusion.data.pairs import write_pairs
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.splits import share
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.types import StepProgress

TABLE = "performances.csv"
CutItem = tuple[Item, float]  # an item and the seconds of its start that are written


def choose_references(items: Sequence[Item], split: str, minutes: float, seed: int = 0) -> list[CutItem]:
    """Draws items of a split, at most so many minutes of each performance.

    Items without a performance count as one together. The last item may be cut.

    Raises UserError where the length of an item cannot be read.
    """
    left: dict[str | None, float] = collections.defaultdict(lambda: 60 * minutes)
    chosen = []
    for item in sorted((i for i in items if i.split == split and i.notes is not None),
                       key=lambda i: share(seed, "references", i.name)):
        if left[item.performance] < 1:  # second
            continue
        seconds = min(item.audio.facts().seconds, left[item.performance])
        left[item.performance] -= seconds
        chosen.append((item, seconds))
    return chosen


def write_references(listing: Listing, destination: str, *, splits: Sequence[str] = ("train", "test"),
                     minutes: float = 10.0, sample_rate: int = 16000, seed: int = 0, workers: int = 1,
                     progress: StepProgress = lambda i, n: None) -> dict[str, int]:
    """Writes audio, notes and the table; audio that is there is kept.

    Args:
      listing: items, each with its split.
      destination: folder.
      splits: which of them.
      minutes: of each performance in each split, at most.
      sample_rate: Hz.
      seed: of the choice.
      workers: processes.
      progress: takes (finished files, files in all).

    Returns:
      The number of files of each split.

    Raises:
      UserError: a split that there is not or that has no item, an item that cannot be read, or two
        whose files would be called alike.
    """
    if minutes <= 0:
        raise UserError(f"minutes={minutes:g} must be above 0")
    chosen: dict[str, list[CutItem]] = {}
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"split {split!r} is none of {', '.join(SPLITS)}")
        chosen[split] = choose_references(listing.items, split, minutes, seed)
        if not chosen[split]:
            raise UserError(f"no item with notes for {split}; leave it out of --splits")
        names = collections.Counter(_name(item) for item, _ in chosen[split])
        if (most := names.most_common(1)[0])[1] > 1:
            raise UserError(f"{most[1]} items of {split} would be files called {most[0]}; rename them")
    tasks = [(split, item, seconds) for split, part in chosen.items() for item, seconds in part]
    run_tasks(functools.partial(_write, destination, sample_rate), tasks, workers, progress)
    _write_table(pathlib.Path(destination), tasks)
    return {split: len(part) for split, part in chosen.items()}


def _name(item: Item) -> str:
    """Returns the name that `write_pairs` gives an item's files."""
    return item.name.replace("/", "_")


def _write(destination: str, sample_rate: int, task: tuple[str, Item, float]) -> None:
    split, item, seconds = task
    folder = os.path.join(destination, split)
    write_pairs([item], folder, folder, sample_rate, seconds)


def _write_table(folder: pathlib.Path, tasks: Sequence[tuple[str, Item, float]]) -> None:
    with (atomic_write(folder / TABLE) as part,
          part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as f):
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(["file", "group", "seconds"])
        for split, item, seconds in tasks:
            if item.performance is not None:
                writer.writerow([f"{split}/{_name(item)}.flac", item.performance, round(seconds, 2)])
