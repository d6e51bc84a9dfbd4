"""All that a training step does with its gradients, as one optax transformation.

For trainers that take nothing but a transformation, as t5x does: clipping, the
recipe's optimizer without frozen parameters, and the parameters' moving average,
which is part of the transformation's state and so of every checkpoint.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from music_diffusion.models.base import Model
from music_diffusion.training.optimizers import Optimizer, skip_frozen
from music_diffusion.training.state import apply_gradients, never_trained
from music_diffusion.types import Params


class WholeUpdateState(NamedTuple):
    """State between two updates."""

    step: Int[Array, ""]  # completed updates
    inner: optax.OptState  # of the optimizer
    ema_params: Params | optax.EmptyState  # the average; EmptyState where it is off


def whole_update(
    model: Model, optimizer: Optimizer, *, clip_norm: float | None, ema_decay: float,
    ema_warmup: bool,
) -> optax.GradientTransformation:
    """Gradients → updates; the arguments are those of `make_train_step`. Needs the parameters."""

    def transform(params: Params) -> optax.GradientTransformation:
        return skip_frozen(optimizer.transform, never_trained(model, optimizer, params))

    def init(params: Params) -> WholeUpdateState:
        return WholeUpdateState(
            step=jnp.zeros((), jnp.int32), inner=transform(params).init(params),
            # A copy: buffers may be donated, and one cannot be donated twice.
            ema_params=jax.tree.map(jnp.copy, params) if ema_decay > 0 else optax.EmptyState())

    def update(grads: Params, state: WholeUpdateState, params: Params | None = None
               ) -> tuple[Params, WholeUpdateState]:
        if params is None:
            raise ValueError("whole_update needs the parameters")
        new = apply_gradients(
            grads, transform(params), params, state.inner, state.ema_params if ema_decay > 0 else None,
            state.step, clip_norm=clip_norm, ema_decay=ema_decay, ema_warmup=ema_warmup)
        ema_params = state.ema_params if new.ema_params is None else new.ema_params
        return new.updates, WholeUpdateState(state.step + 1, new.opt_state, ema_params)

    return optax.GradientTransformation(init, update)

