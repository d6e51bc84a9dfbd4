import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.networks.film import FiLMLayer, embed_time, sinusoid


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def test_sinusoid_halves_and_timescales_at_hand_computed_points():
    # n = 3 timescales 1, 100, 10000.
    y = np.asarray(sinusoid(jnp.asarray([0.0, np.pi / 2, 50 * np.pi]), 6, 1e4))
    np.testing.assert_allclose(y[0], [0, 0, 0, 1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(y[1, [0, 3]], [1, 0], atol=1e-6)
    np.testing.assert_allclose(y[2, [1, 4]], [1, 0], atol=1e-6)  # sin(π/2), cos(π/2) of scale 100
    np.testing.assert_allclose(y[2, [2, 5]], [np.sin(0.005 * np.pi), np.cos(0.005 * np.pi)],
                               atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_sinusoid_of_time_is_float32_in_any_compute_dtype(dtype):
    seen = []

    def first(x):
        seen.append(x)
        return x.astype(dtype)

    embed_time(jnp.asarray([0.3, 0.3001]), first, lambda x: x, features=64, max_time=20_000.0)
    assert seen[0].dtype == jnp.float32
    expected = np.sin(0.3 * 20_000)
    assert abs(float(seen[0][0, 0]) - expected) < 2e-3  # float32 angle of 6000 rad: ulp 5e-4
    assert np.abs(seen[0][0] - seen[0][1]).max() > 0.1  # 2 rad apart


def test_film_scales_with_the_first_half_and_shifts_with_the_second():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 2)), jnp.float32)
    kernel = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])  # K = 1 → scale 1, 2; shift 3, 4
    params = {"DenseGeneral_0": {"kernel": kernel}}
    y = FiLMLayer().apply({"params": params}, x, jnp.asarray([[1.0], [-2.0]]))
    np.testing.assert_allclose(y[0], x[0] * np.array([[2, 3]]) + np.array([[3, 4]]), atol=1e-6)
    np.testing.assert_allclose(y[1], x[1] * np.array([[-1, -3]]) + np.array([[-6, -8]]), atol=1e-6)


def test_film_of_zero_conditioning_is_the_identity():
    x = jnp.ones((1, 3, 4)) * 5
    variables = FiLMLayer().init(jax.random.key(0), x, jnp.ones((1, 7)))
    assert variables["params"]["DenseGeneral_0"]["kernel"].shape == (7, 8)
    np.testing.assert_array_equal(FiLMLayer().apply(variables, x, jnp.zeros((1, 7))), x)
