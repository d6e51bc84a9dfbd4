"""Shards of streams, by literals; and of the sources that have no other tests of their own."""

import grain
import numpy as np
import pytest
from reference.sharded import check_loads, check_shards
from reference.toy_regression import ToySource

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.sharding import shard_batches, shard_rows
from music_diffusion.data.synthetic import SyntheticSource


@pytest.mark.parametrize("index, expected", [
    (0, [[0, 1], [6, 7], [12, 13]]), (1, [[2, 3], [8, 9], [14, 15]]),
    (2, [[4, 5], [10, 11], [16, 17]])])
def test_a_shard_holds_its_rows_of_every_batch(index, expected):
    batches = shard_batches(grain.MapDataset.range(1000), 2, index, 3)
    assert [next(batches).tolist() for _ in range(3)] == expected


def test_a_shard_of_an_endless_set_goes_on_into_the_next_epoch():
    data = grain.MapDataset.range(5).repeat()
    assert [next(shard_batches(data, 3, i, 3)).tolist() for i in range(3)] == [
        [0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_a_finite_set_ends_with_the_last_whole_batch_of_all_shards():
    batches = shard_batches(grain.MapDataset.range(20), 2, 1, 3)
    assert [b.tolist() for b in batches] == [[2, 3], [8, 9], [14, 15]]


def test_a_shard_never_makes_the_examples_of_others():
    made = []
    data = grain.MapDataset.range(1000).map(lambda i: made.append(int(i)) or i)
    batches = shard_batches(data, 2, 1, 4)
    for _ in range(20):
        next(batches)
    assert {2, 3, 10, 11} < set(made) and all(i % 8 in (2, 3) for i in made)
    assert len(made) == len(set(made))


def test_rows():
    assert [shard_rows(4, i, 3) for i in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    for index, count in ((3, 3), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="no shard"):
            shard_rows(4, index, count)


def test_synthetic_segments_and_the_toy():
    source = SyntheticSource(codec=MelCodec(mels=8), frames=4, notes=2)
    check_shards(source)
    check_loads(source, SyntheticSource, "segment", lambda _, index: index)
    check_shards(ToySource(size=11))


def test_a_spike_of_the_toy_is_one_whole_batch_in_every_shard():
    for index in range(2):
        batches = ToySource(spike_at=1).train_iterator(4, 0, shard_index=index, shard_count=2)
        huge = [(next(batches)["x"] > 1e3).tolist() for _ in range(3)]
        assert [np.all(h) for h in huge] == [np.any(h) for h in huge] == [False, True, False]
