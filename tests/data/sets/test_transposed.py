"""Copies that play faster and higher: what is heard moves with the notes."""

import functools
import pickle

import numpy as np
import pytest
from layouts.memory import Formula, MemorySet

from music_diffusion.data.items import Item, Stem
from music_diffusion.data.sets.transposed import Transposed, speed
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

RATE = 16000


def a440(time):
    return 0.5 * np.sin(2 * np.pi * 440 * time) * (time >= 1.0)


NOTES = Notes([1.0, 1.5, 0.2], [2.0, 1.8, 0.4], [69, 127, 38], [80, 80, 80], [40, 40, 0],
              [False, False, True])
SOUND = Formula(wave=a440, seconds=2.0)


def data_set(**more):
    training = Item(name="a", split="train", audio=SOUND, notes=functools.partial(Notes.__getitem__, NOTES,
                                                                                 slice(None)), **more)
    others = (Item(name="b", split="validation", audio=SOUND), Item(name="c", split=None, audio=SOUND))
    return MemorySet(items=(training, *others))


def frequency(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 16 * len(samples)))
    return spectrum.argmax() * RATE / (16 * len(samples))


def test_copies_of_training_items_alone():
    items = Transposed(data_set=data_set(), most=2).list().items
    assert [i.name for i in items] == ["a", "b", "c", "a-2", "a-1", "a+1", "a+2"]
    assert {i.split for i in items[3:]} == {"train"}
    assert Transposed(data_set=data_set(), most=2).identity() != Transposed(
        data_set=data_set(), most=1).identity()


@pytest.mark.parametrize("semitones", [-2, -1, 1, 2])
def test_pitch_time_and_notes_move_together(semitones):
    items = {i.name: i for i in Transposed(data_set=data_set(), most=2).list().items}
    copy = pickle.loads(pickle.dumps(items[f"a{semitones:+d}"]))
    samples = read_sound(copy.audio, RATE)
    factor = 2 ** (semitones / 12)
    assert speed(semitones) == pytest.approx(factor)
    assert len(samples) / RATE == pytest.approx(2.0 / factor, abs=1e-3)
    assert copy.audio.facts().seconds == pytest.approx(2.0 / factor)
    # The tone begins where its note does, at the note's new pitch (to a cent).
    onset = np.flatnonzero(np.abs(samples) > 0.01)[0] / RATE
    notes = copy.notes()
    violin = notes[notes.program == 40]
    assert onset == pytest.approx(violin.start[0], abs=2e-3)
    heard = frequency(samples[round(1.1 / factor * RATE):])
    assert 1200 * np.log2(heard / (440 * 2 ** ((violin.pitch[0] - 69) / 12))) == pytest.approx(0, abs=1)
    # What leaves MIDI's range is left out; drums keep their keys.
    pitches = [69 + semitones, 127 + semitones]
    assert violin.pitch.tolist() == [pitch for pitch in pitches if pitch <= 127]
    assert notes[notes.is_drum].pitch.tolist() == [38]


def test_source_and_stems_move_too():
    given = data_set(source=SOUND, stems=(Stem(program=40, audio=SOUND),))
    (copy,) = [i for i in Transposed(data_set=given, most=1).list().items if i.name == "a+1"]
    for sound in (copy.source, copy.stems[0].audio):
        np.testing.assert_array_equal(read_sound(sound, RATE), read_sound(copy.audio, RATE))
    assert copy.stems[0].program == 40


@pytest.mark.parametrize("most", [0, 13])
def test_impossible_ranges_are_refused(most):
    with pytest.raises(UserError, match=f"{most} semitones"):
        Transposed(data_set=data_set(), most=most)
