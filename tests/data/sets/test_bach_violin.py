"""The reader of the Bach Violin Dataset against its fixture."""

import pytest
from layouts import bach_violin as layout
from layouts.agree import assert_same

from music_diffusion.data.sets.bach_violin import BachViolin
from music_diffusion.errors import UserError


@pytest.mark.parametrize("given", [".", "bach-violin"])
def test_items_are_the_movements(tmp_path, given):
    truths = layout.build(tmp_path / "bach-violin")
    listing = BachViolin(folder=str(tmp_path / given)).list()
    assert_same(listing.items, truths, lossy=True)
    assert [name for name, _ in listing.skipped] == ["shunske-sato_bwv1001_mov1"]
    assert "no file of it in audio" in listing.skipped[0][1]


def test_folders_of_collections_may_be_left_out(tmp_path):
    truths = layout.build(tmp_path)
    for kind in ("audio", "notes", "alignments"):
        for path in (tmp_path / kind).glob("*/*"):
            path.rename(tmp_path / kind / path.name)
    assert_same(BachViolin(folder=str(tmp_path)).list().items, truths, lossy=True)


@pytest.mark.parametrize("test, held_out", [
    (("minji-kim_bwv1001_mov1",), {"minji-kim_bwv1001_mov1"}),
    (("bwv1001_mov1",), {"minji-kim_bwv1001_mov1", "emil-telmanyi_bwv1001_mov1"})])
def test_movements_are_held_out(tmp_path, test, held_out):
    layout.build(tmp_path)
    reader = BachViolin(folder=str(tmp_path), test=test)
    assert {item.name for item in reader.list().items if item.split == "test"} == held_out
    assert reader.identity() == {"test": list(test)}


def test_times_have_hours_and_minutes(tmp_path):
    layout.build(tmp_path)
    table = tmp_path / "info.csv"
    table.write_text(table.read_text().replace("0:00:04,0:00:06", "1:02:04,2:00:06"))
    sound = BachViolin(folder=str(tmp_path)).list().items[1].audio
    assert (sound.start, sound.end) == (3724.0, 7206.0)


def test_tables_that_differ_are_told(tmp_path):
    truth = layout.build(tmp_path)[0]
    path = tmp_path / "alignments" / "emil-telmanyi" / f"{truth.name}.csv"
    item = BachViolin(folder=str(tmp_path)).list().items[0]
    lines = path.read_text().splitlines()
    for text, message in (
            ("\n".join(lines[:-1]), "has 4 rows for 5 notes"), ("a,b\n1,2", "no column 'start', 'end'"),
            ("\n".join([*lines[:-1], "x,1"]), "columns start, end"),
            ("\n".join([*lines[:-1], "3"]), "columns start, end"),
            ("\n".join([*lines[:-1], "-1,1"]), "at or after 0")):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            item.notes()
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        item.notes()


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no info.csv there"):
        BachViolin(folder=str(tmp_path)).list()
    layout.build(tmp_path)
    with pytest.raises(UserError, match="no movement 'mov1'"):
        BachViolin(folder=str(tmp_path), test=("mov1",)).list()
    table = tmp_path / "info.csv"
    text = table.read_text()
    table.write_text(text.replace("0:00:04", "4 s", 1))
    with pytest.raises(UserError, match="is no time"):
        BachViolin(folder=str(tmp_path)).list()
    table.write_text(text.replace("violinist,", "player,", 1))
    with pytest.raises(UserError, match="column 'violinist'"):
        BachViolin(folder=str(tmp_path)).list()
