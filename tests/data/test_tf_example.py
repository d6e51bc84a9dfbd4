"""tf.train.Example against bytes made by hand and, where it is installed, TensorFlow."""

import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import wire
from reference import needs

from music_diffusion.data import tf_example
from music_diffusion.data.tf_example import parse, parse_floats, serialize
from music_diffusion.errors import UserError

FEATURES = {"audio": [b"RIFF", b"", b"\xff\x00"], "gain": [1.0, -0.5, 3e38], "id": [0, -1, 2**63 - 1]}
LISTS = st.one_of(*(st.lists(values, max_size=4) for values in (
    st.binary(max_size=9), st.floats(width=32, allow_nan=False), st.integers(-2**63, 2**63 - 1))))


@given(st.dictionaries(st.text(max_size=5), LISTS, max_size=4))
def test_what_is_written_is_read(features):
    assert parse(serialize(features)) == features


def test_bytes_are_those_of_the_format():
    # Example.features(1) → Features.feature(1) → key(1), value(2) → bytes(1), floats(2), ints(3).
    entry = bytes.fromhex
    assert serialize({"a": [b"x"]}) == entry("0a0c 0a0a 0a0161 1205 0a03 0a0178")
    assert serialize({"a": [1.0]}) == entry("0a0f 0a0d 0a0161 1208 1206 0a04 0000803f")
    assert serialize({"a": [300]}) == entry("0a0d 0a0b 0a0161 1206 1a04 0a02 ac02")
    assert serialize({"a": []}) == entry("0a07 0a05 0a0161 1200")
    assert serialize({}) == entry("0a00")


def test_the_same_features_have_the_same_bytes():
    assert serialize(dict(reversed(FEATURES.items()))) == serialize(FEATURES)


def test_reads_bytes_made_by_hand():
    message = wire.example({**FEATURES, "gain": np.array(FEATURES["gain"], np.float32)})
    found = parse(message)
    assert {name: found[name] for name in ("audio", "id")} == {
        name: FEATURES[name] for name in ("audio", "id")}
    assert found["gain"] == np.array(FEATURES["gain"], np.float32).tolist()
    assert list(parse(message, only=("id", "none"))) == ["id"]


def test_reads_floats_that_are_not_packed():
    values = b"".join(wire.varint(1 << 3 | 5) + struct.pack("<f", v) for v in (0.5, 2.0))
    feature = wire.field(2, values)
    message = wire.field(1, wire.field(1, wire.field(1, "a") + wire.field(2, feature)))
    assert parse(message) == {"a": [0.5, 2.0]}
    np.testing.assert_array_equal(parse_floats(message, "a"), np.array([0.5, 2.0], np.float32))


def test_many_floats_as_an_array():
    samples = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = parse_floats(wire.example({"audio": samples, "id": [b"1"]}), "audio")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, samples)
    assert parse_floats(serialize({"audio": [1.0]}), "audio").tolist() == [1.0]


@pytest.mark.parametrize("features", [{"id": [1]}, {"audio": [1]}, {"audio": [b"x"]}, {"audio": []}])
def test_floats_that_are_none(features):
    with pytest.raises(ValueError, match="'audio'"):
        parse_floats(serialize(features), "audio")


@pytest.mark.parametrize("values", [[1, 2.0], [b"x", 1], ["text"], [None], [True]])
def test_types_are_not_mixed(values):
    with pytest.raises(TypeError, match="'a' must be all"):
        serialize({"a": values})


@pytest.mark.parametrize("message", [b"\xff", b"RIFFxxxxWAVE", serialize(FEATURES)[:-1]])
def test_other_bytes_are_refused(message):
    with pytest.raises(ValueError, match=f"{len(message)} bytes are no Example"):
        parse(message)


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    tf_example._example_class.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'music-diffusion\[data\]'"):
            parse(b"")
    finally:
        tf_example._example_class.cache_clear()


def test_tensorflow_reads_and_writes_the_same():
    tf = needs.module("tensorflow")
    kinds = {"audio": tf.train.Feature(bytes_list=tf.train.BytesList(value=FEATURES["audio"])),
             "gain": tf.train.Feature(float_list=tf.train.FloatList(value=FEATURES["gain"])),
             "id": tf.train.Feature(int64_list=tf.train.Int64List(value=FEATURES["id"])),
             "none": tf.train.Feature()}
    theirs = tf.train.Example(features=tf.train.Features(feature=kinds))
    rounded = {**FEATURES, "gain": np.array(FEATURES["gain"], np.float32).tolist(), "none": []}
    assert parse(theirs.SerializeToString()) == rounded
    assert tf.train.Example.FromString(serialize(rounded)) == theirs
    read = tf.io.parse_single_example(serialize(rounded), {
        name: tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)
        for name, dtype in (("audio", tf.string), ("gain", tf.float32), ("id", tf.int64))})
    assert {name: value.numpy().tolist() for name, value in read.items()} == {
        name: rounded[name] for name in read}
