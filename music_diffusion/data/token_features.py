"""Notes of a segment → the event tokens of the T5 models."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.notes.events import encode_segment, pad
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenFeatures:
    """Callable as `data.pipeline.FrameFeatures`: (notes, start, frames) → features."""

    config: EventConfig = EventConfig()
    hop: float = 0.02  # seconds from frame to frame; segments begin on the grid of event steps
    tokens: int = 2048  # N, ids a segment is padded to

    def __call__(self, notes: Notes, start: float, frames: int) -> dict[str, np.ndarray]:
        """Returns `inputs` [N] int32, 0 for padding.

        Raises ValueError where the segment has more than `tokens` events.
        """
        ids = encode_segment(notes, start, start + frames * self.hop, config=self.config)
        return {"inputs": pad([ids], self.tokens)[0][0]}
