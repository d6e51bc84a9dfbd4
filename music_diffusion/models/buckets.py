"""Loss that is computed at one of several lengths, whichever is long enough for the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from music_diffusion.models.base import Metrics
from music_diffusion.types import Params

Loss = Callable[[Params, Any], tuple[Float[Array, ""], Metrics]]  # of parameters and data


def bucket_of(longest: Int[Array, ""], lengths: Sequence[int]) -> Int[Array, ""]:
    """Returns the index of the least of the ascending `lengths` not below `longest`, else of the last."""
    # A count rather than a search: it is the same program on every device of a mesh.
    return jnp.sum(longest > jnp.asarray(lengths[:-1], jnp.int32), dtype=jnp.int32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def switch_loss(losses: tuple[Loss, ...], index: Int[Array, ""], params: Params, data: Any
                ) -> tuple[Float[Array, ""], Metrics]:
    """Returns `losses[index](params, data)`; the others are not computed.

    It is differentiable by the parameters and by reverse mode only. The gradient is taken
    within the branch: taken from outside, every branch would hand over the
    activations of all of them.
    """
    return jax.lax.switch(index, losses, params, data)


def _forward(losses, index, params, data):
    branches = [jax.value_and_grad(loss, has_aux=True) for loss in losses]
    return jax.lax.switch(index, branches, params, data)  # (loss, metrics), gradient


def _backward(losses, gradient, cotangents):
    loss_bar, _ = cotangents  # metrics are to be looked at
    return None, jax.tree.map(lambda g: loss_bar * g, gradient), None


switch_loss.defvjp(_forward, _backward)
