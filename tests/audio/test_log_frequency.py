"""The log-frequency spectrogram against sums in float64, sinusoids and impulses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio.log_frequency import LogFrequencyConfig, fft_size, hertz, log_frequency

# One window that is a power of two, one that is not, and one that is shorter than a hop.
SMALL = LogFrequencyConfig(sample_rate=8000, hop=200, windows=(1024, 600, 100),
                           lowest_pitch=45, highest_pitch=105)
DEFAULT = LogFrequencyConfig()


@functools.partial(jax.jit, static_argnums=0)
def run(config, samples):
    return log_frequency(config, samples)


def spectrogram(config, samples):
    """[T, W, bins] of one signal [S]."""
    return np.asarray(run(config, jnp.asarray(samples, jnp.float32)[None]))[0]


def amplitudes(config, values):
    return config.floor ** (1 - values.astype(np.float64)) - config.floor


def tone(config, pitch, amplitude=0.5, seconds=0.5):
    time = np.arange(int(seconds * config.sample_rate)) / config.sample_rate
    return amplitude * np.sin(2 * np.pi * hertz(pitch) * time + 0.3)


def column(config, pitch):
    """The bin that is the pitch itself."""
    return (pitch - config.lowest_pitch) * config.bins_per_semitone + config.bins_per_semitone // 2


def filter_row(config, window, b):
    """Weights of FFT bins of bin b, from the definition: a triangle on the frequency axis."""
    pitch = config.lowest_pitch + (b - config.bins_per_semitone // 2) / config.bins_per_semitone
    size = 1
    while size < window:
        size *= 2
    centre, step = 440 * 2 ** ((pitch - 69) / 12), config.sample_rate / size
    to_next = 440 * 2 ** ((pitch + 1 / config.bins_per_semitone - 69) / 12) - centre
    half = max(to_next, step)
    weights = np.array([max(0.0, 1 - abs(k * step - centre) / half) for k in range(size // 2 + 1)])
    total, lobe = weights.sum(), 2 * size / window
    # A mean over the triangle of 2 |X| / sum(hann), and the padded transform's finer bins made up
    # for.
    return weights / total * (4 / window) * max(1.0, min(total, lobe) / 2)


def frame_oracle(config, samples, i, window, b):
    """One value, by a sum over the window's samples and one over the filter's bins."""
    begin = i * config.hop + config.hop // 2 - window // 2
    n = np.arange(window)
    inside = (begin + n >= 0) & (begin + n < len(samples))
    cut = np.where(inside, samples[np.clip(begin + n, 0, len(samples) - 1)], 0.0)
    cut = cut * np.sin(np.pi * n / window) ** 2
    weights = filter_row(config, window, b)
    size = 2 * (len(weights) - 1)
    total = sum(weights[k] * abs(np.sum(cut * np.exp(-2j * np.pi * k * n / size)))
                for k in np.flatnonzero(weights))
    return 1 - np.log(total + config.floor) / np.log(config.floor)


@pytest.mark.parametrize("config", [SMALL, DEFAULT], ids=["small", "default"])
def test_filters_are_their_definition(config):
    for window, got in zip(config.windows, config.filters, strict=True):
        assert got.shape == (fft_size(window) // 2 + 1, config.bins) and got.dtype == np.float32
        for b in range(0, config.bins, 7):
            want = filter_row(config, window, b)
            np.testing.assert_allclose(got[:, b], want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("config", [
    SMALL, DEFAULT, LogFrequencyConfig(windows=(64,), bins_per_semitone=5)],
    ids=["small", "default", "coarse"])
def test_no_filter_is_empty(config):
    for window, filters in zip(config.windows, config.filters, strict=True):
        assert (filters >= 0).all()
        # A weighted mean: the weights of a window's amplitude sum to 1, or up to the zero padding's
        # 2 fft / window / 2 where the filter is wide.
        total = filters.sum(axis=0) * window / 4
        assert (total > 1 - 1e-4).all() and (total < fft_size(window) / window + 1e-4).all()


def test_values_are_the_definition():
    samples = 0.3 * np.random.default_rng(0).normal(size=2100)
    got = spectrogram(SMALL, samples)
    assert got.shape == (10, 3, SMALL.bins) and SMALL.bins == 61 * 3
    for i in (0, 1, 5, 9):  # at the edges silence is seen
        for w, window in enumerate(SMALL.windows):
            for b in (0, 1, 77, SMALL.bins - 1):
                want = frame_oracle(SMALL, samples, i, window, b)
                assert got[i, w, b] == pytest.approx(want, abs=1e-5)  # measured 3e-7


@pytest.mark.parametrize("pitch", [27, 45, 57, 69, 81, 93, 105, 117])
def test_a_sinusoid_peaks_at_its_pitch(pitch):
    got = amplitudes(DEFAULT, spectrogram(DEFAULT, tone(DEFAULT, pitch)))[6:14]
    apart = hertz(pitch + 1 / 3) - hertz(pitch)
    at = column(DEFAULT, pitch)
    for w, window in enumerate(DEFAULT.windows):
        step = DEFAULT.sample_rate / fft_size(window)
        found = got[:, w].mean(0).argmax()
        if apart > step / 2:
            assert found == at
        # Where FFT bins are too far apart the maximum lies at the next of them.
        elif hertz(pitch) > 4 * DEFAULT.sample_rate / window:  # else it meets its mirror image
            centre = hertz(DEFAULT.lowest_pitch + (found - 1) / 3)
            assert abs(centre - hertz(pitch)) < step / 2 + apart


@pytest.mark.parametrize("pitch", [45, 57, 69, 81, 93, 105, 117])
def test_a_sinusoid_has_its_amplitude_where_filters_are_narrow_and_its_share_where_wide(pitch):
    """A filter takes a mean, so that one wider than the main lobe shows so much less."""
    got = amplitudes(DEFAULT, spectrogram(DEFAULT, tone(DEFAULT, pitch)))[6:14]
    for w, window in enumerate(DEFAULT.windows):
        fft = fft_size(window)
        if hertz(pitch) < 4 * DEFAULT.sample_rate / window:
            continue  # not resolved
        lobe = 2 * fft / window  # sum of the main lobe's magnitudes, in units of its peak
        total = max(1.0, (hertz(pitch + 1 / 3) - hertz(pitch)) * fft / DEFAULT.sample_rate)
        share = min(1.0, lobe * max(1.0, min(total, lobe) / 2) / total)
        values = got[:, w, column(DEFAULT, pitch)] / 0.5
        # Between the two cases the lobe's flanks meet the triangle's: up to 35 % lower (measured).
        tolerance = 0.16 if total < 0.5 * lobe or total > 4 * lobe else 0.36
        np.testing.assert_allclose(values, share, rtol=tolerance)


def test_frames_are_centred_on_their_middle():
    hop = SMALL.hop
    samples = np.zeros(14 * hop)
    samples[7 * hop + hop // 2] = 1.0
    got = amplitudes(SMALL, spectrogram(SMALL, samples))
    for w, window in enumerate(SMALL.windows):
        reach = window // 2 // hop
        for d in range(1, 4):
            np.testing.assert_allclose(got[7 - d, w], got[7 + d, w], atol=1e-6)
            assert (got[7 + d, w].max() > 1e-6) == (d <= reach and d * hop < window // 2)
            assert (got[7, w] > got[7 + d, w]).all()
        # |X| of an impulse at the window's maximum is 1, at every frequency.
        np.testing.assert_allclose(got[7, w], SMALL.filters[w].sum(0), rtol=2e-3)


def test_reach_is_the_farthest_sample_that_counts():
    i, hop = 8, SMALL.hop
    centre = i * hop + hop // 2
    gradient = np.asarray(jax.grad(lambda x: jnp.sum(run(SMALL, x)[0, i]))(jnp.asarray(
        np.random.default_rng(0).normal(size=(1, 17 * hop)), jnp.float32)))[0]
    seen = np.flatnonzero(gradient)
    assert centre - SMALL.reach <= seen.min() <= centre - SMALL.reach + 1  # Hann begins with a 0
    assert seen.max() == centre + SMALL.reach - 1


def test_silence_is_zero_and_full_scale_is_one():
    np.testing.assert_allclose(spectrogram(SMALL, np.zeros(1000)), 0, atol=1e-6)
    loud = spectrogram(SMALL, tone(SMALL, 57, amplitude=1.0))[5:15]
    assert loud.max() == pytest.approx(1.0, abs=0.02)  # 1.4 dB


@pytest.mark.parametrize("floor", [1e-4, 1e-5])
def test_twenty_decibels_are_twenty_decibels(floor):
    config = dataclasses.replace(SMALL, floor=floor)
    loud, quiet = (spectrogram(config, tone(config, 69, a))[5:15] for a in (0.5, 0.05))
    near = amplitudes(config, quiet) > 100 * floor  # where the floor is below 0.1 dB
    assert near.any(axis=(0, 2)).all()
    decibel = -20 * np.log10(floor) * (loud - quiet)[near]
    np.testing.assert_allclose(decibel, 20, atol=0.1)


def test_signals_of_a_batch_do_not_meet():
    a, b = np.random.default_rng(0).normal(size=(2, 1000))
    both = np.asarray(run(SMALL, jnp.asarray(np.stack([a, b]), jnp.float32)))
    np.testing.assert_allclose(both[0], spectrogram(SMALL, a), atol=1e-5)
    np.testing.assert_allclose(both[1], spectrogram(SMALL, b), atol=1e-5)


@pytest.mark.parametrize("size, frames", [(0, 0), (199, 0), (200, 1), (399, 1), (1000, 5)])
def test_whole_hops_are_frames(size, frames):
    assert spectrogram(SMALL, np.ones(size)).shape == (frames, 3, SMALL.bins)


def test_gradients_are_finite_in_silence():
    gradient = jax.grad(lambda x: jnp.sum(run(SMALL, x)))(jnp.zeros((1, 600)))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("fields, named", [
    ({"bins_per_semitone": 2}, "bins_per_semitone"), ({"bins_per_semitone": -1}, "bins_per_semitone"),
    ({"windows": ()}, "windows"), ({"windows": (801,)}, "windows"), ({"windows": (0,)}, "windows"),
    ({"highest_pitch": 119}, "highest_pitch"), ({"sample_rate": 14000}, "sample_rate"),
    ({"lowest_pitch": 118}, "lowest_pitch"), ({"hop": 0}, "hop"), ({"floor": 0.0}, "floor"),
    ({"floor": 1.0}, "floor")])
def test_bad_configurations_are_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        LogFrequencyConfig(**fields)
