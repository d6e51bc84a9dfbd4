import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.mel_consistency import match_mel

CODEC = MelCodec()
TIME = np.arange(40 * 320) / 16000


def inner(samples):
    return np.asarray(samples)[5 * 320:-5 * 320]


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_level_is_corrected(factor):
    sine = 0.3 * np.sin(2 * np.pi * 1000 * TIME)
    corrected = match_mel(CODEC, jnp.asarray(factor * sine), jnp.asarray(CODEC.encode(sine)))
    np.testing.assert_allclose(inner(corrected), inner(sine), atol=0.005)


def test_what_agrees_stays():
    noise = 0.1 * np.random.default_rng(0).normal(size=len(TIME))
    corrected = match_mel(CODEC, jnp.asarray(noise), jnp.asarray(CODEC.encode(noise)))
    assert len(corrected) == len(noise)
    np.testing.assert_allclose(inner(corrected), inner(noise), atol=2e-3)


def test_noise_comes_closer_to_another_spectrogram():
    rng = np.random.default_rng(1)
    noise, other = (0.1 * rng.normal(size=len(TIME)) for _ in range(2))
    other *= np.exp(-5 * TIME)
    mel = CODEC.encode(other)
    before = np.abs(CODEC.encode(noise) - mel)[5:-5].mean()
    corrected = np.asarray(match_mel(CODEC, jnp.asarray(noise), jnp.asarray(mel)))
    assert np.abs(CODEC.encode(corrected) - mel)[5:-5].mean() < 0.6 * before


def test_no_bin_is_changed_by_more_than_the_limit():
    sine = 0.1 * np.sin(2 * np.pi * 1000 * TIME)
    loud = CODEC.encode(sine) + np.log(100)
    corrected = match_mel(CODEC, jnp.asarray(sine), jnp.asarray(loud), largest=4.0)
    np.testing.assert_allclose(inner(corrected), 4 * inner(sine), atol=1e-3)
