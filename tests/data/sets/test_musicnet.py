"""The reader of MusicNet against a small one of known content."""

import pytest
from layouts.compare import assert_reads
from layouts.musicnet import HEADER, build

from music_diffusion.data.sets.musicnet import (
    METADATA,
    MT3_TEST,
    MT3_VALIDATION,
    MusicNet,
    read_labels,
)
from music_diffusion.errors import UserError


def by_name(listing):
    return {item.name: item for item in listing.items}


@pytest.mark.parametrize("inside", [False, True])  # the folder musicnet, or the one around it
def test_finds_what_is_there(tmp_path, inside):
    truths = build(tmp_path)
    listing = MusicNet(folder=str(tmp_path / "musicnet" if inside else tmp_path)).list()
    assert listing.skipped == ()
    items = by_name(listing)
    assert set(items) == {truth.name for truth in truths}
    for truth in truths:
        assert_reads(items[truth.name], truth, level=2**-15)  # 16 bit


def test_the_table_may_lie_inside(tmp_path):
    truths = build(tmp_path)
    (tmp_path / METADATA).rename(tmp_path / "musicnet" / METADATA)
    assert len(MusicNet(folder=str(tmp_path)).list().items) == len(truths)


def test_splits():
    assert len(MT3_VALIDATION) == len(MT3_TEST) == 15  # of 330 recordings
    assert not MT3_VALIDATION & MT3_TEST


def test_the_publishers_splits(tmp_path):
    build(tmp_path)
    data = MusicNet(folder=str(tmp_path), mt3_splits=False)
    splits = {item.name: item.split for item in data.list().items}
    assert splits == {"1727": None, "2336": None, "2118": None, "2303": "test"}
    assert data.identity() != MusicNet(folder=str(tmp_path)).identity()
    with pytest.raises(UserError, match="mt3_splits='no' must be True or False"):
        MusicNet(folder=str(tmp_path), mt3_splits="no")


@pytest.mark.parametrize("gone, reason", [
    ("musicnet/train_data/1727.wav", "no train_data/1727.wav"),
    ("musicnet/train_labels/1727.csv", "no train_labels/1727.csv")])
def test_incomplete_recordings_are_named(tmp_path, gone, reason):
    build(tmp_path)
    (tmp_path / gone).unlink()
    listing = MusicNet(folder=str(tmp_path)).list()
    assert set(by_name(listing)) == {"2336", "2118", "2303"}
    ((name, why),) = listing.skipped
    assert name == "1727" and reason in why


def test_a_recording_without_a_row_is_named(tmp_path):
    build(tmp_path)
    table = tmp_path / METADATA
    table.write_text("".join(line for line in table.read_text().splitlines(True)
                             if not line.startswith("2336")))
    ((name, why),) = MusicNet(folder=str(tmp_path)).list().skipped
    assert name == "2336" and METADATA in why


def test_files_of_other_programs_are_no_recordings(tmp_path):
    truths = build(tmp_path)
    for name in ("._1727.csv", ".DS_Store", "notes.csv"):
        (tmp_path / "musicnet" / "train_labels" / name).write_text("")
    listing = MusicNet(folder=str(tmp_path)).list()
    assert len(listing.items) == len(truths) and listing.skipped == ()


def test_wrong_folders_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match="give the folder musicnet that musicnet.tar.gz unpacks to"):
            MusicNet(folder=str(folder)).list()


def test_a_missing_table_is_refused(tmp_path):
    build(tmp_path)
    (tmp_path / METADATA).unlink()
    with pytest.raises(UserError, match=f"no {METADATA} there or beside it; download"):
        MusicNet(folder=str(tmp_path)).list()


@pytest.mark.parametrize("content", [
    b"id,composer\n1727,Bach\n", b"\xff\xfe\x00", b"",
    b"id,composer,composition,movement,ensemble,source,transcriber,catalog_name,seconds\n1727,Bach\n"])
def test_another_table_is_refused(tmp_path, content):
    build(tmp_path)
    (tmp_path / METADATA).write_bytes(content)
    with pytest.raises(UserError, match=rf"{METADATA}: .*download it again"):
        MusicNet(folder=str(tmp_path)).list()


def test_a_folder_without_a_whole_recording_is_refused(tmp_path):
    build(tmp_path)
    for file in tmp_path.glob("musicnet/*_data/*.wav"):
        file.unlink()
    with pytest.raises(UserError, match="no recording there that is whole"):
        MusicNet(folder=str(tmp_path)).list()


@pytest.mark.parametrize("text, message", [
    ("time,note\n1,2\n", "has no column 'start_time', 'end_time', 'instrument'"),
    (f"{HEADER}\n1,2\n", "damaged"),
    (f"{HEADER}\na,2,1,60,0,1,Half\n", "damaged"),
    (f"{HEADER}\n44100,4,1,60,0,1,Half\n", "damaged"),  # ends before it starts
    (f"{HEADER}\n1,2,0,60,0,1,Half\n", "damaged"),  # programs count from 1
])
def test_damaged_labels_are_named(tmp_path, text, message):
    labels = tmp_path / "1727.csv"
    labels.write_text(text)
    with pytest.raises(UserError, match=rf"1727\.csv: {message}"):
        read_labels(str(labels))


def test_labels_that_are_gone_are_named(tmp_path):
    with pytest.raises(UserError, match=r"1\.csv: cannot be read"):
        read_labels(str(tmp_path / "1.csv"))


def test_labels_without_notes(tmp_path):
    (tmp_path / "1.csv").write_text(HEADER + "\n")
    assert len(read_labels(str(tmp_path / "1.csv"))) == 0
