"""Conversions of timbre: who plays in a recording, and who should; texts, tables and their folders."""

from __future__ import annotations

import dataclasses

from music_diffusion.errors import UserError
from music_diffusion.notes.casting import parse_program
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM
from music_diffusion.paths import name_key, restored
from music_diffusion.tables import read_table

TABLE, COLUMNS = "conversions.csv", ("file", "source", "target")
SINGLE, MIXTURE = "single", "mixture"  # tasks
SOURCE, TARGET, PARTS, NOTES = "source", "target", "parts", "notes"  # folders of a task
TOGETHER = "+"  # between the instruments of a mixture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """Instruments that play, and those that should."""

    source: tuple[str, ...]
    target: tuple[str, ...]  # in the same order

    @classmethod
    def parse(cls, text: str) -> Conversion:
        """Reads 'clarinet=strings,vibraphone=piano'. Raises UserError: no such text or instrument."""
        sides = [field.partition("=")[::2] for field in text.split(",")]
        if not all(a.strip() and b.strip() for a, b in sides):
            raise UserError(f"--conversion {text}: give SOURCE=TARGET, or several with commas between")
        result = cls(source=tuple(a.strip() for a, _ in sides), target=tuple(b.strip() for _, b in sides))
        for side in (result.source, result.target):
            programs = [parse_program(name, "--conversion") for name in side]
            if len(set(programs)) < len(programs):
                raise UserError(f"--conversion {text}: an instrument is named twice on one side")
        return result

    @property
    def task(self) -> str:
        """Returns the folder that it goes to."""
        return SINGLE if len(self.source) == 1 else MIXTURE

    @property
    def name(self) -> str:
        """Returns the beginning of its files' names."""
        return "_to_".join("-".join(side).replace(" ", "_") for side in (self.source, self.target))

    @property
    def classes(self) -> tuple[frozenset[int], frozenset[int]]:
        """Returns the instrument classes of either side."""
        source, target = (frozenset(int(SLAKH_CLASS_OF_PROGRAM[parse_program(name, "instrument")])
                                    for name in side) for side in (self.source, self.target))
        return source, target


class ConversionTable:
    """Rows of a CSV with columns file, source and target; instruments have + between."""

    def __init__(self, path: str):
        """Reads the table. Raises UserError: it cannot be read, or a row lacks instruments."""
        self._rows: dict[str, Conversion] = {}
        for line in read_table(path, COLUMNS, advice=f"it needs the columns {', '.join(COLUMNS)}"):
            source, target = (tuple(name.strip() for name in line[side].split(TOGETHER))
                              for side in ("source", "target"))
            file, row = restored(line["file"]), Conversion(source=source, target=target)
            if len(source) != len(target):
                raise UserError(f"{path}: {file}: {len(source)} instruments become {len(target)}; give "
                                "a target for each, with + between")
            try:
                _ = row.classes
            except UserError as e:
                raise UserError(f"{path}: {file}: {e}") from e
            self._rows[name_key(file)] = row

    def of(self, name: str) -> Conversion | None:
        """Returns the conversion of a file, by its `name_key` without suffix."""
        return self._rows.get(name)
