"""Patches: several frames that are one position of a network, and what is known of them beforehand."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

STATISTICS = "statistics"  # name of this part among a model's parameters


class PatchStatistics(nn.Module):
    """Mean, axes and deviations of patches (`diffusion.preconditioning.v_along`).

    Parameters that are estimated of the data (`data.patch_statistics`) and not trained.
    """

    features: int  # D, of a patch

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "1 1 D"], Float[Array, "D D"], Float[Array, "1 1 D"]]:
        """Returns (mean, axes, std)."""
        d, init = (self.features,), nn.initializers
        mean = param_with_axes("mean", init.zeros, d, jnp.float32, axes=("embed",))
        axes = param_with_axes("axes", lambda rng, shape, dtype: jnp.eye(shape[0], dtype=dtype), d * 2,
                               jnp.float32, axes=("embed", "mlp"))
        std = param_with_axes("std", init.ones, d, jnp.float32, axes=("embed",))
        return mean[None, None], axes, std[None, None]


def folded(x: Float[Array, "B T F"], patch: int) -> Float[Array, "B N D"]:
    """Returns a row for each patch of so many frames, D = patch × F; frames as they are for 0."""
    return x.reshape(x.shape[0], -1, patch * x.shape[-1]) if patch else x
