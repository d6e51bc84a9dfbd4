"""Regions: what is given stays, and what is sampled around it comes from the right distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.conditions.regions import GIVEN, REGION
from music_diffusion.diffusion.parameterizations import X0
from music_diffusion.diffusion.sampling import UniformLogSNR, sample
from music_diffusion.diffusion.schedules import CosineSchedule, alpha_sigma
from music_diffusion.diffusion.solvers import DDIM, DDPM
from music_diffusion.errors import UserError
from music_diffusion.models.regions import draw_regions, keeping

# Two numbers, each N(0, 1), that agree at a correlation of 0.9.
COVARIANCE = jnp.asarray([[1.0, 0.9], [0.9, 1.0]])
GIVEN_VALUE, COUNT = 1.5, 4000


def joint_denoiser(z, logsnr):
    """Exact E[x0 | z] of the pair."""
    alpha, sigma = alpha_sigma(logsnr[0])
    gain = alpha * COVARIANCE @ jnp.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(2))
    return z @ gain.T


def sampled(passes):
    """Second numbers of pairs whose first is given."""
    batch = {GIVEN: jnp.tile(jnp.asarray([[GIVEN_VALUE, 0.0]]), (COUNT, 1)),
             REGION: jnp.tile(jnp.asarray([[1.0, 0.0]]), (COUNT, 1))}
    z = jax.random.normal(jax.random.key(0), (COUNT, 2))
    run = jax.jit(lambda z: sample(
        joint_denoiser, z, jax.random.key(1), schedule=CosineSchedule(), parameterization=X0(),
        solver=DDPM(log_variance=0.0), num_steps=40, times=UniformLogSNR(logsnr_start=-9.0, logsnr_end=9.0),
        clip_x0=None, x0_hook=keeping(batch), passes=passes))
    x0 = np.asarray(run(z))
    np.testing.assert_array_equal(x0[:, 0], np.float32(GIVEN_VALUE))
    return x0[:, 1]


@pytest.mark.slow
def test_projection_alone_does_not_quite_agree_and_passes_do():
    # The truth is N(0.9 · 1.5, 1 − 0.81). Of 4,000 draws the mean's standard error is 0.007, the
    # deviation's 0.005.
    mean, deviation = 0.9 * GIVEN_VALUE, np.sqrt(1 - 0.81)
    once, often = sampled(1), sampled(10)
    # Forty steps of DDPM and ten passes come as near as 0.053 and 8 %; thirty passes 0.02.
    assert abs(often.mean() - mean) < 0.07
    assert abs(often.std() - deviation) < 0.1 * deviation
    assert abs(often.mean() - mean) + abs(often.std() - deviation) < 0.5 * (
        abs(once.mean() - mean) + abs(once.std() - deviation))


def test_passes_without_anything_known_keep_the_distribution():
    z = jax.random.normal(jax.random.key(0), (COUNT, 2))
    x0 = np.asarray(jax.jit(lambda z: sample(
        joint_denoiser, z, jax.random.key(1), schedule=CosineSchedule(), parameterization=X0(),
        solver=DDIM(), num_steps=150, times=UniformLogSNR(logsnr_start=-9.0, logsnr_end=9.0), clip_x0=None,
        passes=3))(z))
    np.testing.assert_allclose(np.cov(x0.T), COVARIANCE, atol=0.12)


def test_no_passes_are_refused():
    with pytest.raises(UserError, match="passes"):
        sample(joint_denoiser, jnp.zeros((1, 2)), jax.random.key(0), schedule=CosineSchedule(),
               parameterization=X0(), solver=DDIM(), num_steps=2, passes=0)


def test_hook_comes_before_what_is_given():
    batch = {GIVEN: jnp.full((1, 2, 2), 0.5), REGION: jnp.asarray([[[1.0, 0.0], [0.0, 0.0]]])}
    seen = []

    def double(x0):
        seen.append(np.asarray(x0))
        return 2 * x0

    made = keeping(batch, double)(jnp.full((1, 2, 2), 0.3))
    np.testing.assert_allclose(seen[0][0], [[0.5, 0.3], [0.3, 0.3]])  # which sees what is given
    np.testing.assert_allclose(made[0], [[0.5, 0.6], [0.6, 0.6]])
    assert keeping({}, double) is double and keeping({}) is None


@pytest.fixture(scope="module")
def regions():
    return np.asarray(draw_regions(jax.random.key(0), (6000, 32, 16), 0.3))


def test_regions_are_nothing_beginnings_frames_and_bins(regions):
    frames, bins = regions.max(axis=2), regions.max(axis=1)
    whole_frames = (regions == frames[:, :, None]).all((1, 2))
    whole_bins = (regions == bins[:, None, :]).all((1, 2))
    nothing = ~regions.any((1, 2))
    assert (whole_frames | whole_bins).all()
    # Each kind of known regions has 0.7 / 3; the standard error is 0.006.
    assert abs(nothing.mean() - 0.3) < 0.025
    band = whole_bins & ~whole_frames
    assert abs(band.mean() - 0.7 / 3) < 0.025
    steps = np.diff(frames, axis=1, prepend=0, append=0)
    beginning = whole_frames & ~nothing & (frames[:, 0] == 1) & ((steps != 0).sum(1) == 2)
    assert beginning.mean() > 0.7 / 3 - 0.02  # a stretch at the very end looks the same


def test_something_is_always_left_to_make(regions):
    share = 1 - regions.mean((1, 2))
    assert share.min() >= 1 / 8 - 1 / 16 and share[regions.any((1, 2))].max() <= 7 / 8 + 1 / 16


def test_regions_lie_anywhere(regions):
    frames = regions.min(axis=2)[regions.any((1, 2)) & (regions.min(axis=2).max(axis=1) > 0)]
    # Every frame is known in some and made in others; the first is mostly known, as beginnings are.
    assert 0.2 < frames.mean(axis=0).min() and frames.mean(axis=0).max() < 0.995


def test_no_dropout_and_dropout_alone():
    assert np.asarray(draw_regions(jax.random.key(0), (200, 16, 16), 0.0)).any((1, 2)).all()
    assert not np.asarray(draw_regions(jax.random.key(0), (200, 16, 16), 1.0)).any()
