"""Channels that cancel each other, against mixes whose answer is known."""

import numpy as np
import pytest

from music_diffusion.audio.mixdown import ENOUGH, mix, polarity

RATE = 1000
RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 20 * RATE)).astype(np.float32) * 0.1


def signs(*channels, rate=RATE):
    return polarity([np.stack(channels, 1)], rate)


@pytest.mark.parametrize("channels", [
    (A,), (A, A), (A, B), (A, 0 * A), (0 * A, 0 * A), (A + B, A - B), (A, 0.5 * A), (A, -0.5 * A),
    (A, -A + 0.5 * B), (A, A, A, A, -A, A)])
def test_channels_that_leave_a_sound_mix_as_they_are(channels):
    assert signs(*channels) is None


@pytest.mark.parametrize("channels, want", [
    ((A, -A), (1, -1)), ((A, -1.1 * A), (1, -1)), ((0.9 * A, -A), (1, -1)), ((0 * A, A, -A), (1, 1, -1)),
    ((A, -A + 0.01 * B), (1, -1)),
    ((1.01 * A, -A, A, -A), (1, -1, 1, -1))])
def test_channels_that_cancel_are_turned_to_the_loudest(channels, want):
    found = signs(*channels)
    np.testing.assert_array_equal(found, want)
    mono = mix(np.stack(channels, 1), found)
    assert np.square(mono).mean() > 0.2 * np.square(channels[0]).mean()


def test_silence_decides_nothing_and_enough_sound_does():
    cancelled, plain = np.stack([A, -A], 1), np.stack([A, A], 1)
    assert polarity([0 * plain, cancelled], RATE) is not None
    seconds = len(A) / RATE
    blocks = [cancelled] * round(ENOUGH / seconds) + [plain] * 10
    assert polarity(blocks, RATE) is not None and polarity(blocks[::-1], RATE) is None
