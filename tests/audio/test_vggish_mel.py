"""The front end of VGGish against float64 oracles, and its two implementations against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import mel_oracle

from music_diffusion.audio.codec import BLOCK_FRAMES
from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError

PUBLISHED = VGGishMel()
SMALL = VGGishMel(sample_rate=4000, hop=40, window=100, fft=128, mels=12, fmin=100.0, fmax=1900.0,
                  patch_frames=6, patch_hop=4)


def noise(samples, seed=0, level=0.1):
    audio = level * np.random.default_rng(seed).standard_normal(samples)
    return (audio * np.linspace(1, 0.01, samples)).astype(np.float32)


def oracle(config, samples, patch):
    """One patch from the definition: frames by their discrete Fourier sums, float64."""
    matrix = mel_oracle.mel_matrix(fft=config.fft, mels=config.mels, fmin=config.fmin,
                                   fmax=config.fmax, sample_rate=config.sample_rate)
    rows = [mel_oracle.magnitudes(samples, patch * config.patch_hop + i, hop=config.hop,
                                  window=config.window, fft=config.fft) @ matrix
            for i in range(config.patch_frames)]
    return np.log(np.array(rows) + config.offset)


@pytest.mark.parametrize("config, samples, count", [
    (PUBLISHED, 16000, 1), (SMALL, 300, 1), (SMALL, 299, 1), (SMALL, 300 + 160, 2), (SMALL, 619, 2),
    (SMALL, 620, 3)])
def test_numpy_and_jax_equal_the_oracle(config, samples, count):
    audio = noise(samples)
    want = np.array([oracle(config, audio, i) for i in range(count)])
    got = config.encode(audio)
    assert got.shape == (count, config.patch_frames, config.mels) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=3e-6)  # measured 3e-7
    batch = jnp.asarray(np.stack([audio, audio[::-1]]))
    both = jax.jit(config.patches)(batch)
    assert both.shape == (2, *want.shape)
    np.testing.assert_allclose(both[0], want, atol=1e-5)  # measured 1e-6
    np.testing.assert_allclose(both[1], config.encode(audio[::-1]), atol=1e-4)


def test_published_timing():
    # 96 frames of 10 ms and the rest of the last window.
    assert PUBLISHED.patch_samples == 15600 and PUBLISHED.patch_hop_samples == 15360
    assert [PUBLISHED.patches_of(n) for n in (0, 15600, 15600 + 15359, 15600 + 15360, 160000)] == [
        1, 1, 1, 2, 10]


def test_a_sine_is_loudest_in_the_band_whose_edges_hold_it():
    edges = np.linspace(*(mel_oracle.hertz_to_mel(f) for f in (125.0, 7500.0)), 66)
    at = 0.1 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    loudest = PUBLISHED.encode(at)[0].mean(0).argmax()
    assert edges[loudest] < mel_oracle.hertz_to_mel(1000) < edges[loudest + 2]


def test_short_audio_is_padded_with_silence():
    audio = noise(200)
    padded = np.pad(audio, (0, SMALL.patch_samples - 200))
    np.testing.assert_array_equal(SMALL.encode(audio), SMALL.encode(padded))
    np.testing.assert_allclose(SMALL.patches(jnp.asarray(audio)[None])[0],
                               SMALL.encode(audio), atol=1e-4)
    np.testing.assert_allclose(SMALL.encode(np.zeros(0, np.float32)), np.log(0.01), atol=1e-6)


def test_long_audio_equals_its_patches_one_at_a_time():
    count = BLOCK_FRAMES // SMALL.patch_hop + 3
    audio = noise(SMALL.patch_samples + (count - 1) * SMALL.patch_hop_samples)
    together = SMALL.encode(audio)
    assert len(together) == count
    for i in range(count):
        start = i * SMALL.patch_hop_samples
        alone = SMALL.encode(audio[start:start + SMALL.patch_samples])[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-5)


def test_gradient_is_that_of_finite_differences_and_finite_in_silence():
    audio = noise(SMALL.patch_samples, level=1.0)

    def total(x):
        return jnp.sum(SMALL.patches(x[None]))

    direction = noise(len(audio), seed=1)
    slope = float(jnp.vdot(jax.jit(jax.grad(total))(jnp.asarray(audio)), direction))
    step = 1e-3
    there, back = (SMALL.encode(audio.astype(np.float64) + s * step * direction).sum(
        dtype=np.float64) for s in (1, -1))
    assert slope == pytest.approx((there - back) / (2 * step), rel=0.02)
    silent = jax.jit(jax.grad(total))(jnp.zeros(len(audio)))
    assert not np.asarray(silent).any()


@pytest.mark.parametrize("fields, named", [
    ({"hop": 500}, "hop"), ({"fft": 401}, "fft"), ({"fmax": 9000.0}, "fmax"), ({"mels": 0}, "mels"),
    ({"offset": 0.0}, "offset"), ({"patch_hop": 0}, "patch_hop")])
def test_bad_settings_are_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        VGGishMel(**fields)


def test_bad_audio_is_refused():
    with pytest.raises(UserError, match="one channel"):
        PUBLISHED.encode(np.zeros((2, 100), np.float32))
    with pytest.raises(UserError, match="NaN"):
        PUBLISHED.encode(np.full(100, np.nan, np.float32))
