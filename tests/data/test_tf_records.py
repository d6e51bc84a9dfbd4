"""TFRecord files against bytes made by hand and, where it is installed, TensorFlow."""

import pickle
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import wire
from reference import needs

from music_diffusion.data import tf_records
from music_diffusion.data.tf_records import (
    RecordError,
    TFRecords,
    read_record,
    record_offsets,
    write_tf_records,
)
from music_diffusion.errors import UserError

MESSAGES = [b"", b"a", b"music" * 5, bytes(range(100, 140))]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "train.tfrecord"
    file.write_bytes(b"".join(map(wire.tf_record, MESSAGES)))
    return file


def test_the_oracle_has_the_published_checksum():
    # RFC 3720, B.4, and the check value of CRC-32C.
    assert wire.crc32c(bytes(32)) == 0x8A9136AA
    assert wire.crc32c(b"123456789") == 0xE3069283


@given(messages=st.lists(st.binary(max_size=40), max_size=5))
def test_written_bytes_are_those_of_the_format(tmp_path_factory, messages):
    file = tmp_path_factory.mktemp("written") / "a.tfrecord"
    assert write_tf_records(file, iter(messages)) == len(messages)
    assert file.read_bytes() == b"".join(map(wire.tf_record, messages))
    assert list(TFRecords([file])) == messages


def test_reads_in_any_order(path):
    records = TFRecords([path])
    assert len(records) == len(MESSAGES)
    assert [records[i] for i in (2, 0, 3, 1)] == [MESSAGES[i] for i in (2, 0, 3, 1)]
    assert records[-1] == MESSAGES[-1]
    assert records[1:3] == MESSAGES[1:3]
    for index in (4, -5):
        with pytest.raises(IndexError):
            records[index]


def test_files_follow_each_other(path, tmp_path):
    empty, more = tmp_path / "empty.tfrecord", tmp_path / "more.tfrecord"
    empty.write_bytes(b"")
    more.write_bytes(wire.tf_record(b"last"))
    records = TFRecords([empty, str(path), empty, more])
    assert list(records) == [*MESSAGES, b"last"]
    assert list(pickle.loads(pickle.dumps(records))) == [*MESSAGES, b"last"]
    assert len(TFRecords([])) == len(TFRecords([empty])) == 0


def test_one_record_by_its_place(path):
    offsets = record_offsets(path)
    assert offsets.tolist() == [0, 16, 33, 74]  # 16 bytes around each message
    assert read_record(path, 2, int(offsets[2])) == MESSAGES[2]


def test_a_file_appears_when_it_is_whole(tmp_path):
    file = tmp_path / "a.tfrecord"

    def fails():
        yield b"first"
        assert not file.exists()
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_tf_records(file, fails())
    assert not file.exists()


def test_any_damaged_byte_is_found_and_named(path):
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1:])
        number = sum(place >= end for end in (16, 33, 74))
        with pytest.raises(RecordError, match=rf"train\.tfrecord: record {number} .*again"):
            list(TFRecords([path]))


def test_a_cut_file_is_found_and_named(path):
    content = path.read_bytes()
    for size in set(range(len(content))) - {0, 16, 33, 74}:
        path.write_bytes(content[:size])
        number = sum(size >= end for end in (16, 33, 74))
        with pytest.raises(RecordError, match=rf"train\.tfrecord: ends inside of record {number} "):
            TFRecords([path])


def test_a_file_that_is_cut_after_it_was_opened(path):
    records = TFRecords([path])
    path.write_bytes(path.read_bytes()[:100])
    assert records[2] == MESSAGES[2]
    with pytest.raises(RecordError, match="ends inside of record 3 "):
        records[3]


def test_a_huge_length_is_not_believed(path):
    length = struct.pack("<Q", 1 << 60)
    crc = wire.crc32c(length)
    header = length + struct.pack("<I", ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32)
    path.write_bytes(header + b"abc")
    for read in (lambda: TFRecords([path]), lambda: read_record(path, 0, 0)):
        with pytest.raises(RecordError, match="ends inside of record 0 "):
            read()


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00" + bytes(30), b"RIFF" + bytes(100)])
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(UserError, match="no TFRecord file"):
        TFRecords([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.tfrecord: cannot be opened"):
        TFRecords([tmp_path / "gone.tfrecord"])


def test_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    tf_records._crc32c.cache_clear()
    try:
        with pytest.raises(UserError, match=r"pip install 'music-diffusion\[data\]'") as raised:
            TFRecords([path])
        assert not isinstance(raised.value, RecordError)  # the file is not to blame
    finally:
        tf_records._crc32c.cache_clear()


def test_tensorflow_reads_and_writes_the_same(path, tmp_path):
    tf = needs.module("tensorflow")
    written = tmp_path / "ours.tfrecord"
    write_tf_records(written, MESSAGES)
    assert list(tf.data.TFRecordDataset(str(written)).as_numpy_iterator()) == MESSAGES
    theirs = tmp_path / "theirs.tfrecord"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for message in MESSAGES:
            writer.write(message)
    assert list(TFRecords([theirs])) == MESSAGES
    assert theirs.read_bytes() == written.read_bytes() == path.read_bytes()
