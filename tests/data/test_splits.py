"""Who is held out: pieces stay together, new ones move no old ones, names decide where they are given."""

import numpy as np
import pytest
from layouts.memory import MemorySet, Samples

from music_diffusion.data.items import Item
from music_diffusion.data.splits import Assigned, assign_splits, share
from music_diffusion.errors import UserError

SOUND = Samples(samples=np.zeros(4), sample_rate=4)


def item(name, split=None, piece=None):
    return Item(name=name, split=split, audio=SOUND, piece=piece)


def test_about_the_share_is_held_out_and_another_seed_holds_out_others():
    items = [item(str(i)) for i in range(2000)]
    a, b = (assign_splits(items, seed, 0.1) for seed in (0, 1))
    for splits in (a, b):
        # Five standard deviations of a binomial share.
        assert abs(splits.count("validation") - 200) < 5 * np.sqrt(2000 * 0.1 * 0.9)
        assert splits.count("train") + splits.count("validation") == 2000
    assert a != b


def test_new_items_do_not_move_old_ones():
    items = [item(str(i)) for i in range(50)]
    more = [item(f"new {i}") for i in range(50)] + items
    assert assign_splits(more, 0, 0.3)[50:] == assign_splits(items, 0, 0.3)


def test_items_of_a_piece_stay_together_and_splits_of_their_own_are_kept():
    items = [item(f"{piece}-{take}", piece=f"p{piece}") for piece in range(30) for take in range(3)]
    splits = assign_splits([*items, item("t", "test"), item("v", "validation")], 0, 0.3)
    assert splits[-2:] == ["test", "validation"]
    for first in range(0, 90, 3):
        assert len(set(splits[first:first + 3])) == 1
    assert {"train", "validation"} == set(splits[:90])


def test_a_piece_that_is_in_a_split_draws_its_other_items_there():
    items = [item("a", "test", piece="p"), *(item(f"b{i}", piece="p") for i in range(20)),
             item("c", "train"), item("d", "validation")]
    assert assign_splits(items, 0, 0.5)[:21] == ["test"] * 21


def test_of_few_pieces_the_lowest_hash_is_held_out():
    items = [item("a"), item("b"), item("c")]
    low = min("abc", key=lambda name: share(5, "split", name))
    assert assign_splits(items, 5, 1e-9) == ["validation" if n == low else "train" for n in "abc"]
    # Unless something is held out already.
    assert assign_splits([*items, item("v", "validation")], 5, 1e-9)[:3] == ["train"] * 3


@pytest.mark.parametrize("items, missing", [
    ([item("a")], "validation"), ([item("a", "train"), item("b", "test")], "validation"),
    ([item("a", "validation")], "train"), ([], "train")])
def test_nothing_to_train_or_hold_out_is_an_error(items, missing):
    with pytest.raises(UserError, match=f"no item for {missing}"):
        assign_splits(items, 0, 0.5)


def test_names_may_say_what_is_held_out():
    data_set = MemorySet(items=(item("a"), item("b"), item("c", "validation"), item("d", "test")))
    splits = {i.name: i.split for i in Assigned(data_set=data_set, held_out=("b",)).list().items}
    assert splits == {"a": "train", "b": "validation", "c": "validation", "d": "test"}
    takes = MemorySet(items=(item("a", piece="p"), item("b", piece="p"),
                             item("c", "train", piece="p"), item("d")))
    splits = {i.name: i.split for i in Assigned(data_set=takes, held_out=("b",)).list().items}
    assert splits == {"a": "validation", "b": "validation", "c": "validation", "d": "train"}
    with pytest.raises(UserError, match="bb: no such item to hold out; did you mean b"):
        Assigned(data_set=data_set, held_out=("bb",)).list()
    free = Assigned(data_set=data_set)
    assert all(i.split for i in free.list().items)
    assert free.identity() != Assigned(data_set=data_set, held_out=("b",)).identity()
