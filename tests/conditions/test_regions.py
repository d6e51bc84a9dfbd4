"""Classes and regions: what training examples and windows of a piece are given."""

import types

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Excerpt, Source
from music_diffusion.conditions.regions import CLASS, GIVEN, REGION, ClassAndRegion, RegionPiece
from music_diffusion.errors import UserError

CODEC = MelCodec(mels=4)
CLASSES = ClassAndRegion(classes=("calm", "loud"))


def excerpt(label):
    record = types.SimpleNamespace(labels={} if label is None else {"style": label})
    return Excerpt(record=record, number=0, first=0, frames=8, codec=CODEC,
                   records=types.SimpleNamespace(folder="data"))


def test_class_has_the_number_of_its_name_in_the_model():
    assert CLASSES.of_record(excerpt("loud"))[CLASS] == 1
    assert ClassAndRegion().of_record(excerpt(None)) == {}
    assert CLASSES.needs == ("style",) and ClassAndRegion().needs == ()


@pytest.mark.parametrize("label", ["fast", None])
def test_class_that_the_model_does_not_know(label):
    with pytest.raises(UserError, match="CLASSES = "):
        CLASSES.of_record(excerpt(label))


def test_folders_are_checked():
    assert CLASSES.check({"style": ["loud"]}, "data")  # a part of the classes will do
    with pytest.raises(UserError, match="data: fast: not among the classes.*CLASSES = "):
        CLASSES.check({"style": ["fast", "loud"]}, "data")
    with pytest.raises(UserError, match="no style"):
        CLASSES.check({}, "data")
    assert ClassAndRegion().check({}, "data") == {}


def test_names():
    assert CLASSES.number("loud") == 1
    with pytest.raises(UserError, match="--class lod: unknown; choose loud"):
        CLASSES.number("lod")
    with pytest.raises(UserError, match="no classes"):
        ClassAndRegion().number("loud")
    with pytest.raises(UserError, match="twice"):
        ClassAndRegion(classes=("a", "a"))


def test_windows_hold_the_recording_and_what_stays_of_it():
    mel = np.random.default_rng(0).uniform(-8, 3, (10, 4)).astype(np.float32)
    region = np.random.default_rng(1).random((10, 4)) < 0.5
    source = Source(codec=CODEC, frames=20, mel=mel, region=region, classes=np.float32([0.3, 0.7]))
    batch = RegionPiece(source=source, classes=2).windows([0, 6], 8)
    np.testing.assert_allclose(CODEC.unscale(batch[GIVEN][0]), mel[:8], atol=1e-5)
    np.testing.assert_allclose(CODEC.unscale(batch[GIVEN][1, :4]), mel[6:], atol=1e-5)
    np.testing.assert_allclose(CODEC.unscale(batch[GIVEN][1, 4:]), CODEC.log_min, atol=1e-5)
    np.testing.assert_array_equal(batch[REGION][0], region[:8])
    np.testing.assert_array_equal(batch[REGION][1], np.concatenate([region[6:], np.zeros((4, 4))]))
    np.testing.assert_allclose(batch[CLASS], [[0.3, 0.7]] * 2)


def test_nothing_is_given_and_no_class():
    batch = RegionPiece(source=Source(codec=CODEC, frames=20), classes=2).windows([0], 8)
    assert not batch[REGION].any() and not batch[CLASS].any()
    assert CLASS not in RegionPiece(source=Source(codec=CODEC, frames=20), classes=0).windows([0], 8)


def test_context_is_the_end_of_the_segment_before():
    before = np.random.default_rng(0).uniform(-1, 1, (1, 8, 4)).astype(np.float32)
    piece = RegionPiece(source=Source(codec=CODEC, frames=20), classes=0, context=3)
    batch = piece.windows([5], 8, before)
    np.testing.assert_array_equal(batch[GIVEN][0, :3], before[0, 5:])
    np.testing.assert_array_equal(batch[REGION][0], [[1.0] * 4] * 3 + [[0.0] * 4] * 5)
    assert not piece.windows([5], 8)[REGION].any()


def test_only_a_length_is_taken():
    source = Source(codec=CODEC, frames=20)
    assert CLASSES.open(source, CODEC, 0) is source
    with pytest.raises(UserError, match="how long"):
        CLASSES.open("a.wav", CODEC, 0)
