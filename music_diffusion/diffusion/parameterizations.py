"""Meanings of a network's output: the noise ε, the data x0, or the velocity v.

With z = α x0 + σ ε and α² + σ² = 1, Salimans & Ho 2022 ("Progressive
Distillation", https://arxiv.org/abs/2202.00512, section 4 and appendix D):

    v  = α ε − σ x0                                                        (1)
    x0 = (z − σ ε) / α = α z − σ v                                         (2)
    ε  = (z − α x0) / σ = σ z + α v                                        (3)
    v  = (α z − x0) / σ                                                    (4)

All are affine in each other at given z, so one may turn a prediction of one
kind into another: ``V().target(p.to_x0(output, z, logsnr), p.to_eps(output, z,
logsnr), logsnr)``.

Numerical safety. At a log-SNR of −20, α is 4.5e-5 and division by it (x0 from
ε) magnifies an error of the prediction 22,000 times; at +20 the same holds for
division by σ (ε from x0). In float32, rounding alone then makes up to 5e-3. The
results stay finite, and a sampler that clips x0 and then derives ε from it
(``sampling.sample``) is not hurt, as x0 counts little where α is small and ε
little where σ is. V divides by neither, at any log-SNR.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from jaxtyping import Array, Float

from music_diffusion.diffusion.schedules import alpha_sigma, per_example

# A network with its conditions bound: (z [B, ...], logsnr [B]) -> raw output [B, ...].
DenoiseFn = Callable[[Array, Array], Array]


class Parameterization(Protocol):
    """Converters between raw network output, x0 and ε.

    Arrays of data have shape [B, ...]; ``logsnr`` is [B] (broadcast over the
    other axes) or a scalar.
    """

    def target(
        self, x0: Float[Array, "B ..."], eps: Float[Array, "B ..."], logsnr: Float[Array, "..."]
    ) -> Float[Array, "B ..."]:
        """Returns what the network should put out for data ``x0`` and noise ``eps``."""
        ...

    def to_x0(
        self, output: Float[Array, "B ..."], z: Float[Array, "B ..."], logsnr: Float[Array, "..."]
    ) -> Float[Array, "B ..."]:
        """The data that ``output`` predicts for noisy data ``z``."""
        ...

    def to_eps(
        self, output: Float[Array, "B ..."], z: Float[Array, "B ..."], logsnr: Float[Array, "..."]
    ) -> Float[Array, "B ..."]:
        """The noise that ``output`` predicts for noisy data ``z``."""
        ...

    def from_x0(
        self, x0: Float[Array, "B ..."], z: Float[Array, "B ..."], logsnr: Float[Array, "..."]
    ) -> Float[Array, "B ..."]:
        """The raw output for which ``to_x0`` returns ``x0``."""
        ...


def _alpha_sigma(logsnr: Array, z: Array) -> tuple[Array, Array]:
    return alpha_sigma(per_example(logsnr, z.ndim))


@dataclasses.dataclass(frozen=True)
class Epsilon:
    """The network predicts the noise ε (Ho et al. 2020, equation 14)."""

    def target(self, x0: Array, eps: Array, logsnr: Array) -> Array:
        """ε itself."""
        return eps

    def to_x0(self, output: Array, z: Array, logsnr: Array) -> Array:
        """Equation 2, first form."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return (z - sigma * output) / alpha

    def to_eps(self, output: Array, z: Array, logsnr: Array) -> Array:
        """The output itself."""
        return output

    def from_x0(self, x0: Array, z: Array, logsnr: Array) -> Array:
        """Equation 3, first form."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return (z - alpha * x0) / sigma


@dataclasses.dataclass(frozen=True)
class X0:
    """The network predicts the data x0."""

    def target(self, x0: Array, eps: Array, logsnr: Array) -> Array:
        """x0 itself."""
        return x0

    def to_x0(self, output: Array, z: Array, logsnr: Array) -> Array:
        """The output itself."""
        return output

    def to_eps(self, output: Array, z: Array, logsnr: Array) -> Array:
        """Equation 3, first form."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return (z - alpha * output) / sigma

    def from_x0(self, x0: Array, z: Array, logsnr: Array) -> Array:
        """x0 itself."""
        return x0


@dataclasses.dataclass(frozen=True)
class V:
    """The network predicts the velocity v (Salimans & Ho 2022)."""

    def target(self, x0: Array, eps: Array, logsnr: Array) -> Array:
        """Equation 1."""
        alpha, sigma = _alpha_sigma(logsnr, x0)
        return alpha * eps - sigma * x0

    def to_x0(self, output: Array, z: Array, logsnr: Array) -> Array:
        """Equation 2, second form."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return alpha * z - sigma * output

    def to_eps(self, output: Array, z: Array, logsnr: Array) -> Array:
        """Equation 3, second form."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return sigma * z + alpha * output

    def from_x0(self, x0: Array, z: Array, logsnr: Array) -> Array:
        """Equation 4."""
        alpha, sigma = _alpha_sigma(logsnr, z)
        return (alpha * z - x0) / sigma
