"""Recordings with their notes, for `adapt`."""

import numpy as np
import pytest

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.sets.recorded_pairs import HELD_OUT, RecordedPairs
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

RATE, SECONDS = 8000, 20


@pytest.fixture
def pair(tmp_path):
    """Audio that counts its samples, and a note at every second."""
    samples = np.arange(SECONDS * RATE) / (SECONDS * RATE)
    write_audio(tmp_path / "take.wav", Waveform(samples.astype(np.float32), RATE))
    begin = np.arange(SECONDS) + 0.25
    notes = Notes(begin, begin + 0.5, *(np.full(SECONDS, n) for n in (60, 90, 0, False)))
    write_midi(notes, tmp_path / "take.mid")
    return str(tmp_path / "take.wav"), str(tmp_path / "take.mid")


def pairs(audio, midi):
    return RecordedPairs(audio=(audio,), midi=(midi,), performance="mine")


def test_end_is_held_out(pair):
    train, validation = pairs(*pair).list().items
    assert (train.split, validation.split, train.performance) == ("train", "validation", "mine")
    cut = SECONDS * (1 - HELD_OUT)
    first, last = (read_sound(item.audio, RATE) for item in (train, validation))
    assert len(first) == cut * RATE and len(first) + len(last) == SECONDS * RATE
    assert last[0] == pytest.approx(1 - HELD_OUT, abs=1e-3)
    assert len(train.notes()) == cut and len(validation.notes()) == SECONDS - cut
    assert validation.notes().start[0] == pytest.approx(0.25, abs=1e-3)
    assert pairs(*pair).seconds() == pytest.approx(SECONDS)


@pytest.mark.parametrize(("seconds", "good"), [(18.9, True), (18.5, False), (34.5, True), (36.0, False)])
def test_lengths_must_agree(pair, tmp_path, seconds, good):
    write_audio(tmp_path / "other.wav", Waveform(np.full(int(seconds * RATE), 0.1, np.float32), RATE))
    data = pairs(str(tmp_path / "other.wav"), pair[1])
    if good:  # the last note ends at 19.75 s
        assert data.seconds() == pytest.approx(seconds)
    else:
        with pytest.raises(UserError, match="cut both to the same length"):
            data.list()


def test_numbers_must_agree(pair):
    with pytest.raises(UserError, match="2 audio files and 1 MIDI files"):
        RecordedPairs(audio=(pair[0],) * 2, midi=pair[1:], performance="mine")


def test_what_cannot_be_read(pair, tmp_path):
    with pytest.raises(UserError, match="none.mid"):
        pairs(pair[0], str(tmp_path / "none.mid")).list()
    with pytest.raises(UserError, match="none.wav"):
        pairs(str(tmp_path / "none.wav"), pair[1]).list()
