"""The reader of GTZAN against its fixture."""

import pytest
from layouts import gtzan as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.gtzan import Gtzan
from music_diffusion.errors import UserError


def test_items_are_those_of_the_filtered_lists(tmp_path):
    truths = layout.build(tmp_path)
    listing = Gtzan(folder=str(tmp_path)).list()
    assert_same(listing.items, truths)
    assert [name for name, _ in listing.skipped] == ["jazz/jazz.00054.wav"]


def test_one_genre(tmp_path):
    truths = layout.build(tmp_path)
    listing = Gtzan(folder=str(tmp_path), genre="classical").list()
    assert_same(listing.items, [truth for truth in truths if truth.style == "classical"])
    assert not listing.skipped


@pytest.mark.parametrize("place", ["genres", "Data/genres_original", "genres_original"])
def test_without_lists_all_are_taken(tmp_path, place):
    layout.build(tmp_path / "fixture")
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "fixture" / "genres_original").rename(tmp_path / place)
    for folder in (tmp_path, tmp_path / place):
        listing = Gtzan(folder=str(folder)).list()
        assert [item.name for item in listing.items] == [
            f"{name.partition('.')[0]}/{name}" for name in layout.SPLITS]
        assert {item.split for item in listing.items} == {None}


@pytest.mark.parametrize("place", [".", "Data", "Data/genres_original"])
def test_lists_are_found_in_all_places(tmp_path, place):
    truths = layout.build(tmp_path)
    (tmp_path / "Data").mkdir()
    (tmp_path / "genres_original").rename(tmp_path / "Data" / "genres_original")
    for path in list(tmp_path.glob("*.txt")):
        path.rename(tmp_path / place / path.name)
    assert_same(Gtzan(folder=str(tmp_path)).list().items, truths)


def test_lists_can_be_passed_over(tmp_path):
    layout.build(tmp_path)
    listing = Gtzan(folder=str(tmp_path), filtered=False).list()
    assert len(listing.items) == len(layout.SPLITS)
    assert {item.split for item in listing.items} == {None}


def test_au_files_are_taken_where_there_is_no_wav(tmp_path):
    jazz = tmp_path / "genres" / "jazz"
    jazz.mkdir(parents=True)
    for name in ("jazz.00054.au", "jazz.00001.au", "jazz.00001.wav", "jazz.1.wav", "rock.00001.wav",
                 "._jazz.00002.wav"):
        (jazz / name).touch()
    listing = Gtzan(folder=str(tmp_path)).list()
    assert [item.audio.path.rpartition("/")[2] for item in listing.items] == [
        "jazz.00001.wav", "jazz.00054.au"]
    assert not listing.skipped


def test_listed_files_that_are_not_there_are_named(tmp_path):
    layout.build(tmp_path)
    (tmp_path / "genres_original" / "blues" / "blues.00000.wav").unlink()
    assert "blues.00000" in dict(Gtzan(folder=str(tmp_path)).list().skipped)


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="genres/blues/blues.00000.wav"):
        Gtzan(folder=str(tmp_path)).list()
    layout.build(tmp_path)
    with pytest.raises(UserError, match="choose from blues, classical, jazz"):
        Gtzan(folder=str(tmp_path), genre="polka").list()
    with open(tmp_path / "test_filtered.txt", "a") as f:
        f.write("blues/blues.00000.wav\n")
    with pytest.raises(UserError, match="two lists"):
        Gtzan(folder=str(tmp_path)).list()
    (tmp_path / "test_filtered.txt").unlink()
    with pytest.raises(UserError, match="test_filtered.txt is missing"):
        Gtzan(folder=str(tmp_path)).list()
