"""MAESTRO: piano competitions, recorded together with what a Disklavier measured of keys and pedals.

Hawthorne et al., "Enabling Factorized Piano Music Modeling and Generation with
the MAESTRO Dataset", ICLR 2019. Published layout (v1.0.0, v2.0.0, v3.0.0):

    maestro-v3.0.0/
      maestro-v3.0.0.csv    canonical_composer, canonical_title, split, year,
                            midi_filename, audio_filename, duration
      maestro-v3.0.0.json   the same: a list of rows in v2, a dict of columns in v3
      2004/ … 2018/         *.midi and *.wav, stereo, 44.1 or 48 kHz
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.paths import located
from music_diffusion.tables import read_table, read_text

COLUMNS = ("canonical_composer", "canonical_title", "split", "year", "midi_filename",
           "audio_filename")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Maestro:
    """Reader of MAESTRO. Splits are the published ones; the sustain pedal lengthens the notes."""

    folder: str  # what the archive unpacks to: maestro-v3.0.0.csv (or .json) and a folder a year
    years: bool = False  # the performance label is the year: hall and piano changed with it

    def list(self) -> Listing:
        """Raises UserError: no table there, or one that is not MAESTRO's, or no recording of it."""
        root = pathlib.Path(self.folder)
        table = _table(root)
        items, skipped = [], []
        for row in _rows(table):
            missing = [f for f in (row["midi_filename"], row["audio_filename"])
                       if not os.path.isfile(located(root / f))]
            if missing:
                skipped.append((row["midi_filename"], f"no file {missing[0]}; unpack the archive again"))
            else:
                items.append(self._item(root, row))
        if not items:
            raise UserError(f"{table}: none of its {len(skipped)} recordings is there with MIDI and "
                            "audio; unpack the archive with audio (not …-midi.zip) beside the table")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def _item(self, root: pathlib.Path, row: dict[str, str]) -> Item:
        midi = located(root / row["midi_filename"])
        return Item(
            name=row["midi_filename"].rpartition(".")[0], split=row["split"],
            audio=AudioFile(path=located(root / row["audio_filename"])),
            notes=functools.partial(read_midi, midi), note_files=(midi,),
            performance=row["year"] if self.years else None,
            piece=f"{row['canonical_composer']}/{row['canonical_title']}")

    def identity(self) -> dict[str, object]:
        return {"years": self.years}


def _table(root: pathlib.Path) -> pathlib.Path:
    """Finds the table of the newest version in the folder, CSV rather than JSON."""
    for pattern in ("maestro-v*.csv", "maestro-v*.json"):
        if tables := sorted(root.glob(pattern)):
            return tables[-1]
    raise UserError(f"{root}: no maestro-v3.0.0.csv there; give the folder that the archive unpacks to")


def _rows(table: pathlib.Path) -> list[dict[str, str]]:
    """The recordings of a table, in its order, with COLUMNS."""
    advice = "download it again"
    if table.suffix == ".json":
        try:
            rows = _json_rows(read_text(table, advice))
        except ValueError as e:
            raise UserError(f"{table}: cannot be read as JSON ({e}); {advice}") from e
    else:
        rows = list(read_table(table, advice=advice))
    for number, row in enumerate(rows, start=1):
        absent = [c for c in COLUMNS if row.get(c) in (None, "")]
        if absent:
            raise UserError(f"{table}: row {number} has no {absent[0]}; download the table again")
    return [{c: str(row[c]) for c in COLUMNS} for row in rows]


def _json_rows(text: str) -> list[dict]:
    content = json.loads(text)
    if isinstance(content, list):  # v1, v2
        if all(isinstance(row, dict) for row in content):
            return content
    elif isinstance(content, dict) and all(isinstance(column, dict) for column in content.values()):
        numbers = content.get("midi_filename", {})  # v3: column → row number → value
        return [{name: column.get(n) for name, column in content.items()} for n in numbers]
    raise ValueError("neither rows nor columns")
