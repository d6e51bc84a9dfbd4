"""Shards of a training stream: the rows of every batch that each of them holds.

A shard is what one process reads. The k-th batches of all shards, one after the other, are the
k-th batch of the stream with a single shard: the number of processes changes nothing, and a state
(a count of batches) that one shard has reached is good for any number of them.
"""

from __future__ import annotations

import grain

READ_AHEAD = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)  # batches


def shard_rows(batch_size: int, shard_index: int, shard_count: int) -> slice:
    """Returns the shard's `batch_size` rows in a batch of all shards.

    Raises:
      ValueError: there is no such shard.
    """
    if not 0 <= shard_index < shard_count:
        raise ValueError(f"no shard {shard_index} among {shard_count}")
    return slice(shard_index * batch_size, (shard_index + 1) * batch_size)


def shard_batches(data: grain.MapDataset, batch_size: int, shard_index: int, shard_count: int
                  ) -> grain.DatasetIterator:
    """Yields batches of `batch_size` examples of one shard, read ahead.

    Args:
      data: examples at random access, as a rule without end. Those of other shards are never made.

    Raises:
      ValueError: there is no such shard.
    """
    rows, stride = shard_rows(batch_size, shard_index, shard_count), batch_size * shard_count

    def example(index: int):
        batch, row = divmod(index, batch_size)
        return data[batch * stride + rows.start + row]

    mine = grain.MapDataset.range(len(data) // stride * batch_size).map(example)
    return iter(mine.batch(batch_size, drop_remainder=True).to_iter_dataset(READ_AHEAD))
