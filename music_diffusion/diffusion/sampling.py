"""The one sampling loop: from noise to data, over injected parts.

Step i of N, i = N ... 1, goes from grid point i to grid point i − 1 of a
``TimeGrid`` (log-SNRs at t = i/N and s = (i − 1)/N for the uniform one); the
last returns its prediction of x0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.diffusion.parameterizations import DenoiseFn, Parameterization
from music_diffusion.diffusion.schedules import Schedule, alpha_sigma
from music_diffusion.diffusion.solvers import Solver
from music_diffusion.errors import UserError


class TimeGrid(Protocol):
    """Points at which the sampler evaluates the network."""

    def logsnrs(self, schedule: Schedule, num_steps: int, dtype: jnp.dtype) -> Float[Array, " N+1"]:
        """N + 1 log-SNRs, falling: index 0 is the data's end, index N the noise z_T."""
        ...

    def begun(self, share: float) -> TimeGrid:
        """Returns the last part of the way to the data, a share of it; above 0, and 1 for all of it."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTime:
    """t_i = start · i / N: steps of equal time of the schedule."""

    start: float = 1.0  # 0 < start <= 1, time of z_T; below 1 to start from partly noised data

    def __post_init__(self):
        if not 0.0 < self.start <= 1.0:
            raise UserError(f"{self.start=} must be above 0 and at most 1")

    def logsnrs(self, schedule: Schedule, num_steps: int, dtype: jnp.dtype) -> Float[Array, " N+1"]:
        """N + 1 log-SNRs, falling."""
        return schedule.logsnr(self.start * jnp.arange(num_steps + 1, dtype=dtype) / num_steps)

    def begun(self, share: float) -> UniformTime:
        """Returns the last part of the way to the data."""
        return UniformTime(start=share * self.start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformLogSNR:
    """Steps of equal log-SNR: more of them at low noise than in uniform time.

    Lu et al. 2022 (DPM-Solver, https://arxiv.org/abs/2206.00927); better for few
    steps. Ends beyond those of the schedule, where nothing was learned, are moved there.
    """

    logsnr_start: float = -10.0  # nat; log-SNR of z_T (noise), below logsnr_end
    logsnr_end: float = 10.0  # nat; log-SNR after the last step (data)

    def __post_init__(self):
        _check_ends(self.logsnr_start, self.logsnr_end)

    def logsnrs(self, schedule: Schedule, num_steps: int, dtype: jnp.dtype) -> Float[Array, " N+1"]:
        """N + 1 log-SNRs, falling."""
        end, start = _within(schedule, self.logsnr_end, self.logsnr_start, dtype)
        return jnp.linspace(end, start, num_steps + 1, dtype=dtype)

    def begun(self, share: float) -> UniformLogSNR:
        """Returns the last part of the way to the data."""
        start = self.logsnr_end + share * (self.logsnr_start - self.logsnr_end)
        return dataclasses.replace(self, logsnr_start=start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KarrasLogSNR:
    """Steps of equal (σ/α)^(1/ρ): between uniform in σ/α (ρ = 1) and in log-SNR (ρ → ∞).

    Karras et al. 2022 (https://arxiv.org/abs/2206.00364, equation 5; their σ is
    our σ/α = exp(−λ/2)). Ends beyond those of the schedule are moved there.
    """

    logsnr_start: float = -10.0  # nat; log-SNR of z_T (noise), below logsnr_end
    logsnr_end: float = 10.0  # nat; log-SNR after the last step (data)
    rho: float = 7.0  # > 0; higher: more steps at low noise

    def __post_init__(self):
        _check_ends(self.logsnr_start, self.logsnr_end)
        if not self.rho > 0.0:
            raise UserError(f"{self.rho=} must be above 0")

    def logsnrs(self, schedule: Schedule, num_steps: int, dtype: jnp.dtype) -> Float[Array, " N+1"]:
        """N + 1 log-SNRs, falling."""
        ends = _within(schedule, self.logsnr_end, self.logsnr_start, dtype)
        low, high = jnp.exp(-0.5 * ends / self.rho)
        return -2.0 * self.rho * jnp.log(jnp.linspace(low, high, num_steps + 1, dtype=dtype))

    def begun(self, share: float) -> KarrasLogSNR:
        """Returns the last part of the way to the data."""
        low, high = (math.exp(-0.5 * end / self.rho) for end in (self.logsnr_end, self.logsnr_start))
        start = -2.0 * self.rho * math.log(low + share * (high - low))
        return dataclasses.replace(self, logsnr_start=start)


def _within(schedule: Schedule, end: float, start: float, dtype: jnp.dtype) -> Float[Array, "2"]:
    """Returns both ends, within what the schedule reaches."""
    most, least = schedule.logsnr(jnp.asarray([0.0, 1.0], dtype))
    return jnp.clip(jnp.asarray([end, start], dtype), least, most)


TEXTURE_FRAMES = 3  # what a moving average over so many leaves is texture; odd


def tempered(eps: Float[Array, "B T F"], temperature: float, texture: float) -> Float[Array, "B T F"]:
    """Returns starting noise of other deviations: its moving average over frames, and what that leaves.

    Below 1 the first keeps samples near the mean of what a condition leaves open: the notes. The second is
    how partials beat and bows scrape, of which the mean sounds like nothing.

    Args:
      eps: unit noise.
      temperature: deviation of the moving average, and of all where both are the same.
      texture: deviation of the rest.
    """
    if temperature == texture:
        return temperature * eps
    half = TEXTURE_FRAMES // 2
    padded = jnp.pad(eps, ((0, 0), (half, half), (0, 0)), mode="symmetric")
    slow = sum(padded[:, i:i + eps.shape[1]] for i in range(TEXTURE_FRAMES)) / TEXTURE_FRAMES
    return temperature * slow + texture * (eps - slow)


def noised(x0: Float[Array, "B ..."], eps: Float[Array, "B ..."], schedule: Schedule, times: TimeGrid
           ) -> Float[Array, "B ..."]:
    """Returns α x0 + σ ε of the noise level at which a grid begins (`TimeGrid.begun`).

    Meng et al. 2022, "SDEdit" (https://arxiv.org/abs/2108.01073): what is sampled from it keeps of x0
    what the noise does not cover.
    """
    alpha, sigma = alpha_sigma(times.logsnrs(schedule, 1, jnp.float32)[-1])
    return alpha * x0 + sigma * eps


def sample(
    denoise: DenoiseFn,
    z_T: Float[Array, "B ..."],
    rng: PRNGKeyArray,
    *,
    schedule: Schedule,
    parameterization: Parameterization,
    solver: Solver,
    num_steps: int,
    times: TimeGrid = UniformTime(),
    clip_x0: tuple[float, float] | None = (-1.0, 1.0),
    x0_hook: Callable[[Array], Array] | None = None,
    passes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Array, "B ..."]:
    """Draws B samples with ``num_steps`` steps of a solver.

    One ``lax.scan``: the network is traced and compiled once. The function is
    pure and may be jitted with everything but the arrays bound.

    Args:
      denoise: (z [B, ...], logsnr [B]) -> raw output [B, ...], conditions and
        guidance inside.
      z_T: noise N(0, I) [B, ...] (or data noised to the first point of ``times``).
      rng: step i uses ``fold_in(rng, i)``; deterministic solvers ignore it.
      schedule: as in training; read by ``times``.
      parameterization: what the raw output means.
      solver: the algorithm of a step.
      num_steps: N >= 1.
      times: the N + 1 points.
      clip_x0: range of the data to which every predicted x0 is clipped; None: free.
      x0_hook: applied to every predicted x0 [B, ...] after clipping, the last one
        included, e.g. to cross-fade neighbouring segments along their overlap (Maman et al.
        2024, section 3.3). Must keep shape and dtype.
      passes: how often each step is done: after all but the last time its result is noised again,
        back to where the step began. More than 1 where ``x0_hook`` puts in what is known
        (Lugmayr et al. 2022, "RePaint", https://arxiv.org/abs/2201.09865, algorithm 1): the rest
        comes to agree with it.
      progress: host function (steps done, N), called in order after each step;
        ``jax.effects_barrier()`` waits for the last call. Needs one device.

    Returns:
      x0 [B, ...] as predicted in the last step, clipped and hooked; at least float32.

    Raises:
      UserError: ``num_steps`` or ``passes`` below 1.
    """
    if num_steps < 1 or passes < 1:
        raise UserError(f"{num_steps=} and {passes=} must be at least 1")
    dtype = jnp.promote_types(z_T.dtype, jnp.float32)
    z_T = z_T.astype(dtype)
    logsnrs = times.logsnrs(schedule, num_steps, dtype)

    def predict(z, logsnr):
        logsnr_B = jnp.full((z.shape[0],), logsnr)
        output = denoise(z, logsnr_B).astype(dtype)
        x0 = parameterization.to_x0(output, z, logsnr_B)
        if clip_x0 is None and x0_hook is None:
            return x0, parameterization.to_eps(output, z, logsnr_B)
        if clip_x0 is not None:
            x0 = jnp.clip(x0, *clip_x0)
        if x0_hook is not None:
            x0 = x0_hook(x0)
        alpha, sigma = alpha_sigma(logsnr)
        return x0, (z - alpha * x0) / sigma  # the ε that goes with the changed x0

    def body(carry, i):
        state, z, _ = carry
        logsnr_t, logsnr_s = logsnrs[i], logsnrs[i - 1]
        rng_i = jax.random.fold_in(rng, i)

        def step(z, rng):
            x0, eps = predict(z, logsnr_t)
            return x0, solver.step(state, z, x0, eps, logsnr_t, logsnr_s, rng, predict)

        def back_and_forth(k, z):
            rng_step, rng_noise = jax.random.split(jax.random.fold_in(rng_i, k))
            _, (_, z_s) = step(z, rng_step)
            return _noised_again(z_s, logsnr_s, logsnr_t, rng_noise)

        if passes > 1:
            z = jax.lax.fori_loop(1, passes, back_and_forth, z)
        x0, (state, z) = step(z, rng_i)
        if progress is not None:
            _report(progress, num_steps + 1 - i, num_steps, x0)
        return (state, z, x0), None

    carry = (solver.init(z_T), z_T, jnp.zeros_like(z_T))
    (_, _, x0), _ = jax.lax.scan(body, carry, jnp.arange(num_steps, 0, -1))
    return x0


def _noised_again(z_s: Array, logsnr_s: Array, logsnr_t: Array, rng: PRNGKeyArray) -> Array:
    """Draws z_t from z_s, t the noisier: q(z_t | z_s) of the forward process."""
    alpha_s, _ = alpha_sigma(logsnr_s)
    alpha_t, sigma_t = alpha_sigma(logsnr_t)
    added = sigma_t * jnp.sqrt(-jnp.expm1(logsnr_t - logsnr_s))  # equation 1 of `solvers`
    return alpha_t / alpha_s * z_s + added * jax.random.normal(rng, z_s.shape, z_s.dtype)


def _report(
    progress: Callable[[int, int], None], done: Array, total: int, x0: Float[Array, "..."]
) -> None:
    """Calls ``progress`` on the host; one number of ``x0`` goes along so that it comes after it."""
    jax.debug.callback(
        lambda done, _: progress(int(done), total), done, x0.reshape(-1)[0], ordered=True)


def _check_ends(logsnr_start: float, logsnr_end: float) -> None:
    if not logsnr_start < logsnr_end:
        raise UserError(f"logsnr_start ({logsnr_start}) must be below logsnr_end ({logsnr_end})")
