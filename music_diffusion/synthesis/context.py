"""Joining of segment after segment, each with the one before as context, or each by itself.

Hawthorne et al. 2022 (arXiv 2206.05408), section 3.2: the first segment has no
context, later ones the spectrogram that was predicted before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from music_diffusion.conditions.base import Piece
from music_diffusion.models.base import CONTEXT, SEPARATE, Generator
from music_diffusion.synthesis.compiled import Compiled
from music_diffusion.synthesis.joining import conditions_of, space_frames
from music_diffusion.types import Params, Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChainJoining:
    """Samples one segment after the other; implements `joining.Joining`."""

    frames: int = 256  # of a segment
    context: bool = True  # whether each segment is given the one before
    shared: int = 0  # frames at a segment's beginning that are those of the one before
    same_noise: bool = False  # whether all segments begin with the same noise

    @property
    def name(self) -> str:
        """Returns context, or separate."""
        return CONTEXT if self.context else SEPARATE

    def compile(self, model: Generator, params: Params, piece: Piece) -> None:
        """Compiles what the piece needs; see `joining.Joining`."""
        _SAMPLE.compile(model, self.frames, params, self._batch(model, piece, 0, None), jax.random.key(0))

    def stream(self, model: Generator, params: Params, piece: Piece, seed: int,
               progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields frames [t, C] of the model's space; see `joining.Joining`."""
        frames = space_frames(piece, model.space)
        stride = self.frames - self.shared
        segments = max(1, -(-(frames - self.shared) // stride))
        key, before = jax.random.key(seed), None
        for i in range(segments):
            batch = self._batch(model, piece, i, before)
            own = jax.random.fold_in(key, 0 if self.same_noise else i)
            x0 = np.asarray(_SAMPLE(model, self.frames, params, batch, own))
            before = x0 if self.context else None
            yield x0[0, self.shared if i else 0:frames - i * stride]
            if progress is not None:
                progress((i + 1) / segments)

    def _batch(self, model: Generator, piece: Piece, segment: int, before: np.ndarray | None):
        return dict(conditions_of(piece, model.space, [segment * (self.frames - self.shared)], self.frames,
                                  before))


def _sample(model: Generator, frames: int, params: Params, batch, key) -> jax.Array:
    """Returns one segment [1, W, C]."""
    key_noise, key_solver = jax.random.split(key)
    z_T = jax.random.normal(key_noise, (1, frames, model.space.channels))
    return model.sample(params, batch, z_T, key_solver)


_SAMPLE = Compiled(_sample, static=2)
