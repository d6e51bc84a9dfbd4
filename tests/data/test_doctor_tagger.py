"""The doctor with the tagger that comes with the package, on renders of a General MIDI SoundFont."""

import dataclasses
import functools

import numpy as np
import pytest
from layouts.faulty_folder import melody
from reference import needs

from music_diffusion.data.checks import programs
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.models.tagger import Presence, TaggerModel
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.hub import load_trained

needs.module("fluidsynth")
FONT = needs.soundfont()
pytestmark = pytest.mark.slow
SOLOS = (0, 24, 33, 40, 42, 56, 60, 65, 71, 73, DRUM_PROGRAM)
SECONDS = 16.0


@functools.cache
def presence():
    _, model, params = load_trained("tagger", TaggerModel, "tagger")
    return Presence(model=model, params=params)


def named(notes: Notes, program: int) -> Notes:
    drums = program == DRUM_PROGRAM
    return dataclasses.replace(notes, program=np.full(len(notes), 0 if drums else program),
                               is_drum=np.full(len(notes), drums))


@functools.cache
def solo(program: int):
    rng = np.random.default_rng(program)
    notes = named(melody(program, SECONDS), program)
    pitch = {33: notes.pitch - 24, 42: notes.pitch - 12}.get(program, notes.pitch + 7)
    pitch = rng.choice([36, 38, 42, 46], len(notes)) if program == DRUM_PROGRAM else pitch
    notes = dataclasses.replace(notes, pitch=pitch)
    samples = SoundFontRenderer(path=str(FONT), sample_rate=RATE)(notes).samples
    return notes, (Stretch(start=0.0, samples=samples[:round(SECONDS * RATE)]),)


@pytest.mark.parametrize("program", SOLOS)
def test_instruments_are_taken_for_themselves(program):
    notes, parts = solo(program)
    assert programs.check_programs("item", parts, notes, presence()) == []
    assert programs.check_stem("item", program, parts, presence()) == []


def test_wrong_names_are_found():
    """Not all: the margin is wide. But most, and by another family each."""
    family = {p: programs.family_of(p) for p in SOLOS}
    pairs = [(true, said) for true in SOLOS for said in SOLOS if family[true] != family[said]]
    found = [(true, said) for true, said in pairs
             if programs.check_programs("item", solo(true)[1], named(solo(true)[0], said), presence())]
    assert len(found) > 0.5 * len(pairs)
    assert all((true, 0) in found for true in (40, 56, DRUM_PROGRAM))  # whatever is called a piano
