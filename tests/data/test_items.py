import pytest
from layouts.memory import Formula, item, sine

from music_diffusion.data.items import Item, Limited, Listing, Stem
from music_diffusion.errors import UserError


def sound(*files):
    return Formula(wave=sine, seconds=1.0, files=files)


def test_the_files_of_an_item_are_all_that_it_is_read_from_each_once():
    one = Item(name="a", split=None, audio=sound("mix.wav"), source=sound("piano.wav", "mix.wav"),
               stems=(Stem(program=0, audio=sound("a.wav")), Stem(program=128, audio=sound("b.wav"))),
               note_files=("a.mid", "b.wav"))
    assert one.files == ("mix.wav", "piano.wav", "a.wav", "b.wav", "a.mid")
    assert item("b", sound()).files == ()


@pytest.mark.parametrize("split", ["train", "validation", "test", None])
def test_splits_are_those_three_or_left_open(split):
    assert item("a", sound(), split=split).split == split


def test_another_split_is_an_error_that_names_the_item():
    with pytest.raises(UserError, match="song 1: split 'eval' .*validation"):
        item("song 1", sound(), split="eval")


def test_two_items_of_one_name_are_an_error_of_the_reader():
    a, b = item("x/a", sound()), item("x/b", sound())
    assert Listing(items=(a, b)).skipped == ()
    with pytest.raises(ValueError, match="2 items are named 'x/a'"):
        Listing(items=(a, b, a))
    assert Listing(items=()).items == ()


def test_the_first_items_by_name_however_they_are_listed():
    class Set:
        def list(self):
            items = tuple(item(name, sound()) for name in ("c", "a", "d", "b"))
            return Listing(items=items, skipped=(("x", "y"),))

        def identity(self):
            return {"genre": "folk"}

    few = Limited(data_set=Set(), count=2)
    assert [i.name for i in few.list().items] == ["a", "b"] and few.list().skipped == (("x", "y"),)
    assert few.identity() == {"genre": "folk", "items": 2}
    assert len(Limited(data_set=Set(), count=9).list().items) == 4
