"""The ids of MT3's note events, and the settings that fix a token format."""

from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np

from music_diffusion.notes.programs import GRANULARITIES

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
NUM_SPECIAL_IDS = 3
NUM_EXTRA_IDS = 100  # T5's sentinel ids; never used, but published embeddings have rows for them
ROW_MULTIPLE = 128  # embedding rows are rounded up to a multiple of this
MAX_VELOCITY = 127


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventConfig:
    """The token format; a model and its tokens must agree on all of it."""

    steps_per_second: int = 100  # time resolution: 10 ms
    max_shift_steps: int = 1000  # largest shift value: 10 s
    velocity_bins: int = 1  # 1: on and off only; 127: every MIDI velocity
    granularity: str = "full"  # flat, midi_class, slakh or full; see programs.GRANULARITIES
    segment_steps: int = 512  # length of a segment in steps: 5.12 s = 256 frames of 20 ms
    frame_steps: int = 2  # shorter segments are whole frames of this many steps
    max_length: int = 2048  # tokens a segment may have, EOS included
    add_eos: bool = True  # close every segment with EOS

    def __post_init__(self):
        if self.steps_per_second < 1:
            raise ValueError(f"{self.steps_per_second=} must be at least 1")
        if not 1 <= self.velocity_bins <= MAX_VELOCITY:
            raise ValueError(f"{self.velocity_bins=} must be in 1..127")
        if self.granularity not in GRANULARITIES:
            raise ValueError(f"{self.granularity=} must be one of {', '.join(GRANULARITIES)}")
        if not 1 <= self.segment_steps <= self.max_shift_steps:
            raise ValueError(f"{self.segment_steps=} must be in 1..{self.max_shift_steps=}")
        if self.frame_steps < 1 or self.segment_steps % self.frame_steps:
            raise ValueError(f"{self.frame_steps=} must divide {self.segment_steps=}")
        if self.max_length < 2:
            raise ValueError(f"{self.max_length=} must hold at least tie and EOS")

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(max_shift_steps=self.max_shift_steps, velocity_bins=self.velocity_bins)


def vocabulary_rows(*, config: EventConfig) -> int:
    """Rows that an embedding of such tokens needs, for gin files."""
    return config.vocabulary.rows


class Event(typing.NamedTuple):
    kind: str  # shift, pitch, velocity, tie, program or drum
    value: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Events ↔ ids: special ids, then one range of ids for each kind of event, then spare ids."""

    max_shift_steps: int = 1000  # shift values are 0..this
    velocity_bins: int = 1  # velocity values are 0 (off) .. this

    @property
    def sizes(self) -> dict[str, int]:
        """Numbers of values of each kind, in the order of their ids."""
        return dict(shift=self.max_shift_steps + 1, pitch=128, velocity=self.velocity_bins + 1,
                    tie=1, program=128, drum=128)

    @property
    def first_ids(self) -> dict[str, int]:
        """The id of value 0 of each kind."""
        first, result = NUM_SPECIAL_IDS, {}
        for kind, size in self.sizes.items():
            result[kind] = first
            first += size
        return result

    @property
    def num_events(self) -> int:
        return sum(self.sizes.values())

    @property
    def size(self) -> int:
        """All ids: special, events, extra. 1491 with one velocity bin."""
        return NUM_SPECIAL_IDS + self.num_events + NUM_EXTRA_IDS

    @property
    def rows(self) -> int:
        """Rows of an embedding table. 1536 with one velocity bin."""
        return ROW_MULTIPLE * math.ceil(self.size / ROW_MULTIPLE)

    def encode(self, event: Event) -> int:
        """The id of an event; ValueError where there is none."""
        if event.kind not in self.sizes or not 0 <= event.value < self.sizes[event.kind]:
            raise ValueError(f"no such event: {event.kind} {event.value}")
        return self.first_ids[event.kind] + event.value

    def decode(self, token: int) -> Event | None:
        """The event of an id; None for special, extra and out-of-range ids."""
        for kind, first in self.first_ids.items():
            if first <= token < first + self.sizes[kind]:
                return Event(kind, int(token) - first)
        return None


def velocity_to_bin(velocity: np.ndarray, bins: int) -> np.ndarray:
    """MIDI velocities 0..127 → bins 0..`bins`; only 0 goes to 0 (MT3: rounded up)."""
    return -(-np.asarray(velocity) * bins // MAX_VELOCITY)


def bin_to_velocity(bin_: np.ndarray, bins: int) -> np.ndarray:
    """The loudest MIDI velocity of a bin; 0 for bin 0."""
    return np.asarray(bin_) * MAX_VELOCITY // bins
