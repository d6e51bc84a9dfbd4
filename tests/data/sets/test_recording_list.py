"""The reader of tables of recordings against its fixture."""

import os
import warnings

import pytest
from layouts import recording_list as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.recording_list import RecordingList
from music_diffusion.errors import UserError


def listing(tmp_path, text, **options):
    """Of another table in the fixture's folder."""
    layout.build(tmp_path)
    (tmp_path / "other.csv").write_text(text)
    return RecordingList(folder=str(tmp_path / "other.csv"), **options).list()


@pytest.mark.parametrize("table", ["", "recordings.csv"])
def test_items_are_those_of_the_table(tmp_path, table):
    truths = layout.build(tmp_path)
    found = RecordingList(folder=str(tmp_path / table)).list()
    assert_same(found.items, truths)
    assert dict(found.skipped).keys() == {"audio/absent.wav"}
    assert "fetch it" in dict(found.skipped)["audio/absent.wav"]


def test_only_audio_is_needed(tmp_path):
    found = listing(tmp_path, "URL,audio,style\nhttps://a, audio/solo.flac , \n")
    assert [(item.name, item.style) for item in found.items] == [("audio/solo.flac", None)]


def test_instrument_is_a_style(tmp_path):
    found = listing(tmp_path, "audio,instrument,velocity\naudio/solo.flac,harp,\n", velocities=False)
    assert found.items[0].style == "harp" and not found.items[0].velocities


def test_rows_that_cannot_be_used_are_named(tmp_path):
    found = listing(tmp_path, "audio,notes\naudio/solo.flac,\naudio/solo.flac,\n,\nhttps://x/y.wav,\n"
                              "audio/free.wav,midi/none.mid\nmidi/trio 1.mid,\n/etc/a.wav,\n")
    skipped = dict(found.skipped)
    assert [item.name for item in found.items] == ["audio/solo.flac"]
    reasons = {"audio/solo.flac": "line 3", "line 4": "names no audio", "https://x/y.wav": "address",
               "audio/free.wav": "midi/none.mid, its notes, is not there; fetch it",
               "midi/trio 1.mid": "convert", "/etc/a.wav": "relative"}
    assert skipped.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in skipped[name]


def test_table_may_lie_elsewhere(tmp_path):
    truths = layout.build(tmp_path)
    (tmp_path / "lists").mkdir()
    table = tmp_path / "lists" / "mine.csv"
    table.write_text("audio\n../audio/free.wav\n")
    items = RecordingList(folder=str(table)).list().items
    assert_same(items, [truth for truth in truths if truth.name == "audio/free.wav"])


@pytest.mark.parametrize("text, message", [
    ("instrument,title,url\npiano,a,b\n", "lacks the column audio"),
    ("audio,perfomance\na.wav,x\n", "is it performance"),
    ("audio,split\naudio/free.wav,tests\n", "line 2: split 'tests'"),
    ("audio,piece\naudio/free.wav,Trio, K 1\n", "line 2: has more cells"),
    ("audio\n", "has no rows"), ("audio\nnone.wav\n", r"none.wav: is not there"),
    ("audio\n\"audio", "line 2: is no row of a table"), ("", "lacks the column audio"),
])
def test_wrong_tables_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        listing(tmp_path, text)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such table"):
        RecordingList(folder=str(tmp_path)).list()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
@pytest.mark.parametrize("there", ["A\u0308.wav", "\u00c4.wav", os.fsdecode(b"\xc4.wav")])
def test_names_are_found_in_any_spelling(tmp_path, encoding, there):
    (tmp_path / there).touch()
    (tmp_path / "recordings.csv").write_bytes("audio\nÄ.wav\n".encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        [item] = RecordingList(folder=str(tmp_path)).list().items
    assert item.audio.files == (str(tmp_path / there),)
