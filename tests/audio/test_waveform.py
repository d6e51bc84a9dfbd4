"""Waveform: checks, mixing, resampling."""

import numpy as np
import pytest

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError


def sine(hertz, rate, seconds=0.5, level=0.5):
    return level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize("rate, target", [(44100, 16000), (16000, 48000), (22050, 16000)])
def test_resampling_keeps_pitch_level_and_duration(rate, target):
    wave = Waveform(sine(1000.0, rate), rate).resample(target)
    assert wave.sample_rate == target and wave.samples.dtype == np.float32
    assert wave.duration == pytest.approx(0.5, abs=1 / target)
    middle = wave.samples[target // 10:-target // 10]
    expected = sine(1000.0, target)[target // 10:target // 10 + len(middle)]
    np.testing.assert_allclose(middle, expected, atol=2e-4)


def test_resampling_removes_what_the_new_rate_cannot_hold():
    wave = Waveform(sine(11000.0, 44100), 44100).resample(16000)
    assert np.abs(wave.samples[1000:-1000]).max() < 1e-3


def test_mono_is_the_mean_of_the_channels():
    stereo = Waveform(np.array([[0.2, 0.4], [-1.0, 1.0]]), 8000)
    np.testing.assert_allclose(stereo.mono().samples, [0.3, 0.0], atol=1e-7)
    assert stereo.channels == 2 and stereo.mono().channels == 1
    assert stereo.duration == 2 / 8000
    assert stereo.resample(16000).samples.shape == (4, 2)


def test_empty_audio_resamples_to_empty_audio():
    assert len(Waveform(np.zeros(0), 44100).resample(16000)) == 0


@pytest.mark.parametrize("samples, rate", [
    (np.zeros((2, 2, 2)), 16000),
    (np.zeros((5, 0)), 16000),
    (np.zeros(5, np.int16), 16000),
    (np.array([0.0, np.inf]), 16000),
    (np.zeros(5), 0),
    (np.zeros(5), 44100.5),
])
def test_bad_audio_is_a_user_error(samples, rate):
    with pytest.raises(UserError):
        Waveform(samples, rate)


def test_bad_target_rate_is_a_user_error():
    with pytest.raises(UserError):
        Waveform(np.zeros(5), 16000).resample(-1)
