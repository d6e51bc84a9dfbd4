"""Optimizers and learning-rate schedules, as functions that gin can configure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import jax
import optax
import optax.contrib

from music_diffusion.errors import UserError
from music_diffusion.types import Params

Schedule = Callable[[jax.Array], jax.Array]  # completed updates -> learning rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """A gradient transformation and what the trainer wants to know about it."""

    transform: optax.GradientTransformation
    learning_rate: Schedule  # for the metrics; the transform applies it itself
    frozen: tuple[str, ...] = ()  # regular expressions, searched in 'a/b/kernel' paths


def warmup_cosine(
    *, peak: float, warmup_steps: int, total_steps: int, final: float = 0.0
) -> Schedule:
    """Linear from 0 to `peak`, then half a cosine down to `final` at `total_steps`."""
    if not 0 <= warmup_steps < total_steps:
        raise UserError(f"warmup_cosine: warmup_steps={warmup_steps} must be in "
                        f"0..total_steps={total_steps}")
    return optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else peak, peak, warmup_steps, total_steps, end_value=final)


def warmup_constant(*, peak: float, warmup_steps: int) -> Schedule:
    """Linear from 0 to `peak`, then constant."""
    if warmup_steps < 0:
        raise UserError(f"warmup_constant: warmup_steps={warmup_steps} must be >= 0")
    return optax.warmup_constant_schedule(0.0 if warmup_steps else peak, peak, warmup_steps)


def adafactor(
    *, learning_rate: float | Schedule = 1e-3, decay_exponent: float = 0.8,
    multiply_by_parameter_scale: bool = True, clipping_threshold: float = 1.0,
    frozen: Sequence[str] = (),
) -> Optimizer:
    """Adafactor (Shazeer and Stern 2018) as spectrogram diffusion was trained (paper 001).

    No momentum; second moments factored where two axes have at least 128
    entries, and decayed by 1 - t^-decay_exponent; the update's RMS is clipped at
    `clipping_threshold` and multiplied by the parameter's RMS (at least 1e-3).
    """
    transform = optax.adafactor(
        learning_rate, decay_rate=decay_exponent, clipping_threshold=clipping_threshold,
        multiply_by_parameter_scale=multiply_by_parameter_scale)
    return Optimizer(transform=transform, learning_rate=_as_schedule(learning_rate),
                     frozen=tuple(frozen))


def adamw(
    *, learning_rate: float | Schedule = 1e-3, b1: float = 0.9, b2: float = 0.999,
    eps: float = 1e-8, weight_decay: float = 1e-4, frozen: Sequence[str] = (),
) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019); 1-D parameters (biases, norms) do not decay."""
    transform = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay,
                            mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    return Optimizer(transform=transform, learning_rate=_as_schedule(learning_rate),
                     frozen=tuple(frozen))


def muon(
    *, learning_rate: Schedule | float = 5e-3, momentum: float = 0.95, iterations: int = 3,
    b1: float = 0.9, b2: float = 0.999, weight_decay: float = 0.0, others: float = 0.25,
    frozen: Sequence[str] = (),
) -> Optimizer:
    """Muon: matrices move by orthonormal steps (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon).

    The momentum of a matrix is made nearly orthonormal by Newton–Schulz iterations, and its elements have
    the root mean square 0.2 (Liu et al. 2025, https://arxiv.org/abs/2502.16982, section 2.2). All other
    parameters are Adam's with Nesterov momentum, without decay.

    Args:
      learning_rate: of matrices.
      momentum: of their gradients.
      iterations: of Newton–Schulz; 5 in the source, of which 3 are cheaper and enough.
      b1, b2: of Adam.
      weight_decay: of matrices.
      others: Adam's learning rate, as a share of `learning_rate`.
      frozen: see `Optimizer`.
    """
    schedule = _as_schedule(learning_rate)
    transform = optax.contrib.muon(
        learning_rate, ns_steps=iterations, beta=momentum, weight_decay=weight_decay, adam_b1=b1,
        adam_b2=b2, adam_learning_rate=lambda step: others * schedule(step), consistent_rms=0.2)
    return Optimizer(transform=transform, learning_rate=schedule, frozen=tuple(frozen))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartOptimizer:
    """Training of one part of a model; see `by_part`."""

    optimizer: Optimizer
    clip_norm: float | None = None  # of the part's gradient, beyond which it is scaled down
    every: int = 1  # steps; the part moves at the last of so many, by that step's gradient

    def __post_init__(self):
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UserError(f"PartOptimizer.clip_norm={self.clip_norm} must be positive or None")
        if self.every < 1:
            raise UserError(f"PartOptimizer.every={self.every} must be at least 1")

    @property
    def transform(self) -> optax.GradientTransformation:
        """No update, and no change of the optimizer's state, between the part's own steps."""
        transform = self.optimizer.transform
        if self.clip_norm is not None:
            transform = optax.chain(optax.clip_by_global_norm(self.clip_norm), transform)
        if self.every == 1:
            return transform
        return optax.conditionally_mask(transform, lambda step: (step + 1) % self.every == 0)

    def learning_rate(self, step: jax.Array) -> jax.Array:
        """Returns the rate after `step` steps of the trainer."""
        return self.optimizer.learning_rate(step // self.every)


def by_part(*, parts: Mapping[str, PartOptimizer]) -> Optimizer:
    """An own optimizer for each part of a model, such as a generator and its discriminator.

    With `every` = 3 for the generator there are three discriminator steps to
    one of its own. The learning rate that is logged is that of the first part.
    `frozen` patterns of all parts are searched in whole paths ('generator/a/kernel').

    Args:
      parts: by top-level name of the parameters; a part without parameters is idle.

    Raises UserError, when it meets the parameters, for those that are of no part.
    """
    if not parts:
        raise UserError("by_part.parts is empty; give an optimizer for each part of the model")

    def labels(params: Params) -> dict[str, str]:
        for name in sorted(set(params) - set(parts)):
            raise UserError(f"by_part has no optimizer for the model's part {name!r}, only for "
                            f"{', '.join(parts)}")
        return {name: name for name in params}

    return Optimizer(
        transform=optax.multi_transform({k: part.transform for k, part in parts.items()}, labels),
        learning_rate=next(iter(parts.values())).learning_rate,
        frozen=tuple(p for part in parts.values() for p in part.optimizer.frozen))


def tracking(*, optimizer: Optimizer, momentum: float = 0.99,
             pattern: str = r"(^|/)running_[a-z]+$") -> Optimizer:
    """`optimizer`, but running statistics of batch norms follow those of the batches.

    running ← momentum · running + (1 − momentum) · the batch's, as `networks.layers.follow` makes the
    gradient of the first their distance.

    Args:
      optimizer: of all other parameters.
      momentum: in [0, 1).
      pattern: regular expression of the statistics' paths ('a/b/running_mean').

    Raises UserError for a momentum out of its range.
    """
    if not 0 <= momentum < 1:
        raise UserError(f"tracking.momentum={momentum} must be in 0..1, and below 1")

    def labels(params: Params) -> Params:
        tracked = frozen_mask(params, [pattern], strict=False)
        return jax.tree.map(lambda is_statistic: "tracked" if is_statistic else "trained", tracked)

    transform = optax.multi_transform(
        {"trained": optimizer.transform, "tracked": optax.sgd(1 - momentum)}, labels)
    return dataclasses.replace(optimizer, transform=transform)


def plateau(*, optimizer: Optimizer, window: int, factor: float = 0.5, patience: int = 10,
            floor: float = 0.02) -> Optimizer:
    """`optimizer`, with smaller updates whenever the loss has not fallen for a while.

    That of training, of which the means of `window` steps are compared; a mean that is not below the least
    one by 1e-4 of it counts as no fall. The learning rate that is logged is that of the beginning.

    Args:
      optimizer: of all parameters.
      window: steps, such as those of an epoch.
      factor: by which updates become smaller, in 0..1.
      patience: windows without a fall before they do.
      floor: least share of the updates that is left.

    Raises UserError: a number out of its range; or, with the first step, by a trainer that does not give
    optimizers the loss, as t5x does not.
    """
    if window < 1 or patience < 1 or not (0 < factor < 1 and 0 <= floor <= 1):
        raise UserError(f"plateau needs {window=} and {patience=} of at least 1, {factor=} between 0 and 1 "
                        f"and {floor=} in 0..1")
    watching = optax.contrib.reduce_on_plateau(
        factor=factor, patience=patience, rtol=1e-4, accumulation_size=window, min_scale=floor)

    def update(updates, state, params=None, *, value=None, **others):
        if value is None:
            raise UserError("plateau: this trainer does not give optimizers the loss; use python -m "
                            "music_diffusion.train, or another schedule")
        return watching.update(updates, state, params, value=value, **others)

    watched = optax.GradientTransformationExtraArgs(watching.init, update)
    return dataclasses.replace(optimizer, transform=optax.chain(optimizer.transform, watched))


def frozen_mask(params: Params, patterns: Sequence[str], *, strict: bool) -> Params:
    """True where a parameter's path ('a/b/kernel') matches one of `patterns`.

    Raises UserError for a pattern that matches nothing, if `strict`.
    """
    unmatched = set(patterns)

    def matches(path, _) -> bool:
        name = "/".join(str(p.key) for p in path)
        hits = {p for p in patterns if re.search(p, name)}
        unmatched.difference_update(hits)
        return bool(hits)

    mask = jax.tree_util.tree_map_with_path(matches, params)
    if strict and unmatched:
        raise UserError(f"frozen={sorted(unmatched)[0]!r} matches no parameter; "
                        "it is a regular expression searched in paths such as 'encoder/kernel'")
    return mask


def skip_frozen(
    transform: optax.GradientTransformation, mask: Params
) -> optax.GradientTransformation:
    """`transform` where `mask` is False; no update and no optimizer state where it is True."""
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", mask)
    return optax.multi_transform({"trained": transform, "frozen": optax.set_to_zero()}, labels)


def _as_schedule(learning_rate: float | Schedule) -> Schedule:
    return learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)
