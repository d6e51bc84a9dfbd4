"""Regions of a spectrogram that stay as they are while the rest is sampled.

Two ways. A model that was trained with regions sees them beside the noise. Of any other what it predicts is
replaced there at every step, so that the rest is sampled around it ("projection"); with `passes` above 1
each step is taken back and done again, so that both parts come to agree (Lugmayr et al. 2022, "RePaint",
https://arxiv.org/abs/2201.09865, algorithm 1; `diffusion.sampling.sample`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.conditions.regions import GIVEN, REGION
from music_diffusion.types import Batch

EIGHTH, HALF = 0.125, 0.5  # shares of a training example's axes that regions are drawn by
KINDS = 4  # of regions: nothing, a beginning, beginning and end, outside a band


def keeping(batch: Batch, x0_hook: Callable[[Array], Array] | None = None
            ) -> Callable[[Array], Array] | None:
    """Returns a hook of every predicted x0 that puts what is given in its place; see the module.

    Args:
      batch: with `given` and `region` [B, W, F], or without: then the hook is as it was.
      x0_hook: that comes before.
    """
    if REGION not in batch:
        return x0_hook
    given, stays = jnp.asarray(batch[GIVEN]), jnp.asarray(batch[REGION]) > 0

    def hook(x0: Array) -> Array:
        x0 = jnp.where(stays, given, x0)
        return x0 if x0_hook is None else jnp.where(stays, given, x0_hook(x0))

    return hook


def draw_regions(rng: PRNGKeyArray, shape: tuple[int, ...], dropout: float) -> Float[Array, "B T F"]:
    """Returns regions of training examples, 1 where the spectrogram is known.

    A share of `dropout` has none. Of the others a third each know their beginning (an eighth of the frames
    to seven eighths), all but a stretch (an eighth to a half), and all but a band (an eighth of the bins to
    seven eighths).
    """
    size, frames, bins = shape
    kind, first, length = jax.random.split(rng, 3)
    kind_B = jax.random.uniform(kind, (size,))
    kind_B = jnp.where(kind_B < dropout, 0, 1 + jnp.floor((kind_B - dropout) / max(1 - dropout, 1e-9)
                                                          * (KINDS - 1)).astype(jnp.int32))
    kind_B = kind_B[:, None, None]
    place, share = jax.random.uniform(first, (2, size))[:, :, None, None], jax.random.uniform(
        length, (size,))[:, None, None]
    time = ((jnp.arange(frames) + 0.5) / frames)[None, :, None]
    pitch = ((jnp.arange(bins) + 0.5) / bins)[None, None, :]

    def within(axis, length, place):
        begin = place * (1 - length)
        return (axis >= begin) & (axis < begin + length)

    beginning = time < EIGHTH + (1 - 2 * EIGHTH) * share
    stretch = ~within(time, EIGHTH + (HALF - EIGHTH) * share, place[0])
    band = ~within(pitch, EIGHTH + (1 - 2 * EIGHTH) * share, place[1])
    known = (((kind_B == 1) & beginning) | ((kind_B == 2) & stretch) | ((kind_B == 3) & band))
    return jnp.broadcast_to(known, shape).astype(jnp.float32)
