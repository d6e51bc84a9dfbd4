"""A table of recordings → rooms and tones, and the renders that follow it."""

import numpy as np
import pytest

from music_diffusion.data.rooms import Room, Shelf
from music_diffusion.data.sets.soundfont_performances import read_performances
from music_diffusion.errors import UserError

FONTS = ("/fonts/a.sf2", "/other/b.sf3")
HEAD = "name,soundfont,rt60,wet_db,damping,hertz,low_db,high_db,room\n"


def table(tmp_path, *lines, head=HEAD):
    path = tmp_path / "recordings.csv"
    path.write_text(head + "".join(f"{line}\n" for line in lines))
    return str(path)


def test_rows_are_recordings(tmp_path):
    rows = "dry,a.sf2,,,,,,,close", "hall,b.sf3,1.5,-4,0.3,900,2,-6,far", "thin,a.sf2,,,,500,-3,,"
    found = read_performances(table(tmp_path, *rows), FONTS)
    dry, hall, thin = (recording for _, recording in found)
    assert [name for name, _ in found] == ["dry", "hall", "thin"]
    assert (dry.soundfont, dry.room, dry.shelf) == (FONTS[0], None, None)
    assert hall.soundfont == FONTS[1]
    assert hall.room == Room(rt60=1.5, wet_db=-4, damping=0.3, seed=1)
    assert hall.shelf == Shelf(hertz=900, low_db=2, high_db=-6)
    assert thin.room is None and thin.shelf == Shelf(hertz=500, low_db=-3)


def test_two_rooms_of_one_size_reflect_differently(tmp_path):
    rows = [f"{name},a.sf2,0.5,-3,,,,," for name in ("one", "two")]
    found = read_performances(table(tmp_path, *rows), FONTS)
    one, two = (recording.response(16000) for _, recording in found)
    assert not np.allclose(one[100:4000], two[100:4000], atol=1e-3)


@pytest.mark.parametrize(("lines", "message"), [
    ((), "has no rows"), ((",a.sf2,,,,,,,",), "line 2: needs a name"),
    (("x,a.sf2,,,,,,,", "x,b.sf3,,,,,,,"), "line 3: needs a name that no other row has"),
    (("x,aa.sf2,,,,,,,",), "did you mean a.sf2"), (("x,a.sf2,soon,,,,,,",), "rt60 'soon' is no number"),
    (("x,a.sf2,-1,,,,,,",), "line 2: a room needs")])
def test_what_does_not_fit_is_named(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        read_performances(table(tmp_path, *lines), FONTS)


def test_no_table():
    with pytest.raises(UserError, match="cannot be read"):
        read_performances("/nowhere.csv", FONTS)
