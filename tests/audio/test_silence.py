"""The gain is 1 wherever a sounding frame sees the sample, 0 in silence, and has no steps."""

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.silence import covering_frames, silence_gain

CODEC = MelCodec()
HOP = CODEC.hop


def mel_of(levels):
    """Frames whose largest bin lies so many nat above the floor; others are at the floor."""
    mel = np.full((len(levels), CODEC.mels), np.log(CODEC.clip_min), np.float32)
    mel[:, 70] += np.array(levels, np.float32)
    return mel


def gains(levels):
    """Of every hop of the levels, with silence around them."""
    around = np.zeros(covering_frames(CODEC))
    return silence_gain(CODEC, mel_of([*around, *levels, 0])).reshape(-1, HOP)


def test_silence_is_zero_and_sound_is_one():
    assert covering_frames(CODEC) == 2
    assert (gains([0] * 10) == 0).all()
    assert (gains([5] * 10) == 1).all()
    assert (gains([0.009] * 10) == 0).all()
    assert (gains([np.log(10)] * 10) > 1 - 1e-6).all()


def test_it_fades_in_hops_that_no_sounding_frame_sees():
    hops = gains([0, 0, 0, 9, 9, 0, 0, 0, 0])
    # Frames 3 and 4 see hops 3, 4 and 5; 2 and 6 are the fades.
    assert (hops[[0, 1]] == 0).all() and (hops[[7, 8]] == 0).all()
    assert (hops[3:6] == 1).all()
    cosine = 0.5 - 0.5 * np.cos(np.pi * np.arange(HOP) / HOP)
    np.testing.assert_allclose(hops[2], cosine, atol=1e-6)
    np.testing.assert_allclose(hops[6], 1 - cosine, atol=1e-6)


def test_there_are_no_steps():
    gain = gains(np.random.default_rng(0).choice([0, 0, 0, 1, 9], 200)).reshape(-1)
    assert 0 in gain and 1 in gain
    assert np.abs(np.diff(gain)).max() <= np.pi / 2 / HOP * 1.001  # half a cosine's steepest slope


def test_quiet_is_between():
    assert 0.3 < gains([1.0] * 5)[2].min() < 0.6  # -135 dBFS


@pytest.mark.parametrize("codec", [
    CODEC, MelCodec(window=900, fft=1024), MelCodec(hop=640), MelCodec(log_min=-8.0)])
def test_what_is_not_silence_is_never_turned_down(codec):
    """Sound in the codec's own spectrogram, bursts of 16-bit noise among zeros."""
    rng = np.random.default_rng(0)
    frames, lead = 60, covering_frames(codec)
    audio = rng.normal(size=frames * codec.hop) * 10 ** rng.uniform(-3, 0, frames * codec.hop)
    audio *= np.repeat(rng.random(frames) < 0.4, codec.hop)
    mel = codec.encode(np.concatenate([np.zeros(lead * codec.hop), audio, np.zeros(codec.hop)]))
    gain = silence_gain(codec, mel)
    assert gain.shape == audio.shape and (gain[audio != 0] == 1).all() and (gain == 0).any()
