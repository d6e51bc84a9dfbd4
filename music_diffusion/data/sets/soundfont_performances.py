"""Named recordings of SoundFonts and recorded notes: font, room and tone, from a table."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from typing import Any

from music_diffusion.data.recorded_rooms import RecordedRoom, find_room
from music_diffusion.data.renderers import renderer_name
from music_diffusion.data.rooms import Room, Shelf
from music_diffusion.data.sets.soundfont_excerpts import Recording
from music_diffusion.errors import UserError
from music_diffusion.tables import read_table

# Columns beside name and soundfont. Empty cells take the default of `Room` and `Shelf`.
ROOM = ("rt60", "pre_delay", "wet_db", "damping", "early")
SHELF = ("hertz", "low_db", "high_db")


def read_performances(table: str, soundfonts: Sequence[str], rooms: Sequence[RecordedRoom] = (),
                      fallback: str | None = None) -> tuple[tuple[str, Recording], ...]:
    """Reads the recordings of a CSV table with their names, in its order.

        name, soundfont, rt60, pre_delay, wet_db, damping, early, hertz, low_db, high_db,
        response, tuning, take

    A row is one recording: a SoundFont or folder of recorded notes (by its name), in the room of
    `data.rooms.Room` if it has an `rt60`, in that of an impulse response if it names one (with its own
    `wet_db` or that of the row), dry otherwise, and through the tone control of `data.rooms.Shelf` if it
    has `hertz`. `tuning` is in cents; `take` chooses among recorded instruments of a program. Other
    columns are for people. Two rows have different random reflections.

    Args:
      table: path.
      soundfonts: paths of SoundFonts and of recorded notes.
      rooms: impulse responses that may be named.
      fallback: SoundFont that plays what recorded notes lack.

    Raises:
      UserError: no such table, a row without name or with that of another, a SoundFont that is not
        among `soundfonts`, a response that is not among `rooms`, or a value that is no number.
    """
    read = read_table(table, advice="give a CSV file")
    fonts = {renderer_name(path): path for path in soundfonts}
    result: dict[str, Recording] = {}
    for line, row in zip(read.lines, read, strict=True):
        where = f"{table}, line {line}"
        name = (row.get("name") or "").strip()
        if not name or name in result:
            raise UserError(f"{where}: needs a name that no other row has")
        font = (row.get("soundfont") or "").strip()
        if font not in fonts:
            close = difflib.get_close_matches(font, fonts, 1) or sorted(fonts)
            raise UserError(f"{where}: {font!r} is none of the SoundFonts given; did you mean {close[0]}?")
        numbers: dict[str, Any] = _numbers(row, ROOM, where)
        shelf, more = _numbers(row, SHELF, where), _numbers(row, ("tuning", "take"), where)
        response = (row.get("response") or "").strip()
        if response and "rt60" in numbers:
            raise UserError(f"{where}: has response and rt60; leave one empty")
        try:
            room: Room | RecordedRoom | None = None
            if response:
                room = find_room(rooms, response)
                room = dataclasses.replace(room, wet_db=numbers.get("wet_db", room.wet_db))
            elif "rt60" in numbers:
                room = Room(**numbers, seed=len(result))
            result[name] = Recording(
                soundfont=fonts[font], room=room, shelf=Shelf(**shelf) if "hertz" in shelf else None,
                fallback=fallback, tuning=more.get("tuning", 0.0), take=int(more.get("take", 0)))
        except UserError as e:
            raise UserError(f"{where}: {e}") from e
    if not result:
        raise UserError(f"{table}: has no rows; give one for each recording")
    return tuple(result.items())


def _numbers(row: dict[str, str], columns: Sequence[str], where: str) -> dict[str, float]:
    """Reads the numbers of some columns; empty cells are left out."""
    result = {}
    for column in columns:
        text = (row.get(column) or "").strip()
        if text:
            try:
                result[column] = float(text)
            except ValueError:
                result[column] = math.nan
            if not math.isfinite(result[column]):
                raise UserError(f"{where}: {column} {text!r} is no number; leave it empty or give one")
    return result
