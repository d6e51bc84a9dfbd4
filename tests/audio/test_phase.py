import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio import phase

HOP, FFT, BINS = 160, 1024, 513


def brute_force_owner(log, slope):
    """For one frame, by comparing every bin with every peak."""
    peaks = [k for k in range(len(log))
             if (k == 0 or log[k] >= log[k - 1]) and (k == len(log) - 1 or log[k] > log[k + 1])]
    heights = np.array([[log[p] - slope * abs(p - k) for p in peaks] for k in range(len(log))])
    return np.array(peaks)[heights.argmax(axis=1)], heights


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.05, 0.3])
def test_a_bin_belongs_to_the_peak_with_the_highest_cone(slope):
    log = np.random.default_rng(0).normal(size=(5, 40)).astype(np.float32)
    owner = np.asarray(phase.nearest_peaks(jnp.asarray(log), slope=slope))
    for row, its in zip(log, owner, strict=True):
        expected, heights = brute_force_owner(row, slope)
        peaks = np.unique(expected)
        assert set(its) <= set(peaks) | set(expected)
        # Equal up to rounding of the two tops, where the owners may differ.
        np.testing.assert_allclose([row[o] - slope * abs(o - k) for k, o in enumerate(its)],
                                   heights.max(axis=1), atol=1e-5)


def test_a_parabola_is_found_between_bins():
    bins = np.arange(20.0)
    for top in (7.0, 7.3, 6.6):
        log = jnp.asarray(-0.4 * (bins - top) ** 2)
        assert phase.peak_offset(log)[7] == pytest.approx(top - 7, abs=1e-4)
    np.testing.assert_array_equal(phase.peak_offset(jnp.zeros(5)), 0)


def test_bins_advance_by_their_own_frequency():
    seconds = HOP / 16000
    hertz = np.arange(BINS) * 16000 / FFT
    turns = np.mod(hertz * seconds, 1)
    got = phase.bin_advance(hop=HOP, fft=FFT) / phase.TURN
    np.testing.assert_allclose(np.mod(got - turns + 0.5, 1), 0.5, atol=1e-5)


def test_wrapped_angles_are_the_same_angles_within_half_a_turn():
    angles = jnp.linspace(-30, 30, 601)
    wrapped = phase.wrapped(angles)
    assert np.abs(wrapped).max() <= np.pi + 1e-5
    np.testing.assert_allclose(np.exp(1j * np.asarray(wrapped)), np.exp(1j * np.asarray(angles)),
                               atol=1e-5)


def test_the_local_mean_of_one_sinusoid_is_its_frequency():
    """Every bin tells how far its own advance is from the sinusoid's."""
    unit = phase.TURN * HOP / FFT
    deviation = jnp.asarray((100.4 - np.arange(BINS)) * unit, jnp.float32)
    deviation = jnp.broadcast_to(deviation, (1, 6, BINS))
    log = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, BINS)), jnp.float32)
    mean = phase.local_mean(log, deviation, hop=HOP, fft=FFT, frames=3, bins=2)
    np.testing.assert_allclose(mean[:, :, 5:-5], deviation[:, :, 5:-5], atol=2e-4)


def test_the_local_mean_listens_to_what_is_loud():
    log = np.full((1, 9, 20), -20.0, np.float32)
    deviation = np.full((1, 9, 20), 0.7, np.float32)
    log[:, 5:, 10], deviation[:, 5:, 10] = 0.0, -0.2  # an attack in frame 5
    mean = phase.local_mean(jnp.asarray(log), jnp.asarray(deviation), hop=0, fft=FFT, frames=3, bins=2)
    np.testing.assert_allclose(mean[0, 4:, 10], -0.2, atol=1e-2)


def test_phases_are_running_sums():
    rng = np.random.default_rng(0)
    advance = rng.uniform(0, 6, (2, 7, 9)).astype(np.float32)
    before = rng.uniform(0, 6, (2, 9)).astype(np.float32)
    own = jnp.broadcast_to(jnp.arange(9), advance.shape)
    phases, last = phase.continue_phases(own, jnp.asarray(advance), jnp.asarray(before))
    expected = before[:, None] + np.cumsum(advance, axis=1)
    np.testing.assert_allclose(np.exp(1j * np.asarray(phases)), np.exp(1j * expected), atol=1e-5)
    np.testing.assert_array_equal(last, phases[:, -1])


def test_bins_take_the_phase_of_their_peak_and_parts_give_the_whole():
    rng = np.random.default_rng(1)
    owner = jnp.asarray(rng.integers(0, 9, (1, 12, 9)))
    advance = jnp.asarray(rng.uniform(0, 6, (1, 12, 9)), jnp.float32)
    before = jnp.asarray(rng.uniform(0, 6, (1, 9)), jnp.float32)
    whole, _ = phase.continue_phases(owner, advance, before)
    for t in range(12):
        np.testing.assert_allclose(whole[0, t], whole[0, t][_first_of(owner[0, t])], atol=0)
    first, state = phase.continue_phases(owner[:, :5], advance[:, :5], before)
    second, _ = phase.continue_phases(owner[:, 5:], advance[:, 5:], state)
    np.testing.assert_array_equal(jnp.concatenate([first, second], 1), whole)


def _first_of(owner):
    """For every bin the first one with the same owner."""
    owner = np.asarray(owner)
    return np.array([np.flatnonzero(owner == o)[0] for o in owner])


def test_a_phase_at_the_centre_of_a_window_is_moved_to_its_start():
    window, turns = 640, 37.0  # cycles of the FFT length
    n = np.arange(window)
    sine = np.cos(2 * np.pi * turns * (n - window / 2) / FFT + 0.8)  # 0.8 rad at the centre
    spectrum = np.fft.rfft(sine * np.hanning(window + 1)[:window], FFT)
    shift = phase.centre_shift(window=window, fft=FFT)
    assert np.angle(spectrum[37] * np.exp(-1j * (0.8 + shift[37]))) == pytest.approx(0, abs=1e-3)
