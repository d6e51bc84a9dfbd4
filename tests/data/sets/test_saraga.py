"""The reader of Saraga against its fixture."""

import dataclasses

import pytest
from layouts import saraga as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.saraga import Saraga
from music_diffusion.errors import UserError


def test_items_are_the_mixes(tmp_path):
    truths = layout.build(tmp_path)
    listing = Saraga(folder=str(tmp_path)).list()
    assert_same(listing.items, truths, lossy=True)
    assert not listing.skipped


def test_works_are_pieces_wherever_they_are_sung(tmp_path):
    layout.build(tmp_path)
    pieces = [item.piece for item in Saraga(folder=str(tmp_path)).list().items]
    assert sorted(pieces) == ["Bhuvini Dasudane", "Bhuvini Dasudane", "Karuna Nidhi Illalo"]


def test_performance_can_be_the_artist(tmp_path):
    layout.build(tmp_path)
    listing = Saraga(folder=str(tmp_path / "saraga1.5_carnatic"), performance="artist").list()
    assert {(item.name, item.performance) for item in listing.items} == {
        (f"{concert} by {artist}/{song}", artist) for concert, artist, song, _, _ in layout.SONGS}


def test_concert_alone_has_its_name(tmp_path):
    truth = layout.build(tmp_path)[0]
    concert, song = truth.name.split("/")[1:]
    listing = Saraga(folder=str(tmp_path / "saraga1.5_carnatic" / concert)).list()
    assert_same(listing.items, [dataclasses.replace(truth, name=song)], lossy=True)


@pytest.mark.parametrize("stem", layout.STEMS)
def test_stems(tmp_path, stem):
    truths = layout.build(tmp_path)
    listing = Saraga(folder=str(tmp_path), stem=stem).list()
    assert_same(listing.items, [dataclasses.replace(truths[0], samples=layout.stems()[stem], style=stem)],
                lossy=True)
    assert not listing.skipped  # the others were not recorded with it


def test_songs_that_cannot_be_used_are_named(tmp_path):
    first, second, third = layout.build(tmp_path)
    metadata = next((tmp_path / first.name).glob("*.json"))
    metadata.write_text("{")
    next((tmp_path / second.name).glob("*.mp3")).rename(tmp_path / second.name / "x.multitrack-vocal.mp3")
    listing = Saraga(folder=str(tmp_path)).list()
    assert [item.name for item in listing.items] == [third.name]
    skipped = dict(listing.skipped)
    assert "damaged" in skipped[first.name] and "lacks its mix" in skipped[second.name]
    metadata.unlink()
    assert "has 0 .json" in dict(Saraga(folder=str(tmp_path)).list().skipped)[first.name]


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no audio"):
        Saraga(folder=str(tmp_path)).list()
    (tmp_path / "a.mp3").touch()
    with pytest.raises(UserError, match="CONCERT by ARTIST/SONG"):
        Saraga(folder=str(tmp_path)).list()
    with pytest.raises(UserError, match="choose from ghatam"):
        Saraga(folder="x", stem="sitar")
    with pytest.raises(UserError, match="concert or artist"):
        Saraga(folder="x", performance="band")
    layout.build(tmp_path)
    with pytest.raises(UserError, match="has a ghatam"):
        Saraga(folder=str(tmp_path), stem="ghatam").list()
