"""Joining of windows of a piece that overlap and are denoised together.

Maman et al. 2024 (arXiv 2309.12283), section 3.3: neighbouring windows are denoised together, and
at every step their predictions of x0 are cross-faded linearly along the
overlap. Windows go through the network in groups, so memory does not grow with
the piece; a group's first window is faded from the last one of the group
before in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion.conditions.base import Piece
from music_diffusion.models.base import OVERLAP, Generator
from music_diffusion.synthesis.compiled import Compiled
from music_diffusion.synthesis.joining import Windows, conditions_of, noise, space_frames
from music_diffusion.types import Params, Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapJoining:
    """Cross-fades windows while they are sampled; implements `joining.Joining`.

    A model with context gets none: every window is to it the first of a piece.
    """

    windows: Windows = Windows()

    @property
    def name(self) -> str:
        """Returns overlap."""
        return OVERLAP

    def compile(self, model: Generator, params: Params, piece: Piece) -> None:
        """Compiles what the piece needs; see `joining.Joining`."""
        windows = self.windows.for_length(space_frames(piece, model.space))
        _SAMPLE.compile(model, windows, *_arguments(model, windows, params, piece, 0, *_start(0),
                                                    _nothing_known(model, windows), False))

    def stream(self, model: Generator, params: Params, piece: Piece, seed: int,
               progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields frames [t, C] of the model's space; see `joining.Joining`."""
        frames = space_frames(piece, model.space)
        windows = self.windows.for_length(frames)
        key_noise, key_solver = _start(seed)
        step = windows.group * windows.stride
        groups = max(1, -(-(frames - windows.overlap) // step))
        known = _nothing_known(model, windows)
        for g in range(groups):
            first = g * step
            x0 = _SAMPLE(model, windows, *_arguments(
                model, windows, params, piece, first, key_noise, jax.random.fold_in(key_solver, g), known,
                g > 0))
            known = x0[-windows.overlap:]
            yield np.asarray(x0)[:frames - first if g == groups - 1 else step]
            if progress is not None:
                progress((g + 1) / groups)


def _start(seed: int) -> tuple[jax.Array, jax.Array]:
    """Returns the keys of the starting noise and of the solver."""
    key_noise, key_solver = jax.random.split(jax.random.key(seed))
    return key_noise, key_solver


def _nothing_known(model: Generator, windows: Windows) -> jax.Array:
    return jnp.zeros((windows.overlap, model.space.channels))


def _arguments(model: Generator, windows: Windows, params: Params, piece: Piece, first: int,
               key_noise: jax.Array, key_solver: jax.Array, known: jax.Array, has_known: bool) -> tuple:
    """Returns what `_sample` takes for the group that begins at frame `first`."""
    batch = conditions_of(piece, model.space, windows.firsts(first), windows.frames)
    z_T = windows.cut(noise(key_noise, first, windows.span, model.space.channels))
    arrays = {name: jnp.asarray(values) for name, values in batch.items()}
    return params, arrays, z_T, key_solver, known, jnp.asarray(has_known)


def _sample(model: Generator, windows: Windows, params: Params, batch, z_T, key, known, has_known
            ) -> jax.Array:
    """Returns the span [R, C] of one group of windows."""
    x0 = model.sample(params, batch, z_T, key, x0_hook=lambda x0: windows.fade(x0, known, has_known))
    return windows.join(x0)


_SAMPLE = Compiled(_sample, static=2)
