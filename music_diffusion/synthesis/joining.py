"""Windows of a piece and how they meet, whatever the model and its conditions are: cuts, fades, noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.conditions.base import Piece
from music_diffusion.errors import UserError
from music_diffusion.models.base import Generator
from music_diffusion.models.spaces import Space
from music_diffusion.types import Batch, Params, Progress

NOISE_BLOCK = 32  # frames of starting noise that share a key


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows into which a piece is cut."""

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
        """Returns the frames from window to window."""
        return self.frames - self.overlap

    @property
    def span(self) -> int:
        """Returns the frames that a group covers."""
        return self.group * self.stride + self.overlap

    def for_length(self, frames: int) -> Windows:
        """Returns the same windows in smaller groups, if the piece needs fewer."""
        needed = max(1, -(-(frames - self.overlap) // self.stride))
        return dataclasses.replace(self, group=min(self.group, needed))

    def firsts(self, first: int) -> list[int]:
        """Returns the first frames of a group's windows."""
        return [first + k * self.stride for k in range(self.group)]

    def cut(self, x: Float[Array, "R ..."]) -> Float[Array, "G W ..."]:
        """Returns the windows of a group's span of frames."""
        return jnp.stack([x[k * self.stride:k * self.stride + self.frames]
                          for k in range(self.group)])

    def join(self, x0: Float[Array, "G W C"]) -> Float[Array, "R C"]:
        """Returns the span of windows that agree along their overlaps."""
        parts = [w[:self.stride] for w in x0[:-1]]
        return jnp.concatenate([*parts, x0[-1]])

    def fade(self, x0: Float[Array, "G W C"], known: Float[Array, "O C"],
             has_known: Float[Array, ""]) -> Float[Array, "G W C"]:
        """Cross-fades x0 along the overlaps, and from `known` into the first window.

        Afterwards neighbours are equal where they overlap.
        """
        ramp = ((jnp.arange(self.overlap) + 1) / (self.overlap + 1))[None, :, None]
        heads, tails = x0[:, :self.overlap], x0[:, -self.overlap:]
        first = jnp.where(has_known > 0, known, heads[0])[None]
        mixed = (1 - ramp) * jnp.concatenate([first, tails[:-1]]) + ramp * heads
        x0 = x0.at[:, :self.overlap].set(mixed)
        return x0.at[:-1, -self.overlap:].set(mixed[1:])


def noise(key: jax.Array, first: int, frames: int, channels: int) -> Float[Array, "T C"]:
    """Returns the starting noise of absolute frames: the same however windows and groups lie."""
    blocks = range(first // NOISE_BLOCK, -(-(first + frames) // NOISE_BLOCK))
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(blocks))
    drawn = jax.vmap(lambda k: jax.random.normal(k, (NOISE_BLOCK, channels)))(keys)
    skip = first - blocks[0] * NOISE_BLOCK
    return drawn.reshape(-1, channels)[skip:skip + frames]


class Joining(Protocol):
    """A way in which segments of a generator become a spectrogram of any length, in flat memory."""

    @property
    def name(self) -> str:
        """Returns what it is called; see `models.base.Generator.joinings`."""
        ...

    def compile(self, model: Generator, params: Params, piece: Piece) -> None:
        """Compiles what the piece needs, so that its stream begins at once."""
        ...

    def stream(self, model: Generator, params: Params, piece: Piece, seed: int,
               progress: Progress | None = None) -> Iterator[np.ndarray]:
        """Yields frames [t, C] of the model's space in order, as many as the piece has.

        Streams of pieces of one length come in equal parts.
        """
        ...


def space_frames(piece: Piece, space: Space) -> int:
    """Returns how many frames of the space a piece has."""
    return -(-piece.frames // space.step)


def conditions_of(piece: Piece, space: Space, firsts: Sequence[int], size: int, before=None) -> Batch:
    """Returns the conditions of windows that begin at frames of the space and have `size` of them."""
    return piece.windows([first * space.step for first in firsts], size * space.step, before)
