"""Whether what a reader found is the truth."""

from __future__ import annotations

import pickle

import numpy as np
from layouts.common import Truth

from music_diffusion.data.items import Item
from music_diffusion.data.sounds import read_sound
from music_diffusion.notes.notes import Notes


def assert_same_notes(notes: Notes, truth: Notes, seconds: float = 1e-9) -> None:
    """seconds: how far times may be off."""
    assert len(notes) == len(truth)
    for name in ("pitch", "velocity", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(notes, name), getattr(truth, name), err_msg=name)
    for name in ("start", "end"):
        np.testing.assert_allclose(getattr(notes, name), getattr(truth, name), rtol=0, atol=seconds)


def assert_reads(item: Item, truth: Truth, level: float, seconds: float = 1e-9) -> None:
    """All that an item tells and reads, also after it went to another process.

    level: how far samples may be off. seconds: how far the notes' times may be.
    """
    for name in ("name", "split", "velocities", "performance", "style", "piece"):
        assert getattr(item, name) == getattr(truth, name), name
    for one in (item, pickle.loads(pickle.dumps(item))):
        assert_same_notes(one.notes(), truth.notes, seconds)
        for sound, samples in ((one.audio, truth.samples),
                               *((s.audio, truth.stems[s.program]) for s in one.stems)):
            np.testing.assert_allclose(read_sound(sound, truth.sample_rate), samples, rtol=0, atol=level)
            facts = sound.facts()
            assert (facts.sample_rate, facts.channels) == (truth.sample_rate, 1)
            assert facts.seconds == len(samples) / truth.sample_rate
    assert {stem.program for stem in item.stems} == set(truth.stems)
    assert set(item.note_files) <= set(item.files)
