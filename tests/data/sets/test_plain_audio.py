"""The reader of plain folders of audio against its fixture."""

import pytest
from layouts import plain_audio as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.plain_audio import PlainAudio, folder_split
from music_diffusion.errors import UserError


def test_every_file_is_an_item_of_its_folders_split(tmp_path):
    truths = layout.build(tmp_path)
    listing = PlainAudio(folder=str(tmp_path)).list()
    assert_same(listing.items, truths)
    assert dict(listing.skipped).keys() == {"album/live.m4a"}
    assert "convert" in dict(listing.skipped)["album/live.m4a"]


@pytest.mark.parametrize("path, split", [
    ("test.wav", None), ("a/test", None), ("train.x/a.wav", None), ("TEST/a.wav", "test"),
    ("a/val/b.wav", "validation"), ("valid/b.wav", "validation"), ("dev/b.wav", "validation"),
    ("train/test/b.wav", "train")])
def test_folder_split(path, split):
    assert folder_split(path) == split


def test_names_do_not_depend_on_where_it_lies(tmp_path):
    layout.build(tmp_path / "train" / "here")
    layout.build(tmp_path / "there")
    here, there = ([(item.name, item.split) for item in PlainAudio(folder=str(folder)).list().items]
                   for folder in (tmp_path / "train" / "here", tmp_path / "there"))
    assert here == there


@pytest.mark.parametrize("make", [lambda f: None, lambda f: f.mkdir(),
                                  lambda f: (f.mkdir(), (f / "a.txt").touch())])
def test_folders_without_audio_are_refused(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(UserError, match="no audio files there"):
        PlainAudio(folder=str(tmp_path / "x")).list()
