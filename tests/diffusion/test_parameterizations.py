import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import diffusion_oracle as oracle

from music_diffusion.diffusion.parameterizations import X0, Epsilon, V

PARAMETERIZATIONS = [Epsilon(), X0(), V()]
parameterizations = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)


def _data(seed, logsnr, shape=(2, 3, 5)):
    """x0, ε and z of shape [B, T, F] in float64, from the oracle's α and σ."""
    rng = np.random.default_rng(seed)
    x0, eps = rng.uniform(-1, 1, shape), rng.standard_normal(shape)
    alpha, sigma = oracle.alpha_sigma(np.reshape(logsnr, (-1, 1, 1)))
    return x0, eps, alpha * x0 + sigma * eps


@parameterizations
@settings(max_examples=15, deadline=None)
@given(logsnr=st.tuples(st.floats(-20, 20), st.floats(-20, 20)), seed=st.integers(0, 1000))
def test_converters_are_inverses_of_the_target(parameterization, logsnr, seed):
    x0, eps, z = _data(seed, logsnr)
    with jax.enable_x64(True):
        output = parameterization.target(jnp.asarray(x0), jnp.asarray(eps), jnp.asarray(logsnr))
        # float64 rounding, magnified at most 22,000 times.
        for result, expected in [
            (parameterization.to_x0(output, z, jnp.asarray(logsnr)), x0),
            (parameterization.to_eps(output, z, jnp.asarray(logsnr)), eps),
            (parameterization.from_x0(jnp.asarray(x0), z, jnp.asarray(logsnr)), output),
        ]:
            np.testing.assert_allclose(result, expected, atol=1e-10)


@parameterizations
@settings(max_examples=15, deadline=None)
@given(logsnr=st.tuples(st.floats(-20, 20), st.floats(-20, 20)), seed=st.integers(0, 1000))
def test_any_x0_survives_from_x0_and_back(parameterization, logsnr, seed):
    _, _, z = _data(seed, logsnr)
    x0 = np.random.default_rng(seed + 1).standard_normal(z.shape)  # has nothing to do with z
    with jax.enable_x64(True):
        output = parameterization.from_x0(jnp.asarray(x0), z, jnp.asarray(logsnr))
        back = parameterization.to_x0(output, z, jnp.asarray(logsnr))
    np.testing.assert_allclose(back, x0, atol=1e-6)


@pytest.mark.parametrize("source", PARAMETERIZATIONS, ids=repr)
@pytest.mark.parametrize("other", PARAMETERIZATIONS, ids=repr)
def test_predictions_convert_between_kinds(source, other):
    x0, eps, z = _data(3, [-6.0, 4.0])
    with jax.enable_x64(True):
        logsnr = jnp.asarray([-6.0, 4.0])
        output = source.target(jnp.asarray(x0), jnp.asarray(eps), logsnr)
        converted = other.target(
            source.to_x0(output, z, logsnr), source.to_eps(output, z, logsnr), logsnr)
        np.testing.assert_allclose(
            converted, other.target(jnp.asarray(x0), jnp.asarray(eps), logsnr), atol=1e-10)


def test_velocity_is_the_derivative_of_z_along_the_angle():
    # v = dz/dφ with α = cos φ, σ = sin φ (Salimans & Ho 2022, appendix D).
    x0, eps = jnp.asarray([[0.3]]), jnp.asarray([[-1.2]])
    phi = 0.7
    derivative = jax.grad(lambda phi: (jnp.cos(phi) * x0 + jnp.sin(phi) * eps)[0, 0])(phi)
    logsnr = jnp.asarray([2.0 * np.log(np.cos(phi) / np.sin(phi))])
    np.testing.assert_allclose(V().target(x0, eps, logsnr)[0, 0], derivative, atol=1e-6)


@parameterizations
def test_float32_at_the_clipped_ends_is_finite_and_near(parameterization):
    logsnr = np.asarray([-20.0, 20.0])
    x0, eps, z = (np.float32(a) for a in _data(5, logsnr, (2, 40, 50)))
    logsnr = jnp.asarray(logsnr, jnp.float32)
    output = parameterization.target(x0, eps, logsnr)
    # Measured: ε → x0 at −20: 5e-3; x0 → ε at +20: 1.2e-3; v: 2e-7.
    tolerance = 1e-6 if parameterization == V() else 1e-2
    np.testing.assert_allclose(parameterization.to_x0(output, z, logsnr), x0, atol=tolerance)
    np.testing.assert_allclose(parameterization.to_eps(output, z, logsnr), eps, atol=tolerance)


@parameterizations
def test_scalar_log_snr_means_the_same_for_all_examples(parameterization):
    x0, eps, z = (np.float32(a) for a in _data(7, [1.5, 1.5]))
    scalar, batch = jnp.float32(1.5), jnp.asarray([1.5, 1.5])
    output = parameterization.target(x0, eps, batch)
    np.testing.assert_array_equal(parameterization.target(x0, eps, scalar), output)
    np.testing.assert_array_equal(
        parameterization.to_x0(output, z, scalar), parameterization.to_x0(output, z, batch))
