"""Tails against the recursion written out, and against decays that are known."""

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.tails import energy_tails, lead_frames
from music_diffusion.errors import UserError

CODEC = MelCodec(mels=5)
HOP = CODEC.hop / CODEC.sample_rate
FLOOR = np.log(CODEC.clip_min)


def test_the_recursion():
    mel = np.random.default_rng(0).uniform(FLOOR, 3, (40, 5))
    seconds = (0.2, 1.5)
    power = np.exp(2 * mel) - CODEC.clip_min**2
    tail = np.zeros((2, 5))
    expected = []
    for t in range(40):
        for k, s in enumerate(seconds):
            a = 10 ** (-6 * HOP / s)
            tail[k] = a * tail[k] + (1 - a) * (power[t - 1] if t else 0)
        expected.append(0.5 * np.log(tail + CODEC.clip_min**2))
    np.testing.assert_allclose(energy_tails(mel, seconds, CODEC), expected, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.4])
def test_loses_60_db_in_its_time(seconds):
    mel = np.full((300, 5), FLOOR)
    mel[:10] = 4.0
    tail = energy_tails(mel, [seconds], CODEC)[:, 0]
    after = round(seconds / HOP / 2)  # half of it, where the floor is far
    lost = 3 * np.log(10) * after * HOP / seconds
    assert tail[11] - tail[11 + after] == pytest.approx(np.full(5, lost), abs=0.02)
    assert (tail[0] == pytest.approx(FLOOR)) and (np.diff(tail[11:], axis=0) <= 1e-6).all()


def test_a_steady_sound_has_a_tail_as_loud():
    tail = energy_tails(np.full((400, 5), 1.0), [0.5], CODEC)[:, 0]
    assert tail[-1] == pytest.approx(np.full(5, 1.0), abs=1e-3)


def test_earlier_frames_than_the_lead_are_not_heard():
    """Whatever was before the lead changes a segment by less than 60 dB below it."""
    mel = np.random.default_rng(1).uniform(-2, 2, (400, 5))
    seconds = (0.3, 0.8)
    lead = lead_frames(seconds, CODEC)
    assert lead == 50
    whole = energy_tails(mel, seconds, CODEC)[200:]
    cut = energy_tails(mel[200 - lead:], seconds, CODEC)[lead:]
    np.testing.assert_allclose(np.exp(2 * cut), np.exp(2 * whole), rtol=1e-4)


def test_times_are_positive():
    with pytest.raises(UserError, match="give times above 0"):
        energy_tails(np.zeros((3, 5)), [0.5, 0.0], CODEC)
