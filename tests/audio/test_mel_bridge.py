"""VGGish's patches out of the codec's spectrogram, against those of the waveform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soxr

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.mel_bridge import vggish_patches
from music_diffusion.audio.vggish_mel import VGGishMel

CODEC, FRONT = MelCodec(), VGGishMel()
OTHERS = [CODEC, MelCodec(sample_rate=22050, hop=441, fmax=11025.0),
          MelCodec(sample_rate=24000, fmax=12000.0)]
TIME = np.arange(2 * 16000) / 16000


def both(samples, codec=CODEC):
    """What the bridge sees of samples at 16 kHz, read at the codec's own rate, and what VGGish hears."""
    samples = samples.astype(np.float32)
    own = soxr.resample(samples, 16000, codec.sample_rate)
    seen = vggish_patches(codec, FRONT, jnp.asarray(codec.encode(own))[None])[0]
    heard = FRONT.encode(samples)
    return np.asarray(seen)[:len(heard)], heard


@pytest.mark.parametrize("samples", [
    0.1 * np.random.default_rng(0).normal(size=len(TIME)),
    0.3 * np.sin(2 * np.pi * 440 * TIME) * np.exp(-TIME),
    sum(0.1 / k * np.sin(2 * np.pi * 220 * k * TIME) for k in range(1, 20))],
    ids=["noise", "tone", "harmonics"])
@pytest.mark.parametrize("codec", OTHERS, ids=lambda codec: codec.sample_rate)
def test_what_is_seen_is_nearly_what_is_heard(codec, samples):
    seen, heard = both(samples, codec)
    assert seen.shape == heard.shape == (2, 96, 64)
    # One band beside: 0.86 of noise, 0.82 and 0.88 nat of harmonics. What patches vary by: 0.8 to 2.1 nat.
    assert np.corrcoef(seen.ravel(), heard.ravel())[0, 1] > 0.92
    assert np.abs(seen - heard).mean() < 0.35


@pytest.mark.parametrize("codec", OTHERS, ids=lambda codec: codec.sample_rate)
def test_noise_is_as_loud(codec):
    seen, heard = both(0.1 * np.random.default_rng(1).normal(size=len(TIME)), codec)
    assert (seen - heard).mean() == pytest.approx(0, abs=0.08)  # without the rates: -0.16 and -0.20


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 5000.0])
@pytest.mark.parametrize("codec", OTHERS, ids=lambda codec: codec.sample_rate)
def test_a_tone_lies_in_its_band(codec, hertz):
    seen, heard = both(0.3 * np.sin(2 * np.pi * hertz * TIME), codec)
    assert abs(int(seen[0].mean(0).argmax()) - int(heard[0].mean(0).argmax())) <= 1


@pytest.mark.parametrize("codec", OTHERS, ids=lambda codec: codec.sample_rate)
def test_a_click_lies_at_its_time(codec):
    samples = np.zeros(len(TIME))
    samples[8000] = 1.0
    seen, heard = both(samples, codec)
    times = [np.average(np.arange(96), weights=np.exp(x[0]).sum(-1) - 64 * FRONT.offset)
             for x in (seen, heard)]
    assert times[0] == pytest.approx(times[1], abs=0.75)  # frames of VGGish; the codecs have one in 20 ms


def test_it_has_a_gradient():
    mel = jnp.asarray(CODEC.encode(0.1 * np.random.default_rng(0).normal(size=16000)))[None]
    gradient = jax.grad(lambda m: vggish_patches(CODEC, FRONT, m).sum())(mel)
    heard = slice(12, 120)  # bands within VGGish's 125 to 7,500 Hz
    assert np.isfinite(gradient).all() and (np.abs(gradient[0, 5:40, heard]) > 0).all()
