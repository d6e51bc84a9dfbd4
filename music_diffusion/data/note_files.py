"""Files of recorded notes: what notes.csv says of each, and what is measured where it does not."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Sequence

import soundfile

from music_diffusion.data.samples import measure, recording, warn
from music_diffusion.errors import UserError
from music_diffusion.tables import Row, Table, read_table

NOTES = "notes.csv"
COLUMNS = ("file", "midi", "layer", "onset_seconds", "peak", "cents_off")  # others are for people
FOR_PEOPLE = ("seconds",)  # resembles one that is read, but is a file's length
PEAKS = (1e-6, 1e3)  # of full scale, that a table may give


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteFile:
    """A row of notes.csv."""

    name: str
    path: str
    midi: int | None
    layer: str
    onset: float
    peak: float
    cents: float


def note_files(folder: str) -> tuple[NoteFile, ...]:
    """Reads notes.csv; what it does not say of a file is measured."""
    table = read_table(os.path.join(folder, NOTES), ("file",), advice=f"give a folder with {NOTES}")
    warn_of_misspelt(table, COLUMNS)
    result = []
    for line, row in zip(table.lines, table, strict=True):
        where, path = f"{table.path}, line {line}", os.path.join(folder, row["file"])
        if not os.path.isfile(path):
            raise UserError(f"{where}: {row['file']!r} is not there; correct the table")
        midi = number_in(row, "midi", math.nan, where, (0, 127))
        if not math.isnan(midi) and midi % 1:
            raise UserError(f"{where}: midi {midi:g} is no whole number; give cents in cents_off")
        onset = number_in(row, "onset_seconds", math.nan, where, (0, math.inf))
        if not math.isnan(onset) and onset >= (whole := _duration(path)):
            raise UserError(f"{where}: onset_seconds {onset:g} lies after the end of {row['file']} "
                            f"({whole:g} seconds); correct it, or leave it empty")
        peak = number_in(row, "peak", math.nan, where, PEAKS)
        if math.isnan(onset + peak):
            measured = measure(path)
            onset = measured[0] if math.isnan(onset) else onset
            peak = measured[1] if math.isnan(peak) else peak
        if peak > 0:
            result.append(NoteFile(
                name=row["file"], path=path, midi=None if math.isnan(midi) else round(midi),
                layer=(row.get("layer") or "").strip(), onset=onset, peak=peak,
                cents=number_in(row, "cents_off", 0.0, where)))
        else:
            warn(f"{where}: {row['file']} is silent; it is left out")
    return tuple(result)


def _duration(path: str) -> float:
    """Returns the seconds of a file, if possible without reading its sound. Raises UserError."""
    try:
        return float(soundfile.info(path).duration)
    except (RuntimeError, OSError):  # a format that only `read_audio` knows, or a bad file
        samples, rate = recording(path)
        return len(samples) / rate


def warn_of_misspelt(table: Table, known: Sequence[str]) -> None:
    """Warns of columns that are not read and resemble one that is and that the table lacks."""
    for column in table.columns:
        if not column or column in known or column in FOR_PEOPLE:
            continue
        lacking = [name for name in known if name not in table.columns]
        meant = ([name for name in lacking if name.startswith(column.lower())]
                 or difflib.get_close_matches(column.lower(), lacking, 1))
        if meant:
            warn(f"{table.path}: column {column!r} is not read; is {meant[0]!r} meant?")


def is_key(text: str) -> bool:
    """Returns whether a text is a whole number of 0 to 127."""
    return text.isdecimal() and len(text) <= 3 and int(text) <= 127


def number_in(row: Row, column: str, default: float, where: str,
              bounds: tuple[float, float] = (-math.inf, math.inf)) -> float:
    """Returns the number in a cell; the default for an empty one. Raises UserError."""
    text = (row.get(column) or "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {column} {text!r} is no number; leave it empty or give one")
    low, high = bounds
    if not low <= value <= high:
        wanted = f"one from {low:g} to {high:g}" if math.isfinite(high) else f"one from {low:g}"
        raise UserError(f"{where}: {column} {text}: give {wanted}, or leave it empty")
    return value
