"""Noise schedules: log-SNR as a function of diffusion time, and back.

The forward process is variance preserving (Kingma et al. 2021, "Variational
Diffusion Models", https://arxiv.org/abs/2107.00630, section 3.1; λ below is
the log-SNR, −γ in that paper):

    z = α x0 + σ ε,   ε ~ N(0, I)                                          (1)
    λ = ln(α² / σ²),   α² = sigmoid(λ),   σ² = sigmoid(−λ)                 (2)

Time t runs from 0 (data) to 1 (noise), and λ falls monotonically with it.
Everything after a schedule (losses, networks, solvers) sees λ only.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from music_diffusion.errors import UserError


class Schedule(Protocol):
    """A monotonic function of time and its inverse, elementwise over any shape."""

    def logsnr(self, t: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Log-SNR at time ``t`` in [0, 1]; falls with ``t``."""
        ...

    def inverse(self, logsnr: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """The time in [0, 1] at which ``logsnr`` is reached."""
        ...


def alpha_sigma(logsnr: Float[ArrayLike, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Signal and noise scales (α, σ) of equation 2, with the shape of ``logsnr``.

    Computed in the logarithm, so that the smaller of the two keeps its full
    relative precision at both ends (4.5e-5 at a log-SNR of ±20).
    """
    logsnr = jnp.asarray(logsnr)
    return jnp.exp(0.5 * jax.nn.log_sigmoid(logsnr)), jnp.exp(0.5 * jax.nn.log_sigmoid(-logsnr))


def per_example(logsnr: Float[ArrayLike, "..."], ndim: int) -> Float[Array, "..."]:
    """Appends axes of length 1 to ``logsnr`` [B], so that it meets data [B, ...] of rank ``ndim``.

    A scalar passes unchanged.
    """
    logsnr = jnp.asarray(logsnr)
    if logsnr.ndim == 0:
        return logsnr
    return logsnr.reshape(logsnr.shape + (1,) * (ndim - logsnr.ndim))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    """Cosine schedule in continuous time.

    Nichol & Dhariwal 2021 (https://arxiv.org/abs/2102.09672, equation 17, without
    its offset) set α = cos(π t / 2); in log-SNR, with both ends cut:

        λ(t) = −2 ln tan(a t + b)                                          (3)
        b = atan exp(−λ_max / 2),   a = atan exp(−λ_min / 2) − b
        t(λ) = (atan exp(−λ / 2) − b) / a                                  (4)

    ``shift`` is added to λ and the sum clipped to [λ_min, λ_max] (Hoogeboom et
    al. 2023, "simple diffusion", https://arxiv.org/abs/2301.11093).
    A pair of signal rates (α_min, α_max), as other code bases have it, is the
    pair λ = ln(α² / (1 − α²)).
    """

    logsnr_min: float = -20.0  # nat; log-SNR at t = 1 (noise), below logsnr_max
    logsnr_max: float = 20.0  # nat; log-SNR at t = 0 (data)
    shift: float = 0.0  # nat; below 0: more noise at every t

    def __post_init__(self):
        _check_bounds(self.logsnr_min, self.logsnr_max)
        if not abs(self.shift) < self.logsnr_max - self.logsnr_min:
            raise UserError(f"{self.shift=} must be smaller than the range of the log-SNR")

    @property
    def _angles(self) -> tuple[float, float, float]:
        """(a, b, π/2 − (a + b)), the last without cancellation."""
        b = math.atan(math.exp(-0.5 * self.logsnr_max))
        a = math.atan(math.exp(-0.5 * self.logsnr_min)) - b
        return a, b, math.atan(math.exp(0.5 * self.logsnr_min))

    def logsnr(self, t: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Equation 3, plus ``shift``, clipped."""
        t = jnp.asarray(t, dtype=_float_dtype(t))
        a, b, c = self._angles
        # tan(u) = sin(u) / sin(π/2 − u). float32 tan alone is wrong by 1e-3 nat at t = 1, where
        # its argument is 4.5e-5 from π/2; the complementary angle keeps that distance exact.
        logsnr = 2.0 * (jnp.log(jnp.sin(a * (1.0 - t) + c)) - jnp.log(jnp.sin(a * t + b)))
        return jnp.clip(logsnr + self.shift, self.logsnr_min, self.logsnr_max)

    def inverse(self, logsnr: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Equation 4; log-SNRs that the schedule does not reach give the nearer end."""
        logsnr = jnp.asarray(logsnr, dtype=_float_dtype(logsnr))
        a, b, _ = self._angles
        t = (jnp.arctan(jnp.exp(-0.5 * (logsnr - self.shift))) - b) / a
        return jnp.clip(t, 0.0, 1.0)


def signal_rates(*, lowest: float = 0.02, highest: float = 0.95) -> CosineSchedule:
    """Returns the cosine schedule whose α falls from `highest` at t = 0 to `lowest` at t = 1.

        α(t) = cos(acos α_max + t (acos α_min − acos α_max))

    (Béres 2022, "Denoising diffusion implicit models", keras.io; what DiffTransfer and others took over.)

    Raises UserError unless 0 < lowest < highest < 1.
    """
    if not 0 < lowest < highest < 1:
        raise UserError(f"signal_rates: 0 < {lowest=} < {highest=} < 1 does not hold")
    low, high = (2 * math.log(rate) - math.log1p(-rate * rate) for rate in (lowest, highest))
    return CosineSchedule(logsnr_min=low, logsnr_max=high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearLogSNRSchedule:
    """Log-SNR that falls linearly with time.

        λ(t) = λ_max + t (λ_min − λ_max)                                   (5)

    The plainest schedule; uniform t then weighs all log-SNRs alike in the loss.
    """

    logsnr_min: float = -20.0  # nat; log-SNR at t = 1 (noise), below logsnr_max
    logsnr_max: float = 20.0  # nat; log-SNR at t = 0 (data)

    def __post_init__(self):
        _check_bounds(self.logsnr_min, self.logsnr_max)

    def logsnr(self, t: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Equation 5."""
        t = jnp.asarray(t, dtype=_float_dtype(t))
        return self.logsnr_max * (1.0 - t) + self.logsnr_min * t

    def inverse(self, logsnr: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Equation 5 solved for t; out-of-range log-SNRs give the nearer end."""
        logsnr = jnp.asarray(logsnr, dtype=_float_dtype(logsnr))
        t = (self.logsnr_max - logsnr) / (self.logsnr_max - self.logsnr_min)
        return jnp.clip(t, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearBetaSchedule:
    """The DDPM schedule (β linear in time) in continuous time.

    Ho et al. 2020 (https://arxiv.org/abs/2006.11239) as the limit of many
    steps, Song et al. 2021 (https://arxiv.org/abs/2011.13456, appendix C):

        α² = exp(−I),   I(t) = β_min t + (β_max − β_min) t² / 2            (6)
        λ = −ln(e^I − 1)                                                   (7)

    The defaults are DDPM's β of 1e-4 to 0.02 over 1000 steps.
    """

    beta_min: float = 0.1  # 1/time, >= 0; noise rate at t = 0
    beta_max: float = 20.0  # 1/time, > beta_min; noise rate at t = 1
    logsnr_max: float = 20.0  # nat; λ is clipped here, where equation 7 runs to infinity

    def __post_init__(self):
        if not 0.0 <= self.beta_min < self.beta_max:
            raise UserError(f"{self.beta_min=} must be at least 0 and below {self.beta_max=}")

    def logsnr(self, t: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Equations 6 and 7."""
        t = jnp.asarray(t, dtype=_float_dtype(t))
        integral = self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2
        # The clip is on the integral, so that the logarithm never sees 0 (nor its gradient).
        lowest = math.log1p(math.exp(-self.logsnr_max))
        return -jnp.log(jnp.expm1(jnp.maximum(integral, lowest)))

    def inverse(self, logsnr: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
        """The root of equation 6; out-of-range log-SNRs give the nearer end."""
        logsnr = jnp.asarray(logsnr, dtype=_float_dtype(logsnr))
        integral = jax.nn.softplus(-logsnr)  # I = ln(1 + e^−λ)
        slope = self.beta_max - self.beta_min
        t = 2.0 * integral / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * integral))
        return jnp.clip(t, 0.0, 1.0)


def _float_dtype(x: ArrayLike) -> jnp.dtype:
    """Returns float32 at least: log-SNRs in bfloat16 would be off by up to 0.06 nat."""
    return jnp.promote_types(jnp.result_type(x), jnp.float32)


def _check_bounds(logsnr_min: float, logsnr_max: float) -> None:
    if not logsnr_min < logsnr_max:
        raise UserError(f"logsnr_min ({logsnr_min}) must be below logsnr_max ({logsnr_max})")
