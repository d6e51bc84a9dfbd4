"""Bach Violin Dataset: recordings of solo violin with aligned scores (Dong et al. 2022)."""

from __future__ import annotations

import dataclasses
import functools
import pathlib

import numpy as np

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import MIN_NOTE_SECONDS
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import located, restored
from music_diffusion.tables import read_table

VIOLIN = 40  # General MIDI program
COLUMNS = ("filename", "collection", "violinist", "work", "mov", "source_filename", "start", "end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BachViolin:
    """Sonatas and partitas BWV 1001–1006: 105 movements by 17 violinists, 6.5 hours.

    Layout of salu133445/bach-violin-dataset (Zenodo 6050245): `info.csv` has a row for each
    movement with its stretch of an audio file (h:mm:ss);

        audio/COLLECTION/SOURCE_FILENAME     mp3 or opus, a movement or a whole work
        notes/COLLECTION/FILENAME.csv        onset, offset, pitch, velocity of the score
        alignments/COLLECTION/FILENAME.csv   start, end in seconds from the movement's start

    with the notes of both tables in the same order. The folders of the collections may be left
    out, as in excerpts of the data set. The audio of two collections must be fetched by hand;
    without it their movements are skipped. A performance is a violinist; the alignment was
    estimated (about 50 ms), and it knows no velocities. There is no published split.
    """

    folder: str  # holds info.csv, or the folder bach-violin that does
    # Movements for the test split: file names (john-garner_bwv1002_mov6) or pieces (bwv1002_mov6,
    # which holds it out for all violinists).
    test: tuple[str, ...] = ()

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        root = pathlib.Path(self.folder)
        if not (root / "info.csv").is_file() and (root / "bach-violin" / "info.csv").is_file():
            root = root / "bach-violin"
        rows = _read_info(root)
        for name in self.test:
            if not any(name in (row["filename"], _piece(row)) for row in rows):
                raise UserError(f"{root}: no movement {name!r} to hold out; give a file name of "
                                "info.csv such as john-garner_bwv1002_mov6, or bwv1002_mov6")
        items, skipped = [], []
        for row in rows:
            found = {kind: _find(root, kind, row["collection"], file) for kind, file in (
                ("audio", row["source_filename"]), ("notes", row["filename"] + ".csv"),
                ("alignments", row["filename"] + ".csv"))}
            missing = [kind for kind, path in found.items() if path is None]
            if missing:
                skipped.append((row["filename"], f"no file of it in {' and '.join(missing)}; "
                                                 "fetch it as the README there says"))
            else:
                items.append(self._item(row, *(str(path) for path in found.values())))
        if not items:
            raise UserError("{}: no movement can be used ({}: {})".format(root, *skipped[0]))
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"test": [*self.test]}

    def _item(self, row: dict[str, str], audio: str, notes: str, alignment: str) -> Item:
        piece = _piece(row)
        return Item(
            name=row["filename"], split="test" if {row["filename"], piece} & {*self.test} else None,
            audio=AudioFile(path=audio, start=_seconds(row, "start"), end=_seconds(row, "end")),
            notes=functools.partial(read_notes, notes, alignment), note_files=(notes, alignment),
            velocities=False, performance=row["violinist"], style="violin", piece=piece)


def read_notes(score: str, alignment: str) -> Notes:
    """Reads a movement's pitches at their aligned times.

    Raises:
      UserError: a table is missing, lacks a column, or is damaged; they differ in length.
    """
    pitch, velocity = _columns(score, ("pitch", "velocity"))
    start, end = _columns(alignment, ("start", "end"))
    if len(pitch) != len(start):
        raise UserError(f"{alignment}: has {len(start)} rows for {len(pitch)} notes of {score}; "
                        "unpack the data set again")
    try:
        return Notes(start, np.maximum(end, start + MIN_NOTE_SECONDS), pitch, velocity,
                     np.full(len(pitch), VIOLIN), np.full(len(pitch), False))
    except ValueError as e:
        raise UserError(f"{alignment}: {e}; unpack the data set again") from e


def _columns(path: str, names: tuple[str, ...]) -> list[np.ndarray]:
    """Columns of a table of numbers."""
    advice = "unpack the data set again"
    try:
        rows = [tuple(float(row[name]) for name in names)
                for row in read_table(path, names, advice=advice)]
    except ValueError as e:
        raise UserError(f"{path}: needs numbers in columns {', '.join(names)} ({e}); {advice}") from e
    return list(np.array(rows, np.float64).reshape(-1, len(names)).T)


def _read_info(root: pathlib.Path) -> list[dict[str, str]]:
    table = root / "info.csv"
    if not table.is_file():
        raise UserError(f"{root}: no info.csv there; give the folder bach-violin of the data set, "
                        "with info.csv, audio, notes and alignments")
    rows = list(read_table(table, COLUMNS, advice="unpack the data set again"))
    if not rows:
        raise UserError(f"{table}: has no rows; unpack the data set again")
    return rows


def _find(root: pathlib.Path, kind: str, collection: str, name: str) -> pathlib.Path | None:
    places = (root / kind / collection / restored(name), root / kind / restored(name))
    found = (pathlib.Path(located(path)) for path in places)
    return next((path for path in found if path.is_file()), None)


def _piece(row: dict[str, str]) -> str:
    return f"{row['work'].lower()}_mov{row['mov']}"


def _seconds(row: dict[str, str], column: str) -> float:
    """Returns the seconds of h:mm:ss."""
    try:
        hours, minutes, seconds = (float(part) for part in row[column].split(":"))
    except ValueError as e:
        raise UserError(f"info.csv, {row['filename']}: {column} {row[column]!r} is no time as "
                        "0:01:30; unpack the data set again") from e
    return 3600 * hours + 60 * minutes + seconds
