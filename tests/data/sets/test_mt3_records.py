"""The reader of MT3's records against small ones that were written byte by byte."""

import numpy as np
import pytest
from layouts import wire
from layouts.common import scale
from layouts.compare import assert_reads
from layouts.mt3_records import FILES, build
from reference import needs

from music_diffusion.data.sets.mt3_records import LAYOUTS, Mt3Records
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError

FIRST = FILES["maestrov3"]["train"][0]


@pytest.mark.parametrize("config", LAYOUTS)
def test_finds_what_is_there(tmp_path, config):
    truths = build(tmp_path, config)
    data = Mt3Records(folder=str(tmp_path), config=config)
    listing = data.list()
    assert listing.skipped == ()
    assert [item.name for item in listing.items] == [truth.name for truth in truths]
    for item, truth in zip(listing.items, truths, strict=True):
        level = 0 if LAYOUTS[config].sample_rate else 2**-15  # floats stay as they are
        assert_reads(item, truth, level)
    assert data.identity() == {"config": config}


def test_every_data_set_of_mt3_is_there():
    assert set(LAYOUTS) == set(FILES)


@pytest.mark.parametrize("config", LAYOUTS)
def test_tensorflow_reads_the_same_features(tmp_path, config):
    """With the feature descriptions of mt3/datasets.py."""
    tf = needs.module("tensorflow")
    text, number = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)

    def some(dtype):
        return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True)

    wav = {"audio": text, "sequence": text, "id": text}
    samples = {**wav, "audio": some(tf.float32), "sample_rate": tf.io.FixedLenFeature([], tf.float32)}
    slakh = {"audio_sample_rate": number, "inst_names": some(tf.string), "midi_class": some(tf.int64),
             "mix": some(tf.float32), "note_sequences": some(tf.string), "plugin_name": some(tf.int64),
             "program_num": some(tf.int64), "slakh_class": some(tf.int64), "src_ids": some(tf.string),
             "stems": some(tf.float32), "stems_shape": tf.io.FixedLenFeature([2], tf.int64),
             "target_type": text, "track_id": text}
    features = {"maestrov1": wav, "maestrov3": wav, "guitarset": {**wav, "velocity_range": text},
                "urmp": {**wav, "tracks": some(tf.int64), "inst_names": some(tf.string),
                         "instrument_sequences": some(tf.string)},
                "musicnet": samples, "musicnet_em": samples, "cerberus4": slakh, "slakh": slakh}[config]
    build(tmp_path, config)
    layout = LAYOUTS[config]
    for item in Mt3Records(folder=str(tmp_path), config=config).list().items:
        name, number = item.name.rsplit("/", 1)
        message = list(tf.data.TFRecordDataset(str(tmp_path / name)).as_numpy_iterator())[int(number)]
        read = tf.io.parse_single_example(message, features)
        audio = read[layout.audio].numpy()
        if layout.sample_rate is None:
            assert item.audio.load() == audio
        else:
            rate = int(read[layout.sample_rate])
            np.testing.assert_array_equal(read_sound(item.audio, rate), audio)


def test_unknown_data_sets_are_refused(tmp_path):
    with pytest.raises(UserError, match="config 'maestro' is none of MT3's: maestrov1, maestrov3"):
        Mt3Records(folder=str(tmp_path), config="maestro")


@pytest.mark.parametrize("folder", ["", "gone"])
def test_wrong_folders_are_refused(tmp_path, folder):
    build(tmp_path, "guitarset")
    with pytest.raises(UserError, match="give the"):
        Mt3Records(folder=str(tmp_path / folder), config="slakh").list()


def test_files_and_splits_that_lack_are_named(tmp_path):
    build(tmp_path)
    (tmp_path / FIRST).unlink()
    (tmp_path / FILES["maestrov3"]["test"][0]).unlink()
    (tmp_path / (FIRST + ".part")).write_bytes(b"")  # of a download that goes on
    listing = Mt3Records(folder=str(tmp_path), config="maestrov3").list()
    assert [item.split for item in listing.items] == ["train", "validation"]
    (train, why), (test, why_test) = listing.skipped
    assert train == "maestro-v3.0.0_ns_wav_train.tfrecord" and "only 1 of 2 files" in why
    assert test == "maestro-v3.0.0_ns_wav_test.tfrecord" and "no such files" in why_test


def test_a_file_that_is_cut_short_is_named(tmp_path):
    truths = build(tmp_path)
    content = (tmp_path / FIRST).read_bytes()
    (tmp_path / FIRST).write_bytes(content[:-1])
    listing = Mt3Records(folder=str(tmp_path), config="maestrov3").list()
    assert len(listing.items) == len(truths) - 2
    ((name, why),) = listing.skipped
    assert name == FIRST and why.startswith("ends inside of record 1 ")


def test_two_data_sets_in_one_folder_are_refused(tmp_path):
    build(tmp_path, "guitarset")
    (tmp_path / "train.tfrecord-00000-of-00103").write_bytes(b"")
    with pytest.raises(UserError, match="different data sets"):
        Mt3Records(folder=str(tmp_path), config="guitarset").list()


def test_a_damaged_record_is_named_when_it_is_read(tmp_path):
    build(tmp_path)
    content = bytearray((tmp_path / FIRST).read_bytes())
    content[-10] ^= 1
    (tmp_path / FIRST).write_bytes(content)
    good, bad, *_ = Mt3Records(folder=str(tmp_path), config="maestrov3").list().items
    assert len(good.notes()) and len(read_sound(good.audio, 2000))
    for read in (bad.notes, bad.audio.load):
        with pytest.raises(UserError, match=f"{FIRST}: record 1 "):
            read()


def item_of(tmp_path, config, message):
    (tmp_path / FILES[config]["train"][0]).write_bytes(wire.tf_record(message))
    return Mt3Records(folder=str(tmp_path), config=config).list().items[0]


NOTES = wire.note_sequence(scale(count=1))


@pytest.mark.parametrize("config, features, reason", [
    ("maestrov3", {"id": [b"1"]}, "no feature 'sequence'"),
    ("maestrov3", {"sequence": [1]}, "no feature 'sequence'"),
    ("maestrov3", {"sequence": [b"\xff"]}, "no NoteSequence"),
    ("maestrov3", {"sequence": [NOTES + wire.field(8, wire.field(1, 60))]}, "velocity must be in 1..127"),
    ("urmp", {"instrument_sequences": [NOTES]}, "no feature 'inst_names'"),
    ("urmp", {"instrument_sequences": [NOTES], "inst_names": [b"xy"]}, "instrument 'xy' is none of vn"),
    ("urmp", {"instrument_sequences": [NOTES], "inst_names": [b"vn", b"vc"]}, "2 instruments for 1 seq"),
])
def test_notes_that_are_none_are_named(tmp_path, config, features, reason):
    item = item_of(tmp_path, config, wire.example(features))
    with pytest.raises(UserError, match=rf"record 0 .*{reason}.*MT3's {config} records"):
        item.notes()


@pytest.mark.parametrize("config, features, reason", [
    ("maestrov3", {"id": [b"1"]}, "no feature 'audio'"),
    ("maestrov3", {"audio": np.ones(3)}, "no feature 'audio'"),
    ("musicnet", {"audio": np.ones(3)}, "no feature 'sample_rate'"),
    ("musicnet", {"audio": [b"RIFF"], "sample_rate": np.array([8e3])}, "'audio' does not hold floats"),
    ("slakh", {"audio_sample_rate": [8000]}, "no feature 'mix'"),
])
def test_audio_that_is_none_is_named(tmp_path, config, features, reason):
    item = item_of(tmp_path, config, wire.example(features))
    with pytest.raises(UserError, match=rf"record 0 .*{reason}.*MT3's {config} records"):
        item.audio.facts()


def test_bytes_that_are_no_example_are_named(tmp_path):
    item = item_of(tmp_path, "maestrov3", b"\xff\xff")
    with pytest.raises(UserError, match="record 0 .*no Example"):
        item.notes()


def test_bytes_that_are_no_wav_file_are_named(tmp_path):
    item = item_of(tmp_path, "maestrov3", wire.example({"audio": [b"no sound"], "sequence": [NOTES]}))
    with pytest.raises(UserError, match=f"{FIRST}: record 0: cannot be read as audio"):
        item.audio.facts()
