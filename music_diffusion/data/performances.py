"""The performances of folders of records, as the list that a model's table follows."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from music_diffusion.conditions.performances import Performance, Performances, read_performances
from music_diffusion.data import records
from music_diffusion.data.sets.transposed import is_copy
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM, SLAKH_CLASSES
from music_diffusion.tables import read_table

Rows = Mapping[str, Mapping[str, str]]  # name → row of a table


def performances_of(folder: str | os.PathLike, rows: Rows | None = None) -> tuple[Performance, ...]:
    """Returns the performances of a folder's training records, in the manifest's order.

    Args:
      folder: of `data.build`.
      rows: facts about performances that records do not hold: columns source or soundfont, and room.

    Raises:
      UserError: the folder cannot be read, or its records have no performances.
    """
    manifest = records.read_manifest(folder)
    names = manifest.get("classes", {}).get("performance", ())
    if not names:
        raise UserError(f"{folder}: its records have no performance; prepare a data set that names it "
                        "(see `prepare sets`)")
    hop = manifest["codec"]["hop"] / manifest["codec"]["sample_rate"]
    found = [records.Record.from_bytes(message, path.suffix)
             for path in records.find_shards(folder, "train") for message in records.read_shard(path)]
    items = {record.labels.get("name", "") for record in found}
    minutes: dict[str, float] = collections.defaultdict(float)
    sounding: dict[str, np.ndarray] = collections.defaultdict(lambda: np.zeros(DRUM_CLASS + 1))
    for record in found:
        name, notes = record.labels.get("performance", ""), record.notes
        if not is_copy(record.labels.get("name", ""), items):
            minutes[name] += len(record.mel) * hop / 60
        kind = np.where(notes.is_drum, DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM[notes.program])
        sounding[name] += np.bincount(kind, notes.end - notes.start, DRUM_CLASS + 1)
    result = []
    for name in names:
        row = (rows or {}).get(name, {})
        heard = [k for k in np.argsort(-sounding[name], kind="stable") if sounding[name][k] > 0]
        result.append(Performance(
            name=name, source=row.get("source") or row.get("soundfont") or "", room=row.get("room") or "",
            instruments=tuple("Drums" if k == DRUM_CLASS else SLAKH_CLASSES[k].name for k in heard),
            minutes=round(minutes[name], 1)))
    return tuple(result)


def add_performances(folder: str | os.PathLike, path: str | os.PathLike, rows: Rows | None = None,
                     default: str | None = None) -> Performances:
    """Returns the list in a file, if it is there, with those of a folder after it.

    Args:
      folder, rows: see `performances_of`.
      path: of the file, which is not written.
      default: name of the one that is taken where none is asked for; None: the list's, or its first.
    """
    before = read_performances(path) if pathlib.Path(path).exists() else None
    known = {} if before is None else {p.name: p for p in before.performances}
    known |= {p.name: p for p in performances_of(folder, rows)}  # those known already in their place
    listed = tuple(known.values())
    first = listed[0].name if before is None else before.default
    return Performances(performances=listed, default=default or first)


def read_descriptions(path: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Reads a CSV table about performances, by the column `name`. Raises UserError where it has none."""
    rows = list(read_table(path, advice="give a CSV file"))
    if not rows or not all(row.get("name") for row in rows):
        raise UserError(f"{path}: needs rows with a column `name`")
    return {row["name"]: row for row in rows}
