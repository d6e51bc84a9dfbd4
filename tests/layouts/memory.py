"""Data sets in memory: sounds from arrays, notes as they are given. Picklable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from music_diffusion.data.items import Item, Listing, Sound, SoundFacts
from music_diffusion.notes.notes import Notes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """A sound from an array, of one rate alone."""

    samples: np.ndarray  # [S]
    sample_rate: int  # Hz
    block: int = 1000  # samples handed out at once
    path: str | None = None  # of a file that it is said to come from

    @property
    def files(self) -> tuple[str, ...]:
        return () if self.path is None else (self.path,)

    def facts(self) -> SoundFacts:
        return SoundFacts(sample_rate=self.sample_rate, channels=1,
                          seconds=len(self.samples) / self.sample_rate)

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        assert sample_rate == self.sample_rate
        for first in range(0, len(self.samples), self.block):
            yield self.samples[first:first + self.block].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula:
    """A sound of any rate and length: a function of time, in memory that does not grow."""

    wave: Callable[[np.ndarray], np.ndarray]  # seconds [n] → amplitudes [n]; picklable
    seconds: float
    files: tuple[str, ...] = ()

    def facts(self) -> SoundFacts:
        return SoundFacts(sample_rate=192000, channels=1, seconds=self.seconds)

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        total = round(self.seconds * sample_rate)
        for first in range(0, total, sample_rate):
            time = np.arange(first, min(first + sample_rate, total)) / sample_rate
            yield self.wave(time).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failing:
    """A sound that raises `error` after its first `blocks_before` blocks."""

    sound: Sound
    error: BaseException
    blocks_before: int = 0
    files: tuple[str, ...] = ()

    def facts(self) -> SoundFacts:
        raise self.error

    def blocks(self, sample_rate: int) -> Iterator[np.ndarray]:
        for i, block in enumerate(self.sound.blocks(sample_rate)):
            if i == self.blocks_before:
                raise self.error
            yield block
        raise self.error


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySet:
    """A reader of given items."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    options: dict = dataclasses.field(default_factory=dict)

    def list(self) -> Listing:
        return Listing(items=self.items, skipped=self.skipped)

    def identity(self) -> dict:
        return self.options


def sine(time: np.ndarray, hertz: float = 440.0, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * time)


def give(notes: Notes) -> Notes:
    return notes


def fail(error: BaseException) -> Notes:
    raise error


def item(name: str, sound: Sound, notes: Notes | None = None, split: str | None = "train", **more
         ) -> Item:
    """An item; see `Item` for what more there is."""
    return Item(name=name, split=split, audio=sound,
                notes=None if notes is None else functools.partial(give, notes), **more)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListMaker:
    """Messages of a member whose content is a list of them (`data.shards.Maker`)."""

    fail_at: str | None = None  # name of the member after whose first message it raises
    error: BaseException | None = None
    log: str | None = None  # file that takes the name of every member that is made

    def __call__(self, member, account) -> Iterator[bytes]:
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write(f"{member.name}\n")
        for message in member.content:
            account.totals["seconds"] += len(message)
            account.totals["notes"] += 1
            account.lengths.append(len(message))
            account.labels["style"].add(member.name)
            yield message
            if member.name == self.fail_at:
                raise self.error
