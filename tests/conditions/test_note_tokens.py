"""Conditions of the token models: what is learned from and what is rendered from are the same."""

import dataclasses

import numpy as np
import pytest
from reference.excerpts import CODECS, MELS, WEIGHTS, InMemory, excerpt_of, random_notes

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.note_tokens import NoteTokens, TooManyEventsError
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.data.dump import token_notes
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig

LENGTH = 240  # frames of the piece; its notes sound beyond
CONDITIONS = NoteTokens(tokens=400, context=True, events=EventConfig(velocity_bins=127))
# Frames of 20 ms, of 10 2/3 ms (15 of them are 160 ms), and of 10 ms.
GRIDS = [(CODECS[0], 1), (CODECS[1], 15), (CODECS[2], 1)]
every_grid = pytest.mark.parametrize(("codec", "step"), GRIDS, ids=["20ms", "10.7ms", "10ms"])


def piece(codec, conditions=CONDITIONS):
    """(record, piece) of the same notes."""
    notes = random_notes(LENGTH / codec.frame_rate + 1.0, 120)
    mel = np.random.default_rng(1).uniform(codec.log_min, codec.log_max, (LENGTH, MELS)).astype(np.float16)
    source = Source(codec=codec, frames=LENGTH, notes=notes, performance=WEIGHTS)
    return Record(mel=mel, notes=notes), conditions.of_piece(source, {})


def scaled(codec, mel):
    """What a renderer has made of the same spectrogram."""
    return np.asarray(codec.scale(mel.astype(np.float32)))


@every_grid
def test_rendering_has_the_features_of_training(codec, step):
    record, rendered = piece(codec)
    for first, size in ((0, 60), (60, 60), (75, 30), (LENGTH - 15, 15)):
        assert first % step == size % step == 0
        want = CONDITIONS.of_record(excerpt_of(record, first, size, codec))
        before = scaled(codec, record.mel[first - size:first])[None] if first >= size else None
        got = rendered.windows([first], size, before)
        assert got.keys() - {"performance"} == want.keys() == {
            "inputs", "targets_context", "targets_context_mask"}
        for name, values in want.items():
            np.testing.assert_array_equal(got[name][0], values, err_msg=name)
            assert got[name].dtype == values.dtype
        assert (want["inputs"] > 0).sum() > 10
        assert (want["targets_context_mask"] == (first >= size)).all()
        assert want["targets_context"].any() == (first >= size)


@every_grid
def test_every_window_of_a_group_is_that_of_training(codec, step):
    del step
    record, rendered = piece(codec)
    firsts, size = [60, 75, 90, 105], 60  # overlapping
    before = np.stack([scaled(codec, record.mel[f - size:f]) for f in firsts])
    got = rendered.windows(firsts, size, before)
    assert got["inputs"].shape == (4, 400) and got["targets_context"].shape == (4, size, MELS)
    for number, first in enumerate(firsts):
        for name, values in CONDITIONS.of_record(excerpt_of(record, first, size, codec)).items():
            np.testing.assert_array_equal(got[name][number], values, err_msg=name)
    # Notes of the stretch that two windows have in common are the same in both.
    hop, events = 1 / codec.frame_rate, CONDITIONS.events
    a, b = (token_notes(got["inputs"][i], size * hop, events) for i in (0, 1))
    shift = 15 * hop
    begun = [sorted(zip(n.start.round(2), n.pitch, n.velocity, strict=True)) for n in (
        dataclasses.replace(a[a.start > shift + 1e-3], start=a[a.start > shift + 1e-3].start - shift),
        b[(b.start > 1e-3) & (b.start < size * hop - shift - 1e-3)])]
    np.testing.assert_allclose(*begun, atol=0.011)
    assert len(begun[0]) > 3


@every_grid
def test_windows_beyond_the_end_of_the_piece(codec, step):
    del step
    record, rendered = piece(codec)
    for first in (LENGTH - 30, LENGTH):
        want = CONDITIONS.of_record(excerpt_of(record, first, 60, codec))
        before = scaled(codec, record.mel[first - 60:first])[None]
        got = rendered.windows([first], 60, before)
        for name, values in want.items():
            np.testing.assert_array_equal(got[name][0], values, err_msg=name)
        assert (want["inputs"] > 0).sum() > 10  # of notes that go on
    late = rendered.windows([LENGTH + 60 * 15], 60)["inputs"][0]
    assert not len(token_notes(late, 60 / codec.frame_rate, CONDITIONS.events))


def test_context_is_asked_for():
    record, _ = piece(CODECS[0])
    plain = dataclasses.replace(CONDITIONS, context=False)
    assert plain.of_record(excerpt_of(record, 60, 60)).keys() == {"inputs"}
    _, rendered = piece(CODECS[0], plain)
    assert rendered.windows([60], 60, np.zeros((1, 60, MELS), np.float32)).keys() == {
        "inputs", "performance"}
    assert rendered.frames == LENGTH


def test_every_window_has_the_weights_of_the_performance():
    _, rendered = piece(CODECS[0])
    weights = rendered.windows([0, 30, 60], 60)["performance"]
    assert weights.shape == (3, 3) and weights.dtype == np.float32
    np.testing.assert_array_equal(weights, [WEIGHTS] * 3)
    unplayed = dataclasses.replace(rendered.source, performance=None)
    assert "performance" not in CONDITIONS.of_piece(unplayed, {}).windows([0], 60)


def test_examples_have_their_records_number():
    record = Record(mel=np.zeros((60, MELS)), notes=Notes.empty(), labels={"performance": "b"})
    conditions = NoteTokens(performance=PerformanceNumbers())
    example = conditions.of_record(excerpt_of(record, 0, 60, performance=("a", "b")))
    assert example["performance"] == 1 and example["performance"].dtype == np.int32
    assert set(conditions.needs) == {"notes", "performance"}
    for other in (NoteTokens(), NoteTokens(performance=PerformanceNumbers(only=0))):
        assert set(other.needs) == {"notes"}
    assert NoteTokens().check({}, "folder") == {}
    with pytest.raises(UserError, match="folder: its records have no performance"):
        conditions.check({}, "folder")


def test_too_many_events_name_the_record_and_the_place():
    record, rendered = piece(CODECS[0])
    few = dataclasses.replace(CONDITIONS, tokens=20)
    with pytest.raises(TooManyEventsError, match=r"memory: record 1 of train: \d+ events between 1\.20 and "
                       r"2\.40 s are more than the model's 20 tokens") as error:
        few.of_record(InMemory(records=[record] * 2).excerpt(1, 60, 60))
    assert "\n" not in str(error.value)
    with pytest.raises(TooManyEventsError, match=r"^\d+ events between 1\.20 and 2\.40 s"):
        few.of_piece(rendered.source, {}).windows([60], 60)


def test_segments_are_of_whole_steps():
    """Not with any overlap, nor with any codec."""
    record, rendered = piece(CODECS[1])
    with pytest.raises(UserError, match=r"segments that begin at 0\.0106667 s: .* 1/100 s; .*--overlap"):
        rendered.windows([1], 60)
    for first, size in ((1, 60), (0, 61)):
        with pytest.raises(UserError, match="frames of 0.0106667 s .* steps of 1/100 s") as error:
            CONDITIONS.of_record(excerpt_of(record, first, size, CODECS[1]))
        assert "\n" not in str(error.value)


def test_segments_are_as_long_as_tokens_can_say():
    codec, notes = MelCodec(mels=MELS), random_notes(2.0)
    assert NoteTokens().of_notes(notes, 0.0, 256, codec)["inputs"].shape == (2048,)  # 5.12 s
    with pytest.raises(UserError, match="257 frames of 0.02 s from 0 s on: .* at most 512"):
        NoteTokens().of_notes(notes, 0.0, 257, codec)
