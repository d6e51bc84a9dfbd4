"""Loudness that follows a recording's."""

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.synthesis.follow_level import MOST, LevelFollower, followed, window_seconds
from music_diffusion.synthesis.recordings import frame_levels

CODEC = MelCodec()


def frames(level: np.ndarray) -> np.ndarray:
    """Log-mel in nat of frames of one spectrum, so loud."""
    spectrum = np.linspace(-2, -5, CODEC.mels)
    spectrum -= 0.5 * np.log(np.exp(2 * spectrum).sum())
    return (level[:, None] + spectrum[None]).astype(np.float32)


def run(made: np.ndarray, level: np.ndarray, seconds: float = 0.5, part: int = 37) -> np.ndarray:
    follower = LevelFollower(level, CODEC, seconds)
    parts = (made[i:i + part] for i in range(0, len(made), part))
    return np.concatenate(list(followed(parts, follower)))


def test_loudness_is_the_recordings():
    t = np.arange(600)
    wanted = np.sin(2 * np.pi * t / 300)  # nat, slow beside the window
    made = frames(0.7 * np.sin(2 * np.pi * t / 250 + 1))
    out = frame_levels(run(made, wanted))
    assert len(out) == 600
    np.testing.assert_allclose(out[30:-30], wanted[30:-30], atol=0.1)


def test_what_is_fast_stays():
    """Frames within the window keep their differences: attacks are the target's own."""
    made = frames(np.where(np.arange(400) % 10 < 2, 1.0, -1.0))
    out = frame_levels(run(made, np.full(400, 0.3)))
    assert np.ptp(out[100:110]) == pytest.approx(2.0, abs=0.05)


def test_not_further_than_allowed():
    made = frames(np.zeros(200))
    assert np.abs(frame_levels(run(made, np.full(200, 9.0))) - MOST).max() < 1e-3
    np.testing.assert_allclose(frame_levels(run(made, np.full(200, -9.0))), -MOST, atol=1e-3)


@pytest.mark.parametrize("part", [1, 7, 1000])
def test_in_parts_as_at_once(part):
    rng = np.random.default_rng(0)
    made, level = frames(rng.normal(0, 1, 150)), rng.normal(0, 1, 150)
    np.testing.assert_allclose(run(made, level, part=part), run(made, level, part=150), atol=1e-5)


def test_silence_stays_and_lengths_may_differ():
    made = np.full((90, CODEC.mels), CODEC.log_min, np.float32)
    assert np.array_equal(run(made, np.zeros(90)), made)
    for length in (3, 60, 120):
        assert len(run(frames(np.zeros(90)), np.zeros(length))) == 90


def test_what_decays_is_not_held():
    """A recording that holds its notes does not hold those of a struck string."""
    assert window_seconds([40, 0]) > window_seconds([40])
    assert [window_seconds([program]) for program in (46, 11, 73, 19)] == [2.0, 2.0, 0.5, 0.5]
