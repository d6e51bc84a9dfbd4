"""A piece of any length to measure with: five instruments, the same on every machine."""

from __future__ import annotations

import numpy as np

from music_diffusion.notes.notes import Notes

PIANO, BASS, STRINGS, FLUTE = 0, 32, 48, 73  # General MIDI programs from 0
KICK, SNARE, HAT = 36, 38, 42  # General MIDI drum keys
CHORDS = ((60, 64, 67), (57, 60, 64), (53, 57, 60), (55, 59, 62))  # pitches, a bar each
BEAT = 0.5  # seconds
BAR = 4 * BEAT
LOOP = len(CHORDS) * BAR  # seconds after which it comes again


def piece(seconds: float) -> Notes:
    """Notes that sound from 0 to `seconds`, without a gap."""
    bars = int(np.ceil(seconds / BAR))
    events = [(bar * BAR + BEAT * at, bar * BAR + BEAT * (at + beats), *rest) for bar in range(bars)
              for at, beats, *rest in _bar(CHORDS[bar % len(CHORDS)])]
    start, *rest = np.array(events).T
    notes = Notes(start, *rest)
    notes = notes[notes.start < seconds]
    return Notes(notes.start, np.minimum(notes.end, seconds), notes.pitch, notes.velocity,
                 notes.program, notes.is_drum)


def _bar(chord: tuple[int, int, int]) -> list[tuple[float, float, int, int, int, bool]]:
    """(beat, beats, pitch, velocity, program, is_drum) of one bar."""
    return [
        *((0, 4, pitch, 60, STRINGS, False) for pitch in chord),
        *((i / 2, 0.5, chord[i % 3], 80, PIANO, False) for i in range(8)),
        *((i, 1, chord[0] - 24, 90, BASS, False) for i in range(4)),
        *((i, 1, chord[-1 - i % 3] + 12, 85, FLUTE, False) for i in range(4)),
        *((i, 0.2, (KICK, SNARE)[i % 2], 100, 0, True) for i in range(4)),
        *((i / 2, 0.2, HAT, 70, 0, True) for i in range(8)),
    ]


def loop_samples(sample_rate: int) -> np.ndarray:
    """The first `LOOP` seconds as plain sound, [S] float32, to be played again and again."""
    rng = np.random.default_rng(0)
    sound = np.zeros(round(LOOP * sample_rate))
    notes = piece(LOOP)
    for start, end, pitch, is_drum in zip(notes.start, notes.end, notes.pitch, notes.is_drum,
                                          strict=True):
        part = slice(round(start * sample_rate), round(end * sample_rate))
        time = np.arange(part.stop - part.start) / sample_rate
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        tone = (rng.normal(size=len(time)) if is_drum else
                sum(np.sin(2 * np.pi * k * hertz * time) / k for k in range(1, 5)
                    if k * hertz < sample_rate / 2))
        sound[part] += tone * np.exp(-3 * time)
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32)
