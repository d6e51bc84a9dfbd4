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
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.diffusion.schedules import alpha_sigma
from music_diffusion.errors import UserError


class Solver(Protocol):
    """One algorithm; the state is whatever it must remember between steps."""

    order: ClassVar[int]  # global order of convergence to the probability-flow ODE or SDE

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
    ) -> tuple[Any, Float[Array, "..."]]:
        """Steps from ``z`` at ``logsnr_t`` to ``z_s`` at ``logsnr_s`` (scalars, s the cleaner).

        Returns the new state and z_s. ``rng`` is for this step alone; a
        deterministic solver ignores it.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DDPM:
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

    def init(self, z: Float[Array, "..."]) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(
        self, state: tuple[()], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray,
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
class DDIM:
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

    def init(self, z: Float[Array, "..."]) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(
        self, state: tuple[()], z: Array, x0: Array, eps: Array,
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray,
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
        logsnr_t: Array, logsnr_s: Array, rng: PRNGKeyArray,
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
