"""Spectrograms of any length from overlapping windows.

Maman et al. 2024, section 3.3: neighbouring windows are denoised together, and
at every step their predictions of x0 are cross-faded linearly along the
overlap. Windows go through the network in groups, so memory does not grow with
the piece; a group's first window is faded from the last one of the group
before in the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.errors import UserError
from music_diffusion.models.performance import FEATURE
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Params

Progress = Callable[[float], None]  # told the share of the work that is done, 0..1
NOISE_BLOCK = 32  # frames of starting noise that share a key
OVERLAP, CONTEXT, SEPARATE = "overlap", "context", "separate"  # names of joinings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """How a piece is cut."""

    frames: int = 256  # W, frames of a window
    overlap: int = 32  # O, frames that neighbouring windows share
    group: int = 4  # G, windows denoised together

    def __post_init__(self):
        if not 0 < self.overlap <= self.frames // 2 or self.group < 1:
            raise UserError(f"{self.overlap=} must be in 1..{self.frames // 2}, {self.group=} from 1")
        if self.frames % NOISE_BLOCK or self.overlap % NOISE_BLOCK:
            raise UserError(f"{self.frames=} and {self.overlap=} must be multiples of {NOISE_BLOCK}")

    @property
    def stride(self) -> int:
        """Frames from window to window."""
        return self.frames - self.overlap

    @property
    def span(self) -> int:
        """Frames that a group covers."""
        return self.group * self.stride + self.overlap

    def for_length(self, frames: int) -> Windows:
        """The same windows in smaller groups, if the piece needs fewer."""
        needed = max(1, -(-(frames - self.overlap) // self.stride))
        return dataclasses.replace(self, group=min(self.group, needed))

    def cut(self, x: Float[Array, "R ..."]) -> Float[Array, "G W ..."]:
        """A group's span of frames → its windows."""
        return jnp.stack([x[k * self.stride:k * self.stride + self.frames]
                          for k in range(self.group)])

    def join(self, x0: Float[Array, "G W F"]) -> Float[Array, "R F"]:
        """Windows that agree along their overlaps → the span."""
        parts = [w[:self.stride] for w in x0[:-1]]
        return jnp.concatenate([*parts, x0[-1]])

    def fade(self, x0: Float[Array, "G W F"], known: Float[Array, "O F"],
             has_known: Float[Array, ""]) -> Float[Array, "G W F"]:
        """Cross-fades x0 along the overlaps, and from `known` into the first window.

        Afterwards neighbours are equal where they overlap.
        """
        ramp = ((jnp.arange(self.overlap) + 1) / (self.overlap + 1))[None, :, None]
        heads, tails = x0[:, :self.overlap], x0[:, -self.overlap:]
        first = jnp.where(has_known > 0, known, heads[0])[None]
        mixed = (1 - ramp) * jnp.concatenate([first, tails[:-1]]) + ramp * heads
        x0 = x0.at[:, :self.overlap].set(mixed)
        return x0.at[:-1, -self.overlap:].set(mixed[1:])


def noise(key: jax.Array, first: int, frames: int, mels: int) -> Float[Array, "T F"]:
    """Starting noise of absolute frames: the same however windows and groups lie."""
    blocks = range(first // NOISE_BLOCK, -(-(first + frames) // NOISE_BLOCK))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(blocks))
    drawn = jax.vmap(lambda k: jax.random.normal(k, (NOISE_BLOCK, mels)))(keys)
    skip = first - blocks[0] * NOISE_BLOCK
    return drawn.reshape(-1, mels)[skip:skip + frames]


def for_windows(performance: Float[np.ndarray, " R"] | None, group: int) -> dict[str, np.ndarray]:
    """The feature `performance` [G, R] of a group's windows; nothing for a model that has none."""
    if performance is None:
        return {}
    return {FEATURE: np.tile(np.asarray(performance, np.float32), (group, 1))}


class Joining(Protocol):
    """How a kind of model makes a spectrogram of any length, in flat memory."""

    def name(self, model: Any) -> str:
        """overlap, context, or separate: segments that know nothing of each other."""
        ...

    def stream(self, model: Any, params: Params, notes: Notes, frames: int, seed: int,
               progress: Progress | None = None, *,
               performance: Float[np.ndarray, " R"] | None = None) -> Iterator[np.ndarray]:
        """Yields scaled mel [t, F] in order, `frames` in all.

        `performance` weighs the rows of a model's table, if it has one (`models.performance`). Streams
        of as many frames come in equal pieces.
        """
        ...


class GroupSampler(Protocol):
    """Denoises one group of windows."""

    def __call__(self, first: int, z_T: Float[Array, "G W F"], key: jax.Array,
                 known: Float[Array, "O F"], has_known: Array) -> Float[Array, "R F"]:
        """Scaled mel of the group's span, whose first frame is `first`."""
        ...


def overlapped(sampler: GroupSampler, windows: Windows, frames: int, mels: int, seed: int,
               progress: Progress | None = None) -> Iterator[np.ndarray]:
    """Yields scaled mel [t, F] in order, `frames` in all.

    Args:
      sampler: draws a group.
      windows: the cut.
      frames: length of the piece.
      mels: F.
      seed: of the starting noise and the solver's.
      progress: told the share that is done, 0..1.
    """
    key_noise, key_solver = jax.random.split(jax.random.key(seed))
    step = windows.group * windows.stride
    groups = max(1, -(-(frames - windows.overlap) // step))
    known = jnp.zeros((windows.overlap, mels))
    for g in range(groups):
        first = g * step
        z_T = windows.cut(noise(key_noise, first, windows.span, mels))
        x0 = sampler(first, z_T, jax.random.fold_in(key_solver, g), known, jnp.asarray(g > 0))
        known = x0[-windows.overlap:]
        last = g == groups - 1
        yield np.asarray(x0)[:frames - first if last else step]
        if progress is not None:
            progress((g + 1) / groups)
