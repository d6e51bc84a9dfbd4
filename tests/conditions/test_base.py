"""Excerpts of records, and what all conditions have in common."""

import pickle

import numpy as np
import pytest
from reference.excerpts import CODECS, MELS, InMemory, excerpt_of

from music_diffusion.conditions.base import numbered
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram, StyleSpectrogram
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

MEL = np.arange(30 * MELS, dtype=np.float16).reshape(30, MELS) / 100 - 3
RECORD = Record(mel=MEL, notes=Notes.empty(), start=7.0, labels={"style": "jazz"})


@pytest.mark.parametrize("codec", CODECS)
def test_seconds_of_the_first_frame(codec):
    hop = codec.hop / codec.sample_rate
    assert excerpt_of(RECORD, 9, 4, codec).start == pytest.approx(7.0 + 9 * hop, abs=1e-12)
    assert excerpt_of(RECORD, 0, 4, codec).start == 7.0


@pytest.mark.parametrize(("first", "inside"), [(0, 8), (22, 8), (25, 5), (30, 0)])
def test_an_excerpt_is_its_part_of_the_record_and_silence(first, inside):
    codec = CODECS[0]
    excerpt = excerpt_of(RECORD, first, 8)
    part = excerpt.part(MEL)
    np.testing.assert_array_equal(part, MEL[first:first + 8])
    scaled = excerpt.scaled(part)
    assert scaled.shape == (8, MELS) and scaled.dtype == np.float32
    np.testing.assert_allclose(codec.unscale(scaled[:inside].astype(np.float64)), part, atol=1e-5)
    np.testing.assert_array_equal(scaled[inside:], np.float32(excerpt.silence))
    assert excerpt.silence == pytest.approx(-1)
    padded = excerpt.padded(np.ones((inside, 2, 3)), 5.0)
    assert padded.shape == (8, 2, 3) and (padded[:inside] == 1).all() and (padded[inside:] == 5).all()


def test_labels_are_numbers_among_the_classes():
    assert excerpt_of(RECORD, 0, 8, style=("folk", "jazz")).label("style") == 1
    for kind, classes in (("style", {"style": ("folk",)}), ("style", {}), ("performance", {
            "performance": ("a",)})):
        with pytest.raises(UserError, match=f"memory: record 1 of train has no {kind}"):
            InMemory(records=[RECORD] * 2, classes=classes).excerpt(1, 0, 8).label(kind)


def test_classes_that_are_missing():
    numbered({"style": ["folk"]}, "style", "folder")
    for classes in ({}, {"style": []}):
        with pytest.raises(UserError, match="^folder: its records have no style; prepare") as error:
            numbered(classes, "style", "folder")
        assert "\n" not in str(error.value)


EVERY = [Nothing, SourceSpectrogram, StyleSpectrogram, NoteFrames, NoteTokens,
         lambda: NoteFrames(tails=(0.5,), performance=PerformanceNumbers(count=3)),
         lambda: NoteTokens(context=True, performance=PerformanceNumbers(only=1))]


@pytest.mark.parametrize("make", EVERY)
def test_conditions_are_values(make):
    """Loaders send them to processes, jit keys its caches by them."""
    conditions = make()
    assert conditions == make() == pickle.loads(pickle.dumps(conditions))
    assert hash(conditions) == hash(make())
    assert len({c() for c in EVERY}) == len(EVERY)


def test_of_conditions_those_of_notes_in_frames_alone_change_where_there_are_maps():
    for make in EVERY:
        conditions = make()
        changed = conditions.mapped() != conditions
        assert changed == isinstance(conditions, NoteFrames)
        assert conditions.mapped().needs == conditions.needs
    assert NoteTokens().events is not None and NoteFrames().events is None
