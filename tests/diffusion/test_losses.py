import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import diffusion_oracle as oracle

from music_diffusion.diffusion.losses import (
    DiscreteTimes,
    diffusion_loss,
    l1,
    masked_mean,
    squared,
    stratified_times,
    uniform_times,
)
from music_diffusion.diffusion.parameterizations import X0, Epsilon, V
from music_diffusion.diffusion.sampling import UniformTime
from music_diffusion.diffusion.schedules import CosineSchedule, LinearLogSNRSchedule
from music_diffusion.errors import UserError

PARAMETERIZATIONS = [Epsilon(), X0(), V()]
B, T, F = 4, 6, 5


def _x0(seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (B, T, F)), jnp.float32)


def _loss(denoise, x0, rng=None, **changes):
    options = {"schedule": CosineSchedule(), "parameterization": Epsilon(), "distance": squared}
    return diffusion_loss(
        denoise, x0, jax.random.key(1) if rng is None else rng, **(options | changes))


@pytest.mark.parametrize("distance", [l1, squared])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
def test_a_denoiser_that_knows_the_data_has_no_loss(parameterization, distance):
    x0 = _x0()
    loss, metrics = _loss(
        lambda z, logsnr: parameterization.from_x0(x0, z, logsnr), x0,
        schedule=LinearLogSNRSchedule(logsnr_min=-5, logsnr_max=5),
        parameterization=parameterization, distance=distance)
    assert float(loss) < 1e-5
    assert float(metrics["x0_mse"]) < 1e-9
    assert float(metrics["loss"]) == float(loss)


@pytest.mark.parametrize("distance, expected", [(squared, 1.0), (l1, np.sqrt(2 / np.pi))])
def test_predicting_zero_noise_costs_the_moments_of_a_normal(distance, expected):
    x0 = jnp.zeros((8, 64, 64))
    loss, _ = _loss(lambda z, logsnr: jnp.zeros_like(z), x0, distance=distance)
    # 32,768 draws: standard error 0.008 and 0.003.
    assert float(loss) == pytest.approx(expected, abs=0.03)


def test_noisy_data_and_target_follow_the_forward_process():
    x0 = _x0()
    seen = {}

    def denoise(z, logsnr):
        seen.update(z=z, logsnr=logsnr)
        return jnp.full_like(z, 0.25)

    loss, metrics = _loss(denoise, x0, parameterization=V())
    assert seen["logsnr"].shape == (B,)
    assert len(np.unique(seen["logsnr"])) == B
    alpha, sigma = oracle.alpha_sigma(np.asarray(seen["logsnr"], np.float64)[:, None, None])
    z, x0 = np.asarray(seen["z"], np.float64), np.asarray(x0, np.float64)
    eps = (z - alpha * x0) / sigma
    assert float(loss) == pytest.approx(np.mean((0.25 - (alpha * eps - sigma * x0)) ** 2), rel=1e-4)
    x0_pred = np.clip(alpha * z - sigma * 0.25, -1, 1)
    assert float(metrics["x0_mse"]) == pytest.approx(np.mean((x0_pred - x0) ** 2), rel=1e-4)


def test_times_and_noise_are_independent():
    # Drawn from one key, the i-th time and the i-th noise would be the same random bits.
    seen = {}
    _loss(lambda z, logsnr: seen.update(z=z, logsnr=logsnr) or z, jnp.zeros((256, 1)))
    eps = seen["z"][:, 0] / oracle.alpha_sigma(seen["logsnr"])[1]
    t = CosineSchedule().inverse(seen["logsnr"])
    assert abs(np.corrcoef(t, eps)[0, 1]) < 0.3  # 256 draws: standard error 0.06


def test_mask_leaves_padding_out_of_value_and_gradient():
    x0, rng = _x0(), jax.random.key(2)
    mask = jnp.asarray(np.arange(T) < np.array([[6], [4], [1], [0]]))[:, :, None]

    def loss_of(offset):
        return _loss(lambda z, logsnr: offset, x0, rng, mask=mask)[0]

    offset = jnp.full((B, T, F), 0.5)
    gradient = jax.grad(loss_of)(offset)
    np.testing.assert_array_equal(gradient != 0, jnp.broadcast_to(mask, gradient.shape))
    np.testing.assert_allclose(  # padding may hold anything
        loss_of(offset), loss_of(jnp.where(mask, offset, 1e3)), rtol=1e-6)


def test_output_scale_weighs_each_noise_level_in_units_of_the_output():
    x0 = jnp.zeros((B, T, F))

    def scale(logsnr):  # leaves the first example alone, doubles the others' errors
        return jnp.where(jnp.arange(B) == 0, 1.0, 2.0)

    def loss(distance, mask_row, **changes):
        mask = jnp.zeros((B, 1, 1)).at[mask_row].set(1.0)
        return float(_loss(lambda z, logsnr: jnp.ones_like(z), x0, distance=distance, mask=mask,
                           **changes)[0])

    for distance, factor in ((l1, 2.0), (squared, 4.0)):
        assert loss(distance, 0, output_scale=scale) == pytest.approx(loss(distance, 0), rel=1e-5)
        assert loss(distance, 1, output_scale=scale) == pytest.approx(
            factor * loss(distance, 1), rel=1e-5)


def test_masked_mean_is_over_valid_entries():
    values = jnp.asarray([[[1.0, 3.0], [100.0, 100.0]]])
    assert float(masked_mean(values, jnp.asarray([[[True], [False]]]))) == 2.0
    assert float(masked_mean(values, jnp.asarray([[[3.0], [1.0]]]))) == pytest.approx(26.5)
    assert float(masked_mean(values, jnp.zeros((1, 2, 1)))) == 0.0


@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("distance", [l1, squared])
@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
def test_gradients_are_finite_at_both_ends_of_time(parameterization, distance, t):
    x0 = _x0()

    def loss_of(params):
        return _loss(
            lambda z, logsnr: params["w"] * z + params["b"] * logsnr[:, None, None], x0,
            parameterization=parameterization, distance=distance,
            times=lambda rng, n: jnp.full((n,), t))

    (loss, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(
        {"w": jnp.float32(0.5), "b": jnp.float32(0.1)})
    for value in (loss, *metrics.values(), *gradient.values()):
        assert np.isfinite(value)
    assert abs(gradient["w"]) > 1e-3


def test_metric_does_not_reach_the_gradient_and_is_clipped():
    x0 = _x0()
    grad = jax.grad(lambda w: _loss(lambda z, logsnr: w * z, x0)[1]["x0_mse"])(0.5)
    assert float(grad) == 0.0
    _, metrics = _loss(lambda z, logsnr: 0 * z, x0, times=lambda rng, n: jnp.ones(n))
    assert float(metrics["x0_mse"]) <= 4.0  # unclipped, z / α would make it 5e8


def test_uniform_times_are_independent_and_fill_the_interval():
    t = np.asarray(uniform_times(jax.random.key(0), 4000))
    assert t.min() >= 0 and t.max() < 1
    counts = np.histogram(t, bins=10, range=(0, 1))[0]
    assert counts.min() > 320 and counts.max() < 480  # 400 ± 4 standard deviations
    # Neighbours are uncorrelated (standard error 0.016).
    assert abs(np.corrcoef(t[1:], t[:-1])[0, 1]) < 0.07


def test_stratified_times_have_one_in_every_stratum_and_are_uniform_each():
    keys = jax.random.split(jax.random.key(0), 500)
    t = np.asarray(jax.vmap(lambda key: stratified_times(key, 8))(keys))
    assert t.min() >= 0 and t.max() < 1
    gaps = np.diff(np.sort(t, axis=1), axis=1)
    np.testing.assert_allclose(gaps, 1 / 8, atol=1e-6)
    for column in t.T:  # mean 1/2, variance 1/12: standard error of the mean 0.013
        assert abs(column.mean() - 0.5) < 0.055
        assert abs(column.var() - 1 / 12) < 0.012


def test_stratified_times_make_the_loss_steadier():
    x0 = _x0()
    keys = jax.random.split(jax.random.key(5), 200)

    def spread(times):
        def loss(key):  # depends on t alone
            return _loss(lambda z, logsnr: x0 + jax.nn.sigmoid(logsnr)[:, None, None], x0, key,
                         parameterization=X0(), times=times)[0]
        return float(jnp.std(jax.jit(jax.vmap(loss))(keys)))

    # Measured 0.40 for this function of t and four strata; 200 draws leave ±0.03.
    assert spread(stratified_times) < 0.6 * spread(uniform_times)


def test_discrete_times_are_uniform_on_their_grid():
    times = np.asarray(DiscreteTimes(steps=5)(jax.random.key(0), 50_000))
    values, counts = np.unique(times, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(1, 6, dtype=np.float32) / 5)
    # 10,000 of each: standard deviation 89.
    assert np.abs(counts - 10_000).max() < 450
    assert (DiscreteTimes(steps=1)(jax.random.key(0), 9) == 1).all()


@pytest.mark.parametrize("steps", [1000, 250, 4])
def test_discrete_times_are_where_a_sampler_looks(steps):
    """One of T = 1000 steps, or of a divisor: every point but the data's end is in the grid."""
    drawn = np.asarray(DiscreteTimes(steps=1000)(jax.random.key(1), 40_000))
    assert len(set(drawn)) == 1000  # each is missed with a probability of e^-40
    sampled = UniformTime().logsnrs(CosineSchedule(), steps, jnp.float32)[1:]
    every = 1000 // steps
    np.testing.assert_allclose(  # i / N and (i · 1000 / N) / 1000 may differ in the last bit
        sampled, CosineSchedule().logsnr(np.unique(drawn)[every - 1::every]), rtol=1e-5, atol=1e-5)


def test_discrete_times_are_drawn_anew_for_every_key_and_need_a_step():
    times = DiscreteTimes()
    assert times == DiscreteTimes(steps=1000) and hash(times) == hash(DiscreteTimes(steps=1000))
    a, b = (times(jax.random.key(i), 64) for i in (0, 1))
    assert a.shape == (64,) and (a != b).any() and len(set(a.tolist())) > 30
    with pytest.raises(UserError, match="steps"):
        DiscreteTimes(steps=0)
