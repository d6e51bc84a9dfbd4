"""The one training loss of all diffusion models.

    L = E_{t, ε} d(network(α x0 + σ ε, λ(t)), target(x0, ε))               (1)

(Ho et al. 2020, https://arxiv.org/abs/2006.11239, equation 14, for d squared
and target ε.) What differs between models is injected: the schedule λ(t), what
the network predicts, the distance d, and how t is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from music_diffusion.diffusion.parameterizations import DenoiseFn, Parameterization
from music_diffusion.diffusion.schedules import Schedule, alpha_sigma, per_example
from music_diffusion.errors import UserError


def l1(pred: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """Absolute error, elementwise."""
    return jnp.abs(pred - target)


def squared(pred: Float[Array, "..."], target: Float[Array, "..."]) -> Float[Array, "..."]:
    """Squared error, elementwise."""
    return jnp.square(pred - target)


def uniform_times(rng: PRNGKeyArray, batch_size: int) -> Float[Array, " B"]:
    """B independent times, uniform on [0, 1)."""
    return jax.random.uniform(rng, (batch_size,))


def stratified_times(rng: PRNGKeyArray, batch_size: int) -> Float[Array, " B"]:
    """B times, each uniform on [0, 1), one in every B-th of the interval.

        t_i = (u + i / B) mod 1,   u ~ U[0, 1)

    The low-discrepancy sampler of Kingma et al. 2021
    (https://arxiv.org/abs/2107.00630): the same expectation of the loss with
    less variance. The strata follow the batch in
    order, so examples must not be sorted within it.
    """
    return (jax.random.uniform(rng, ()) + jnp.arange(batch_size) / batch_size) % 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteTimes:
    """B independent times i / T with i uniform on 1, ..., T: DDPM's T training steps.

    Ho et al. 2020 (https://arxiv.org/abs/2006.11239, algorithm 1). Step T is the noisiest,
    and step 0, the data, is not drawn. These are the points where a sampler of T steps
    evaluates the network with ``sampling.UniformTime``; one of N steps does so at some of
    them where N divides T (250 of 1000 in Maman et al. 2024).
    """

    steps: int = 1000  # T, from 1

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"DiscreteTimes: {self.steps=} must be at least 1")

    def __call__(self, rng: PRNGKeyArray, batch_size: int) -> Float[Array, " B"]:
        """Draws them, in (0, 1]."""
        return jax.random.randint(rng, (batch_size,), 1, self.steps + 1) / self.steps


def diffusion_loss(
    denoise: DenoiseFn,
    x0: Float[Array, "B ..."],
    rng: PRNGKeyArray,
    *,
    schedule: Schedule,
    parameterization: Parameterization,
    distance: Callable[[Array, Array], Array],
    mask: Shaped[Array, "..."] | None = None,
    times: Callable[[PRNGKeyArray, int], Array] = uniform_times,
    clip_x0: tuple[float, float] | None = (-1.0, 1.0),
    output_scale: Callable[[Array], Array] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Equation 1 on one batch, one (t, ε) per example.

    Args:
      denoise: (z [B, ...], logsnr [B]) -> raw output [B, ...].
      x0: clean data [B, ...].
      rng: key for t and ε; the network's own randomness is the closure's affair.
      schedule: log-SNR as a function of time.
      parameterization: what the raw output means.
      distance: elementwise (pred, target) -> error, e.g. ``l1`` or ``squared``.
      mask: weights >= 0 (or booleans) of the rank of ``x0``, broadcast to it, e.g.
        [B, T, 1] with 0 for padding. The loss is the weighted mean, and 0 where
        nothing is valid.
      times: draws B times; ``uniform_times``, ``stratified_times`` or ``DiscreteTimes``.
      clip_x0: range to which the metric's x0 is clipped, as a sampler would;
        without it the ε-parameterization magnifies errors at low log-SNR until
        nothing else is seen. It does not touch the loss.
      output_scale: (logsnr [B]) -> factors [B] on output and target before the
        distance: a weight of the noise levels, in the units of the output.

    Returns:
      The loss, and metrics ``loss`` and ``x0_mse``, all scalars.
    """
    rng_t, rng_eps = jax.random.split(rng)
    dtype = jnp.promote_types(x0.dtype, jnp.float32)
    x0 = x0.astype(dtype)
    logsnr = schedule.logsnr(times(rng_t, x0.shape[0]).astype(dtype))
    eps = jax.random.normal(rng_eps, x0.shape, dtype)
    alpha, sigma = alpha_sigma(per_example(logsnr, x0.ndim))
    z = alpha * x0 + sigma * eps

    output = denoise(z, logsnr).astype(dtype)
    target = parameterization.target(x0, eps, logsnr)
    factor = 1.0 if output_scale is None else per_example(output_scale(logsnr), x0.ndim)
    loss = masked_mean(distance(factor * output, factor * target), mask)

    x0_pred = jax.lax.stop_gradient(parameterization.to_x0(output, z, logsnr))
    if clip_x0 is not None:
        x0_pred = jnp.clip(x0_pred, *clip_x0)
    return loss, {"loss": loss, "x0_mse": masked_mean(squared(x0_pred, x0), mask)}


def masked_mean(
    values: Float[Array, "..."], mask: Shaped[Array, "..."] | None
) -> Float[Array, ""]:
    """Mean of ``values`` weighted by ``mask`` (same rank, broadcast); 0 if all weights are 0."""
    if mask is None:
        return jnp.mean(values)
    weights = jnp.broadcast_to(mask.astype(values.dtype), values.shape)
    total = jnp.sum(weights)
    return jnp.sum(values * weights) / jnp.where(total > 0, total, 1.0)
