"""Casting: which instruments play what was heard on others; the text of `--to` and `--from`.

    piano                              all of it on one instrument
    violin=flute,piano=vibraphone      each with its own; what is not named stays as it is
    violin=flute,rest=11               … or is played by `rest`

On the left is what is heard: a Slakh class or a family of General MIDI (`notes.programs`). On the right is
what plays: these, the name of a program, or its number (0..127); of several programs the first.
"""

from __future__ import annotations

import dataclasses
import difflib

from music_diffusion.errors import UserError
from music_diffusion.notes.decoding import DecodeConfig, HeardNotes
from music_diffusion.notes.heard import recast
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.parts import played_by
from music_diffusion.notes.programs import (
    FAMILY_NAMES,
    PROGRAM_NAMES,
    SLAKH_CLASS_OF_PROGRAM,
    SLAKH_CLASSES,
)

REST = "rest"
# Words of musicians for what the tables call otherwise.
ALIASES = {"piano": 0, "strings": 48, "guitar": 24, "bass": 33, "organ": 19, "choir": 52, "harp": 46,
           "sax": 65, "saxophone": 65, "brass": 61, "voice": 53, "synth": 81}
STRINGS = (40, 41, 42, 43, 48, 50)  # programs whose classes are heard as "strings": all that are bowed


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstrumentCasting:
    """A program for what each instrument class plays."""

    of_class: tuple[tuple[int, int], ...] = ()  # class heard, program that plays it
    rest: int | None = None  # program of all other classes; None: their own
    heard: tuple[int, ...] = ()  # classes that may be heard at all; (): any

    @property
    def programs(self) -> tuple[int, ...]:
        """Returns the programs that play."""
        rest = () if self.rest is None else (self.rest,)
        return tuple(dict.fromkeys((*(program for _, program in self.of_class), *rest)))

    def __call__(self, notes: Notes) -> Notes:
        """Returns the notes as they are played."""
        return recast(notes, dict(self.of_class), self.rest)

    def of_heard(self, heard: HeardNotes, config: DecodeConfig) -> Notes:
        """Returns heard notes as they are played: where all who play are named, see `notes.parts`."""
        named = self.rest is None and set(self.heard) == {kind for kind, _ in self.of_class}
        if named and len(self.programs) > 1:
            return played_by(heard, dict(self.of_class), config)
        return self(heard.notes(config))


def parse_casting(to: str, source: str | None = None) -> InstrumentCasting:
    """Reads the texts of `--to` and, what is heard, `--from`.

    Where all that is heard is named, by `--from` or on the left of `--to` without `rest`, nothing else is
    listened for.

    Raises UserError: an unknown instrument (with the nearest names), or one that is named twice.
    """
    heard = [kind for name in source.split(",") for kind in _classes(name, "--from")] if source else []
    fields = to.split(",") if "=" in to else [f"{REST}={to}"]
    rest: int | None = None
    of_class: dict[int, int] = {}
    named: set[str] = set()
    for field in fields:
        left, equals, right = (part.strip() for part in field.partition("="))
        if not equals:
            raise UserError(f"--to {to}: {field.strip()!r} names no instrument; give HEARD=PLAYED, or "
                            "rest=PLAYED for all others")
        if left.lower() in named:
            raise UserError(f"--to {to}: {left} is given twice")
        named.add(left.lower())
        program = parse_program(right, "--to")
        if left.lower() == REST:
            rest = program
        else:
            of_class |= {kind: program for kind in _classes(left, "--to") if kind not in of_class}
    only = heard or ([] if REST in named else list(of_class))
    return InstrumentCasting(of_class=tuple(of_class.items()), rest=rest,
                             heard=tuple(sorted({*only, *(of_class if heard else ())})))


def parse_program(text: str, flag: str) -> int:
    """Returns the program of a number or name. Raises UserError: there is none, with the nearest names."""
    name = text.strip().lower()
    if not name:
        raise UserError(f"{flag} {text}: no such instrument: a name is missing; write violin=flute")
    if name.isascii() and name.isdigit():
        if int(name) < len(PROGRAM_NAMES):
            return int(name)
        raise UserError(f"{flag} {text}: there is no program {name}; General MIDI has 0 to 127")
    known = _programs()
    if name in known:
        return known[name]
    raise UserError(f"{flag} {text}: no such instrument; {_hint(name, list(known))}")


def _programs() -> dict[str, int]:
    """Returns the program of every name in lower case; of several that have one name the first table's."""
    tables: tuple[dict[str, int], ...] = (
        ALIASES, {name.lower(): i for i, name in enumerate(PROGRAM_NAMES)},
        {kind.name.lower(): kind.programs[0] for kind in SLAKH_CLASSES},
        {name.lower(): 8 * i for i, name in enumerate(FAMILY_NAMES)})
    return {name: program for table in reversed(tables) for name, program in table.items()}


def _classes(text: str, flag: str) -> list[int]:
    """Returns the classes of a name. Raises UserError: there are none, with the nearest names."""
    name = text.strip().lower()
    classes = {kind.name.lower(): [i] for i, kind in enumerate(SLAKH_CLASSES)}
    families = {family.lower(): [8 * i + k for k in range(8)] for i, family in enumerate(FAMILY_NAMES)}
    if name in classes:
        return classes[name]
    programs = (families | {"strings": list(STRINGS)}).get(name) or [parse_program(text, flag)]
    return sorted({int(SLAKH_CLASS_OF_PROGRAM[program]) for program in programs})


def _hint(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 3, 0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are {', '.join(kind.name for kind in SLAKH_CLASSES)}, the names of programs, and numbers"
