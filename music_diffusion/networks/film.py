"""Noise time as a condition: sinusoid, embedding, and feature-wise linear modulation.

FiLM: arXiv 1709.07871. The embedding is the one of spectrogram diffusion
(arXiv 2206.05408, section 3.2): time · 2e4 → sinusoid → dense → swish → dense → swish.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.networks.layers import Dense, Initializer, fan_in_init


def sinusoid(
    position: Float[Array, " B"], features: int, max_timescale: float
) -> Float[Array, "B D"]:
    """[sin(p / τ_k), cos(p / τ_k)], halves not interleaved; τ geometric from 1 to `max_timescale`.

    Args:
      position: any real numbers, in units of the smallest timescale.
      features: D, even and at least 4; n = D / 2 timescales τ_k = max_timescale^(k / (n − 1)).
      max_timescale: the largest one.
    """
    n = features // 2
    rate = max_timescale ** (-jnp.arange(n, dtype=jnp.float32) / (n - 1))
    # An elementwise product: accelerators round the operands of matrix products.
    angle = position.astype(jnp.float32)[:, None] * rate[None, :]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def embed_time(
    time: Float[Array, " B"],
    dense_0: Callable[[jax.Array], jax.Array],
    dense_1: Callable[[jax.Array], jax.Array],
    *,
    features: int,
    max_time: float,
) -> Float[Array, "B K"]:
    """Embedding of noise time in [0, 1].

    The two linear maps are passed in, so that they lie in the tree of the
    network that owns them. `max_time` is both the factor on time and the
    largest timescale (20000 in the paper's models).
    """
    # The angle needs float32 whatever the network computes in: it reaches 20000 rad.
    x = sinusoid(time.astype(jnp.float32) * max_time, features, max_time)
    return nn.swish(dense_1(nn.swish(dense_0(x))))


class FiLMLayer(nn.Module):
    """x · (1 + scale) + shift, both a linear function of a conditioning vector.

    Further conditions (a performance id, say) are concatenated to the vector.
    """

    dtype: jnp.dtype = jnp.float32
    kernel_init: Initializer = fan_in_init  # zeros: begins as the identity

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T E"], conditioning: Float[Array, "B K"]
    ) -> Float[Array, "B T E"]:
        dense = Dense(
            2 * x.shape[-1], axes=("embed", "mlp"), dtype=self.dtype, kernel_init=self.kernel_init,
            name="DenseGeneral_0",
        )
        scale, shift = jnp.split(dense(conditioning)[:, None, :], 2, axis=-1)
        return x * (1.0 + scale) + shift
