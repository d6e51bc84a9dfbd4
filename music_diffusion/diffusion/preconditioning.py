"""Preconditioning of a network that predicts v, around a mean of the data.

With r = x0 − m, of standard deviation s, and a unit-variance view u of the noisy difference

    u = (z − α m) / n,    n² = α² s² + σ²                                  (1)

the best linear guess of v = α ε − σ x0 from u is known, and the network F learns the rest, at unit
variance at every noise level (Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 5, for the
variance-preserving v and around a mean):

    v = α σ (1 − s²) / n · u − σ m − (s / n) F(u)                          (2)

One s for all bins leaves it to the network to find what is known of them beforehand: neighbours move
together, high ones little. Along the axes A of the data's covariance, each with its own s (`v_along`), the
linear guess is Wiener's. Then the network sees that guess, not u, in which what is mostly noise would be
as large as what is mostly data, and errors of all bins count alike:

    u = Aᵀ(z − α m) / n,    i = (s² / n) u / √⟨s⁴ / n²⟩                    (3)
    v = α σ A ((1 − s²) / n · u) − σ m − √⟨s² / n²⟩ F(i)                   (4)

with ⟨·⟩ the mean over axes. With one s and A = 1 these are equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from music_diffusion.diffusion.schedules import alpha_sigma, per_example


def v_around(network: Callable[[Array], Array], z: Float[Array, "B ..."], logsnr: Float[Array, " B"],
             mean: Float[ArrayLike, "..."], std: Float[ArrayLike, "..."]) -> Float[Array, "B ..."]:
    """Returns v by equation 2.

    Args:
      network: u [B, ...] → F [B, ...].
      z: noisy data.
      logsnr: of each example.
      mean: m, of a shape that meets that of z.
      std: s > 0, likewise.
    """
    alpha, sigma = alpha_sigma(per_example(logsnr, z.ndim))
    n = jnp.sqrt(alpha**2 * std**2 + sigma**2)
    u = (z - alpha * mean) / n
    return alpha * sigma * (1 - std**2) / n * u - sigma * mean - std / n * network(u)


def v_along(network: Callable[[Array], Array], z: Float[Array, "B N D"], logsnr: Float[Array, " B"],
            mean: Float[Array, "#B #N D"], axes: Float[Array, "D D"], std: Float[Array, "#B 1 D"]
            ) -> Float[Array, "B N D"]:
    """Returns v by equation 4.

    Args:
      network: i [B, N, D], along the axes → F [B, N, D], not along them.
      z: noisy data.
      logsnr: of each example.
      mean: m, of all examples or of each, of all positions or of each.
      axes: A, orthonormal columns.
      std: s > 0 along each axis, of all examples or of each.
    """
    alpha, sigma = alpha_sigma(per_example(logsnr, z.ndim))
    n = jnp.sqrt(alpha**2 * std**2 + sigma**2)
    u = (z - alpha * mean) @ axes / n
    guess = std**2 / n
    known = alpha * sigma * ((1 - std**2) / n * u) @ axes.T - sigma * mean
    guess = guess * jax.lax.rsqrt(jnp.mean(guess**2, -1, keepdims=True))
    return known - network(guess * u) / per_example(unit_scale(logsnr, std), z.ndim)


def unit_scale(logsnr: Float[Array, " B"], std: Float[ArrayLike, "..."]) -> Float[Array, " B"]:
    """Returns a factor per noise level by which the mean square of v's errors is 1 where F says nothing.

        (mean over axes of s² / n²)^(-1/2)

    With one s that is n / s, by which errors of v become errors of F.

    Args:
      logsnr: of each example.
      std: s > 0, a number or of a shape that meets that of the data, such as [B, 1, 1] or [1, 1, D].
    """
    variance = jnp.square(jnp.atleast_1d(jnp.asarray(std)))
    alpha, sigma = alpha_sigma(per_example(logsnr, variance.ndim))
    share = variance / (alpha**2 * variance + sigma**2)
    return jax.lax.rsqrt(jnp.mean(share, tuple(range(1, share.ndim))))
