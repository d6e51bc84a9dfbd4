"""A folder of records that anyone can make in a moment: notes as tones, in memory, tiny spectrograms."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import Item, Listing, SoundFacts
from music_diffusion.notes.notes import Notes

# Frames of 20 ms, as with the codecs that models have.
CODEC = MelCodec(sample_rate=4000, hop=80, window=160, fft=256, mels=16, fmax=2000.0)
# Seconds of the items; records are about 12 s. The one of 2 s is shorter than any segment.
SECONDS = {"train": (13.1, 2.0, 11.3, 16.0), "validation": (11.0, 5.7)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """A sound in memory."""

    samples: np.ndarray  # [S]
    sample_rate: int = CODEC.sample_rate

    @property
    def files(self) -> tuple[str, ...]:
        return ()

    def facts(self) -> SoundFacts:
        return SoundFacts(sample_rate=self.sample_rate, channels=1,
                          seconds=len(self.samples) / self.sample_rate)

    def blocks(self, sample_rate: int):
        assert sample_rate == self.sample_rate
        yield from np.array_split(self.samples.astype(np.float32), 3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinySet:
    """A reader of made-up items."""

    labels: bool = True  # performance and style
    second_timbre: bool = True
    notes: bool = True
    seconds: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=lambda: SECONDS)

    def list(self) -> Listing:
        return Listing(items=tuple(self._item(split, i, seconds) for split in self.seconds
                                   for i, seconds in enumerate(self.seconds[split])))

    def identity(self) -> dict[str, object]:
        return dataclasses.asdict(self)

    def _item(self, split: str, number: int, seconds: float) -> Item:
        name = f"{split}/{number}"
        notes = made_notes(name, seconds)
        return Item(
            name=name, split=split, audio=Samples(samples=tones(notes, seconds)),
            notes=functools.partial(made_notes, name, seconds) if self.notes else None,
            source=Samples(samples=tones(notes, seconds, 3)) if self.second_timbre else None,
            performance=("quartet", "trio")[number % 2] if self.labels else None,
            style=("folk", "jazz")[number % 2] if self.labels else None)


def made_notes(name: str, seconds: float) -> Notes:
    """Five notes a second of two instruments and drums, on the grid of 10 ms."""
    rng = np.random.default_rng(list(name.encode()))
    count = int(5 * seconds)
    start = np.sort(np.round(rng.uniform(0, seconds - 0.6, count), 2))
    drum = rng.random(count) < 0.2
    length = np.round(rng.uniform(0.05, 0.5, count), 2)
    return Notes(start, start + length, rng.permutation(np.arange(count) % 60 + 36),
                 rng.integers(40, 128, count), np.where(drum, 0, rng.choice([0, 40], count)), drum)


def tones(notes: Notes, seconds: float, harmonic: int = 1) -> np.ndarray:
    """Every note as a sine, [S]."""
    time = np.arange(round(seconds * CODEC.sample_rate)) / CODEC.sample_rate
    out = np.zeros(len(time))
    for start, end, pitch, velocity in zip(notes.start, notes.end, notes.pitch, notes.velocity,
                                           strict=True):
        on = (time >= start) & (time < end)
        hertz = 110 * 2 ** ((pitch - 69) / 12) * harmonic
        out[on] += velocity / 1270 * np.sin(2 * np.pi * hertz * time[on])
    return out


def write_records(folder: pathlib.Path, data_set: TinySet = TinySet(), name: str = "tiny",
                  codec: MelCodec = CODEC, **options) -> str:
    """Builds the folder and returns its name."""
    plan = BuildPlan(codec=codec, frames=600, workers=1, shards=2, **options)
    build(data_set, name, plan, str(folder))
    return str(folder)
