"""Preconditioning against exact posterior means of Gaussian data, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.diffusion.preconditioning import unit_scale, v_along, v_around

D, N = 6, 4000
RNG = np.random.default_rng(2)
AXES, _ = np.linalg.qr(RNG.normal(size=(D, D)))
STD = np.array([1.5, 0.7, 0.4, 0.2, 0.05, 0.01])
MEAN = RNG.normal(size=D)
LOGSNR = np.array([-6.0, 0.0, 3.0, 9.0])
STATISTICS = (jnp.float32(MEAN)[None, None], jnp.float32(AXES), jnp.float32(STD)[None, None])


def rates(logsnr):
    return np.sqrt(1 / (1 + np.exp(-logsnr))), np.sqrt(1 / (1 + np.exp(logsnr)))


def nothing(i):
    return jnp.zeros_like(i)


def noisy():
    """x0, ε and z [levels, N, D] of data N(m, A s² Aᵀ)."""
    x0 = MEAN + RNG.normal(size=(len(LOGSNR), N, D)) * STD @ AXES.T
    eps = RNG.normal(size=x0.shape)
    alpha, sigma = (part[:, None, None] for part in rates(LOGSNR))
    return x0, eps, alpha * x0 + sigma * eps


def test_network_that_says_nothing_is_the_posterior_mean():
    _, _, z = noisy()
    v = v_along(nothing, jnp.float32(z), jnp.float32(LOGSNR), *STATISTICS)
    covariance = AXES * STD**2 @ AXES.T
    for level, (alpha, sigma) in enumerate(zip(*rates(LOGSNR), strict=True)):
        gain = alpha * covariance @ np.linalg.inv(alpha**2 * covariance + sigma**2 * np.eye(D))
        x0 = MEAN + (z[level] - alpha * MEAN) @ gain.T
        eps = (z[level] - alpha * x0) / sigma
        np.testing.assert_allclose(v[level], alpha * eps - sigma * x0, atol=2e-3)


def test_its_errors_have_unit_variance_when_scaled():
    x0, eps, z = noisy()
    alpha, sigma = (part[:, None, None] for part in rates(LOGSNR))
    v = v_along(nothing, jnp.float32(z), jnp.float32(LOGSNR), *STATISTICS)
    error = np.asarray(v) - (alpha * eps - sigma * x0)
    scale = np.asarray(unit_scale(jnp.float32(LOGSNR), STATISTICS[-1]))
    np.testing.assert_allclose(scale**2 * np.square(error).mean((1, 2)), 1.0, rtol=0.04)


def test_what_the_network_sees_and_says():
    x0, eps, z = noisy()
    alpha, sigma = (part[:, None, None] for part in rates(LOGSNR))
    seen = []

    def network(i):
        seen.append(np.asarray(i))
        return jnp.full_like(i, 0.5).at[..., 0].set(-1.0)

    arguments = [jnp.float32(z), jnp.float32(LOGSNR), *STATISTICS]
    away = np.asarray(v_along(network, *arguments) - v_along(nothing, *arguments))
    scale = np.asarray(unit_scale(arguments[1], arguments[-1]))
    # In the data's own bins, and at unit variance as `unit_scale` has it.
    expected = np.full((len(LOGSNR), D), -0.5) / scale[:, None]
    expected[:, 0] *= -2
    np.testing.assert_allclose(away, np.broadcast_to(expected[:, None], away.shape), atol=1e-5)
    # Wiener's guess of what the data has beyond its mean, along the axes, over its own deviation.
    power = alpha**2 * STD**2 + sigma**2
    guess = alpha * STD**2 / power * ((z - alpha * MEAN) @ AXES)
    guess /= np.sqrt((alpha**2 * STD**4 / power).mean(-1, keepdims=True))
    np.testing.assert_allclose(seen[0], guess, atol=1e-4)
    # 4,000 draws of six values, mostly of the first: a standard error of 0.02.
    np.testing.assert_allclose(np.square(seen[0]).mean((1, 2)), 1.0, rtol=0.08)


def test_with_one_deviation_it_is_that_around_a_mean():
    _, _, z = (jnp.float32(part) for part in noisy())

    def network(u):
        return jnp.tanh(u) + 0.1

    along = v_along(network, z, jnp.float32(LOGSNR), STATISTICS[0], jnp.eye(D),
                    jnp.full((1, 1, D), 0.3))
    around = v_around(network, z, jnp.float32(LOGSNR), STATISTICS[0], 0.3)
    np.testing.assert_allclose(along, around, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(unit_scale(jnp.float32(LOGSNR), jnp.full((1, 1, D), 0.3)),
                               unit_scale(jnp.float32(LOGSNR), 0.3), rtol=1e-6)


@pytest.mark.parametrize("std", [0.3, 2.0])
def test_scale_of_one_deviation(std):
    alpha, sigma = rates(LOGSNR)
    np.testing.assert_allclose(unit_scale(jnp.float32(LOGSNR), std),
                               np.sqrt(alpha**2 * std**2 + sigma**2) / std, rtol=1e-5)
