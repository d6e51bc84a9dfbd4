"""A recipe's own data under t5x: the batches that the built-in trainer would see. Needs no t5x."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from clu.data.dataset_iterator import ArraySpec, DatasetIterator
from etils import epath

from music_diffusion.errors import UserError
from music_diffusion.t5x.adapter import NUMBER
from music_diffusion.training.config import DataSource
from music_diffusion.types import Batch


class TrainBatches(DatasetIterator):
    """One shard's endless training batches; saved and restored as a position in them."""

    def __init__(self, data: DataSource, batch_size: int, seed: int, *, shard_index: int = 0,
                 shard_count: int = 1):
        """Reads the first batch.

        Args:
          data: of the recipe.
          batch_size: of one shard.
          seed: of their order.
          shard_index: which shard, from 0.
          shard_count: how many there are.
        """
        self._iterator = data.train_iterator(batch_size, seed, shard_index=shard_index,
                                             shard_count=shard_count)
        self._start = self._iterator.get_state()
        self._first: Batch | None = next(self._iterator)
        self._spec = batch_spec(self._first)

    @property
    def element_spec(self) -> dict[str, ArraySpec]:
        """Shapes and types of a batch."""
        return self._spec

    def __next__(self) -> Batch:
        if self._first is not None:
            batch, self._first = self._first, None
            return batch
        return next(self._iterator)

    def reset(self) -> None:
        """Back to the first batch."""
        self._go_to(self._start)

    def save(self, filename: str | os.PathLike) -> None:
        """Writes the position to `filename`, which lies in a checkpoint and perhaps in a bucket."""
        # Before the first step t5x has looked at a batch, but used none.
        unused = self._first is not None or re.search(r"checkpoint_0\b", str(filename))
        state = self._start if unused else self._iterator.get_state()
        epath.Path(filename).write_text(json.dumps(state))

    def restore(self, filename: str | os.PathLike) -> None:
        """Goes to the position that was saved in `filename`."""
        self._go_to(json.loads(epath.Path(filename).read_text()))

    def _go_to(self, state: Any) -> None:
        self._iterator.set_state(state)
        self._first = None


class EvalBatches:
    """The rows of one shard of all evaluation batches, the same on every pass."""

    def __init__(self, data: DataSource, batch_size: int, *, shard_index: int = 0,
                 shard_count: int = 1):
        """`batch_size` is of all shards. Raises UserError where there is no whole batch."""
        self._data, self._batch_size = data, batch_size
        size = batch_size // shard_count
        self._rows = slice(shard_index * size, (shard_index + 1) * size)
        first = next(iter(self), None)
        if first is None:
            raise UserError(f"there is no batch of {batch_size} examples to evaluate; take a smaller "
                            "BATCH_SIZE or set TrainConfig.eval_every=0")
        self.element_spec = batch_spec(first)

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._data.eval_batches(self._batch_size)):
            if len(next(iter(batch.values()))) < self._batch_size:
                continue  # t5x has compiled for whole batches
            mine = {name: np.asarray(values)[self._rows] for name, values in batch.items()}
            size = self._rows.stop - self._rows.start
            yield mine | {NUMBER: np.full(size, number, np.int32)}


def batch_spec(batch: Batch) -> dict[str, ArraySpec]:
    """Shapes and types of a batch."""
    return {name: ArraySpec(np.asarray(values).dtype, np.shape(values))
            for name, values in batch.items()}


def examples(data: DataSource, batch_size: int) -> Iterator[Mapping[str, np.ndarray]]:
    """The examples of all evaluation batches, one by one."""
    for batch in data.eval_batches(batch_size):
        for row in range(len(next(iter(batch.values())))):
            yield {name: np.asarray(values)[row] for name, values in batch.items()}
