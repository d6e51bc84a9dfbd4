"""Features back to notes: what went in comes out, as far as the features can hold it."""

import dataclasses

import numpy as np
import pytest
from reference.tiny_records import made_notes

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.data.dump import example_notes, roll_notes, slot_notes, token_notes
from music_diffusion.notes.events import quantize
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig

START, FRAMES, HOP = 2.56, 256, 0.02
CODEC = MelCodec()
END = START + FRAMES * HOP


def heard(notes):
    """The notes of the segment as the features should tell them, by definition."""
    kept = notes[(notes.start < END) & (notes.end > START)]
    return Notes(np.maximum(kept.start, START) - START, np.minimum(kept.end, END) - START, kept.pitch,
                 kept.velocity, kept.program, kept.is_drum)


def piece(name):
    """Random notes, of which one sounds into the segment and one out of it."""
    across = Notes([START - 0.3, END - 0.2], [START + 0.4, END + 0.5], [100, 101], [70, 80], [40, 0],
                   [False, False])
    return Notes.concatenate([made_notes(name, 12.0), across])


def assert_notes(got, want, seconds, tied_are_told=True):
    """Equal up to `seconds`, in whatever order notes of one time come."""
    assert len(got) == len(want) > 20
    a, b = (n[np.lexsort((n.start.round(2), n.pitch, n.program, n.is_drum))] for n in (got, want))
    for field in ("pitch", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    told = (b.start > 0) | tied_are_told
    np.testing.assert_array_equal(a.velocity[told], b.velocity[told])
    np.testing.assert_allclose(a.start, b.start, atol=seconds)
    np.testing.assert_allclose(a.end, b.end, atol=seconds)


@pytest.mark.parametrize("velocity_bins", [1, 127])
def test_tokens_come_back_as_their_quantised_notes(velocity_bins):
    config = EventConfig(velocity_bins=velocity_bins)
    conditions = NoteTokens(events=config)
    notes = piece("tokens")
    example = {"targets": np.zeros((FRAMES, 1))} | conditions.of_notes(notes, START, FRAMES, CODEC)
    # Tokens do not tell how loud a note is that is tied into the segment.
    assert_notes(example_notes(example, config, HOP), heard(quantize(notes, config)), 1e-6,
                 tied_are_told=False)
    silent = conditions.of_notes(Notes.empty(), 0.0, FRAMES, CODEC)
    assert not len(token_notes(silent["inputs"], FRAMES * HOP, config))


def test_slots_come_back_as_the_very_notes():
    notes = piece("slots")
    conditions = NoteFrames()
    example = conditions.of_notes(notes, START, FRAMES, CODEC, slots=64)
    example["targets"] = np.zeros((FRAMES, 1))
    assert_notes(example_notes(example, None, HOP), heard(notes), 1e-4)
    silent = conditions.of_notes(Notes.empty(), 0.0, 4, CODEC, slots=64)
    assert not len(slot_notes(silent, HOP))


def test_repeated_notes_stay_apart_in_slots_and_rolls():
    start = np.arange(5) * 0.1
    notes = Notes(start, start + 0.1, np.full(5, 60), np.arange(5) + 60, np.full(5, 40), np.zeros(5))
    example = NoteFrames().of_notes(notes, 0.0, 30, CODEC, slots=32)
    for got in (slot_notes(example, HOP), roll_notes(example["roll"], HOP)):
        np.testing.assert_allclose(got.start, start, atol=1e-4)
        np.testing.assert_allclose(got.end, start + 0.1, atol=1e-4)
        np.testing.assert_array_equal(got.velocity, notes.velocity)
        np.testing.assert_array_equal(got.program, 40)


def test_a_roll_comes_back_on_the_grid_of_frames():
    notes = made_notes("roll", 12.0)
    even = [np.round(x / HOP) * HOP for x in (notes.start, notes.end)]
    notes = dataclasses.replace(notes, start=even[0], end=np.maximum(even[1], even[0] + HOP))
    # A segment from the very start: rounding of START must not move an onset by a frame.
    shifted = dataclasses.replace(notes, start=notes.start + 1e-6, end=notes.end + 1e-6)
    roll = NoteFrames().of_notes(shifted, 0.0, FRAMES, CODEC)
    got = example_notes({"targets": np.zeros((FRAMES, 1))} | roll, None, HOP)
    kept = notes[notes.start < FRAMES * HOP - 1e-4]
    assert len(got) == len(kept)
    for n in (got, kept):
        assert n.is_drum.any() and not n.is_drum.all()
    key = [np.lexsort((n.start.round(2), n.pitch, n.is_drum)) for n in (got, kept)]
    got, kept = got[key[0]], kept[key[1]]
    np.testing.assert_array_equal(got.pitch, kept.pitch)
    np.testing.assert_array_equal(got.velocity, kept.velocity)
    np.testing.assert_allclose(got.start, kept.start, atol=1e-6)
    # Both instruments are classes' first programs; velocities tell them apart where both begin.
    assert (got.program == kept.program).mean() > 0.95


def test_examples_without_notes_have_none():
    assert example_notes({"targets": np.zeros((4, 1))}, None, HOP) is None
