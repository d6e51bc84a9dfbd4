"""Loudness against pyloudnorm and the standard's table; the limiter against 16× oversampling."""

import math

import numpy as np
import pyloudnorm
import pytest
import scipy.signal

from music_diffusion.audio.io import read_audio, write_audio
from music_diffusion.audio.loudness import (
    LoudnessMeter,
    TruePeakLimiter,
    TruePeakMeter,
    k_weighting,
    normalize,
    normalize_file,
)
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError


def bursts(rate=16000, seconds=4.0, seed=0, channels=1):
    """Noise whose level jumps between 0 and -20 dB."""
    rng = np.random.default_rng(seed)
    audio = rng.standard_normal((int(rate * seconds), channels))
    audio = scipy.signal.lfilter([0.2], [1, -0.8], audio, axis=0)
    level = np.repeat(10 ** rng.uniform(-1, 0, 8), -(-len(audio) // 8))[:len(audio), None]
    audio = 0.2 * audio * level
    return audio[:, 0] if channels == 1 else audio


def measured(audio, rate, sizes=(16000,)):
    meter = LoudnessMeter(rate, 1 if audio.ndim == 1 else audio.shape[1])
    at, turn = 0, 0
    while at < len(audio):
        meter.push(audio[at:at + sizes[turn % len(sizes)]])
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    return meter.integrated


def true_peak_db(audio, factor=16):
    """By zero-padding the spectrum (exact for the band-limited periodic signal)."""
    padded = np.pad(audio, ((256, 256),) + ((0, 0),) * (audio.ndim - 1))
    fine = scipy.signal.resample(padded.astype(np.float64), len(padded) * factor, axis=0)
    return 20 * np.log10(np.abs(fine).max())


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_integrated_loudness_equals_pyloudnorms(rate, channels, seed):
    audio = bursts(rate, seed=seed, channels=channels)
    expected = pyloudnorm.Meter(rate).integrated_loudness(audio)
    assert measured(audio, rate) == pytest.approx(expected, abs=0.01)
    assert measured(audio, rate, sizes=(1, 999, 12345)) == pytest.approx(expected, abs=0.01)


def test_the_filter_has_the_standards_response_at_48_khz():
    shelf = ([1.53512485958697, -2.69169618940638, 1.19839281085285],
             [1.0, -1.69065929318241, 0.73248077421585])
    high_pass = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])
    hertz = np.geomspace(20, 20000, 200)
    expected = np.prod([scipy.signal.freqz(*s, hertz, fs=48000)[1] for s in (shelf, high_pass)], 0)
    response = scipy.signal.sosfreqz(k_weighting(48000), hertz, fs=48000)[1]
    difference = 20 * np.log10(np.abs(response / expected))
    assert np.abs(difference).max() < 0.06


def test_the_standards_calibration_tone():
    time = np.arange(48000 * 2) / 48000
    assert measured(np.sin(2 * np.pi * 997 * time), 48000) == pytest.approx(-3.01, abs=0.06)


def test_silence_between_is_gated():
    audio = bursts(seed=3)
    with_silence = np.concatenate([audio, np.zeros(160000)])
    assert measured(with_silence, 16000) == pytest.approx(measured(audio, 16000), abs=0.3)


def test_silence_and_nothing_have_no_loudness():
    assert measured(np.zeros(16000), 16000) == -math.inf
    assert LoudnessMeter(16000).integrated == -math.inf
    assert measured(np.full(16000, 1e-6), 16000) == -math.inf


def test_short_audio_has_a_loudness():
    time = np.arange(3200) / 16000
    tone = np.sin(2 * np.pi * 997 * time)
    assert measured(tone, 16000) == pytest.approx(-3.01, abs=0.5)


def test_loudness_of_many_channels_is_refused():
    with pytest.raises(UserError, match="6 channels"):
        LoudnessMeter(16000, 6)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.45])
@pytest.mark.parametrize("phase", [0.0, 0.8])
def test_true_peak_of_a_sine_is_its_amplitude(share, phase):
    audio = 0.5 * np.sin(2 * np.pi * share * np.arange(4000) + phase) * np.hanning(4000)
    meter = TruePeakMeter()
    for part in np.array_split(audio, 9):
        meter.push(part)
    meter.finish()
    assert 20 * np.log10(meter.peak / 0.5) == pytest.approx(0, abs=0.12)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("gain", [3.0, 50.0])
def test_limiter_keeps_the_ceiling(channels, gain):
    rng = np.random.default_rng(0)
    audio = gain * bursts(seconds=2.0, channels=channels)
    audio[rng.integers(0, len(audio), 20)] *= 5  # clicks
    limiter = TruePeakLimiter(16000, channels, ceiling_dbtp=-1.0)
    parts = [limiter.push(part) for part in np.array_split(audio, [1, 50, 3000, 3001])]
    out = np.concatenate([*parts, limiter.finish()])
    assert out.shape == audio.shape
    assert true_peak_db(audio) > -1 and true_peak_db(out) <= -1.0


def test_limiter_catches_peaks_between_samples_and_at_the_ends():
    time = np.arange(8000)
    audio = 0.99 * np.sin(2 * np.pi * time / 4 + np.pi / 4)  # samples at ±0.7
    audio = np.concatenate([[3.0], audio, [3.0]])
    limiter = TruePeakLimiter(16000, ceiling_dbtp=-1.0)
    out = np.concatenate([limiter.push(audio), limiter.finish()])
    assert true_peak_db(out) <= -1.0 and np.abs(out[4000:4100]).max() < 0.65


def test_limiter_leaves_quiet_audio_alone_and_recovers():
    audio = np.clip(bursts(), -0.5, 0.5).astype(np.float32) * 0.5
    audio[1000] = 4.0
    limiter = TruePeakLimiter(16000, release=60.0)
    out = np.concatenate([limiter.push(audio), limiter.finish()])
    np.testing.assert_array_equal(out[:900], audio[:900])
    after = 1000 + int(16000 * 14 / 60) + 200  # 13 dB at 60 dB/s
    np.testing.assert_allclose(out[after:], audio[after:], rtol=1e-5)
    assert np.abs(out[1100:1200]).max() < np.abs(audio[1100:1200]).max()


def test_limited_audio_does_not_depend_on_the_blocks():
    audio = 5 * bursts(seconds=1.0)
    outs = []
    for sizes in ([16000], [1] * 100 + [15900], [4000] * 4):
        limiter = TruePeakLimiter(16000)
        parts = [limiter.push(part) for part in np.split(audio, np.cumsum(sizes)[:-1])]
        outs.append(np.concatenate([*parts, limiter.finish()]))
    np.testing.assert_allclose(outs[1], outs[0], atol=1e-6)
    np.testing.assert_allclose(outs[2], outs[0], atol=1e-6)


@pytest.mark.parametrize("level", [0.1, 1.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_come_to_their_loudness_below_their_ceiling(tmp_path, level, channels):
    audio = level * bursts(channels=channels)
    write_audio(tmp_path / "in.flac", Waveform(audio, 16000))
    done = normalize_file(tmp_path / "in.flac", tmp_path / "out.wav")
    out = read_audio(tmp_path / "out.wav").samples.astype(np.float64)
    assert out.shape == audio.shape
    loudness = pyloudnorm.Meter(16000).integrated_loudness(out)
    assert loudness == pytest.approx(-14, abs=0.3) == pytest.approx(done.lufs, abs=0.31)
    assert true_peak_db(out) <= -1.0 + 0.005  # 16-bit rounding
    assert done.peak_dbtp == pytest.approx(true_peak_db(out), abs=0.2)


def test_silent_files_stay_silent_and_quiet_ones_are_raised_only_so_far(tmp_path):
    write_audio(tmp_path / "in.wav", Waveform(np.zeros(16000), 16000))
    done = normalize_file(tmp_path / "in.wav", tmp_path / "out.wav")
    assert done.gain_db == 0 and done.lufs == -math.inf
    assert not read_audio(tmp_path / "out.wav").samples.any()
    quiet = 0.003 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    write_audio(tmp_path / "in.wav", Waveform(quiet, 16000))
    assert normalize_file(tmp_path / "in.wav", tmp_path / "out.wav", max_gain_db=20).gain_db == 20


def test_a_file_can_be_normalised_in_place_and_nothing_is_left_of_a_failure(tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, Waveform(0.1 * bursts(), 16000))
    normalize_file(path, path)
    assert pyloudnorm.Meter(16000).integrated_loudness(read_audio(path).samples) > -14.5
    with pytest.raises(UserError):
        normalize_file(tmp_path / "none.wav", tmp_path / "b.wav")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("level", [0.02, 0.9])
def test_normalising_in_memory_equals_normalising_a_file(tmp_path, level):
    wave = Waveform(np.float32(level) * bursts(), 16000)
    write_audio(tmp_path / "a.wav", wave)
    normalize_file(tmp_path / "a.wav", tmp_path / "b.wav")
    in_memory = normalize(Waveform(read_audio(tmp_path / "a.wav").samples, 16000))
    # The file holds 16 bits.
    np.testing.assert_allclose(in_memory.samples, read_audio(tmp_path / "b.wav").samples, atol=2**-15)
    assert len(in_memory) == len(wave)


def test_normalised_silence_is_silence():
    assert not normalize(Waveform(np.zeros(16000, np.float32), 16000)).samples.any()
