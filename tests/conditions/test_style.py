"""Content and style: what records give, and that a piece gives the same."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import HEARD, Excerpt, Source
from music_diffusion.conditions.style import (
    CONTENT_FEATURES,
    ContentAndStyle,
    content_features,
    most_played,
    repeated,
)
from music_diffusion.data.records import Record
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import CHANNELS
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=4)
CONDITIONS = ContentAndStyle(style_frames=8)
T = 40


class Folder:
    folder = "made-up"


@pytest.fixture
def record():
    rng = np.random.default_rng(0)
    # Frame t of the record says so in every bin; its source is something else.
    mel = np.broadcast_to(np.arange(T)[:, None] / 10, (T, 4))
    return Record(mel=mel.astype(np.float16), notes=Notes.empty(),
                  source=rng.uniform(-9, 2, (T, 4)).astype(np.float16),
                  heard=rng.integers(0, 256, (T, CHANNELS)).astype(np.uint8))


def excerpt(record, first=8, frames=16, rng=None):
    return Excerpt(record=record, number=0, first=first, frames=frames, codec=CODEC, records=Folder(),
                   rng=rng)


def style_of(features):
    """Returns the record's frames that the style shows."""
    return np.round(10 * CODEC.unscale(features["style"])[:, 0]).astype(int)


def test_the_content_is_what_is_heard_and_how_loud_the_source_is(record):
    assert set(CONDITIONS.needs) == {HEARD}
    content = CONDITIONS.of_record(excerpt(record, first=30, frames=16))["content"]
    assert content.shape == (16, CONTENT_FEATURES) and content.dtype == np.float32
    np.testing.assert_allclose(content[:10, :-1], record.heard[30:] / 255, atol=1e-6)
    level = 0.5 * np.log(np.mean(np.exp(2 * record.source[30:].astype(np.float64)), axis=1))
    np.testing.assert_allclose(CODEC.unscale(content[:10, -1]), level, atol=1e-2)
    assert not content[10:, :-1].any() and (content[10:, -1] == -1).all()
    alone = dataclasses.replace(record, source=None)  # its own sound, where there is no other
    content = CONDITIONS.of_record(excerpt(alone, first=10, frames=4))["content"]
    np.testing.assert_allclose(CODEC.unscale(content[:, -1]), [1.0, 1.1, 1.2, 1.3], atol=1e-2)


def test_a_style_is_another_part_of_the_record(record):
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        frames = style_of(CONDITIONS.of_record(excerpt(record, first=12, rng=rng)))
        assert list(frames) == list(range(frames[0], frames[0] + 8))
        assert not set(frames) & set(range(12, 28))
        seen.add(int(frames[0]))
    assert seen == {0, 1, 2, 3, 4, *range(28, 33)}  # every place beside the excerpt
    fixed = [style_of(CONDITIONS.of_record(excerpt(record, first=12))) for _ in range(2)]
    np.testing.assert_array_equal(*fixed)


def test_records_without_room_for_a_style(record):
    whole = style_of(CONDITIONS.of_record(excerpt(record, first=0, frames=T)))
    assert len(whole) == 8 and set(whole) <= set(range(T))
    short = dataclasses.replace(record, mel=record.mel[:3])
    assert list(style_of(CONDITIONS.of_record(excerpt(short, first=0, frames=3)))) == [0, 1, 2] * 2 + [0, 1]


def test_records_have_to_have_been_heard(record):
    with pytest.raises(UserError, match="prepare with --heard"):
        CONDITIONS.of_record(excerpt(dataclasses.replace(record, heard=None)))


def test_a_piece_gives_what_records_give(record):
    mel = record.source.astype(np.float32)
    source = Source(codec=CODEC, frames=T, mel=mel, heard=record.heard,
                    style=record.mel[:8].astype(np.float32))
    piece = CONDITIONS.of_piece(CONDITIONS.open(source, CODEC, 0.0), {})
    batch = piece.windows([4, 30], 16)
    for k, first in enumerate((4, 30)):
        trained = CONDITIONS.of_record(excerpt(record, first=first))
        np.testing.assert_allclose(batch["content"][k], trained["content"], atol=1e-5)
    np.testing.assert_allclose(CODEC.unscale(batch["source"][0]), np.maximum(mel[4:20], CODEC.log_min),
                               atol=1e-3)
    assert (batch["source"][1, 10:] == -1).all()
    assert batch["style"].shape == (2, 8, 4) and piece.frames == T
    assert list(style_of({"style": batch["style"][1]})) == list(range(8))


def test_of_what_is_not_given_there_is_nothing():
    free = Source(codec=CODEC, frames=12, style=np.zeros((20, 4), np.float32))
    assert set(CONDITIONS.of_piece(CONDITIONS.open(free, CODEC, 0.0), {}).windows([0], 8)) == {"style"}
    nothing = CONDITIONS.open(Source(codec=CODEC, frames=12), CODEC, 0.0)
    assert not CONDITIONS.of_piece(nothing, {}).windows([0], 8)
    for given in (None, "file.wav", Source(codec=CODEC, frames=3, mel=np.zeros((3, 4), np.float32))):
        with pytest.raises(UserError, match="use restyle"):
            CONDITIONS.open(given, CODEC, 0.0)


def test_the_stretch_with_most_sound_is_the_style():
    mel = np.full((30, 4), -8.0, np.float32)
    mel[3:6], mel[12:19], mel[25:30] = 0.0, -1.0, -3.0
    mel[12:19] += np.arange(7)[:, None] / 100
    np.testing.assert_array_equal(most_played(mel, 7, CODEC), mel[12:19])
    np.testing.assert_array_equal(most_played(mel[:2], 5, CODEC), mel[[0, 1, 0, 1, 0]])
    with pytest.raises(ValueError, match="no frames"):
        repeated(mel[:0], 3)


def test_levels_of_silence():
    heard = np.zeros((2, CHANNELS), np.uint8)
    content = content_features(heard, np.full((2, 4), -20.0, np.float32), CODEC)
    assert (content[:, -1] == -1).all()
