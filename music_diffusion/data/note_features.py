"""Notes of a segment → features: frame-aligned ones, or the event tokens of the T5 models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.events import encode_segment, pad
from music_diffusion.notes.frames import FrameGrid, roll_features, slot_features
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig

Example = dict[str, np.ndarray]
# (notes, the segment's start in the notes' seconds, its frames) → features
NoteFeatures = Callable[[Notes, float, int], Example]


class TooManyEventsError(UserError):
    """A segment has more events than a model takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameFeatures:
    """Notes of a segment → the frame-wise denoiser's features."""

    grid: FrameGrid = FrameGrid()
    slots: int = 32  # P, note slots a frame; 0 where the records have note maps

    @property
    def hop(self) -> float:
        """Seconds from frame to frame."""
        return self.grid.hop

    def __call__(self, notes: Notes, start: float, frames: int) -> Example:
        """Returns `roll` [T, C] and `slot_*` [T, P] for the segment that begins at `start`."""
        example = {"roll": roll_features(notes, start, frames, self.grid)}
        if self.slots:
            slots = slot_features(notes, start, frames, self.grid, self.slots)
            slots.pop("dropped")  # the oldest tails
            example.update({f"slot_{k}": v for k, v in slots.items()})
        return example


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenFeatures:
    """Notes of a segment → the event tokens of the T5 models."""

    config: EventConfig = EventConfig()
    hop: float = 0.02  # seconds from frame to frame; segments begin on the grid of event steps
    tokens: int = 2048  # N, ids a segment is padded to

    def __call__(self, notes: Notes, start: float, frames: int) -> Example:
        """Returns `inputs` [N] int32, 0 for padding.

        Raises TooManyEventsError where the segment has more than `tokens` events.
        """
        ids = encode_segment(notes, start, start + frames * self.hop, config=self.config)
        if len(ids) > self.tokens:
            raise TooManyEventsError(f"{len(ids)} events from {start:.2f} s on are more than "
                                     f"{self.tokens} tokens; raise TokenFeatures.tokens")
        return {"inputs": pad([ids], self.tokens)[0][0]}
