"""General MIDI programs, drum keys, and the instrument classes models know.

Names and numbers are those of the General MIDI Level 1 sound set and
percussion map. The 34 instrument classes are those of Slakh2100 (Manilow et
al., 2019) with the program lists that MT3 (Gardner et al., 2022) uses; they
cover programs 0..95. Programs count from 0.
"""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterable

import numpy as np

from music_diffusion.notes.notes import Notes

# Sixteen families of eight programs: family f holds programs 8f … 8f + 7.
_FAMILIES = {
    "Piano": (
        "Acoustic Grand Piano", "Bright Acoustic Piano", "Electric Grand Piano",
        "Honky-tonk Piano", "Electric Piano 1", "Electric Piano 2", "Harpsichord", "Clavinet"),
    "Chromatic Percussion": (
        "Celesta", "Glockenspiel", "Music Box", "Vibraphone",
        "Marimba", "Xylophone", "Tubular Bells", "Dulcimer"),
    "Organ": (
        "Drawbar Organ", "Percussive Organ", "Rock Organ", "Church Organ",
        "Reed Organ", "Accordion", "Harmonica", "Tango Accordion"),
    "Guitar": (
        "Acoustic Guitar (nylon)", "Acoustic Guitar (steel)", "Electric Guitar (jazz)",
        "Electric Guitar (clean)", "Electric Guitar (muted)", "Overdriven Guitar",
        "Distortion Guitar", "Guitar Harmonics"),
    "Bass": (
        "Acoustic Bass", "Electric Bass (finger)", "Electric Bass (pick)", "Fretless Bass",
        "Slap Bass 1", "Slap Bass 2", "Synth Bass 1", "Synth Bass 2"),
    "Strings": (
        "Violin", "Viola", "Cello", "Contrabass",
        "Tremolo Strings", "Pizzicato Strings", "Orchestral Harp", "Timpani"),
    "Ensemble": (
        "String Ensemble 1", "String Ensemble 2", "Synth Strings 1", "Synth Strings 2",
        "Choir Aahs", "Voice Oohs", "Synth Voice", "Orchestra Hit"),
    "Brass": (
        "Trumpet", "Trombone", "Tuba", "Muted Trumpet",
        "French Horn", "Brass Section", "Synth Brass 1", "Synth Brass 2"),
    "Reed": (
        "Soprano Sax", "Alto Sax", "Tenor Sax", "Baritone Sax",
        "Oboe", "English Horn", "Bassoon", "Clarinet"),
    "Pipe": (
        "Piccolo", "Flute", "Recorder", "Pan Flute",
        "Blown Bottle", "Shakuhachi", "Whistle", "Ocarina"),
    "Synth Lead": (
        "Lead 1 (square)", "Lead 2 (sawtooth)", "Lead 3 (calliope)", "Lead 4 (chiff)",
        "Lead 5 (charang)", "Lead 6 (voice)", "Lead 7 (fifths)", "Lead 8 (bass + lead)"),
    "Synth Pad": (
        "Pad 1 (new age)", "Pad 2 (warm)", "Pad 3 (polysynth)", "Pad 4 (choir)",
        "Pad 5 (bowed)", "Pad 6 (metallic)", "Pad 7 (halo)", "Pad 8 (sweep)"),
    "Synth Effects": (
        "FX 1 (rain)", "FX 2 (soundtrack)", "FX 3 (crystal)", "FX 4 (atmosphere)",
        "FX 5 (brightness)", "FX 6 (goblins)", "FX 7 (echoes)", "FX 8 (sci-fi)"),
    "Ethnic": (
        "Sitar", "Banjo", "Shamisen", "Koto", "Kalimba", "Bagpipe", "Fiddle", "Shanai"),
    "Percussive": (
        "Tinkle Bell", "Agogo", "Steel Drums", "Woodblock",
        "Taiko Drum", "Melodic Tom", "Synth Drum", "Reverse Cymbal"),
    "Sound Effects": (
        "Guitar Fret Noise", "Breath Noise", "Seashore", "Bird Tweet",
        "Telephone Ring", "Helicopter", "Applause", "Gunshot"),
}
FAMILY_NAMES: tuple[str, ...] = tuple(_FAMILIES)
PROGRAM_NAMES: tuple[str, ...] = tuple(name for names in _FAMILIES.values() for name in names)

_FIRST_DRUM_KEY = 35
_DRUMS = (
    "Acoustic Bass Drum", "Bass Drum 1", "Side Stick", "Acoustic Snare", "Hand Clap",
    "Electric Snare", "Low Floor Tom", "Closed Hi-Hat", "High Floor Tom", "Pedal Hi-Hat",
    "Low Tom", "Open Hi-Hat", "Low-Mid Tom", "Hi-Mid Tom", "Crash Cymbal 1", "High Tom",
    "Ride Cymbal 1", "Chinese Cymbal", "Ride Bell", "Tambourine", "Splash Cymbal", "Cowbell",
    "Crash Cymbal 2", "Vibraslap", "Ride Cymbal 2", "Hi Bongo", "Low Bongo", "Mute Hi Conga",
    "Open Hi Conga", "Low Conga", "High Timbale", "Low Timbale", "High Agogo", "Low Agogo",
    "Cabasa", "Maracas", "Short Whistle", "Long Whistle", "Short Guiro", "Long Guiro", "Claves",
    "Hi Wood Block", "Low Wood Block", "Mute Cuica", "Open Cuica", "Mute Triangle",
    "Open Triangle",
)
DRUM_NAMES: dict[int, str] = dict(enumerate(_DRUMS, start=_FIRST_DRUM_KEY))  # keys 35..81


class InstrumentClass(typing.NamedTuple):
    """A name, and the programs that sound like it; the first stands for all."""

    name: str
    programs: tuple[int, ...]


SLAKH_CLASSES: tuple[InstrumentClass, ...] = tuple(InstrumentClass(*c) for c in (
    ("Acoustic Piano", (0, 1, 3, 6, 7)),
    ("Electric Piano", (4, 2, 5)),
    ("Chromatic Percussion", tuple(range(8, 16))),
    ("Organ", tuple(range(16, 24))),
    ("Acoustic Guitar", (24, 25)),
    ("Clean Electric Guitar", (26, 27, 28)),
    ("Distorted Electric Guitar", (29, 30, 31)),
    ("Acoustic Bass", (32, 35)),
    ("Electric Bass", (33, 34, 36, 37, 38, 39)),
    ("Violin", (40,)),
    ("Viola", (41,)),
    ("Cello", (42,)),
    ("Contrabass", (43,)),
    ("Orchestral Harp", (46,)),
    ("Timpani", (47,)),
    ("String Ensemble", (48, 49, 44, 45)),
    ("Synth Strings", (50, 51)),
    ("Choir and Voice", (52, 53, 54)),
    ("Orchestral Hit", (55,)),
    ("Trumpet", (56, 59)),
    ("Trombone", (57,)),
    ("Tuba", (58,)),
    ("French Horn", (60,)),
    ("Brass Section", (61, 62, 63)),
    ("Soprano/Alto Sax", (64, 65)),
    ("Tenor Sax", (66,)),
    ("Baritone Sax", (67,)),
    ("Oboe", (68,)),
    ("English Horn", (69,)),
    ("Bassoon", (70,)),
    ("Clarinet", (71,)),
    ("Pipe", (73, 72, 74, 75, 76, 77, 78, 79)),
    ("Synth Lead", tuple(range(80, 88))),
    ("Synth Pad", tuple(range(88, 96))),
))
DRUM_CLASS = len(SLAKH_CLASSES)  # 34: the class number of drums, after the melodic ones

_CLASS_OF_PROGRAM = {p: i for i, c in enumerate(SLAKH_CLASSES) for p in c.programs}

# Programs that no Slakh class covers → the covered program that sounds most like them.
_RELATED = {
    **{p: 88 for p in range(96, 104)},  # synth effects → pad
    104: 24, 105: 24, 106: 24, 107: 24,  # sitar, banjo, shamisen, koto → acoustic guitar
    108: 12, 109: 68, 110: 40, 111: 68,  # kalimba, bagpipe, fiddle, shanai
    112: 9, 113: 13, 114: 12, 115: 13,  # tinkle bell, agogo, steel drums, woodblock → mallets
    116: 47, 117: 47, 118: 47, 119: 47,  # taiko, toms, synth drum, reverse cymbal → timpani
    120: 24, 121: 73, 122: 88, 123: 72,  # fret noise, breath, seashore, bird tweet
    124: 9, 125: 88, 126: 88, 127: 47,  # telephone, helicopter, applause, gunshot
}

# Families by how they sound, for programs without a closer relative: struck and
# plucked (decaying) ones, then blown, bowed and synthetic (sustained) ones.
_DECAYING = frozenset({0, 1, 3, 4, 13, 14, 15})
_DECAYING_STRINGS = frozenset({45, 46, 47})  # pizzicato, harp, timpani

_PROGRAMS = np.arange(128, dtype=np.int32)


def family(program: int) -> int:
    """The General MIDI family 0..15 of a program; see FAMILY_NAMES."""
    return _checked(program) // 8


def decays(program: int) -> bool:
    """Returns whether the sound of a program decays while its note is held."""
    return family(program) in _DECAYING or program in _DECAYING_STRINGS


def slakh_class(program: int) -> int | None:
    """The Slakh class 0..33 of a program; None for programs 96..127, which have none."""
    return _CLASS_OF_PROGRAM.get(_checked(program))


def nearest_slakh_class(program: int) -> int:
    """The Slakh class 0..33 of a program, or of its closest relative where it has none."""
    program = _checked(program)
    return _CLASS_OF_PROGRAM[_RELATED.get(program, program)]


def _checked(program: int) -> int:
    if not 0 <= program <= 127:
        raise ValueError(f"program must be in 0..127, got {program}")
    return int(program)


# [128] int32: the nearest Slakh class of every program.
SLAKH_CLASS_OF_PROGRAM = np.array([nearest_slakh_class(p) for p in range(128)], np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Granularity:
    """Levels of detail at which programs are distinguished (MT3, section 4.2)."""

    name: str  # flat, midi_class, slakh or full
    table: np.ndarray  # [128] int32: program → the program that stands for it; idempotent
    has_program_events: bool = True  # False: token sequences carry no program at all

    def __call__(self, program: np.ndarray) -> np.ndarray:
        """Maps programs of any shape, int32."""
        return self.table[program]


GRANULARITIES: dict[str, Granularity] = {g.name: g for g in (
    # Every melodic program is 0 and no program event is written.
    Granularity(name="flat", table=np.zeros(128, np.int32), has_program_events=False),
    # The first program of the General MIDI family.
    Granularity(name="midi_class", table=_PROGRAMS // 8 * 8),
    # The first program of the nearest Slakh class: what Spectrogram Diffusion was trained on.
    Granularity(name="slakh", table=np.array(
        [SLAKH_CLASSES[c].programs[0] for c in SLAKH_CLASS_OF_PROGRAM], np.int32)),
    Granularity(name="full", table=_PROGRAMS),
)}


def nearest_program(program: int, known_programs: Iterable[int]) -> int:
    """The known program that sounds most like `program`.

    In this order: itself; one of the same Slakh class (or of its closest
    relative's); one of the same General MIDI family; one that decays or
    sustains alike. Ties go to the smallest difference of program numbers.

    Args:
      program: 0..127.
      known_programs: programs that a model was trained on; at least one.

    Returns:
      A member of `known_programs`.
    """
    program = _checked(program)
    known = sorted({_checked(p) for p in known_programs})
    if not known:
        raise ValueError("known_programs is empty")
    relative = _RELATED.get(program, program)

    def distance(p: int) -> tuple:
        return (
            p != program,
            nearest_slakh_class(p) != nearest_slakh_class(program),
            family(p) != family(relative),
            family(p) != family(program),
            (family(p) in _DECAYING) != (family(relative) in _DECAYING),
            abs(p - relative),
            p,
        )

    return min(known, key=distance)


def to_known_programs(notes: Notes, known_programs: Iterable[int]) -> Notes:
    """Replaces melodic programs that a model does not know by the nearest ones it knows.

    Warns once per replaced program, naming both. Drums are left alone.

    Args:
      notes: [N] notes.
      known_programs: programs the model was trained on; at least one.

    Returns:
      [N] notes.
    """
    known = set(known_programs)
    table = _PROGRAMS.copy()
    for program in np.unique(notes.program[~notes.is_drum]):
        nearest = nearest_program(int(program), known)
        if nearest != program:
            table[program] = nearest
            warnings.warn(
                f"the model does not know program {program} ({PROGRAM_NAMES[program]}); "
                f"it plays as {nearest} ({PROGRAM_NAMES[nearest]})", stacklevel=2)
    program = np.where(notes.is_drum, notes.program, table[notes.program])
    return dataclasses.replace(notes, program=program)

# Playable range of each General MIDI family, (lowest, highest) MIDI pitch.
FAMILY_RANGES = (
    (21, 108), (48, 96), (36, 96), (40, 84), (28, 60), (36, 96), (36, 96), (34, 84),
    (40, 84), (48, 92), (36, 96), (36, 96), (36, 96), (43, 88), (48, 90), (40, 80))
# Where an instrument is narrower than its family.
PROGRAM_RANGES = {
    11: (53, 89), 12: (45, 96), 13: (65, 108), 14: (60, 77), 24: (40, 84), 25: (40, 84),
    40: (55, 100), 41: (48, 88), 42: (36, 79), 43: (28, 60), 45: (36, 88), 46: (24, 103),
    47: (38, 57), 56: (54, 86), 57: (38, 74), 58: (28, 58), 60: (40, 77), 64: (56, 88),
    65: (49, 81), 66: (44, 76), 67: (36, 69), 68: (58, 91), 69: (52, 81), 70: (34, 72),
    71: (50, 91), 72: (74, 108), 73: (60, 96), 74: (60, 96)}


def program_range(program: int) -> tuple[int, int]:
    """Returns the lowest and the highest pitch that suit a General MIDI program."""
    return PROGRAM_RANGES.get(program, FAMILY_RANGES[program // 8])
