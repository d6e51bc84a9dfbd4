"""Casting, who plays what: the text of `--performance`, and the sum of parts that are played apart.

    studio                                 one performance
    studio+church, studio:0.7+church:0.3   a mixture: shares of the rows of the model's table
    violin=kim,piano=church,rest=studio    each instrument with its own
    none                                   as the model plays without a performance

An instrument is a program number of General MIDI (0..127), `drums`, one of the Slakh classes or
one of the families (`notes.programs`), in any case; of several that fit a note the first in this
order counts. `rest` is all others, the default performance if it is not given.
"""

from __future__ import annotations

import dataclasses
import difflib
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.performances import Performances
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import DRUMS
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import (
    FAMILY_NAMES,
    SLAKH_CLASS_OF_PROGRAM,
    SLAKH_CLASSES,
)

NONE, REST = "none", "rest"
_PROGRAMS = np.arange(DRUMS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Notes that are played by one performance or mixture."""

    notes: Notes
    weights: Float[np.ndarray, " R"]  # of the table's rows; all 0: no performance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Casting:
    """A performance for every program."""

    weights: tuple[tuple[float, ...], ...]  # of the table's rows, each [R]
    of_program: Int[np.ndarray, "129"]  # index into `weights` by program and DRUMS
    named: tuple[tuple[str, tuple[int, ...]], ...] = ()  # instruments that were asked for

    def parts(self, notes: Notes) -> list[Part]:
        """Returns the notes by performance, those without notes left out; warns of instruments without."""
        program = np.where(notes.is_drum, DRUMS, notes.program)
        for name, programs in self.named:
            if not np.isin(program, programs).any():
                warnings.warn(f"the piece has no notes for {name}", stacklevel=2)
        number = self.of_program[program]
        return [Part(notes=notes[number == i], weights=np.asarray(self.weights[i], np.float32))
                for i in np.unique(number)]


def parse_performance(text: str | None, performances: Performances) -> Casting:
    """Reads the text of the module's docstring; None is the default performance.

    Raises:
      UserError: an unknown performance or instrument (with the nearest names), an instrument that
        is named twice, or a share that is no number above 0.
    """
    fields = ["" if text is None else text]
    if "=" in fields[0]:
        fields = fields[0].split(",")
    cast: dict[str, tuple[float, ...]] = {}
    for field in fields:
        instrument, equals, mixture = field.rpartition("=")
        instrument = instrument.strip().lower() if equals else REST
        if len(fields) > 1 and not equals:
            raise UserError(f"--performance {text}: {field!r} names no instrument; give "
                            "INSTRUMENT=PERFORMANCE, or rest=PERFORMANCE for all others")
        if instrument in cast:
            raise UserError(f"--performance {text}: {instrument} is given twice")
        cast[instrument] = _mixture(mixture if text is not None else None, performances)
    rest = cast.pop(REST, None)
    every = [_mixture(None, performances) if rest is None else rest]
    of_program = np.zeros(DRUMS + 1, np.int32)
    # The most particular comes last.
    found = sorted(((*_instrument(name), name) for name in cast), key=lambda found: found[0])
    for _, programs, name in found:
        if cast[name] not in every:
            every.append(cast[name])
        of_program[list(programs)] = every.index(cast[name])
    return Casting(weights=tuple(every), of_program=of_program,
                   named=tuple((name, programs) for _, programs, name in found))


def _mixture(text: str | None, performances: Performances) -> tuple[float, ...]:
    """Returns weights of the rows for one performance, a mixture, none, or the default (None)."""
    if text is None:
        return tuple(performances.weights(None).tolist())
    if text.strip() == NONE:
        return (0.0,) * len(performances.names)
    shares: dict[str, float] = {}
    for item in text.split("+"):
        name, colon, share = (part.strip() for part in item.partition(":"))
        performances.number(name)
        try:
            value = float(share) if colon else 1.0
        except ValueError as e:
            raise UserError(f"{name}:{share}: the share {share!r} is no number; "
                            f"give one above 0, such as {name}:0.5") from e
        if not 0 < value < np.inf:
            raise UserError(f"{name}:{share}: give a share above 0, or leave {name} out")
        shares[name] = shares.get(name, 0.0) + value
    return tuple(performances.weights(shares).tolist())


def _instrument(name: str) -> tuple[int, tuple[int, ...]]:
    """Returns (how particular it is, programs) of an instrument in lower case; see the docstring above."""
    if name.isascii() and name.isdigit():
        if int(name) >= DRUMS:
            raise UserError(f"{name}=: there is no program {name}; General MIDI has 0 to 127")
        return 3, (int(name),)
    if name == "drums":
        return 2, (DRUMS,)
    classes = {c.name.lower(): i for i, c in enumerate(SLAKH_CLASSES)}
    if name in classes:
        return 2, tuple(np.flatnonzero(SLAKH_CLASS_OF_PROGRAM == classes[name]).tolist())
    families = {f.lower(): i for i, f in enumerate(FAMILY_NAMES)}
    if name in families:
        return 1, tuple(np.flatnonzero(_PROGRAMS // 8 == families[name]).tolist())
    shown = {c.name.lower(): c.name for c in SLAKH_CLASSES} | {f.lower(): f for f in FAMILY_NAMES}
    close = difflib.get_close_matches(name, [*shown, "drums", REST], 3, 0.5)
    hint = (f"did you mean {' or '.join(shown.get(n, n) for n in close)}?" if close else
            f"there are {', '.join(dict.fromkeys(shown.values()))}, drums, program numbers and rest")
    raise UserError(f"{name}=: no such instrument; {hint}")


def sounding_together(mels: Iterable[Float[np.ndarray, "T F"]], codec: MelCodec
                      ) -> Float[np.ndarray, "T F"]:
    """Returns log-mel in nat of independent sources at once: their powers add.

    What is at the codec's floor counts as silent and adds nothing.
    """
    floor = codec.clip_min ** 2
    power = sum(np.maximum(np.exp(2 * np.asarray(mel, np.float64)) - floor, 0) for mel in mels)
    return (0.5 * np.log(power + floor)).astype(np.float32)


def summed(streams: list[Iterator[np.ndarray]], codec: MelCodec) -> Iterator[np.ndarray]:
    """Yields the sum of streams of log-mel [t, F] that come in equal pieces; see `sounding_together`."""
    if len(streams) == 1:
        yield from streams[0]
        return
    for mels in zip(*streams, strict=True):
        yield sounding_together(mels, codec)
