"""Tables of programs: spot checks against the General MIDI standard, and their structure."""

import warnings

import numpy as np
import pytest

from music_diffusion.notes import programs
from music_diffusion.notes.notes import Notes


def test_general_midi_names():
    # Numbers as printed in the General MIDI Level 1 sound set, which counts from 1.
    printed = {1: "Acoustic Grand Piano", 12: "Vibraphone", 25: "Acoustic Guitar (nylon)",
               41: "Violin", 48: "Timpani", 57: "Trumpet", 72: "Clarinet", 74: "Flute",
               81: "Lead 1 (square)", 105: "Sitar", 128: "Gunshot"}
    assert len(programs.PROGRAM_NAMES) == len(set(programs.PROGRAM_NAMES)) == 128
    assert len(programs.FAMILY_NAMES) == 16
    for number, name in printed.items():
        assert programs.PROGRAM_NAMES[number - 1] == name
    assert programs.FAMILY_NAMES[programs.family(73)] == "Pipe"


def test_drum_keys():
    assert sorted(programs.DRUM_NAMES) == list(range(35, 82))
    printed = {35: "Acoustic Bass Drum", 36: "Bass Drum 1", 38: "Acoustic Snare",
               42: "Closed Hi-Hat", 46: "Open Hi-Hat", 49: "Crash Cymbal 1", 51: "Ride Cymbal 1",
               56: "Cowbell", 60: "Hi Bongo", 69: "Cabasa", 75: "Claves", 81: "Open Triangle"}
    for key, name in printed.items():
        assert programs.DRUM_NAMES[key] == name


def test_slakh_classes_partition_the_first_96_programs():
    assert len(programs.SLAKH_CLASSES) == programs.DRUM_CLASS == 34
    listed = [p for c in programs.SLAKH_CLASSES for p in c.programs]
    assert sorted(listed) == list(range(96))
    assert all(programs.slakh_class(p) is None for p in range(96, 128))
    assert programs.SLAKH_CLASSES[programs.slakh_class(71)].name == "Clarinet"
    assert programs.SLAKH_CLASSES[programs.slakh_class(72)].name == "Pipe"
    assert programs.SLAKH_CLASSES[programs.nearest_slakh_class(110)].name == "Violin"
    assert programs.SLAKH_CLASS_OF_PROGRAM.shape == (128,)


def test_granularities():
    p = np.arange(128)
    g = programs.GRANULARITIES
    assert sorted(g) == ["flat", "full", "midi_class", "slakh"]
    assert not g["flat"](p).any() and not g["flat"].has_program_events
    assert np.array_equal(g["full"](p), p)
    assert np.array_equal(g["midi_class"](p), p - p % 8)
    assert len(np.unique(g["slakh"](p))) == 34
    for granularity in g.values():
        once = granularity(p)
        assert np.array_equal(granularity(once), once), granularity.name


@pytest.mark.parametrize("program, known, expected", [
    (40, {0, 40, 48}, 40),  # itself
    (1, {0, 2, 40}, 0),  # same Slakh class beats a nearer number
    (41, {0, 40, 48}, 40),  # viola → violin: same family
    (110, {0, 40, 48, 104}, 40),  # fiddle → violin although the family has a sitar
    (105, {0, 40, 107}, 107),  # banjo → koto
    (14, {0, 48, 73}, 0),  # tubular bells decay as a piano does
    (71, {0, 73, 32}, 73),  # clarinet sustains as a flute does
    (127, {5}, 5),
])
def test_nearest_program(program, known, expected):
    assert programs.nearest_program(program, known) == expected


def test_nearest_program_is_always_known():
    known = {0, 24, 40, 56, 73}
    found = [programs.nearest_program(p, known) for p in range(128)]
    assert set(found) <= known
    assert all(programs.nearest_program(p, known) == p for p in known)


@pytest.mark.parametrize("call", [
    lambda: programs.nearest_program(0, []), lambda: programs.nearest_program(128, [0]),
    lambda: programs.slakh_class(-1), lambda: programs.family(128)])
def test_bad_arguments(call):
    with pytest.raises(ValueError):
        call()


def test_to_known_programs_warns_once_per_program():
    n = 5
    notes = Notes(np.arange(n), np.arange(n) + 1, np.full(n, 60), np.full(n, 80),
                  [41, 41, 0, 1, 0], [False, False, False, False, True])
    with pytest.warns(UserWarning) as caught:
        out = programs.to_known_programs(notes, {4, 40})
    assert list(out.program) == [40, 40, 4, 4, 0]  # the drum keeps its 0
    assert len(caught) == 3  # programs 41, 0 and 1
    assert any("Viola" in str(w.message) and "Violin" in str(w.message) for w in caught)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(programs.to_known_programs(notes, range(128)).program, notes.program)
