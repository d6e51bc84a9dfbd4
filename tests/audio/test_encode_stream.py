"""The streamed spectrogram is the whole's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.errors import UserError

CODECS = {
    "default": MelCodec(),
    "ragged": MelCodec(sample_rate=8000, hop=100, window=250, fft=256, mels=40, fmax=4000.0),
    "hop_is_window": MelCodec(hop=320, window=320)}


def streamed(codec, samples, cuts):
    stream = MelStream(codec)
    parts = [stream.push(part) for part in np.split(samples, cuts)]
    return np.concatenate([*parts, stream.finish()])


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(size=st.integers(0, 3000), cuts=st.lists(st.integers(0, 3000), max_size=5))
@settings(max_examples=25)
def test_the_parts_are_the_spectrogram_of_the_whole(codec, size, cuts):
    samples = np.random.default_rng(size).normal(size=size).astype(np.float32)
    got = streamed(codec, samples, sorted(min(c, size) for c in cuts))
    np.testing.assert_allclose(got, codec.encode(samples), atol=1e-5)  # measured 2e-6


def test_a_frame_comes_as_soon_as_its_window_is_complete():
    stream, codec = MelStream(MelCodec()), MelCodec()
    assert stream.push(np.zeros(codec.window - 1)).shape == (0, codec.mels)
    assert len(stream.push(np.zeros(1))) == 1
    assert len(stream.push(np.zeros(10 * codec.hop))) == 10


@pytest.mark.parametrize("bad", [np.array([0.0, np.nan]), np.zeros((4, 2))])
def test_bad_samples_are_a_user_error(bad):
    with pytest.raises(UserError, match="audio has"):
        MelStream(MelCodec()).push(bad)
