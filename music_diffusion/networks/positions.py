"""Fixed sinusoidal position tables, decorrelated between stacks.

Spectrogram diffusion (arXiv 2206.05408, section 3): each stack permutes the
channels of the usual sinusoids and shifts their phases at random, once, at
initialisation. So the table is a parameter: it belongs to the checkpoint (and
to the parameter count) but is never trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float, Int

from music_diffusion.errors import UserError

POSITION_TABLE = "Embed_0"  # name of every position table in the parameter tree
MAX_TIMESCALE = 10_000.0  # frames or tokens, as in arXiv 1706.03762


def decorrelated_sinusoids(
    rng: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32
) -> Float[Array, "T E"]:
    """Initialiser: sin(p / τ_k + φ_k) in random channel order, for positions p = 0 … T − 1.

    Half of the channels start a quarter turn ahead (the cosines), timescales
    τ_k are geometric from 1 to 10000, phases φ_k uniform over a turn.
    """
    positions, features = shape
    n = (features + 1) // 2
    rate = MAX_TIMESCALE ** (-jnp.arange(n, dtype=jnp.float32) / max(n - 1, 1))
    rate = jnp.tile(rate, 2)[:features]
    quarter = jnp.repeat(jnp.array([0.0, jnp.pi / 2]), n)[:features]
    phase_rng, order_rng = jax.random.split(rng)
    phase = quarter + jax.random.uniform(phase_rng, (features,), maxval=2 * jnp.pi)
    angle = jnp.arange(positions, dtype=jnp.float32)[:, None] * rate[None, :]
    table = jnp.sin(angle + phase[None, :])
    return jax.random.permutation(order_rng, table, axis=1).astype(dtype)


class FixedPositions(nn.Module):
    """Position vectors of a sequence from a fixed table."""

    positions: int  # rows of the table
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, count: int, lengths: Int[Array, " B"] | None = None
    ) -> Float[Array, "B T E"]:
        """Vectors of positions 0 … count − 1, or relative to each sequence's end.

        Args:
          count: T, at most `positions`.
          lengths: valid frames of every sequence. With it the table is rolled
            by the length, so that the last valid frame always has the same
            vector (terminal-relative positions). None: B is 1 in the output.

        Raises:
          UserError: more positions than the table has.
        """
        if count > self.positions:
            raise UserError(
                f"a sequence of length {count}, but the position table has {self.positions} rows: "
                "split the segment or raise the table's size in the config"
            )
        table = param_with_axes(
            "embedding",
            decorrelated_sinusoids,
            (self.positions, self.features),
            jnp.float32,
            axes=("length", "embed"),
        )
        table = jax.lax.stop_gradient(table).astype(self.dtype)
        if lengths is None:
            return table[None, :count]
        index = (jnp.arange(count)[None, :] - lengths[:, None]) % self.positions
        return jnp.take(table, index, axis=0)


def trainable(params: Mapping[str, Any]) -> dict[str, Any]:
    """Tree of booleans shaped like `params`: False for position tables.

    Their gradient is zero anyway; the mask keeps weight decay and EMA of an
    optimizer away from them.
    """
    flat = traverse_util.flatten_dict(dict(params))
    return traverse_util.unflatten_dict({path: POSITION_TABLE not in path for path in flat})
