"""Cepstral statistics against what filters and levels do to them."""

import numpy as np
import pytest
from scipy.fft import dct

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.evaluation.mfcc import COEFFICIENTS, WINDOW, MFCCEmbedder
from music_diffusion.workflows.embedders import load_embedder

RATE = 16000


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)


def test_by_hand():
    samples = noise(2.5)
    mel = MelCodec().encode(samples)
    found = MFCCEmbedder()(samples)
    assert found.shape == (len(mel) // WINDOW, 2 * COEFFICIENTS)
    window = np.stack([dct(frame, norm="ortho")[1:COEFFICIENTS + 1] for frame in mel[WINDOW:2 * WINDOW]])
    expected = np.concatenate([window.mean(0), window.std(0)])
    np.testing.assert_allclose(found[1], expected, rtol=1e-4, atol=1e-4)


def test_level_does_not_count_and_tone_does():
    samples, embed = noise(3.0), MFCCEmbedder()
    np.testing.assert_allclose(embed(samples), embed(0.5 * samples), atol=1e-3)
    dull = np.convolve(samples, np.full(8, 1 / 8), "same").astype(np.float32)
    assert np.abs(embed(dull).mean(0) - embed(samples).mean(0)).max() > 1


def test_short_audio_gives_one():
    assert MFCCEmbedder()(noise(0.1)).shape == (1, 2 * COEFFICIENTS)


def test_by_name():
    embedder = load_embedder("mfcc")
    assert (embedder.name, embedder.sample_rate, embedder.dim) == ("mfcc", RATE, 2 * COEFFICIENTS)
    assert not embedder.stand_in and "MFCC" in embedder.settings
    with pytest.raises(UserError, match="mix it to one channel"):
        embedder(np.zeros((2, 100), np.float32))
