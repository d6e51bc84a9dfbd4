"""Items of a data set, which pair audio with notes and labels.

A reader (`data.sets`) finds the items of a published layout; a builder
(`data.build`) turns them into records. An item holds no samples and no notes,
only how to read them, so that a list of a hundred thousand is cheap and can be
handed to other processes.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

SPLITS = ("train", "validation", "test")
# Key of the metadata of fields that came later: while such a field has its default it is left out of
# descriptions, so that what was prepared before stays as it is.
ADDED = {"added": True}
DRUM_PROGRAM = 128  # stands for the drums where a stem names its program


def unused(value: Any) -> set[str]:
    """Returns the names of a dataclass's fields that came later and have their defaults."""
    return {f.name for f in dataclasses.fields(value)
            if f.metadata == ADDED and getattr(value, f.name) == f.default}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundFacts:
    """Properties of a sound before it is resampled and mixed to one channel."""

    sample_rate: int  # Hz, the lowest of its files
    channels: int  # the most of its files
    seconds: float


class Sound(Protocol):
    """Audio that can be read. Implementations are picklable (`data.sounds`)."""

    @property
    def files(self) -> tuple[str, ...]:
        """Returns the paths that it is read from: whoever changes one of them changes the sound."""
        ...

    def facts(self) -> SoundFacts:
        """Returns its properties. Raises UserError where a file is missing or unreadable."""
        ...

    def blocks(self, sample_rate: int) -> Iterator[Float[np.ndarray, " n"]]:
        """Yields the samples from the start, one channel at `sample_rate` (Hz), in parts of any length.

        Raises UserError where a file is missing, unreadable, or damaged further on.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stem:
    """An instrument of an item."""

    program: int  # 0..127, or DRUM_PROGRAM
    audio: Sound


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One recording, or a part of one."""

    name: str  # unique in the data set, and the same wherever it lies; '/' is allowed
    split: str | None  # of SPLITS; None leaves it to the builder
    audio: Sound  # of the targets
    notes: Callable[[], Notes] | None = None  # seconds from the audio's start; None: it has no notes
    note_files: tuple[str, ...] = ()  # paths that the notes are read from
    velocities: bool = True  # False: the source does not say how hard notes are struck
    source: Sound | None = None  # the same notes in another timbre, of equal length
    # Which program of `audio` plays what each of the source plays, for what hears the source.
    casting: Callable[[], Mapping[int, int]] | None = None
    stems: tuple[Stem, ...] = ()  # the instruments of `audio`, one by one
    performance: str | None = None  # ensemble and room (Maman et al. 2024, section 3)
    style: str | None = None  # genre or instrument class that it stands for
    piece: str | None = None  # what is played: items of one piece belong into one split
    shard: int | None = None  # items of one number share a shard; None: by a hash of the name

    def __post_init__(self):
        if self.split is not None and self.split not in SPLITS:
            raise UserError(f"{self.name}: split {self.split!r} is none of {', '.join(SPLITS)}")

    @property
    def files(self) -> tuple[str, ...]:
        """Returns all paths that it is read from."""
        sounds = (self.audio, self.source, *(stem.audio for stem in self.stems))
        paths = [path for sound in sounds if sound is not None for path in sound.files]
        return tuple(dict.fromkeys((*paths, *self.note_files)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """The items that a reader found, and those that it skipped."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = ()  # what it could not use, and why

    def __post_init__(self):
        counts = collections.Counter(item.name for item in self.items)
        if counts and (most := counts.most_common(1)[0])[1] > 1:
            raise ValueError(f"{most[1]} items are named {most[0]!r}")


class DataSet(Protocol):
    """A reader: a frozen dataclass with the folder it reads and its options."""

    def list(self) -> Listing:
        """Finds the items, without opening audio.

        An item that lacks something (its audio, its notes) is among `skipped`.

        Raises:
          UserError: the folder is missing, has another layout, or holds no item.
        """
        ...

    def identity(self) -> Mapping[str, object]:
        """Returns what the items depend on beside their files, for JSON: options, not the folder."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limited:
    """The first items of a data set, by name; implements `DataSet`."""

    data_set: DataSet
    count: int  # from 1

    def list(self) -> Listing:
        """Returns so many items, or all where there are fewer."""
        listing = self.data_set.list()
        items = sorted(listing.items, key=lambda item: item.name)[:self.count]
        return dataclasses.replace(listing, items=tuple(items))

    def identity(self) -> Mapping[str, object]:
        """Returns that of the data set, and the limit."""
        return {**self.data_set.identity(), "items": self.count}
