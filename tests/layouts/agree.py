"""A reader's items against the truths of its fixture: any order, any format, with or without notes."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence

import numpy as np
from layouts.common import Truth

from music_diffusion.data.items import Item, Sound
from music_diffusion.data.sounds import read_sound
from music_diffusion.notes.notes import Notes

ROUNDING = 1.1 / 32768  # to 16 bits, with a little room
MIDI_TICK = 0.6e-3  # seconds, half a tick of `write_midi`


def assert_same(items: Sequence[Item], truths: Sequence[Truth], *, lossy: bool = False) -> None:
    """What items tell and read, after they went to another process.

    lossy: the audio is only alike, as after MP3 and Opus.
    """
    of = {truth.name: truth for truth in truths}
    assert {item.name for item in items} == of.keys()
    for item in pickle.loads(pickle.dumps(tuple(items))):
        truth = of[item.name]
        for label in ("split", "performance", "style", "piece", "velocities"):
            assert getattr(item, label) == getattr(truth, label), (item.name, label)
        assert all(os.path.isfile(path) for path in item.files)
        assert_sounds(item.audio, truth.samples, truth.sample_rate, lossy)
        assert (item.source is None) == (truth.source is None), item.name
        if item.source is not None:
            assert_sounds(item.source, truth.source, truth.sample_rate, lossy)
        assert {stem.program for stem in item.stems} == truth.stems.keys(), item.name
        for stem in item.stems:
            assert_sounds(stem.audio, truth.stems[stem.program], truth.sample_rate, lossy)
        assert (item.notes is None) == (truth.notes is None), item.name
        if item.notes is not None:
            assert item.note_files and set(item.note_files) < set(item.files)
            assert_notes(item.notes(), truth.notes)


def assert_sounds(sound: Sound, samples: np.ndarray, sample_rate: int, lossy: bool = False) -> None:
    """The sound has these samples."""
    heard = read_sound(sound, sample_rate)
    assert abs(sound.facts().seconds - len(samples) / sample_rate) < (0.1 if lossy else 1e-6)
    if not lossy:
        np.testing.assert_allclose(heard, samples, atol=ROUNDING)
        return
    assert abs(len(heard) - len(samples)) < 0.1 * sample_rate
    size = min(len(heard), len(samples))
    heard, samples = heard[:size], samples[:size]
    # Measured 0.999 and more; other notes have 0.3 at most, the same ones 3 to 50 ms off 0.7.
    assert heard @ samples > 0.99 * np.linalg.norm(heard) * np.linalg.norm(samples)


def assert_notes(notes: Notes, truth: Notes) -> None:
    """The same notes at the same times, to a MIDI tick."""
    for name in ("pitch", "velocity", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(notes, name), getattr(truth, name))
    for name in ("start", "end"):
        np.testing.assert_allclose(getattr(notes, name), getattr(truth, name), rtol=0, atol=MIDI_TICK)
