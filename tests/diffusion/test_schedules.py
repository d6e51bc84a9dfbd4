import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import diffusion_oracle as oracle

from music_diffusion.diffusion.schedules import (
    CosineSchedule,
    LinearBetaSchedule,
    LinearLogSNRSchedule,
    alpha_sigma,
    per_example,
)
from music_diffusion.errors import UserError

SCHEDULES = [
    CosineSchedule(),
    CosineSchedule(shift=-3.0),
    CosineSchedule(logsnr_min=-3.2, logsnr_max=1.9),
    LinearLogSNRSchedule(),
    LinearBetaSchedule(),
]
TIMES = np.linspace(0.0, 1.0, 1025)


def test_cosine_is_the_papers_equation_at_float32():
    # Measured 7e-7; float32 tan near π/2 would give 1e-3.
    logsnr = np.asarray(CosineSchedule().logsnr(TIMES.astype(np.float32)), np.float64)
    np.testing.assert_allclose(logsnr, oracle.cosine_logsnr(TIMES), atol=5e-6)


def test_cosine_amplitudes_are_cosine_and_sine_of_time():
    alpha, sigma = alpha_sigma(CosineSchedule().logsnr(jnp.asarray([0.25, 0.5, 0.9])))
    np.testing.assert_allclose(alpha, np.cos(np.pi / 2 * np.array([0.25, 0.5, 0.9])), atol=1e-4)
    np.testing.assert_allclose(sigma, np.sin(np.pi / 2 * np.array([0.25, 0.5, 0.9])), atol=1e-4)


def test_signal_rates_of_unconditional_model_span_equal_angles():
    # Signal rates 0.1952 to 0.9326: α = cos of an angle that grows linearly with t.
    low, high = 0.1952, 0.9326
    bounds = [float(np.log(rate**2 / (1 - rate**2))) for rate in (low, high)]
    alpha, _ = alpha_sigma(CosineSchedule(logsnr_min=bounds[0], logsnr_max=bounds[1]).logsnr(TIMES))
    angle = np.arccos(high) + TIMES * (np.arccos(low) - np.arccos(high))
    np.testing.assert_allclose(alpha, np.cos(angle), atol=1e-5)


def test_linear_beta_is_the_limit_of_discrete_ddpm():
    schedule = LinearBetaSchedule()
    for t in (0.01, 0.3, 1.0):
        # The oracle has 200,000 steps, which leaves 4e-4.
        assert float(schedule.logsnr(t)) == pytest.approx(oracle.linear_beta_logsnr(t), abs=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_log_snr_falls_and_is_finite(schedule):
    logsnr = np.asarray(schedule.logsnr(TIMES.astype(np.float32)))
    assert np.isfinite(logsnr).all()
    assert (np.diff(logsnr) <= 0).all()
    assert logsnr[0] > logsnr[-1] + 3


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_inverse_of_log_snr_is_time(schedule):
    t = TIMES.astype(np.float32)
    logsnr = schedule.logsnr(t)
    # Where a clip holds the log-SNR at its end, time is lost; elsewhere it comes back (1.2e-7).
    ends = np.asarray(schedule.logsnr(np.float32([0.0, 1.0])))
    inside = np.asarray((logsnr < ends[0]) & (logsnr > ends[1]))
    assert inside.sum() > 900
    np.testing.assert_allclose(np.asarray(schedule.inverse(logsnr))[inside], t[inside], atol=1e-6)
    np.testing.assert_allclose(schedule.logsnr(schedule.inverse(logsnr)), logsnr, atol=5e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_inverse_of_unreachable_log_snr_is_the_nearer_end(schedule):
    assert float(schedule.inverse(99.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(schedule.inverse(-99.0)) == 1.0


def test_shift_adds_to_the_log_snr_and_the_sum_is_clipped():
    plain, shifted = CosineSchedule(), CosineSchedule(shift=-3.0)
    np.testing.assert_allclose(shifted.logsnr(0.5), plain.logsnr(0.5) - 3.0, atol=1e-6)
    assert float(shifted.logsnr(1.0)) == -20.0
    assert float(shifted.logsnr(0.0)) == pytest.approx(17.0, abs=1e-5)


def test_half_precision_times_give_float32_log_snr():
    assert CosineSchedule().logsnr(jnp.asarray(0.5, jnp.bfloat16)).dtype == jnp.float32


@settings(max_examples=50, deadline=None)
@given(st.floats(-40.0, 40.0, width=32))
def test_alpha_sigma_match_the_oracle_in_relative_terms(logsnr):
    alpha, sigma = alpha_sigma(jnp.float32(logsnr))
    expected = oracle.alpha_sigma(logsnr)
    np.testing.assert_allclose([alpha, sigma], expected, rtol=3e-6)


def test_per_example_aligns_the_batch_axis():
    logsnr = jnp.arange(3.0)
    assert per_example(logsnr, 4).shape == (3, 1, 1, 1)
    assert per_example(logsnr, 1).shape == (3,)
    assert per_example(jnp.float32(1.0), 3).shape == ()


@pytest.mark.parametrize("make", [
    lambda: CosineSchedule(logsnr_min=5.0, logsnr_max=5.0),
    lambda: CosineSchedule(shift=100.0),
    lambda: LinearLogSNRSchedule(logsnr_min=1.0, logsnr_max=0.0),
    lambda: LinearBetaSchedule(beta_min=-1.0),
    lambda: LinearBetaSchedule(beta_min=3.0, beta_max=2.0),
])
def test_impossible_fields_are_refused(make):
    with pytest.raises(UserError, match="must be"):
        make()


def test_float64_is_kept():
    with jax.enable_x64(True):
        logsnr = np.asarray(CosineSchedule().logsnr(TIMES))
    assert logsnr.dtype == np.float64
    np.testing.assert_allclose(logsnr, oracle.cosine_logsnr(TIMES), atol=1e-10)
