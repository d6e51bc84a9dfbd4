"""Griffin-Lim: its projections, its gains, and the chunked stream."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim, interpolate_log, mel_to_linear
from music_diffusion.errors import UserError

CODEC = MelCodec()
FAST = GriffinLim(chunk_frames=64, context_frames=4)


def plucks(seconds=1.5, seed=0):
    """Notes of eight decaying harmonics that begin every 0.1 s."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * CODEC.sample_rate)) / CODEC.sample_rate
    audio = np.zeros(len(time))
    for onset in np.arange(0.05, seconds, 0.1):
        since = np.maximum(time - onset, 0)
        hertz = 440.0 * 2 ** (rng.integers(-12, 13) / 12)
        for k in range(1, 9):
            audio += np.exp(-since * 4 * k**0.5) / k * np.sin(2 * np.pi * hertz * k * since)
    return 0.3 * audio / np.abs(audio).max()


def sine(hertz, seconds, level=0.5):
    count = int(seconds * CODEC.sample_rate)
    return level * np.sin(2 * np.pi * hertz * np.arange(count) / CODEC.sample_rate)


def spectra(audio, window=512, hop=64):
    frames = np.lib.stride_tricks.sliding_window_view(audio, window)[::hop]
    return np.abs(np.fft.rfft(frames * np.hanning(window)))


def log_spectral_distance(a, b):
    a, b = (np.log(np.maximum(spectra(x), 1e-2)) for x in (a, b))
    return np.sqrt(np.square(a - b).mean(axis=1)).mean()


def convergence(config, mel):
    """Distance of the result's mel from the target, over the target's norm."""
    made = np.exp(CODEC.encode(config.invert(mel)))
    return np.linalg.norm(made - np.exp(mel)) / np.linalg.norm(np.exp(mel))


def test_linear_magnitudes_have_the_given_mel():
    mel = CODEC.encode(plucks(0.3))
    linear = np.asarray(mel_to_linear(CODEC, mel))
    assert linear.min() > 0
    again = np.log(np.maximum(linear @ CODEC.mel_matrix, 1e-5))
    assert np.abs(again - mel).mean() < 0.05  # measured 0.024


def test_interpolation_keeps_the_given_frames_and_is_geometric_between():
    magnitude = np.array([[1.0, 4.0], [100.0, 1.0]], np.float32)
    np.testing.assert_allclose(interpolate_log(magnitude, 2),
                               [[1, 4], [10, 2], [100, 1], [100, 1]], rtol=1e-5)


@pytest.mark.slow
def test_more_iterations_come_closer():
    mel = CODEC.encode(plucks())
    errors = [convergence(dataclasses.replace(FAST, upsample=1, iterations=n), mel)
              for n in (1, 8, 64)]
    assert errors[0] > 1.2 * errors[1] > 1.2 * 1.2 * errors[2], errors


def test_momentum_comes_closer_in_the_same_iterations():
    mel = CODEC.encode(plucks())
    slow, fast = (convergence(dataclasses.replace(FAST, momentum=m), mel) for m in (0.0, 0.99))
    assert fast < slow


@pytest.mark.parametrize("seed", [0, 1])
def test_interpolated_magnitudes_sound_closer_than_those_of_the_codecs_hop(seed):
    audio = plucks(seed=seed)
    mel = CODEC.encode(audio)
    coarse, fine = (dataclasses.replace(FAST, upsample=u).invert(mel)[:len(audio)]
                    for u in (1, 2))
    assert log_spectral_distance(fine, audio) < log_spectral_distance(coarse, audio)


@pytest.mark.parametrize("frames", [1, 3, 52, 60, 61, 150])
def test_samples_do_not_depend_on_the_pushes(frames):
    mel = np.random.default_rng(0).uniform(-8, 0, (frames, CODEC.mels)).astype(np.float32)
    config = dataclasses.replace(FAST, iterations=2)
    expected = config.invert(mel)
    assert expected.shape == (frames * CODEC.hop,) and expected.dtype == np.float32
    for sizes in ([1], [7, 0, 64], [149]):
        stream, at, parts = config.stream(), 0, []
        while at < frames:
            for size in sizes:
                parts.append(stream.push(mel[at:at + size]))
                at += size
        parts.append(stream.finish())
        np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_stream_keeps_little_back():
    stream, frames = FAST.stream(), 64 * 4
    out = len(stream.push(np.full((frames, CODEC.mels), -5.0, np.float32)))
    assert frames * CODEC.hop - out <= FAST.chunk_frames * CODEC.hop


@pytest.mark.parametrize("hertz", [220.0, 997.0])
def test_no_click_where_chunks_join(hertz):
    mel = CODEC.encode(sine(hertz, 5.0))[:-2]
    out = FAST.invert(mel)
    curve = np.abs(np.diff(out, 2))
    step = (FAST.chunk_frames - 2 * FAST.context_frames) * CODEC.hop
    joins = np.arange(step, len(out) - CODEC.window, step)
    assert len(joins) >= 3
    near = np.zeros(len(curve), bool)
    for join in joins:
        near[join - 32:join + CODEC.hop + 32] = True
    inside = slice(CODEC.window, -CODEC.window)
    assert curve[inside][near[inside]].max() <= 1.1 * curve[inside][~near[inside]].max()


def test_a_sine_comes_back_with_its_pitch_and_level():
    out = GriffinLim().invert(CODEC.encode(sine(440.0, 2.0)))
    middle = out[8000:8000 + 16000].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(16000)))
    assert abs(int(spectrum.argmax()) - 440) <= 2  # 1 Hz bins
    assert np.sqrt(np.square(middle).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.2)


def test_silence_stays_silent():
    out = FAST.invert(np.full((100, CODEC.mels), CODEC.log_min, np.float32))
    assert np.abs(out).max() < 1e-4  # -80 dBFS


def test_extremes_are_finite():
    assert np.isfinite(FAST.invert(CODEC.encode(sine(4000.0, 0.5, level=1.0)))).all()
    assert np.isfinite(FAST.invert(np.full((10, CODEC.mels), 1000.0, np.float32))).all()


def test_no_frames_give_no_samples():
    assert FAST.invert(np.zeros((0, CODEC.mels), np.float32)).shape == (0,)


@pytest.mark.parametrize("bad, word", [
    (np.full((4, 128), np.nan), "frame 0"), (np.zeros((4, 80)), "128"), (np.zeros(128), "shape")])
def test_bad_mel_is_a_user_error(bad, word):
    with pytest.raises(UserError, match=word):
        FAST.invert(bad)


@pytest.mark.parametrize("name, value", [
    ("upsample", 3), ("iterations", 0), ("chunk_frames", 8), ("context_frames", 1)])
def test_unusable_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(FAST, **{name: value})


def test_other_codecs_work():
    codec = MelCodec(sample_rate=8000, hop=100, window=250, fft=256, mels=40, fmax=4000.0)
    config = GriffinLim(codec=codec, upsample=2, iterations=8)
    mel = codec.encode(sine(440.0, 0.5)[:4000])
    assert np.abs(codec.encode(config.invert(mel)) - mel)[2:-4].mean() < 0.5
