"""The reader of recordings by instrument against its fixture."""

import numpy as np
import pytest
from layouts import instrument_folders as layout
from layouts.agree import assert_same
from layouts.common import write_wav

from music_diffusion.data.sets.instrument_folders import InstrumentFolders
from music_diffusion.errors import UserError


def seconds(listing):
    """Instrument and split → seconds, as the sounds tell."""
    found = {}
    for item in listing.items:
        key = item.style, item.split
        found[key] = found.get(key, 0) + item.audio.facts().seconds
    return {key: round(value, 2) for key, value in found.items()}


@pytest.mark.parametrize("inside", ["", "downloads"])
def test_items_are_those_of_the_folders(tmp_path, inside):
    truths = layout.build(tmp_path)
    listing = InstrumentFolders(folder=str(tmp_path / inside)).list()
    assert_same(listing.items, truths, lossy=True)
    assert not listing.skipped


def test_no_audio_is_opened_without_need(tmp_path):
    (tmp_path / "piano").mkdir()
    (tmp_path / "piano" / "a.mp3").touch()
    assert len(InstrumentFolders(folder=str(tmp_path)).list().items) == 1


def test_as_much_of_each_instrument(tmp_path):
    layout.build(tmp_path)
    capped = InstrumentFolders(folder=str(tmp_path), max_seconds_per_instrument=2.5).list()
    assert seconds(capped) == dict.fromkeys(
        [("piano", None), ("guitar", None), ("harp", None), ("violin", None)], 2.5)
    # The violin's second recording fills up what its first leaves.
    assert [item.name for item in capped.items if item.style == "violin"] == [
        "violin/violin_solo_00.mp3", "violin/violin_solo_01.mp3"]
    one = InstrumentFolders(folder=str(tmp_path), max_seconds_per_instrument=2.0).list()
    assert [item.name for item in one.items if item.style == "violin"] == ["violin/violin_solo_00.mp3"]
    equal = InstrumentFolders(folder=str(tmp_path), equalize=True).list()
    assert set(seconds(equal).values()) == {3.0}  # of the harp
    both = InstrumentFolders(folder=str(tmp_path), equalize=True, max_seconds_per_instrument=2.5)
    assert set(seconds(both.list()).values()) == {2.5}


def test_last_seconds_are_held_out(tmp_path):
    layout.build(tmp_path)
    listing = InstrumentFolders(folder=str(tmp_path), equalize=True, held_out=0.25).list()
    assert seconds(listing) == {(style, split): length for style in ("piano", "guitar", "harp", "violin")
                                for split, length in (("train", 2.25), ("validation", 0.75))}
    spans = {item.name: (item.audio.start, item.audio.end) for item in listing.items}
    assert spans["piano/piano_solo_00.mp3"] == (0.0, 2.25)
    assert spans["piano/piano_solo_00.mp3#validation"] == (2.25, 3.0)
    # 2 of the violin's 3 seconds are in its first recording.
    assert spans["violin/violin_solo_00.mp3"] == (0.0, None)
    assert spans["violin/violin_solo_01.mp3"] == (0.0, 0.25)
    assert spans["violin/violin_solo_01.mp3#validation"] == (0.25, 1.0)
    # Nothing of a recording that lies after the cut is for training.
    most = InstrumentFolders(folder=str(tmp_path), held_out=0.9).list().items
    assert [(i.name, i.split) for i in most if i.audio.path.endswith("01.mp3")] == [
        ("violin/violin_solo_01.mp3", "validation")]


def test_folders_of_splits(tmp_path):
    for path in ("train/piano/a.wav", "piano/test/live/b.wav", "piano/c.wav"):
        write_wav(tmp_path / path, np.zeros(800, np.float32), 800)
    listing = InstrumentFolders(folder=str(tmp_path), held_out=0.5).list()
    assert {(i.name, i.style, i.split) for i in listing.items} == {
        ("train/piano/a.wav", "piano", "train"), ("piano/test/live/b.wav", "piano", "test"),
        ("piano/c.wav", "piano", "train"), ("piano/c.wav#validation", "piano", "validation")}


def test_what_cannot_be_used_is_named(tmp_path):
    layout.build(tmp_path)
    root = tmp_path / "downloads"
    (root / "harp" / "broken.mp3").write_bytes(b"no audio" * 50)
    (root / "harp" / "clip.webm").touch()
    (root / "loose.mp3").write_bytes((root / "harp" / "harp_solo_00.mp3").read_bytes())
    skipped = dict(InstrumentFolders(folder=str(tmp_path), equalize=True).list().skipped)
    assert skipped.keys() == {"harp/broken.mp3", "harp/clip.webm", "loose.mp3"}
    assert "cannot be read" in skipped["harp/broken.mp3"] and str(tmp_path) not in str(skipped)


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no audio"):
        InstrumentFolders(folder=str(tmp_path)).list()
    write_wav(tmp_path / "loose.wav", np.zeros(800, np.float32), 800)
    with pytest.raises(UserError, match="no folder of an instrument"):
        InstrumentFolders(folder=str(tmp_path)).list()
    with pytest.raises(UserError, match="above 0"):
        InstrumentFolders(folder="x", max_seconds_per_instrument=0)
    with pytest.raises(UserError, match="below 1"):
        InstrumentFolders(folder="x", held_out=1.0)
