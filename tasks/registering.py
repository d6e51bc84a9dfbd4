"""Records → seqio tasks: a thin adapter over `data.examples`, as `data.pipeline` is for grain.

A task gives the same arrays as a `RecordSource` of the same folder and features, in the same order:

- Unshuffled, an epoch is all segments of the split in order. A host of several has every n-th.
- Shuffled, the examples are `Examples.crops(seed)`: random crops in random order, of which n are
  an epoch. With `num_epochs=None` they go on with new crops for ever, and a host's are those of
  grain's `[index::count]` across epochs.
- From seqio's cache (`seqio.scripts.cache_tasks_main`) come the segments of the unshuffled task,
  in seqio's order, the same in every epoch.

Iterators are checkpointed by `tf.train.Checkpoint` and resume in the midst of an epoch: their
state is a position, and the few examples that are made ahead.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.examples import Examples
from music_diffusion.errors import UserError
from music_diffusion.notes.vocabulary import EOS_ID
from music_diffusion.tasks.members import DataSetTasks, Holdings, Member, check_split

SHUFFLE_BUFFER = 1000  # examples, of cached tasks; others are shuffled by their positions
CACHING_SHARDS = 64  # parts that seqio's cache script may work on at a time, at most


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Specification of a task: all that it depends on."""

    name: str
    folder: str  # of records
    codec: MelCodec  # of its spectrograms
    member: Member  # fitted to the folder
    splits: tuple[str, ...]

    def examples(self, split: str) -> Examples:
        """Opens the examples of a split, at random access."""
        check_split(self.name, split, self.splits)
        return self.member.examples(self.folder, split, self.codec)


def register_tasks(tasks: DataSetTasks, folder: str, *, codec: MelCodec, members: Sequence[str] | None,
                   splits: Sequence[str] | None) -> list[str]:
    """Registers tasks; see `DataSetTasks.register`."""
    used = tasks.usable(folder, codec, members)
    holdings = Holdings.of(folder, codec)
    for split in splits or ():
        check_split(folder, split, holdings.splits)
    specs = [TaskSpec(name=tasks.task_name(member), folder=folder, codec=codec, member=member,
                      splits=tuple(splits or holdings.splits)) for member in used]
    # All or, where one of them fails, none.
    made = [_task(spec, holdings.classes) for spec in specs]
    for task in made:
        if task is not None:
            seqio.TaskRegistry.add_provider(task.name, task)
    return [spec.name for spec in specs]


def _task(spec: TaskSpec, classes: Mapping[str, Sequence[str]]) -> RecordTask | None:
    """Makes a task, or None where it is registered already; `classes` are those of `Holdings`."""
    if spec.name in seqio.TaskRegistry.names():
        before = getattr(seqio.TaskRegistry.get(spec.name).source, "spec", None)
        if before != spec:
            raise UserError(f"{spec.name}: is registered already, with "
                            f"{getattr(before, 'folder', 'other data')}; remove it from seqio's "
                            "TaskRegistry first")
        return None
    blank = spec.member.blank(spec.folder, spec.splits[0], spec.codec)
    reader = _Reader(spec, blank)
    return RecordTask(
        spec.name, source=Positions(spec), shuffle_buffer_size=SHUFFLE_BUFFER,
        output_features=_output_features(spec, blank, classes),
        preprocessors=[reader.segments, seqio.CacheDatasetPlaceholder(), reader.crops, reader.check])


def _output_features(spec: TaskSpec, blank: Mapping[str, np.ndarray],
                     classes: Mapping[str, Sequence[str]]) -> dict[str, seqio.Feature]:
    kinds = {"performance": "performance", "style_label": "style", "class": "style"}
    features = {}
    for name, array in blank.items():
        dtype = tf.as_dtype(array.dtype)
        if name == "inputs" and spec.member.conditions.events is not None:
            size = spec.member.conditions.events.vocabulary.size
            features[name] = seqio.Feature(seqio.PassThroughVocabulary(size, eos_id=EOS_ID),
                                           add_eos=False, dtype=dtype, rank=array.ndim)
        elif name in kinds:
            features[name] = seqio.Feature(seqio.PassThroughVocabulary(len(classes[kinds[name]])),
                                           add_eos=False, dtype=dtype, rank=array.ndim)
        else:
            features[name] = seqio.ContinuousFeature(dtype=dtype, rank=array.ndim)
    return features


class RecordTask(seqio.Task):
    """A task whose shuffled examples come in the order of `Examples.crops`."""

    def get_dataset(self, sequence_length=None, split="train", use_cached=False, shuffle=True,
                    shuffle_buffer_size=None, **others) -> tf.data.Dataset:
        """Returns the dataset; see `seqio.Task.get_dataset`. Raises UserError for an unknown split."""
        self.source.spec.examples(split)
        # Positions are shuffled already; what a cache holds is not.
        buffer = shuffle_buffer_size or (SHUFFLE_BUFFER if use_cached else 1)
        return super().get_dataset(sequence_length, split, use_cached, shuffle, buffer, **others)


class Positions(seqio.DataSource):
    """Positions of the examples of an epoch, rather than the examples.

    Unshuffled elements are {"split", "position"}. Shuffled ones are all alike, {"split", "seed",
    "first", "step"}: as seqio repeats an epoch only after the source, their number in the endless
    sequence, which `_Reader.crops` counts, gives the position.
    """

    def __init__(self, spec: TaskSpec):
        self.spec = spec
        self._sizes = {split: len(spec.examples(split)) for split in spec.splits}
        super().__init__(splits=spec.splits, num_input_examples=self._sizes)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """Returns True: hosts and workers of the cache script may be any number."""
        return True

    def list_shards(self, split: str) -> list[str]:
        """Returns names of parts for the cache script."""
        return [f"{split}-{i}" for i in range(min(CACHING_SHARDS, self._sizes[split]))]

    def get_dataset(self, split: str = "train", shuffle: bool = True, seed: int | None = None,
                    shard_info: seqio.ShardInfo | None = None, **_: Any) -> tf.data.Dataset:
        """Returns the elements of one epoch; see `seqio.DataSource.get_dataset`."""
        size = self._sizes[split]
        index, count = (shard_info.index, shard_info.num_shards) if shard_info else (0, 1)
        if not shuffle:
            return tf.data.Dataset.range(index, size, count).map(
                lambda position: {"split": tf.constant(split), "position": position})
        # Without a seed every call draws another order, as seqio's own sources do.
        seed = secrets.randbits(31) if seed is None else int(seed)
        if seed < 0:
            raise UserError(f"seed {seed}: give 0 or more")
        element = {"split": tf.constant(split), "seed": tf.constant(seed, tf.int64),
                   "first": tf.constant(index, tf.int64), "step": tf.constant(count, tf.int64)}
        return tf.data.Dataset.from_tensors(element).repeat(max(1, len(range(index, size, count))))


class _Reader:
    """Preprocessors that turn positions into examples."""

    def __init__(self, spec: TaskSpec, blank: Mapping[str, np.ndarray]):
        self._spec = spec
        self._blank = dict(sorted(blank.items()))
        self._lock = threading.Lock()
        self._opened: dict[str, Examples] = {}

    def segments(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Reads the segments of an unshuffled dataset, before the cache; shuffled positions go on."""
        if "seed" in dataset.element_spec:
            return dataset
        return self._mapped(dataset, lambda x: (x["split"], x["position"], -1))

    def crops(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Reads the crops of a shuffled dataset, after seqio repeats; segments go on."""
        if "seed" not in dataset.element_spec:
            return dataset
        return self._mapped(dataset.enumerate(), lambda number, x: (
            x["split"], x["first"] + number * x["step"], x["seed"]))

    def check(self, dataset: tf.data.Dataset, sequence_length: Mapping[str, int] | None = None
              ) -> tf.data.Dataset:
        """Sets the shapes, which are known beyond the cache, too; nothing is cut.

        Raises UserError for other lengths than the task's.
        """
        for name, length in (sequence_length or {}).items():
            if name in self._blank and length is not None:
                shape, wanted = self._blank[name].shape, tuple(np.atleast_1d(length).tolist())
                if wanted != shape[:len(wanted)]:
                    raise UserError(f"{self._spec.name}: {name} has shape {shape}, and not {wanted}; ask "
                                    "for that, or register a task of a member with other sizes")
        return dataset.map(lambda x: {name: tf.ensure_shape(value, self._blank[name].shape)
                                      for name, value in x.items()})

    def _mapped(self, dataset: tf.data.Dataset, place) -> tf.data.Dataset:
        names, arrays = self._blank.keys(), self._blank.values()

        def example(*element):
            # Not stateful, for an iterator over it may then be checkpointed.
            values = tf.numpy_function(self._read, place(*element), [a.dtype for a in arrays],
                                       stateful=False)
            return {name: tf.ensure_shape(value, array.shape)
                    for name, value, array in zip(names, values, arrays, strict=True)}

        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _read(self, split: bytes, position: int, seed: int) -> list[np.ndarray]:
        name = split.decode()
        examples = self._opened.get(name)
        if examples is not None:
            return self._arrays(examples, position, seed)
        with self._lock:  # one thread opens the files and, for styles, reads all labels
            if (examples := self._opened.get(name)) is None:
                examples = self._spec.examples(name)
            values = self._arrays(examples, position, seed)
            self._opened[name] = examples
            return values

    def _arrays(self, examples: Examples, position: int, seed: int) -> list[np.ndarray]:
        example = (examples.grid() if seed < 0 else examples.crops(int(seed)))(int(position))
        return [np.asarray(example[name]) for name in self._blank]
