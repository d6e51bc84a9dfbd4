"""Who plays which note: registers help where the sound is not sure, and spoil nothing where it is."""

import numpy as np
import pytest

from music_diffusion.notes.activations import NUM_CLASSES
from music_diffusion.notes.decoding import DecodeConfig, HeardNotes
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.parts import played_by, shares


def two_parts(distance, certainty, count=400, seed=0):
    """(true part, pitch, probabilities) of notes of two parts whose registers are so far apart."""
    rng = np.random.default_rng(seed)
    part = rng.integers(0, 2, count)
    pitch = np.round(rng.normal(60 + distance * part, 4)).astype(int)
    right = rng.beta(certainty, 1.0, count)  # 1: nothing is known
    probability = np.stack([np.where(part == k, right, 1 - right) for k in (0, 1)], axis=1)
    return part, pitch, probability


@pytest.mark.parametrize("distance, gain", [(0, -0.03), (8, 0.03), (16, 0.08)])
def test_registers_help_as_far_as_they_differ(distance, gain):
    # Measured 0.045 and 0.095; one note of the 400 is 0.0025.
    part, pitch, probability = two_parts(distance, 1.7)
    alone = (probability.argmax(axis=1) == part).mean()
    both = (shares(probability, pitch).argmax(axis=1) == part).mean()
    assert both - alone > gain


def test_what_is_sure_stays():
    part, pitch, probability = two_parts(10, 1.0)
    probability = np.where(np.arange(2) == part[:, None], 0.999, 0.0)
    share = shares(probability, pitch)
    np.testing.assert_array_equal(share.argmax(axis=1), part)
    np.testing.assert_allclose(share.sum(axis=1), 1)


def test_an_instrument_that_is_heard_too_readily_does_not_take_all():
    part, pitch, probability = two_parts(12, 2.0)
    biased = probability * [1.0, 0.15]
    alone = (biased.argmax(axis=1) == part).mean()
    assert (shares(biased, pitch).argmax(axis=1) == part).mean() > alone + 0.1


def test_one_instrument_plays_all_and_none_plays_nothing():
    np.testing.assert_allclose(shares(np.random.default_rng(0).random((5, 1)), np.arange(5)), 1)
    assert shares(np.zeros((0, 2)), np.zeros(0, int)).shape == (0, 2)
    np.testing.assert_allclose(shares(np.zeros((3, 2)), np.full(3, 60)), 0.5)


def heard(probability, pitch):
    rows = np.zeros((len(pitch), NUM_CLASSES))
    rows[:, :probability.shape[1]] = probability
    start = np.arange(len(pitch), dtype=float)
    drums = Notes(*([np.array([0.25])] * 2), [38], [100], [0], [True])
    return HeardNotes(pitch=np.asarray(pitch), start=start, end=start + 0.5, probability=rows,
                      velocity=np.full(len(pitch), 80.0), drums=drums)


def test_notes_come_on_the_programs_and_drums_stay():
    probability = np.array([[0.9, 0.1, 0.0], [0.1, 0.3, 0.4], [0.8, 0.7, 0.0], [0.2, 0.0, 0.0]])
    notes = played_by(heard(probability, [50, 70, 60, 52]), {0: 40, 1: 11, 2: 11}, DecodeConfig())
    melodic = notes[~notes.is_drum]
    # The third note is played by both, as each is sure enough; classes of one program count together.
    assert sorted(zip(melodic.pitch.tolist(), melodic.program.tolist(), strict=True)) == [
        (50, 40), (52, 40), (60, 11), (60, 40), (70, 11)]
    assert notes.is_drum.sum() == 1 and notes.program[notes.is_drum] == 0


def test_notes_of_unknown_instruments_are_played_once():
    unknown = heard(np.zeros((4, 1)), [50, 51, 70, 71])
    unknown.probability[:] = np.nan
    notes = played_by(unknown, {0: 40, 1: 11}, DecodeConfig())
    # Nothing tells the two apart, so all go to the first.
    assert notes[~notes.is_drum].program.tolist() == [40] * 4
