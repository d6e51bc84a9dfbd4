"""Writes the example pieces as MIDI files: `python examples/make_examples.py [FOLDER]`.

All four are in the public domain, and their notes stand here: melodies as
"pitch:beats" tokens (r is a rest), chords and drum patterns as one-line tables.
A performance is added to the notes: accents, swells, a ritardando, and onsets a
few milliseconds off the beat, drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
import random
from collections.abc import Callable, Sequence

import numpy as np

from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

# General MIDI programs, zero based.
PIANO, HARPSICHORD, NYLON_GUITAR, BASS = 0, 6, 24, 32
VIOLIN, CELLO, TRUMPET, TROMBONE, OBOE, CLARINET, FLUTE = 40, 42, 56, 57, 68, 71, 73
DRUMS = -1
# General MIDI drum keys.
KICK, SNARE, CRASH, RIDE = 36, 38, 49, 51

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclasses.dataclass(frozen=True)
class Event:
    """A note as written: times in beats."""

    program: int  # General MIDI, or DRUMS
    pitch: int  # MIDI note number; for drums the key
    beat: float  # onset
    beats: float  # length
    velocity: float  # before the performance


def pitch(name: str) -> int:
    """'C4' is 60; '#' and 'b' follow the letter."""
    accidentals = name[1:].rstrip("0123456789")
    octave = int(name[1 + len(accidentals):])
    return STEPS[name[0]] + accidentals.count("#") - accidentals.count("b") + 12 * (octave + 1)


def line(program: int, tokens: str, *, start: float = 0.0, transpose: int = 0,
         velocity: float = 80.0, length: float = 0.95, beats: float | None = None) -> list[Event]:
    """A melody of 'pitch:beats' tokens; bars may be parted by '|'.

    Args:
      program: instrument.
      tokens: the melody; with `beats`, bare pitches of that length.
      start: beat of the first token.
      transpose: semitones.
      velocity: of all notes.
      length: sounding part of each note's time.
      beats: length of tokens that name none.
    """
    events, beat = [], start
    for token in tokens.replace("|", " ").split():
        name, _, duration = token.partition(":")
        value = float(duration) if duration else beats
        if value is None:
            raise ValueError(f"{token}: a token without a length, and no default")
        if name != "r":
            events.append(Event(program, pitch(name) + transpose, beat, value * length, velocity))
        beat += value
    return events


def perform(events: Sequence[Event], seconds_of: Callable[[float], float], *, seed: int,
            timing: float = 0.012, dynamics: float = 5.0,
            swell: Callable[[float], float] = lambda beat: 0.0) -> Notes:
    """Written notes -> played notes.

    Args:
      events: the score.
      seconds_of: beat -> time in seconds, increasing.
      seed: of the deviations.
      timing: largest deviation of an onset in seconds.
      dynamics: largest deviation of a velocity.
      swell: beat -> what is added to the velocity.
    """
    draw = random.Random(seed)  # its random() is the same in every Python version

    def around_zero(size: float) -> float:
        return size * (draw.random() + draw.random() - 1)

    rows = []
    for e in sorted(events, key=lambda e: (e.beat, e.program, e.pitch)):
        start = max(0.0, seconds_of(e.beat) + around_zero(timing))
        end = max(seconds_of(e.beat + e.beats), start + 0.05)
        velocity = round(e.velocity + swell(e.beat) + around_zero(dynamics))
        rows.append((start, end, e.pitch, min(max(velocity, 1), 127), max(e.program, 0),
                     e.program == DRUMS))
    return Notes(*(np.array(column) for column in zip(*rows, strict=True)))


def tempo(beats_per_minute: float, *, slow_from: float, slow_until: float,
          slow_to: float) -> Callable[[float], float]:
    """A steady tempo whose beats lengthen linearly to `slow_to` times towards the end."""
    beat_seconds = 60.0 / beats_per_minute

    def seconds_of(beat: float) -> float:
        ramp = min(max(beat - slow_from, 0.0), slow_until - slow_from)
        after = max(beat - slow_until, 0.0)
        gain = (slow_to - 1) / (slow_until - slow_from)
        return beat_seconds * (beat + gain * ramp * ramp / 2 + (slow_to - 1) * after)

    return seconds_of


# --- J. S. Bach, Prelude in C major, BWV 846 (1722), bars 1-19 ----------------------------

PRELUDE = """
C4 E4 G4 C5 E5  | C4 D4 A4 D5 F5   | B3 D4 G4 D5 F5  | C4 E4 G4 C5 E5  | C4 E4 A4 E5 A5
C4 D4 F#4 A4 D5 | B3 D4 G4 D5 G5   | B3 C4 E4 G4 C5  | A3 C4 E4 G4 C5  | D3 A3 D4 F#4 C5
G3 B3 D4 G4 B4  | G3 Bb3 E4 G4 C#5 | F3 A3 D4 A4 D5  | F3 Ab3 D4 F4 B4 | E3 G3 C4 G4 C5
E3 F3 A3 C4 F4  | D3 F3 A3 C4 F4   | G2 D3 G3 B3 F4  | C3 E3 G3 C4 E4
"""


def prelude() -> Notes:
    """Piano. Every half bar: bass, tenor, then the upper three notes twice, in sixteenths."""
    events = []
    bars = [bar.split() for row in PRELUDE.strip().splitlines() for bar in row.split("|")]
    for i, names in enumerate(bars):
        bass, tenor, *upper = [pitch(n) for n in names]
        for half in (4.0 * i, 4.0 * i + 2):
            last = half == 4.0 * len(bars) - 2
            hold = 4.0 if last else 0.0  # the last chord rings
            events.append(Event(PIANO, bass, half, 1.95 + hold, 70))
            events.append(Event(PIANO, tenor, half + 0.25, 1.7 + hold, 60))
            for k, p in enumerate(upper * (1 if last else 2)):
                accent = 6 if k == 2 else 0
                events.append(Event(PIANO, p, half + 0.5 + 0.25 * k, 0.24 + hold, 56 + accent))
    end = 4.0 * len(bars)
    return perform(events, tempo(88, slow_from=end - 8, slow_until=end, slow_to=1.5), seed=846,
                   # Two long arches, up to bars 5-6 and 12-13.
                   swell=lambda beat: 14 * math.sin(math.pi * (beat % (end / 2)) / (end / 2)))


# --- Johann Pachelbel, Canon in D (about 1690), the first five strains --------------------

GROUND = "D3 A2 B2 F#2 G2 D2 G2 A2"  # quarters, two bars, repeated throughout
STRAINS = (
    "F#5:1 E5:1 D5:1 C#5:1 | B4:1 A4:1 B4:1 C#5:1",
    "D5:1 C#5:1 B4:1 A4:1 | G4:1 F#4:1 G4:1 E4:1",
    "D4:.5 F#4:.5 A4:.5 G4:.5 F#4:.5 D4:.5 F#4:.5 E4:.5 |"
    "D4:.5 B3:.5 D4:.5 A4:.5 G4:.5 B4:.5 A4:.5 G4:.5",
    "F#4:.5 D4:.5 E4:.5 C#5:.5 D5:.5 F#5:.5 A5:.5 A4:.5 |"
    "B4:.5 G4:.5 A4:.5 F#4:.5 D4:.5 D5:.5 D5:.75 C#5:.25",
    "D5:.25 C#5:.25 D5:.25 D4:.25 C#4:.25 A4:.25 E4:.25 F#4:.25"
    " D4:.25 D5:.25 C#5:.25 B4:.25 C#5:.25 F#5:.25 A5:.25 B5:.25 |"
    "G5:.25 F#5:.25 E5:.25 G5:.25 F#5:.25 E5:.25 D5:.25 C#5:.25"
    " B4:.25 A4:.25 G4:.25 F#4:.25 E4:.25 G4:.25 F#4:.25 E4:.25",
)
CONTINUO = ("F#4 A4 D5", "E4 A4 C#5", "D4 F#4 B4", "C#4 F#4 A4",  # the right hand over the ground
            "D4 G4 B4", "D4 F#4 A4", "D4 G4 B4", "C#4 E4 A4")
CANON_VOICES = (VIOLIN, OBOE, FLUTE)


def canon() -> Notes:
    """Violin, oboe and flute in canon at two bars, over cello and harpsichord."""
    strain = 8.0  # beats
    rounds = 1 + len(STRAINS)  # the ground begins alone
    events = []
    for k in range(rounds):
        events += line(CELLO, GROUND, start=k * strain, velocity=74, beats=1.0)
        for i, chord in enumerate(CONTINUO):
            beat = k * strain + i
            events += [Event(HARPSICHORD, pitch(n), beat + 0.02 * j, 0.9, 62)
                       for j, n in enumerate(chord.split())]
    for voice, program in enumerate(CANON_VOICES):
        for k, tokens in enumerate(STRAINS[:len(STRAINS) - voice]):
            events += line(program, tokens, start=(1 + voice + k) * strain, velocity=76 - 3 * voice)
    end = rounds * strain
    for program, name in ((CELLO, "D2"), (VIOLIN, "F#4"), (OBOE, "D5"), (FLUTE, "A4")):
        events.append(Event(program, pitch(name), end, 3.5, 72))
    events += [Event(HARPSICHORD, pitch(n), end + 0.1 * j, 3.4 - 0.1 * j, 64)
               for j, n in enumerate(("D3", "A3", "D4", "F#4"))]
    return perform(events, tempo(66, slow_from=end - 4, slow_until=end + 1, slow_to=1.35),
                   seed=1690, swell=lambda beat: 16 * beat / end)


# --- Traditional, When the Saints Go Marching In ------------------------------------------

SAINTS = ("r:1 C4:1 E4:1 F4:1 | G4:4 | r:1 C4:1 E4:1 F4:1 | G4:4 | r:1 C4:1 E4:1 F4:1 |"
          "G4:2 E4:2 | C4:2 E4:2 | D4:4 | r:1 E4:1 E4:1 D4:1 | C4:3 C4:1 | E4:2 G4:1 G4:1 |"
          "G4:1 F4:3 | r:2 E4:1 F4:1 | G4:2 E4:2 | C4:2 D4:2 | C4:4")
# One chord a bar, from the first "saints" to the pick-up of the next chorus.
SAINTS_CHORDS = "C C C C C C G7 G7 C C7 F F C G7sus C C".split()
CHORD_TONES = {"C": (0, 4, 7, 12), "C7": (0, 4, 10, 12), "F": (-7, -3, 0, 5),  # from the root up
               "G7": (-5, -1, 2, 5), "G7sus": (-5, 0, 2, 5)}
# The clarinet's figures in swung eighths: indices of chord tones, '.' is silence.
FIGURES = ("32101232", "01233210", "..321012", "12321232")
DRUM_BAR = {KICK: "x.......x.......", SNARE: "....x.......x...", RIDE: "x...x.x.x...x.x."}
PICK_UP_ROLL = {SNARE: "x..xx..xx..xx.xx", KICK: "x.......x......."}
TO_F = 5  # written in C, sounding in F


def saints() -> Notes:
    """Trumpet, clarinet, trombone, piano, bass and drums: a drum roll and two choruses."""
    bar, chorus = 4.0, 16 * 4.0
    events = _drum_bar(PICK_UP_ROLL, 0.0, 78) + _drum_bar(DRUM_BAR, bar, 70)
    for k in (0, 1):
        start = bar + k * chorus  # of the pick-up
        events += line(TRUMPET, SAINTS, start=start, transpose=TO_F, velocity=88 + 6 * k)
        for i in range(16 - k):  # the last bar of the last chorus is the final chord
            events += _band_bar(start + bar * (i + 1), i, clarinet=k == 1)
        events += _drum_bar({CRASH: "x"}, start + bar, 86)
    end = bar + 2 * chorus
    for program, name, velocity in ((TRUMPET, "F5", 98), (CLARINET, "A5", 84), (TROMBONE, "C4", 88),
                                    (BASS, "F2", 92), (PIANO, "F3", 86), (PIANO, "A3", 86)):
        events.append(Event(program, pitch(name), end, 0.8, velocity))
    events += _drum_bar({CRASH: "x", KICK: "x"}, end, 100)
    return perform(events, swung(200), seed=1923, timing=0.01)


def _band_bar(beat: float, i: int, *, clarinet: bool) -> list[Event]:
    """Bar `i` of a chorus: two-beat bass, off-beat piano, trombone, clarinet figure, drums."""
    tones, following = ([60 + TO_F + t for t in CHORD_TONES[SAINTS_CHORDS[k % 16]]]
                        for k in (i, i + 1))
    root = tones[0] - 24
    events = [Event(BASS, root, beat, 1.8, 88), Event(BASS, root - 5, beat + 2, 1.8, 80)]
    voicing = [53 + (t - 53) % 12 for t in tones[:3]]
    events += [Event(PIANO, t, beat + b, 0.45, 68) for b in (1, 3) for t in voicing]
    events += [Event(TROMBONE, tones[1] - 12, beat, 2.9, 74),
               Event(TROMBONE, following[1] - 13, beat + 3, 0.9, 66)]  # slides up to the next
    for k, step in enumerate(FIGURES[i % len(FIGURES)] if clarinet else ""):
        if step != ".":
            events.append(Event(CLARINET, tones[int(step)] + 12, beat + 0.5 * k, 0.42, 76))
    return events + _drum_bar(DRUM_BAR, beat, 72)


def _drum_bar(pattern: dict[int, str], beat: float, velocity: float) -> list[Event]:
    """A bar of sixteenths, 'x' is a stroke."""
    return [Event(DRUMS, key, beat + 0.25 * k, 0.2, velocity + (8 if k % 8 == 0 else 0))
            for key, row in pattern.items() for k, stroke in enumerate(row) if stroke == "x"]


def swung(beats_per_minute: float) -> Callable[[float], float]:
    """Beats whose second half begins at two thirds."""
    def seconds_of(beat: float) -> float:
        whole, part = divmod(beat, 1.0)
        part = part * 4 / 3 if part < 0.5 else 2 / 3 + (part - 0.5) * 2 / 3
        return (whole + part) * 60.0 / beats_per_minute

    return seconds_of


# --- Traditional (16th century), Greensleeves ----------------------------------------------

# In 6/8, a beat is an eighth. Verse and refrain, each of two lines that differ at the end.
GREENSLEEVES = (
    "r:5 A4:1 | C5:2 D5:1 E5:1.5 F#5:.5 E5:1 | D5:2 B4:1 G4:1.5 A4:.5 B4:1 |"
    "C5:2 A4:1 A4:1.5 G#4:.5 A4:1 | B4:2 G#4:1 E4:2 A4:1 |"
    "C5:2 D5:1 E5:1.5 F#5:.5 E5:1 | D5:2 B4:1 G4:1.5 A4:.5 B4:1 |"
    "C5:1.5 B4:.5 A4:1 G#4:1.5 F#4:.5 G#4:1 | A4:3 A4:3 |"
    "G5:3 G5:1.5 F#5:.5 E5:1 | D5:2 B4:1 G4:1.5 A4:.5 B4:1 |"
    "C5:2 A4:1 A4:1.5 G#4:.5 A4:1 | B4:2 G#4:1 E4:3 |"
    "G5:3 G5:1.5 F#5:.5 E5:1 | D5:2 B4:1 G4:1.5 A4:.5 B4:1 |"
    "C5:1.5 B4:.5 A4:1 G#4:1.5 F#4:.5 G#4:1 | A4:6")
# Two chords a bar: bass, and the three notes above it.
GREENSLEEVES_CHORDS = ("Am Am G G F F E E Am Am G G Am E Am Am "
                       "C C G G Am Am E E C C G G Am E Am Am").split()
GUITAR = {"Am": "A2 E3 A3 C4", "G": "G2 D3 G3 B3", "F": "F2 C3 A3 C4", "E": "E2 B2 E3 G#3",
          "C": "C3 E3 G3 C4"}


def greensleeves() -> Notes:
    """Clarinet with a plucked guitar."""
    bar_1 = 1.0  # the piece begins with its upbeat, not with the rest before it
    events = line(CLARINET, GREENSLEEVES, start=bar_1 - 6, velocity=80)
    *chords, final = GREENSLEEVES_CHORDS
    for i, name in enumerate(chords):
        bass, low, middle, high = (pitch(n) for n in GUITAR[name].split())
        repeated = i % 2 == 1 and name == chords[i - 1]
        beat = bar_1 + 3 * i
        first, accent = (low, 70) if repeated else (bass, 78)
        events += [Event(NYLON_GUITAR, first, beat, 2.9, accent),
                   Event(NYLON_GUITAR, middle, beat + 1, 1.9, 62),
                   Event(NYLON_GUITAR, high, beat + 2, 0.95, 64)]
    last = bar_1 + 3 * len(chords)
    events += [Event(NYLON_GUITAR, pitch(n), last + 0.15 * k, 5.0, 66)
               for k, n in enumerate(f"{GUITAR[final]} E4".split())]
    return perform(events, tempo(150, slow_from=last - 9, slow_until=last, slow_to=1.4), seed=1580,
                   swell=lambda beat: 10 * math.sin(math.pi * (beat % 24) / 24))


PIECES: dict[str, Callable[[], Notes]] = {
    "bach_prelude_in_c": prelude,
    "pachelbel_canon_in_d": canon,
    "when_the_saints": saints,
    "greensleeves": greensleeves,
}


def main() -> None:
    """Writes every piece into a folder."""
    parser = argparse.ArgumentParser(description="Writes the example pieces as MIDI files.")
    parser.add_argument("folder", nargs="?", default=pathlib.Path(__file__).parent,
                        type=pathlib.Path, help="default: beside this script")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, piece in PIECES.items():
        write_midi(piece(), folder / f"{name}.mid")


if __name__ == "__main__":
    main()
