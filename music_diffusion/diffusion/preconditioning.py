"""Preconditioning of a network that predicts v, around a mean of the data.

With r = x0 − m, of standard deviation s, and a unit-variance view u of the noisy difference

    u = (z − α m) / n,    n² = α² s² + σ²                                  (1)

the best linear guess of v = α ε − σ x0 from u is known, and the network F learns the rest, at unit
variance at every noise level (Karras et al. 2022, https://arxiv.org/abs/2206.00364, section 5, for the
variance-preserving v and around a mean):

    v = α σ (1 − s²) / n · u − σ m − (s / n) F(u)                          (2)
"""

from __future__ import annotations

from collections.abc import Callable

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


def unit_scale(logsnr: Float[Array, "..."], std: Float[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Returns n / s, by which errors of v become errors of F."""
    alpha, sigma = alpha_sigma(logsnr)
    return jnp.sqrt(alpha**2 * std**2 + sigma**2) / std
