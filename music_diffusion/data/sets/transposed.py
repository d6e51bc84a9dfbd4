"""A data set with transposed copies of its training items, by playing them faster or slower."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.data.items import DataSet, Item, Listing, Sound, SoundFacts, Stem
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

MOST = 12  # semitones
SUFFIX = re.compile(r"[+-][0-9]+$")


def copy_name(name: str, semitones: int) -> str:
    """Returns the name of the transposed copy of an item."""
    return f"{name}{semitones:+d}"


def is_copy(name: str, names: Collection[str]) -> bool:
    """Returns whether an item of these names is a transposed copy of another one."""
    return SUFFIX.sub("", name) in set(names) - {name}


def speed(semitones: int) -> float:
    """Returns how much faster a transposed copy plays."""
    return 2.0 ** (semitones / 12)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransposedSound:
    """A sound played faster (and higher) or slower."""

    sound: Sound
    semitones: int  # up

    @property
    def files(self) -> tuple[str, ...]:
        return self.sound.files

    def facts(self) -> SoundFacts:
        facts = self.sound.facts()
        return dataclasses.replace(facts, seconds=facts.seconds / speed(self.semitones))

    def blocks(self, sample_rate: int) -> Iterator[Float[np.ndarray, " n"]]:
        # Fewer samples a second, heard at the full rate; a whole number of Hz is 0.05 cents off at most.
        yield from self.sound.blocks(round(sample_rate / speed(self.semitones)))


def transposed_notes(notes: Callable[[], Notes], semitones: int) -> Notes:
    """Returns the notes of a transposed copy. Drums keep their keys, although they sound higher.

    Notes that leave the range of MIDI are left out.
    """
    original = notes()
    pitch = np.where(original.is_drum, original.pitch, original.pitch + semitones)
    kept = (pitch >= 0) & (pitch <= 127)
    factor = speed(semitones)
    moved = dataclasses.replace(original[kept], pitch=pitch[kept])
    return dataclasses.replace(moved, start=moved.start / factor, end=moved.end / factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transposed:
    """Adds copies of the training items, 1 … `most` semitones up and down.

    Maman et al. 2024 (section 4.1) augment so by up to two semitones. Items of
    other splits, and those without a split of their own, stay alone.
    """

    data_set: DataSet
    most: int = 2  # semitones, 1..MOST

    def __post_init__(self):
        if not 1 <= self.most <= MOST:
            raise UserError(f"transposing by up to {self.most} semitones: choose 1..{MOST}")

    def identity(self) -> dict:
        return dict(self.data_set.identity()) | {"transpose": self.most}

    def list(self) -> Listing:
        """Lists items and copies; a copy of `name` by 2 semitones up is named `name+2`."""
        listing = self.data_set.list()
        copies = [_copy(item, semitones) for item in listing.items if item.split == "train"
                  for semitones in range(-self.most, self.most + 1) if semitones]
        return dataclasses.replace(listing, items=(*listing.items, *copies))


def _copy(item: Item, semitones: int) -> Item:
    def moved(sound: Sound) -> TransposedSound:
        return TransposedSound(sound=sound, semitones=semitones)

    return dataclasses.replace(
        item, name=copy_name(item.name, semitones), audio=moved(item.audio),
        source=None if item.source is None else moved(item.source),
        notes=None if item.notes is None else functools.partial(transposed_notes, item.notes, semitones),
        stems=tuple(Stem(program=s.program, audio=moved(s.audio)) for s in item.stems))
