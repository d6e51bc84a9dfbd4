"""Solvers: one step from noise level t to the lower noise level s.

A solver is ``init``, ``step`` and ``order``. It is given the prediction (x0, ε)
of a network it does not know, consistent with z = α_t x0 + σ_t ε. λ is the
log-SNR, λ_s > λ_t, and

    c = 1 − exp(λ_t − λ_s)                                                 (1)

so that the variance that the forward process adds from s to t is
σ²_{t|s} = σ_t² c (Kingma et al. 2021, https://arxiv.org/abs/2107.00630,
appendix A).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.diffusion.schedules import alpha_sigma
from music_diffusion.errors import UserError

# (z at a log-SNR, the log-SNR) → (x0, ε): what the network predicts there.
Predict = Callable[[Array, Array], tuple[Array, Array]]


class Solver(Protocol):
    """One algorithm; the state is whatever it must remember between steps."""

    @property
    def order(self) -> int:
        """Returns the global order of convergence to the probability-flow ODE or SDE."""
        ...

    def init(self, z: Float[Array, "..."]) -> Any:
        """State before the first step: a pytree of arrays of fixed shapes."""
        ...

    def step(
        self,
        state: Any,
        z: Float[Array, "..."],
        x0: Float[Array, "..."],
        eps: Float[Array, "..."],
        logsnr_t: Float[Array, ""],
        logsnr_s: Float[Array, ""],
        rng: PRNGKeyArray,
        predict: Predict,
    ) -> tuple[Any, Float[Array, "..."]]:
        """Steps from ``z`` at ``logsnr_t`` to ``z_s`` at ``logsnr_s`` (scalars, s the cleaner).

        Returns the new state and z_s. ``rng`` is for this step alone; a
        deterministic solver ignores it. ``predict`` evaluates the network once
        more, for a solver of two evaluations a step.
        """
        ...


class Memoryless:
    """A solver that remembers nothing between steps."""

    def init(self, z: Float[Array, "..."]) -> tuple[()]:
        """Returns that nothing is remembered."""
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM(Memoryless):
    """Ancestral sampling: the posterior q(z_s | z_t, x0) at the predicted x0.

    Ho et al. 2020 (https://arxiv.org/abs/2006.11239, equations 6 and 7):

        mean = e^(λ_t − λ_s) (α_s / α_t) z + c α_s x0                      (2)
        small variance = c σ_s²    (β̃, right for data in one point)        (3)
        large variance = c σ_t²    (β, right for data ~ N(0, I))           (4)

    and the logarithm of the variance in use lies ``log_variance`` of the way
    from small to large (Nichol & Dhariwal 2021, equation 15, with a constant).
    """

    log_variance: float = 1.0  # 0: small, 1: large (spectrogram diffusion), between: blend
    order: ClassVar[int] = 1

    def __post_init__(self):
        if isinstance(self.log_variance, str) or not 0.0 <= self.log_variance <= 1.0:
            raise UserError(
                f"{self.log_variance=} must be a number from 0 (small variance) to 1 (large)")

    def step(
        self, state: tuple[()], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray, predict: Predict,
    ) -> tuple[tuple[()], Array]:
        """A draw from equations 2 to 4."""
        alpha_t, sigma_t = alpha_sigma(logsnr_t)
        alpha_s, sigma_s = alpha_sigma(logsnr_s)
        c = -jnp.expm1(logsnr_t - logsnr_s)
        mean = jnp.exp(logsnr_t - logsnr_s) * (alpha_s / alpha_t) * z + c * alpha_s * x0
        # The blend of logarithms as a product of powers: no logarithm of c = 0.
        std = jnp.sqrt(c) * sigma_s ** (1.0 - self.log_variance) * sigma_t**self.log_variance
        return state, mean + std * jax.random.normal(rng, z.shape, z.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDIM(Memoryless):
    """Song et al. 2021, "DDIM" (https://arxiv.org/abs/2010.02502, equations 12 and 16).

        z_s = α_s x0 + sqrt(σ_s² − ς²) ε + ς ε',   ς = η σ_s sqrt(c)       (5)

    with fresh noise ε'. ``eta`` 0 is deterministic, a first-order solver of the
    probability-flow ODE; ``eta`` 1 is DDPM with the small variance.
    """

    eta: float = 0.0  # 0 (deterministic) to 1 (ancestral); share of the posterior's deviation
    order: ClassVar[int] = 1

    def __post_init__(self):
        if not 0.0 <= self.eta <= 1.0:
            raise UserError(f"{self.eta=} must be a number from 0 (deterministic) to 1 (ancestral)")

    def step(
        self, state: tuple[()], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray, predict: Predict,
    ) -> tuple[tuple[()], Array]:
        """Equation 5."""
        alpha_s, sigma_s = alpha_sigma(logsnr_s)
        if self.eta == 0.0:  # no noise to draw; `0 * noise` would be computed
            return state, alpha_s * x0 + sigma_s * eps
        c = -jnp.expm1(logsnr_t - logsnr_s)
        # sqrt(σ_s² − ς²) with σ_s² factored out cannot meet a negative number.
        mean = alpha_s * x0 + sigma_s * jnp.sqrt(1.0 - self.eta**2 * c) * eps
        std = self.eta * sigma_s * jnp.sqrt(c)
        return state, mean + std * jax.random.normal(rng, z.shape, z.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolverPP2M:
    """DPM-Solver++(2M): second-order multistep, deterministic, one evaluation a step.

    Lu et al. 2022 (https://arxiv.org/abs/2211.01095, algorithm 2), with
    h = (λ_s − λ_t) / 2 and r = h_previous / h:

        D = (1 + 1 / (2 r)) x0 − 1 / (2 r) x0_previous                     (6)
        z_s = (σ_s / σ_t) z − α_s (e^(−h) − 1) D                           (7)

    The first step, which has no previous x0, is a DDIM step (D = x0).
    """

    order: ClassVar[int] = 2

    def init(self, z: Float[Array, "..."]) -> tuple[Array, Array]:
        """(x0_previous, h_previous); h_previous = 0 says that there is none."""
        return jnp.zeros_like(z), jnp.zeros((), z.dtype)

    def step(
        self, state: tuple[Array, Array], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray, predict: Predict,
    ) -> tuple[tuple[Array, Array], Array]:
        """Equations 6 and 7."""
        x0_previous, h_previous = state
        _, sigma_t = alpha_sigma(logsnr_t)
        alpha_s, sigma_s = alpha_sigma(logsnr_s)
        h = 0.5 * (logsnr_s - logsnr_t)
        has_previous = h_previous > 0
        weight = jnp.where(has_previous, 0.5 * h / jnp.where(has_previous, h_previous, 1.0), 0.0)
        d = x0 + weight * (x0 - x0_previous)
        return (x0, h), (sigma_s / sigma_t) * z - alpha_s * jnp.expm1(-h) * d


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun(Memoryless):
    """Heun's method of second order, deterministic, two evaluations a step.

    Karras et al. 2022, "EDM" (https://arxiv.org/abs/2206.00364, algorithm 1). With y = z / α
    and their noise level ς = σ / α = e^(−λ/2), the flow is dy/dς = (y − x0) / ς, which is ε:

        y' = y_t + (ς_s − ς_t) ε_t                                         (8)
        z_s = α_s (y_t + (ς_s − ς_t) (ε_t + ε(y', ς_s)) / 2)               (9)
    """

    order: ClassVar[int] = 2

    def step(
        self, state: tuple[()], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray, predict: Predict,
    ) -> tuple[tuple[()], Array]:
        """Equations 8 and 9."""
        alpha_s, sigma_s = alpha_sigma(logsnr_s)
        # α_s y_t with the noise of equation 8 is what DDIM makes, without α_t in a denominator.
        _, eps_s = predict(alpha_s * x0 + sigma_s * eps, logsnr_s)
        # ς_s − ς_t = ς_s (1 − e^((λ_s − λ_t) / 2)), and α_s ς_s = σ_s.
        rise = -sigma_s * jnp.expm1(0.5 * (logsnr_s - logsnr_t))
        return state, alpha_s * x0 + sigma_s * eps + 0.5 * rise * (eps_s - eps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniPC:
    """Predictor and corrector of one order, deterministic, one evaluation a step.

    Zhao et al. 2023 (https://arxiv.org/abs/2302.04867, algorithms 1 and 2, data prediction). In
    λ' = λ / 2 the flow is z_s / σ_s = z_t / σ_t + ∫ e^λ' x0 dλ' from t to s. In place of x0 stands the
    polynomial through what was predicted at the last p points; once the network was evaluated at
    the predicted z_s, the step is done again with that point, too, and what was predicted there
    serves the next step: order p + 1. Where the authors leave a choice (B(h), and a weight of 1/2
    for the lowest order), the integral is taken exactly.

    The first steps, which know fewer points, are of a lower order.
    """

    points: int = 2  # p, of the predictor, 1 to 3; the authors take 3, and 2 with guidance

    def __post_init__(self):
        if self.points not in (1, 2, 3):
            raise UserError(f"UniPC: {self.points=} must be 1, 2 or 3")

    @property
    def order(self) -> int:
        """Returns p + 1."""
        return self.points + 1

    def init(self, z: Float[Array, "..."]) -> tuple[Array, Array, Array, Array]:
        """(z before the last step, the last p x0, their λ', how many there are)."""
        return (jnp.zeros_like(z), jnp.zeros((self.points, *z.shape), z.dtype),
                jnp.zeros((self.points,), z.dtype), jnp.zeros((), jnp.int32))

    def step(
        self, state: tuple[Array, Array, Array, Array], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray, predict: Predict,
    ) -> tuple[tuple[Array, Array, Array, Array], Array]:
        """Corrects ``z``, which the step before predicted, and predicts z_s from it."""
        before, seen, at, count = state
        here, there = 0.5 * logsnr_t.astype(at.dtype), 0.5 * logsnr_s.astype(at.dtype)
        # After a step of no length (clipped ends of a schedule) the point is known already.
        new = (count == 0) | (here > at[0])
        points = jnp.concatenate([x0[None], seen]), jnp.concatenate([here[None], at])
        corrected = self._step(before, at[0], here, *points, count + 1)
        z = jnp.where(new & (count > 0), corrected, z)
        seen, at = (jnp.where(new, longer[:-1], known)
                    for longer, known in zip(points, (seen, at), strict=True))
        count = jnp.where(new, jnp.minimum(count + 1, self.points), count)
        return (z, seen, at, count), self._step(z, here, there, seen, at, count)

    def _step(self, z: Array, start: Array, end: Array, seen: Array, at: Array, count: Array) -> Array:
        """Integrates the polynomial through the first `count` of the points from `start` to `end`."""
        _, sigma_t = alpha_sigma(2 * start)
        alpha_s, sigma_s = alpha_sigma(2 * end)
        h = end - start
        size = len(at)
        # For steps of no length and points that are not there no division by 0.
        scale = jnp.where(h > 0, h, 1.0)
        used = jnp.arange(size) < count
        place = jnp.where(used, (at - start) / scale, jnp.arange(size, dtype=at.dtype) + 2)
        moments = jnp.stack(exponential_moments(scale, size))
        # Weights by which every polynomial of a degree below `count` is integrated exactly.
        powers = place[None] ** jnp.arange(size, dtype=at.dtype)[:, None]
        row, column = jnp.meshgrid(jnp.arange(size), jnp.arange(size), indexing="ij")
        known = (row < count) & (column < count)
        matrix = jnp.where(known, powers, (row == column).astype(at.dtype))
        weights = jnp.linalg.solve(matrix, jnp.where(used, moments, 0.0))
        integral = jnp.tensordot(jnp.where(h > 0, weights, 0.0), seen, axes=1)
        return (sigma_s / sigma_t) * z + alpha_s * integral


def exponential_moments(h: Array, count: int) -> list[Array]:
    """Returns ∫ h e^(h (u − 1)) u^k du from 0 to 1, k = 0 … count − 1, for a step h > 0 in λ'."""
    # By parts M_k = 1 − k M_(k−1) / h, which loses all digits where h is small; there the series
    # M_k = h Σ_j (−h)^j k! / (k + j + 1)!, whose terms fall from the first.
    by_parts = [-jnp.expm1(-h)]
    for k in range(1, count):
        by_parts.append(1.0 - k * by_parts[-1] / h)
    small = jnp.minimum(h, 1.0)
    series = [sum(small * (-small) ** j * (math.factorial(k) / math.factorial(k + j + 1))
                  for j in range(12)) for k in range(count)]
    return [jnp.where(h < 1.0, a, b) for a, b in zip(series, by_parts, strict=True)]
