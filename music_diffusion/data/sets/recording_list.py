"""A table of recordings that lie on this machine."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import pathlib

from music_diffusion.data.audio_folder import EXTENSIONS
from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sets.plain_audio import SPLIT_OF
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.paths import located, restored
from music_diffusion.tables import read_table

TABLE = "recordings.csv"
COLUMNS = ("audio", "notes", "performance", "style", "instrument", "split", "piece")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingList:
    """A CSV table with a row for each recording, for data that is collected by lists.

    Such are the aligned recordings with ensembles of Maman et al. (2024, section 4.1) and the
    recordings by instrument of Prioteasa and Stempel-Hauburger (2025, section 3.1), which are
    published as lists of addresses. Nothing is downloaded: fetch the files, then name them here.

        audio, notes, performance, style (or instrument), split, piece

    Only `audio` is needed. `audio` and `notes` (MIDI) are paths relative to the table. `split` is
    train, validation or test. Cells may be empty; other columns, such as addresses, are ignored. A
    row is skipped where a file of it is missing.
    """

    folder: str  # the table, or the folder of one that is named recordings.csv
    velocities: bool = True  # False: the MIDI files do not say how hard notes are struck

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        table = pathlib.Path(self.folder)
        table = table / TABLE if table.is_dir() else table
        items: dict[str, Item] = {}
        skipped = []
        for line, row in _rows(table):
            reason = _unusable(table.parent, row)
            if reason is None:
                item = self._item(table, line, row)
                if item.name not in items:
                    items[item.name] = item
                    continue
                reason = f"line {line} names it again; leave one of the rows out"
            skipped.append((row["audio"] or f"line {line}", reason))
        if not items:
            raise UserError("{}: no recording of it can be used ({}: {})".format(table, *skipped[0])
                            if skipped else f"{table}: has no rows; add a recording")
        return Listing(items=tuple(items.values()), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"velocities": self.velocities}

    def _item(self, table: pathlib.Path, line: int, row: dict[str, str]) -> Item:
        split = row["split"].lower()
        if split and split not in SPLIT_OF:
            raise UserError(f"{table}, line {line}: split {split!r}; give train, validation or test")
        notes = located(table.parent / row["notes"]) if row["notes"] else None
        return Item(
            name="/".join(part for part in row["audio"].split("/") if part not in ("", ".", "..")),
            split=SPLIT_OF.get(split), audio=AudioFile(path=located(table.parent / row["audio"])),
            notes=functools.partial(read_midi, notes) if notes else None,
            note_files=(notes,) if notes else (), velocities=self.velocities,
            performance=row["performance"] or None,
            style=row["style"] or row["instrument"] or None, piece=row["piece"] or None)


def _rows(table: pathlib.Path) -> list[tuple[int, dict[str, str]]]:
    """Returns line number and known columns of every row; '' for a column or cell that is not there."""
    if not table.is_file():
        raise UserError(f"{table}: no such table; give a CSV file with a column audio")
    found = read_table(table)
    _check_header(table, found.columns)
    rows = [{column: row.get(column, "").strip() for column in COLUMNS} for row in found]
    return [(line, row | {column: restored(row[column]) for column in ("audio", "notes")})
            for line, row in zip(found.lines, rows, strict=True)]


def _check_header(table: pathlib.Path, names) -> None:
    if "audio" not in names:
        raise UserError(f"{table}: lacks the column audio, paths of local files relative to the "
                        "table; add it")
    for name in set(names) - set(COLUMNS):
        if near := difflib.get_close_matches(name.lower(), COLUMNS, 1, cutoff=0.8):
            raise UserError(f"{table}: has a column {name!r}; is it {near[0]}? Rename it")


def _unusable(folder: pathlib.Path, row: dict[str, str]) -> str | None:
    """Returns why a row cannot be used; None if it can."""
    if not row["audio"]:
        return "names no audio file; fill in the column audio"
    if "://" in row["audio"]:
        return "is an address; fetch the recording and give the path of the file"
    for kind in ("audio", "notes"):
        path = row[kind]
        subject = "is" if kind == "audio" else f"{path}, its notes, is"
        if pathlib.PurePath(path).is_absolute():
            return f"{subject} no path relative to the table; move the table or the file"
        if path and not os.path.isfile(located(folder / path)):
            return f"{subject} not there; fetch it and put it at this path"
    extension = pathlib.PurePath(row["audio"]).suffix.lower()
    return None if extension in EXTENSIONS else f"{extension} is not read; convert it to WAV or FLAC"
