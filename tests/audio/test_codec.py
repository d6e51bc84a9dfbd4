"""The codec against its float64 oracle, and the two implementations against each other."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import mel_oracle

from music_diffusion.audio.codec import BLOCK_FRAMES, MelCodec
from music_diffusion.audio.codec_jax import encode_jax, frame, overlap_add
from music_diffusion.errors import UserError

CODEC = MelCodec()
SMALL = MelCodec(sample_rate=4000, hop=50, window=120, fft=128, mels=20, fmin=100.0, fmax=1900.0)


def noise(samples, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def oracle(codec, samples):
    names = ("sample_rate", "hop", "window", "fft", "mels", "fmin", "fmax", "clip_min", "clip_max")
    return mel_oracle.encode(samples, **{name: getattr(codec, name) for name in names})


def test_mel_matrix_is_tensorflows():
    expected = mel_oracle.mel_matrix(fft=1024, mels=128, sample_rate=16000, fmin=0, fmax=8000)
    np.testing.assert_allclose(CODEC.mel_matrix, expected, atol=1e-6)
    assert CODEC.mel_matrix.shape == (513, 128) and CODEC.mel_matrix.dtype == np.float32
    assert not CODEC.mel_matrix[0].any()  # no DC
    # Adjacent triangles add to 1 between the first and the last centre.
    inside = CODEC.mel_matrix.sum(1)[2:500]
    np.testing.assert_allclose(inside, 1.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("codec, samples", [
    (CODEC, 320 * 3), (CODEC, 320 * 3 + 1), (CODEC, 100), (SMALL, 50 * 9 - 7), (SMALL, 50 * 4)])
def test_numpy_and_jax_equal_the_oracle(codec, samples):
    audio = noise(samples) * np.linspace(1, 0.01, samples, dtype=np.float32)
    expected = oracle(codec, audio)
    assert expected.shape == (math.ceil(samples / codec.hop), codec.mels)
    np.testing.assert_allclose(codec.encode(audio), expected, atol=1e-5)  # measured 2e-6
    np.testing.assert_allclose(encode_jax(codec, jnp.asarray(audio)), expected, atol=1e-4)


def test_frames_across_blocks_equal_those_of_one_frame_at_a_time():
    audio = noise(SMALL.hop * (BLOCK_FRAMES + 3))
    mel = SMALL.encode(audio)
    for i in (0, BLOCK_FRAMES - 2, BLOCK_FRAMES - 1, BLOCK_FRAMES, BLOCK_FRAMES + 2):
        alone = SMALL.encode(audio[i * SMALL.hop:i * SMALL.hop + SMALL.window])[0]
        np.testing.assert_allclose(mel[i], alone, atol=1e-5)


@pytest.mark.parametrize("spare", [1, 16])
def test_more_silence_at_the_end_changes_no_frame(spare):
    """So frames of silence that are encoded and dropped (16 in the paper's code) need not exist."""
    audio = noise(SMALL.hop * 7)
    padded = np.pad(audio, (0, spare * SMALL.hop))
    np.testing.assert_allclose(SMALL.encode(padded)[:-spare], SMALL.encode(audio), atol=1e-5)


def test_silence_is_the_floor_and_no_audio_has_no_frames():
    np.testing.assert_allclose(CODEC.encode(np.zeros(1000)), math.log(1e-5), rtol=1e-6)
    assert CODEC.encode(np.zeros(0)).shape == (0, 128)


@pytest.mark.parametrize("hertz", [110.0, 440.0, 1234.5, 5000.0])
def test_a_sine_lands_in_its_mel_bin(hertz):
    time = np.arange(3200) / CODEC.sample_rate
    mel = CODEC.encode(0.5 * np.sin(2 * np.pi * hertz * time))[2:8].mean(0)
    step = mel_oracle.hertz_to_mel(CODEC.fmax) / (CODEC.mels + 1)
    expected = mel_oracle.hertz_to_mel(hertz) / step - 1  # centres are at (m + 1) steps
    assert abs(np.argmax(mel) - expected) <= 1.0


def test_jax_twin_is_batched_and_its_gradient_is_finite_in_silence():
    audio = jnp.stack([jnp.asarray(noise(SMALL.hop * 4)), jnp.zeros(SMALL.hop * 4)])
    both = encode_jax(SMALL, audio)
    np.testing.assert_allclose(both[0], encode_jax(SMALL, audio[0]), atol=1e-5)
    gradient = jax.grad(lambda x: encode_jax(SMALL, x).sum())(audio)
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0


def test_jax_gradient_equals_finite_differences():
    audio = jnp.asarray(noise(SMALL.hop * 3))
    direction = jnp.asarray(noise(SMALL.hop * 3, seed=1))
    slope = jnp.vdot(jax.grad(lambda x: encode_jax(SMALL, x).mean())(audio), direction)
    h = 1e-3
    up, down = (SMALL.encode(np.asarray(audio + s * h * direction)).mean(dtype=np.float64)
                for s in (1, -1))
    np.testing.assert_allclose(slope, (up - down) / (2 * h), rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("length, hop", [(640, 320), (120, 50), (8, 8)])
def test_overlap_add_is_the_transpose_of_frame(length, hop):
    x = noise((3 - 1 + -(-length // hop)) * hop, level=1.0)
    y = noise(3 * length, seed=1, level=1.0).reshape(3, length)
    framed = np.asarray(frame(jnp.asarray(x), length=length, hop=hop))
    np.testing.assert_array_equal(framed[1], x[hop:hop + length])
    np.testing.assert_allclose(np.vdot(framed, y), np.vdot(x, overlap_add(jnp.asarray(y), hop=hop)),
                               rtol=1e-4, atol=1e-3)


def test_scaling_round_trip_and_ends():
    mel = np.linspace(CODEC.log_min, CODEC.log_max, 50, dtype=np.float32)
    scaled = CODEC.scale(mel)
    np.testing.assert_allclose(scaled[[0, -1]], [-1, 1], atol=1e-6)
    np.testing.assert_allclose(CODEC.unscale(scaled), mel, atol=1e-5)
    assert CODEC.scale(np.float32([-100, 100])).tolist() == [-1, 1]
    np.testing.assert_allclose(jax.jit(CODEC.scale)(jnp.asarray(mel)), scaled, atol=1e-6)


def test_dictionary_round_trip_and_mismatch():
    codec = MelCodec(hop=160)
    assert MelCodec.from_dict(codec.to_dict()) == codec
    codec.check_same(MelCodec.from_dict(codec.to_dict()))
    assert MelCodec.from_dict({**codec.to_dict(), "spare_frames": 16}) == codec  # of version 0.1
    with pytest.raises(UserError, match="hop 320 and 160"):
        CODEC.check_same(codec)
    with pytest.raises(UserError, match="lapped"):
        MelCodec.from_dict({**codec.to_dict(), "lapped": 1})
    with pytest.raises(UserError, match="hop"):
        MelCodec.from_dict({**codec.to_dict(), "hop": 0})
    with pytest.raises(ValueError, match="fmax"):
        dataclasses.replace(CODEC, sample_rate=8000)


@pytest.mark.parametrize("bad", [np.zeros((10, 2)), np.array([0.0, np.nan])])
def test_bad_audio_is_a_user_error(bad):
    with pytest.raises(UserError):
        CODEC.encode(bad)
