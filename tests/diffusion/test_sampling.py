import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from reference import diffusion_oracle as oracle

from music_diffusion.diffusion.parameterizations import X0, Epsilon, V
from music_diffusion.diffusion.sampling import (
    TEXTURE_FRAMES,
    KarrasLogSNR,
    UniformLogSNR,
    UniformTime,
    noised,
    sample,
    tempered,
)
from music_diffusion.diffusion.schedules import (
    CosineSchedule,
    alpha_sigma,
    per_example,
    signal_rates,
)
from music_diffusion.diffusion.solvers import DDIM, DDPM, DPMSolverPP2M, Heun, UniPC
from music_diffusion.errors import UserError

PARAMETERIZATIONS = [Epsilon(), X0(), V()]
SOLVERS = [DDPM(log_variance=0.0), DDPM(log_variance=0.3), DDPM(log_variance=1.0),
           DDIM(), DDIM(eta=0.5), DPMSolverPP2M(), Heun(), UniPC(points=1), UniPC(points=2),
           UniPC(points=3)]
MEAN, STD = 0.3, 0.5


def _sample(denoise, z, rng=None, **changes):
    options = {"schedule": CosineSchedule(), "parameterization": X0(), "solver": DDIM(),
               "num_steps": 5}
    run = jax.jit(functools.partial(sample, denoise, **(options | changes)))
    return run(z, jax.random.key(0) if rng is None else rng)


def _gaussian(z, logsnr):
    """Exact E[x0 | z] for data N(MEAN, STD²)."""
    alpha, sigma = alpha_sigma(per_example(logsnr, z.ndim))
    return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (z - alpha * MEAN)


def _noise(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.slow
@pytest.mark.parametrize("parameterization, num_steps, tolerance", [
    (Epsilon(), 6, 1e-5), (X0(), 6, 1e-5), (V(), 6, 1e-5), (X0(), 1, 1e-6), (V(), 1, 1e-6),
    (Epsilon(), 1, 1e-2),  # one step turns ε into x0 at a log-SNR of −20: 5e-3 of rounding
], ids=str)
@pytest.mark.parametrize("solver", [DDPM(), DDIM(), DDIM(eta=0.5), DPMSolverPP2M(), Heun(),
                                    UniPC(points=3)], ids=repr)
def test_data_in_one_point_is_sampled_exactly(solver, parameterization, num_steps, tolerance):
    point = jnp.float32(np.random.default_rng(1).uniform(-0.9, 0.9, (2, 3, 4)))
    result = _sample(
        lambda z, logsnr: parameterization.from_x0(point, z, logsnr),
        jnp.float32(_noise((2, 3, 4))), parameterization=parameterization, solver=solver,
        num_steps=num_steps)
    np.testing.assert_allclose(result, point, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
@pytest.mark.parametrize("clip", [None, (-0.6, 0.6)])
def test_compiled_scan_is_the_plain_loop(solver, clip):
    # An x0 that is neither exact nor linear, and clipped in part of the entries.
    rng, n, shape = jax.random.key(3), 6, (2, 3, 4)
    with jax.enable_x64(True):
        z = _noise(shape)
        result = _sample(
            lambda z, logsnr: jnp.sin(2 * z) * jax.nn.sigmoid(logsnr)[:, None, None], z, rng,
            solver=solver, num_steps=n, clip_x0=clip)
        noises = [None] + [np.asarray(jax.random.normal(jax.random.fold_in(rng, i), shape,
                                                        jnp.float64)) for i in range(1, n + 1)]

    def x0_of(z, logsnr):
        x0 = np.sin(2 * z) / (1 + np.exp(-logsnr))
        return x0 if clip is None else np.clip(x0, *clip)

    logsnrs = oracle.cosine_logsnr(np.arange(n + 1) / n)
    if isinstance(solver, DDPM):
        truth = oracle.ddpm_sample(x0_of, np.asarray(z), logsnrs, noises, solver.log_variance)
    elif isinstance(solver, DDIM):
        truth = oracle.ddim_sample(x0_of, np.asarray(z), logsnrs, noises, solver.eta)
    elif isinstance(solver, Heun):
        truth = oracle.heun_sample(x0_of, np.asarray(z), logsnrs)
    elif isinstance(solver, UniPC):
        truth = oracle.unipc_sample(x0_of, np.asarray(z), logsnrs, solver.points)
    else:
        truth = oracle.dpmpp_2m_sample(x0_of, np.asarray(z), logsnrs)
    np.testing.assert_allclose(result, truth, atol=1e-7)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
@pytest.mark.parametrize("solver, num_steps, tolerance", [
    (DDIM(), 1000, 5e-3),  # measured 3.5e-3, halved by twice the steps
    (DPMSolverPP2M(), 100, 2e-3),  # measured 1.0e-3, a quarter with twice the steps
    (Heun(), 200, 1e-3),  # measured 5e-4
    (UniPC(points=3), 30, 2e-3),
], ids=str)
def test_exact_denoiser_follows_the_flow_to_the_data(
        solver, num_steps, tolerance, parameterization):
    with jax.enable_x64(True):
        z = _noise((4, 5))
        result = _sample(
            lambda z, logsnr: parameterization.from_x0(_gaussian(z, logsnr), z, logsnr), z,
            solver=solver, parameterization=parameterization, num_steps=num_steps,
            times=UniformLogSNR(logsnr_start=-12.0, logsnr_end=12.0), clip_x0=None)
    truth = oracle.gaussian_flow(np.asarray(z), -12.0, 12.0, MEAN, STD)
    # Which are the data's own quantiles.
    np.testing.assert_allclose(truth, MEAN + STD * np.asarray(z), atol=2e-3)
    np.testing.assert_allclose(result, truth, atol=tolerance)


@pytest.mark.parametrize("solver", [DDPM(log_variance=0.0), DDPM(log_variance=1.0),
                                    DDIM(eta=0.5)], ids=repr)
def test_samples_of_gaussian_data_have_its_moments(solver):
    result = np.asarray(_sample(_gaussian, jnp.float32(_noise((64, 128))), solver=solver,
                                num_steps=200, clip_x0=None))
    # 8192 draws: standard error of the mean 0.0055, of the deviation 0.0039; 200 steps add 1 %.
    assert result.mean() == pytest.approx(MEAN, abs=0.02)
    assert result.std() == pytest.approx(STD, abs=0.025)


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=repr)
def test_predictions_outside_the_range_of_the_data_are_clipped(parameterization):
    z = jnp.float32(_noise((2, 3)))

    def denoise(z, logsnr):
        return parameterization.from_x0(jnp.full_like(z, 3.0), z, logsnr)

    clipped = _sample(denoise, z, parameterization=parameterization, clip_x0=(-0.7, 0.5))
    np.testing.assert_array_equal(clipped, jnp.full_like(z, 0.5))
    free = _sample(denoise, z, parameterization=parameterization, clip_x0=None)
    np.testing.assert_allclose(free, 3.0, atol=1e-3)


@pytest.mark.parametrize("times", [UniformLogSNR(), KarrasLogSNR()], ids=repr)
def test_grids_stay_within_what_the_schedule_reaches(times):
    narrow = signal_rates(lowest=0.1952, highest=0.9326)
    grid = np.asarray(times.logsnrs(narrow, 10, jnp.float32))
    alpha = 1 / np.sqrt(1 + np.exp(-grid))
    np.testing.assert_allclose(alpha[[0, -1]], [0.9326, 0.1952], rtol=1e-4)
    assert (np.diff(grid) < 0).all()
    wide = np.asarray(times.logsnrs(CosineSchedule(), 10, jnp.float32))
    np.testing.assert_allclose(wide[[0, -1]], [10, -10], rtol=1e-4)


def test_hook_cross_fades_neighbouring_segments():
    # Two segments that share 4 frames; each alone would say 0 and 1.
    overlap, alone = 4, jnp.stack([jnp.zeros((10, 2)), jnp.ones((10, 2))])
    fade = jnp.linspace(1, 0, overlap)[:, None]

    def join(x0):
        shared = fade * x0[0, -overlap:] + (1 - fade) * x0[1, :overlap]
        return x0.at[0, -overlap:].set(shared).at[1, :overlap].set(shared)

    result = _sample(lambda z, logsnr: alone, jnp.float32(_noise((2, 10, 2))), x0_hook=join)
    np.testing.assert_array_equal(result[0, -overlap:], result[1, :overlap])
    np.testing.assert_allclose(result[0, -overlap:, 0], [0, 1 / 3, 2 / 3, 1], atol=1e-6)
    np.testing.assert_array_equal(result[0, :-overlap], alone[0, :-overlap])


def test_hook_acts_in_every_step():
    def denoise(z, logsnr):
        return z * jax.nn.sigmoid(logsnr)[:, None]

    z = jnp.float32(_noise((2, 3)))
    result = _sample(denoise, z, clip_x0=None, num_steps=3, x0_hook=lambda x0: 0.5 * x0)
    logsnrs = oracle.cosine_logsnr(np.arange(4) / 3)

    def run(scale):  # per step (3, 2, 1)
        scales = iter(scale)
        return oracle.ddim_sample(lambda z, logsnr: next(scales) * z / (1 + np.exp(-logsnr)),
                                  np.float64(z), logsnrs, [0.0] * 4, 0.0)

    np.testing.assert_allclose(result, run([0.5, 0.5, 0.5]), atol=1e-5)
    assert np.abs(result - run([1.0, 1.0, 0.5])).max() > 1e-2  # not so if it acts at the end only


@pytest.mark.parametrize("jit", [False, True])
def test_progress_counts_all_steps_in_order(jit):
    calls = []

    def run(z):
        return sample(lambda z, logsnr: 0 * z, z, jax.random.key(0), schedule=CosineSchedule(),
                      parameterization=X0(), solver=DDIM(), num_steps=4,
                      progress=lambda step, total: calls.append((step, total)))

    (jax.jit(run) if jit else run)(jnp.ones((1, 2))).block_until_ready()
    jax.effects_barrier()
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_same_key_same_sample_and_other_key_another():
    z = jnp.float32(_noise((2, 3)))
    runs = [_sample(_gaussian, z, jax.random.key(seed), solver=DDPM()) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-2
    runs = [_sample(_gaussian, z, jax.random.key(seed)) for seed in (0, 1)]  # DDIM: z decides
    np.testing.assert_array_equal(runs[0], runs[1])


def test_examples_of_a_batch_get_different_noise():
    result = _sample(lambda z, logsnr: z, jnp.zeros((2, 64)), solver=DDPM(), num_steps=8,
                     clip_x0=None)
    assert abs(np.corrcoef(result)[0, 1]) < 0.5  # 64 draws: standard error 0.125


def test_network_is_traced_once():
    traces = []

    def denoise(z, logsnr):
        traces.append(logsnr.shape)
        return 0 * z

    _sample(denoise, jnp.ones((3, 2)), num_steps=50)
    assert set(traces) == {(3,)} and len(traces) == 1


def test_half_precision_networks_do_not_lower_the_state():
    result = _sample(lambda z, logsnr: (0.5 * z).astype(jnp.bfloat16),
                     jnp.ones((2, 3), jnp.bfloat16), solver=DPMSolverPP2M())
    assert result.dtype == jnp.float32


def test_time_grids_fall_from_data_to_noise():
    schedule, n = CosineSchedule(), 5
    grids = {name: np.asarray(grid.logsnrs(schedule, n, jnp.float32)) for name, grid in {
        "time": UniformTime(), "partial": UniformTime(start=0.5),
        "logsnr": UniformLogSNR(logsnr_start=-8.0, logsnr_end=6.0),
        "karras": KarrasLogSNR(logsnr_start=-8.0, logsnr_end=6.0, rho=7.0),
        "karras1": KarrasLogSNR(logsnr_start=-8.0, logsnr_end=6.0, rho=1.0),
        "karras_inf": KarrasLogSNR(logsnr_start=-8.0, logsnr_end=6.0, rho=1000.0)}.items()}
    for grid in grids.values():
        assert grid.shape == (n + 1,) and (np.diff(grid) < 0).all()
    np.testing.assert_allclose(grids["time"], oracle.cosine_logsnr(np.arange(n + 1) / n), atol=1e-5)
    assert grids["partial"][-1] == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(grids["logsnr"], [6.0, 3.2, 0.4, -2.4, -5.2, -8.0], atol=1e-5)
    np.testing.assert_allclose(grids["karras"][[0, -1]], [6.0, -8.0], atol=1e-5)
    np.testing.assert_allclose(  # ρ = 1: equal steps of σ/α
        np.diff(np.exp(-0.5 * grids["karras1"].astype(np.float64)), n=2), 0.0, atol=1e-4)
    np.testing.assert_allclose(grids["karras_inf"], grids["logsnr"], atol=0.05)


@pytest.mark.parametrize("grid", [
    UniformTime(), UniformTime(start=0.8), UniformLogSNR(logsnr_start=-8.0, logsnr_end=6.0),
    KarrasLogSNR(logsnr_start=-8.0, logsnr_end=6.0, rho=5.0)])
def test_the_last_part_of_a_way_has_the_whole_ways_last_points(grid):
    schedule = CosineSchedule()
    whole = grid.logsnrs(schedule, 10, jnp.float32)
    for steps in (1, 3, 10):
        part = grid.begun(steps / 10).logsnrs(schedule, steps, jnp.float32)
        np.testing.assert_allclose(part, whole[:steps + 1], atol=1e-4)
    # … and data noised for it have that noise.
    alpha, sigma = alpha_sigma(whole[3])
    made = noised(jnp.full((2, 3), 0.7), jnp.full((2, 3), -0.4), schedule, grid.begun(0.3))
    np.testing.assert_allclose(made, np.full((2, 3), 0.7 * alpha - 0.4 * sigma), atol=1e-5)


def test_slow_and_fast_noise_have_their_own_deviations():
    eps = np.random.default_rng(0).normal(size=(2, 40, 3)).astype(np.float32)
    slow = scipy.ndimage.uniform_filter1d(eps.astype(np.float64), TEXTURE_FRAMES, axis=1)
    made = tempered(jnp.asarray(eps), 0.2, 0.9)
    np.testing.assert_allclose(made, 0.2 * slow + 0.9 * (eps - slow), atol=1e-5)
    np.testing.assert_array_equal(tempered(jnp.asarray(eps), 0.3, 0.3), np.float32(0.3) * eps)
    even = jnp.ones((1, 20, 3))  # nothing of it is fast, at the ends either
    np.testing.assert_allclose(tempered(even, 0.2, 0.9), 0.2 * even, atol=1e-5)


def test_partly_noised_data_comes_back():
    # Start at t = 0.3 from noised data: the flow of the exact denoiser inverts the noising.
    with jax.enable_x64(True):
        start = float(CosineSchedule().logsnr(0.3))
        x = np.asarray(_noise((4, 5))) * STD + MEAN
        z = oracle.gaussian_flow(x, 20.0, start, MEAN, STD)
        result = _sample(_gaussian, jnp.asarray(z), times=UniformTime(start=0.3), clip_x0=None,
                         solver=DPMSolverPP2M(), num_steps=100)
    np.testing.assert_allclose(result, x, atol=5e-3)


@pytest.mark.parametrize("make", [
    lambda: _sample(_gaussian, jnp.ones((1, 1)), num_steps=0),
    lambda: UniformTime(start=0.0),
    lambda: UniformLogSNR(logsnr_start=1.0, logsnr_end=1.0),
    lambda: KarrasLogSNR(rho=0.0)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(UserError, match="must be"):
        make()
