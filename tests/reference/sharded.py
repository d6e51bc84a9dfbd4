"""What holds for the training streams of all data sources (`training.loop.DataSource`)."""

import itertools
import threading
from unittest import mock

import numpy as np

BATCH, BEFORE, AFTER = 6, 3, 2  # examples, batches


def check_shards(source, seed=3):
    """The batches of all shards in a row are the one stream's, also when their number changes.

    The batches before the change are read with `count` shards, those after it with `other`.
    """
    whole = list(itertools.islice(source.train_iterator(BATCH, seed), BEFORE + AFTER))
    assert not same(whole[0], whole[1])
    for count, other in ((1, 2), (2, 3), (3, 1), (6, 2)):
        shards = open_shards(source, seed, count)
        read = [joined(shards) for _ in range(BEFORE)]
        states = [shard.get_state() for shard in shards]
        assert all(state == states[0] for state in states)
        shards = open_shards(source, seed, other)
        for shard in shards:
            next(shard)
            shard.set_state(states[0])
        read += [joined(shards) for _ in range(AFTER)]
        assert all(map(same, read, whole))


def check_loads(source, owner, method, key, seed=3):
    """Two shards together make every example once. `key` tells them by the arguments of `method`,
    which makes one."""
    keys, original = [], getattr(owner, method)
    others = threading.enumerate()  # of streams before, perhaps still reading ahead

    def counted(*args):
        if threading.current_thread() not in others:
            keys.append(key(*args))
        return original(*args)

    with mock.patch.object(owner, method, counted):
        shards = open_shards(source, seed, 2)
        for _ in range(BEFORE):
            joined(shards)
    keys = keys.copy()  # they are still reading ahead
    assert len(keys) == len(set(keys)) >= BEFORE * BATCH


def open_shards(source, seed, count):
    return [source.train_iterator(BATCH // count, seed, shard_index=i, shard_count=count)
            for i in range(count)]


def joined(shards):
    batches = [next(shard) for shard in shards]
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k], equal_nan=a[k].dtype.kind == "f")
        for k in a)
