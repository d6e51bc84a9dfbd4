import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.models.spaces import MelSpace

CODEC = MelCodec(mels=4, log_max=2.0)
SPACE = MelSpace(codec=CODEC)


def test_the_mel_space_is_the_codecs_range_scaled_linearly():
    """[-11.5, 2] nat is [-1, 1], by hand; frames of the space are those of the spectrogram."""
    low = np.log(1e-5)
    mel = np.linspace(low, 2.0, 12, dtype=np.float32).reshape(3, 4)
    x = SPACE.of_mel({}, mel)
    np.testing.assert_allclose(x, np.linspace(-1, 1, 12).reshape(3, 4), atol=1e-6)
    np.testing.assert_allclose(SPACE.to_mel({}, x), mel, atol=1e-5)
    assert (SPACE.step, SPACE.channels) == (1, 4) and hash(SPACE) == hash(MelSpace(codec=CODEC))


def test_what_the_model_cannot_make_is_clipped():
    np.testing.assert_array_equal(SPACE.of_mel({}, np.array([[-50.0, 9.0, 2.0, -11.6]])), [[-1, 1, 1, -1]])
