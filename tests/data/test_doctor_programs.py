"""When the doctor says that an instrument is another one, with a tagger whose word is given."""

import dataclasses

import numpy as np
import pytest
from layouts.faulty_folder import melody

from music_diffusion.data.checks import programs
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASSES

SECONDS = 12.0
CLASSES = [c.name for c in SLAKH_CLASSES] + ["Drums"]


def saying(**probability):
    """A tagger that hears this everywhere; names of classes with _ for a space."""
    row = np.full(DRUM_CLASS + 1, 0.003)
    for name, value in probability.items():
        row[CLASSES.index(name.replace("_", " "))] = value
    return lambda samples: np.tile(row, (max(1, round(len(samples) / RATE / 0.96)), 1))


def part(samples=None):
    loud = 0.1 * np.random.default_rng(0).normal(size=round(SECONDS * RATE))
    return (Stretch(start=0.0, samples=np.float32(loud if samples is None else samples)),)


def heard(notes, presence, samples=None):
    return [f.kind for f in programs.check_programs("item", part(samples), notes, presence)]


def solo(program):
    notes = melody(1, SECONDS, 0 if program == DRUM_PROGRAM else program)
    return dataclasses.replace(notes, is_drum=np.full(len(notes), program == DRUM_PROGRAM))


@pytest.mark.parametrize("program, found", [
    (0, True), (24, True), (30, True), (56, True), (73, True), (DRUM_PROGRAM, True),
    (40, False), (42, False), (48, False),  # of the family that is heard
    (6, False), (45, False), (50, False), (19, False), (52, False), (80, False), (90, False),
    (100, False), (120, False),  # programs that may sound like strings
])
def test_families_are_compared_where_programs_have_a_sound_of_their_own(program, found):
    assert heard(solo(program), saying(Violin=0.9)) == ["mis-programmed"] * found


@pytest.mark.parametrize("probability, found", [
    (dict(Violin=0.9), True),
    (dict(Violin=0.9, Acoustic_Piano=0.05), False),  # the margin is too small
    (dict(Violin=0.15), False),  # nothing is heard well enough
    (dict(Synth_Pad=0.9), False),  # what is heard is no instrument to be sure of
    (dict(Distorted_Electric_Guitar=0.9), False),
    (dict(Drums=0.9), True),
])
def test_only_a_clear_word_counts(probability, found):
    assert heard(solo(0), saying(**probability)) == ["mis-programmed"] * found


def test_a_distorted_guitar_is_a_guitar_where_it_is_named():
    assert heard(solo(30), saying(Distorted_Electric_Guitar=0.9, Violin=0.9)) == []


def test_in_a_mixture_the_other_named_instruments_may_be_heard():
    both = Notes.concatenate([solo(0), solo(40)])
    assert heard(both, saying(Violin=0.9)) == []
    assert heard(both, saying(Trumpet=0.9, Violin=0.9)) == ["mis-programmed"]  # no piano
    # One that plays hardly anything is not judged.
    assert heard(Notes.concatenate([solo(40), solo(0)[:3]]), saying(Trumpet=0.9, Violin=0.9)) == []


def test_silent_stretches_are_not_judged():
    notes = solo(0)
    quiet = part()[0].samples * np.where(np.arange(round(SECONDS * RATE)) < 3 * RATE, 1, 1e-3)
    assert heard(notes, saying(Violin=0.9), quiet) == []  # too little is loud
    assert heard(notes, saying(Violin=0.9)) == ["mis-programmed"]


def test_long_sounds_are_tagged_in_part():
    asked = []

    def presence(samples):
        asked.append(len(samples))
        return saying(Violin=0.9)(samples)

    notes = melody(1, 300.0)
    samples = np.ones(300 * RATE, np.float32)
    found = programs.check_programs("item", (Stretch(start=0.0, samples=samples),), notes, presence)
    assert found and sum(asked) <= round(programs.LONGEST * programs.PATCH_SECONDS * RATE)


def test_stems():
    assert programs.check_stem("item", 40, part(), saying(Violin=0.9)) == []
    [finding] = programs.check_stem("item", 0, part(), saying(Violin=0.9))
    assert "program 0 (Acoustic Grand Piano)" in finding.measured and "strings" in finding.measured
    assert "90 %" in finding.measured and "0.3 %" in finding.measured
    [finding] = programs.check_stem("item", DRUM_PROGRAM, part(), saying(Violin=0.9))
    assert "name drums" in finding.measured
    assert programs.check_stem("item", DRUM_PROGRAM, part(), saying(Drums=0.9)) == []
