"""The train state and the pure functions that make it and advance it by one step.

A model (`models.base.Model`) declares `frozen`, a tuple of regular expressions
of parameter paths that are never trained, such as fixed position tables. Its
compute dtype (float32 or bfloat16) is its own setting; parameters, gradients and
optimizer state are float32 whatever it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from music_diffusion.models.base import Metrics, Model
from music_diffusion.training.optimizers import Optimizer, frozen_mask, skip_frozen
from music_diffusion.types import Batch, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """All that a step reads and writes; one checkpoint holds exactly this."""

    step: jax.Array  # int32, completed updates
    params: Params
    opt_state: optax.OptState
    ema_params: Params | None  # None where the average is off
    bad_step: jax.Array  # int32, first update that was not finite, from 1; 0 while all were


def init_state(
    model: Model, optimizer: Optimizer, shapes: Mapping[str, tuple[int, ...]],
    *, seed: int, ema: bool,
) -> tuple[TrainState, Mapping[str, Any]]:
    """The state before the first step, and the parameters' logical axes ({} without names)."""
    variables = model.init(jax.random.key(seed), shapes)
    unknown = set(variables) - {"params", "params_axes"}
    if unknown:
        raise ValueError(f"the trainer knows no variable collection {sorted(unknown)}")
    params = variables["params"]
    transform = skip_frozen(optimizer.transform, never_trained(model, optimizer, params))
    state = TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=transform.init(params),
        # A copy: the step donates its input, and one buffer cannot be donated twice.
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
        bad_step=jnp.zeros((), jnp.int32))
    return state, variables.get("params_axes", {})


def never_trained(model: Model, optimizer: Optimizer, params: Params) -> Params:
    """True where a parameter is frozen, by the optimizer's or the model's word."""
    by_user = frozen_mask(params, optimizer.frozen, strict=True)
    by_model = frozen_mask(params, model.frozen, strict=False)
    return jax.tree.map(lambda a, b: a or b, by_user, by_model)


def ema_decay_at(step: jax.Array, decay: float, warmup: bool) -> jax.Array:
    """The decay of the average's update after `step` earlier ones.

    With `warmup` it is min(decay, (1 + step) / (10 + step)), so that the average
    of a short run does not remember the initial parameters.
    """
    step = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + step) / (10 + step)) if warmup else jnp.float32(decay)


def moved_average(average: Params, params: Params, decay: jax.Array) -> Params:
    """The moving average after another step."""
    return jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, params)


def clip_by_norm(grads: Params, norm: jax.Array, largest: float) -> Params:
    """Gradients of the global `norm`, scaled down if it is above `largest`."""
    scale = jnp.minimum(1.0, largest / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda g: g * scale, grads)


class Updated(NamedTuple):
    """Result of an update by gradients."""

    params: Params
    opt_state: optax.OptState
    ema_params: Params | None
    updates: Params  # what was added to the parameters
    grad_norm: jax.Array  # of the gradients as given, before they were clipped


def apply_gradients(
    grads: Params, transform: optax.GradientTransformation, params: Params, opt_state: optax.OptState,
    ema_params: Params | None, step: jax.Array, *, clip_norm: float | None, ema_decay: float,
    ema_warmup: bool, loss: jax.Array | None = None,
) -> Updated:
    """Clips the gradients, updates the parameters, and moves their average.

    Args:
      grads: of the loss.
      transform: the optimizer, without frozen parameters (`skip_frozen`).
      params, opt_state, ema_params: of before; without an average `ema_params` is None.
      step: int32, completed updates.
      clip_norm, ema_decay, ema_warmup: see `make_train_step`.
      loss: of the batch, for optimizers that watch it (`optimizers.plateau`); None where it is not known.
    """
    grad_norm = optax.tree.norm(grads)
    if clip_norm is not None:
        grads = clip_by_norm(grads, grad_norm, clip_norm)
    updates, opt_state = optax.with_extra_args_support(transform).update(
        grads, opt_state, params, value=loss)
    params = optax.apply_updates(params, updates)
    if ema_params is not None:
        ema_params = moved_average(ema_params, params, ema_decay_at(step, ema_decay, ema_warmup))
    return Updated(params, opt_state, ema_params, updates, grad_norm)


def mean_gradients(
    loss_fn: Callable[[Params, Batch, jax.Array], tuple[jax.Array, Metrics]],
    params: Params, batch: Batch, rng: jax.Array, microbatches: int,
) -> tuple[jax.Array, Metrics, Params]:
    """Loss, metrics and gradients, averaged over `microbatches` equal parts of the batch.

    Equal to the whole batch where the loss is a plain mean over examples and
    draws no random numbers; a loss that divides by a count of valid entries is
    averaged part by part.
    """
    def part(batch: Batch, rng: jax.Array):
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, rng)
        return loss, metrics, grads

    if microbatches == 1:
        return part(batch, rng)
    # [B, ...] -> [B/k, k, ...]: the axis that is spread over devices stays where it is.
    parts = jax.tree.map(
        lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)
    rngs = jax.random.split(rng, microbatches)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(part, first, rngs[0])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def add(total, xs):
        return jax.tree.map(jnp.add, total, part(*xs)), None

    total, _ = jax.lax.scan(add, zeros, (parts, rngs))
    return jax.tree.map(lambda x: x / microbatches, total)


def make_train_step(
    model: Model, optimizer: Optimizer, *, seed: int, microbatches: int = 1,
    clip_norm: float | None = None, ema_decay: float = 0.0, ema_warmup: bool = True,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the pure function (state, batch) -> (state, metrics).

    Its randomness is a function of `seed` and `state.step` alone, so a resumed run
    draws what an uninterrupted one would have drawn.

    Args:
      model, optimizer: what is trained, and how.
      seed: of the randomness of all steps.
      microbatches: equal parts of a batch, taken one after the other.
      clip_norm: largest global norm of the gradients; None does not clip.
      ema_decay: of the parameters' moving average, which is there if the state holds one.
      ema_warmup: see `ema_decay_at`.
    """
    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        mask = never_trained(model, optimizer, state.params)
        transform = skip_frozen(optimizer.transform, mask)
        rng = jax.random.fold_in(jax.random.key(seed), state.step)

        def loss_fn(params, batch, rng):
            params = jax.tree.map(
                lambda p, frozen: jax.lax.stop_gradient(p) if frozen else p, params, mask)
            return model.loss_fn(params, batch, rng)

        loss, metrics, grads = mean_gradients(loss_fn, state.params, batch, rng, microbatches)
        new = apply_gradients(
            grads, transform, state.params, state.opt_state, state.ema_params, state.step,
            clip_norm=clip_norm, ema_decay=ema_decay, ema_warmup=ema_warmup, loss=loss)
        update_norm = optax.tree.norm(new.updates)
        finite = jnp.isfinite(loss) & jnp.isfinite(new.grad_norm) & jnp.isfinite(update_norm)
        step = state.step + 1
        bad_step = jnp.where((state.bad_step == 0) & ~finite, step, state.bad_step)
        metrics = {**metrics, "loss": loss, "grad_norm": new.grad_norm, "update_norm": update_norm,
                   "learning_rate": jnp.asarray(optimizer.learning_rate(state.step), jnp.float32)}
        return TrainState(step=step, params=new.params, opt_state=new.opt_state,
                          ema_params=new.ema_params, bad_step=bad_step), metrics

    return train_step


def make_eval_step(model: Model) -> Callable[[Params, Batch, jax.Array], Metrics]:
    """The pure function (params, batch, rng) -> metrics, 'loss' among them."""
    def eval_step(params: Params, batch: Batch, rng: jax.Array) -> Metrics:
        loss, metrics = model.eval_fn(params, batch, rng)
        return {**metrics, "loss": loss}

    return eval_step
