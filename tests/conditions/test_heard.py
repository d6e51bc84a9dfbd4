"""A recording as it was heard beside its notes on other instruments: one level, rendered as trained."""

import dataclasses

import jax
import numpy as np
import pytest
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import HEARD, MAPS, NOTES, SOURCE, Excerpt, Source
from music_diffusion.conditions.heard import (
    LEVEL,
    MOST_LOUDER,
    HeardFrames,
    evidence_channels,
    louder_by,
)
from music_diffusion.conditions.note_frames import frame_grid, louder
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.notes.heard import CHANNELS, level
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=16)
TIMBRE = NoteTimbreConfig(width=8, layers=1, codec=CODEC)
CONDITIONS = HeardFrames(slots=0, timbre=TIMBRE, embedding=4, wanted=3)
T, D = 120, 4


class Folder:
    folder = "made-up"

    def describe(self, record):
        return "record"


def excerpt(record, first, frames):
    return Excerpt(record=record, number=0, first=first, frames=frames, codec=CODEC, records=Folder())


@pytest.fixture(scope="module")
def timbre():
    return compiled.init(NoteTimbreModel(config=TIMBRE))["params"]


@pytest.fixture(scope="module")
def notes():
    start = np.array([0.0, 0.3, 0.9, 1.5])
    return Notes(start, start + 0.4, [60, 64, 67, 72], [90, 50, 110, 70], [11] * 4, [False] * 4)


@pytest.fixture(scope="module")
def record(timbre, notes):
    rng = np.random.default_rng(0)
    maps = draw_note_maps(TIMBRE, timbre, notes, 0.0, T, frame_grid(CODEC, CONDITIONS.ring))
    return Record(mel=rng.normal(size=(T, 16)).astype(np.float16), notes=notes,
                  maps=maps.astype(np.float16), source=rng.uniform(-9, 2, (T, 16)).astype(np.float16),
                  heard=rng.integers(0, 256, (T, CHANNELS)).astype(np.uint8),
                  likes=np.arange(6)[:, None] * np.ones((6, D), np.float16))


def test_records_have_to_have_been_heard():
    assert set(CONDITIONS.needs) == {NOTES, MAPS, SOURCE, HEARD}


def test_evidence_is_the_source_and_how_surely_it_is_heard(record):
    features = CONDITIONS.of_record(excerpt(record, 100, 40))
    seen = features["evidence"]
    assert seen.shape == (40, evidence_channels(CODEC)) and seen.dtype == np.float32
    source = CODEC.scale(record.source[100:].astype(np.float32))
    np.testing.assert_allclose(seen[:20, :16], source, atol=1e-6)
    np.testing.assert_allclose(seen[:20, 16:], record.heard[100:] / 255, atol=1e-6)
    assert (seen[20:, :16] == -1).all() and not seen[20:, 16:].any()


def test_maps_are_at_the_level_of_everything(record):
    features = CONDITIONS.of_record(excerpt(record, 0, T))
    assert level(CODEC.unscale(features["maps"][:, 0])) == pytest.approx(LEVEL, abs=0.05)
    quiet = dataclasses.replace(record, maps=louder(record.maps.astype(np.float32), -1.0, CODEC))
    again = CONDITIONS.of_record(excerpt(quiet, 0, T))
    np.testing.assert_allclose(again["maps"], features["maps"], atol=0.01)


def test_silence_stays_silent_and_nothing_is_made_louder_without_end():
    silent = np.full((5, 16), CODEC.log_min, np.float32)
    assert louder_by(silent, CODEC) == 0.0
    assert louder_by(silent + 0.5, CODEC) == MOST_LOUDER
    assert louder_by(np.full((5, 16), LEVEL + 9, np.float32), CODEC) == -MOST_LOUDER
    half = np.where(np.arange(16) < 8, -1.0, 0.25).astype(np.float32)
    moved = louder(half, 1.0, CODEC)
    assert (moved[:8] == -1).all()
    np.testing.assert_allclose(CODEC.unscale(moved[8:]) - CODEC.unscale(half[8:]), 1.0, atol=1e-5)
    assert louder(half, 0.0, CODEC) is half


def test_the_reference_is_what_lies_beside_the_excerpt(record):
    # Six embeddings of 20 frames each, with their number as value.
    assert CONDITIONS.of_record(excerpt(record, 0, 40))["reference"].tolist() == [3.5] * D
    assert CONDITIONS.of_record(excerpt(record, 40, 40))["reference"].tolist() == [2.5] * D
    assert CONDITIONS.of_record(excerpt(record, 0, T))["reference"].tolist() == [2.5] * D
    none = dataclasses.replace(record, likes=None)
    assert not CONDITIONS.of_record(excerpt(none, 0, T))["reference"].any()


@pytest.mark.parametrize("programs, drums, want", [
    ([11] * 4, [False] * 4, [11, -1, -1]), ([5, 9, 9, 5], [False] * 4, [5, 9, -1]),
    ([5, 9, 9, 40], [False] * 4, [9, 5, 40]), ([5, 9, 9, 40], [False, True, True, False], [5, 40, -1]),
    ([5, 9, 12, 40], [False] * 4, [5, 9, 12])])
def test_wanted_are_those_who_play_the_most_frequent_first(record, notes, programs, drums, want):
    notes = dataclasses.replace(notes, program=np.array(programs), is_drum=np.array(drums))
    made = CONDITIONS.of_record(excerpt(dataclasses.replace(record, notes=notes), 10, 64))
    assert made["wanted"].tolist() == want and made["wanted"].dtype == np.int32
    without = dataclasses.replace(CONDITIONS, wanted=0).of_record(excerpt(record, 10, 64))
    assert "wanted" not in without


@pytest.mark.parametrize("missing", ["heard", "source", "maps"])
def test_what_is_missing_is_said(record, missing):
    with pytest.raises(UserError, match="--heard"):
        CONDITIONS.of_record(excerpt(dataclasses.replace(record, **{missing: None}), 0, 40))


@pytest.mark.parametrize("liked", [0.0, 0.3, 1.0])
def test_a_share_of_the_training_examples_has_a_reference(record, liked):
    conditions, rng = dataclasses.replace(CONDITIONS, liked=liked), np.random.default_rng(0)
    drawn = [dataclasses.replace(excerpt(record, 0, 40), rng=rng) for _ in range(200)]
    share = np.mean([conditions.of_record(each)["reference"].any() for each in drawn])
    assert share == pytest.approx(liked, abs=0.08 if 0 < liked < 1 else 0)
    # Validation is one thing or the other.
    assert conditions.of_record(excerpt(record, 0, 40))["reference"].any() == (liked == 1)
    with pytest.raises(UserError, match="liked = 1.5"):
        dataclasses.replace(CONDITIONS, liked=1.5)


@pytest.mark.parametrize("reference", [None, np.arange(D, dtype=np.float32)])
def test_rendering_gives_what_training_gave(record, timbre, notes, reference):
    source = Source(codec=CODEC, frames=T, mel=record.source.astype(np.float32), notes=notes,
                    heard=record.heard, reference=reference)
    assert CONDITIONS.open(source, CODEC, 2.0) is source
    piece = CONDITIONS.of_piece(source, {"timbre": timbre})
    windows = piece.windows([0, 32, 96], 64)
    assert piece.frames == T
    for i, first in enumerate((0, 32, 96)):
        trained = CONDITIONS.of_record(excerpt(record, first, 64))
        for name in ("evidence", "roll"):
            np.testing.assert_allclose(windows[name][i], trained[name], atol=1e-5)
        inside = slice(0, T - first)  # behind it a record has silence where a piece rings on
        np.testing.assert_allclose(windows["maps"][i][inside], trained["maps"][inside], atol=0.01)
        want = np.zeros(D) if reference is None else reference
        np.testing.assert_array_equal(windows["reference"][i], want)


def test_a_piece_without_notes_is_rendered_too(record, timbre):
    source = Source(codec=CODEC, frames=T, mel=record.source.astype(np.float32), notes=Notes.empty(),
                    heard=record.heard)
    windows = CONDITIONS.of_piece(source, {"timbre": timbre}).windows([0], 32)
    assert (windows["maps"] == -1).all() and jax.tree.all(
        jax.tree.map(lambda x: bool(np.isfinite(x).all()), dict(windows)))


@pytest.mark.parametrize("given", [
    None, Notes.empty(), Source(codec=CODEC, frames=3, mel=np.zeros((3, 16)))])
def test_only_what_was_heard_is_opened(given):
    with pytest.raises(UserError, match="transfer"):
        CONDITIONS.open(given, CODEC, 2.0)


def test_a_style_is_beside_the_excerpt_and_what_plays_most_while_rendering(record, timbre, notes):
    conditions = dataclasses.replace(CONDITIONS, style_frames=24)
    assert "style" not in CONDITIONS.of_record(excerpt(record, 0, 40))
    rng = np.random.default_rng(0)
    course = (np.arange(T)[:, None] / 32 - 3) * np.ones((T, 16), np.float16)
    counted = dataclasses.replace(record, mel=course)
    for _ in range(20):
        drawn = dataclasses.replace(excerpt(counted, 40, 40), rng=rng)
        frames = CODEC.unscale(conditions.of_record(drawn)["style"])[:, 0]
        frames = (32 * (frames + 3)).round().astype(int)
        assert len(frames) == 24 and (np.diff(frames) == 1).all()
        assert frames[-1] < 40 or frames[0] >= 80
    loud = np.full((60, 16), -5.0, np.float32)
    loud[30:54] = 1.0
    source = Source(codec=CODEC, frames=T, mel=record.source.astype(np.float32), notes=notes,
                    heard=record.heard, style=loud)
    piece = conditions.of_piece(conditions.open(source, CODEC, 2.0), {"timbre": timbre})
    windows = piece.windows([0, 9], 32)
    np.testing.assert_allclose(CODEC.unscale(windows["style"]), np.ones((2, 24, 16)), atol=1e-5)
    with pytest.raises(UserError, match="use restyle"):
        conditions.open(dataclasses.replace(source, style=None), CODEC, 2.0)
