"""Training batches of records, through grain."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Example, RecordConditions
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.performances import read_performances
from music_diffusion.data.examples import Examples
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.data.sharding import shard_batches, shard_rows
from music_diffusion.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Segments of the records in a data folder.

    Every example is a pure function of the folder and a position (`data.examples`).
    """

    folder: str  # written by `music-diffusion prepare`
    codec: MelCodec = MelCodec()
    frames: int = 256  # T
    conditions: RecordConditions = NoteFrames()  # what examples have beside their target
    shuffle: bool = True  # random crops in random order; False: all segments, in order
    eval_batch_count: int = 8  # batches of the validation split that `eval_batches` gives

    def examples(self, split: str) -> Examples:
        """Returns the examples of a split, at random access."""
        return Examples(folder=self.folder, split=split, codec=self.codec, frames=self.frames,
                        conditions=self.conditions)

    def dataset(self, split: str, seed: int) -> grain.MapDataset:
        """Returns endless examples of a split, for mixing and batching."""
        examples = self.examples(split)
        len(examples)  # finds what is wrong with the folder before the first batch
        order = examples.crops(seed) if self.shuffle else examples.grid()
        return grain.MapDataset.range(1 << 40).map(order)

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Endless batches; resumable through get_state / set_state."""
        return shard_batches(self.dataset("train", seed), batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields segments from all over the validation split, the same every time.

        At least one batch: a split of fewer segments gives some of them again.
        """
        examples = self.examples("validation")
        count = max(1, min(self.eval_batch_count, len(examples) // batch_size))
        data = grain.MapDataset.source(examples.spread(count * batch_size)).batch(batch_size)
        for i in range(count):
            yield data[i]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureSource:
    """Several data folders in given shares."""

    sources: Sequence[RecordSource]  # with the same features
    weights: Sequence[float] | None = None  # shares of the examples; None: by their hours
    eval_batch_count: int = 8  # batches that `eval_batches` gives, from all sources in turn

    def __post_init__(self):
        if not self.sources:
            raise UserError("MixtureSource.sources is empty: name at least one source")
        if self.weights is not None and (
                len(self.weights) != len(self.sources) or not min(self.weights) > 0):
            raise UserError(f"MixtureSource.weights={list(self.weights)} must be one positive number "
                            f"for each of {len(self.sources)} sources")

    def dataset(self, split: str, seed: int) -> grain.MapDataset:
        """Endless examples of a split."""
        weights = self.weights or [len(s.examples(split)) for s in self.sources]
        return grain.MapDataset.mix([s.dataset(split, seed) for s in self.sources], list(weights))

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Endless batches; resumable through get_state / set_state."""
        return shard_batches(self.dataset("train", seed), batch_size, shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields whole batches of one source after the other, the same every time."""
        parts = [s.eval_batches(batch_size) for s in self.sources]
        rounds = (b for batches in itertools.zip_longest(*parts) for b in batches if b is not None)
        return itertools.islice(rounds, self.eval_batch_count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRowSource:
    """Frames of isolated notes for the note timbre network (rows of `ROW_DTYPE`)."""

    folder: str  # holds note_rows.npy
    holdout: int = 50  # one block of rows in so many is kept for evaluation
    block: int = 512  # consecutive rows that are drawn or held out together

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads all rows, and which of them are held out. Raises UserError where they cannot be read."""
        path = f"{self.folder}/note_rows.npy"
        try:
            rows = np.load(path, mmap_mode="r")
        except (OSError, ValueError) as e:
            raise UserError(f"{path}: cannot be read; make it with `music-diffusion prepare`") from e
        held = (np.arange(len(rows)) // self.block) % self.holdout == 0
        if rows.dtype != ROW_DTYPE or held.all():
            raise UserError(f"{path}: not rows of notes, or too few of them")
        return rows, held

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless batches of random rows."""
        rows, held = self.rows()
        drawn = _DrawnRows(rows, np.flatnonzero(~held), batch_size * shard_count,
                           shard_rows(batch_size, shard_index, shard_count))
        return iter(grain.MapDataset.range(1 << 40).seed(seed).random_map(drawn).to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields held-out rows, the same every time."""
        rows, held = self.rows()
        index = np.random.default_rng(0).permutation(np.flatnonzero(held))
        for i in range(min(8, len(index) // batch_size)):
            yield _row_batch(rows, np.sort(index[i * batch_size:(i + 1) * batch_size]))


class _DrawnRows(grain.transforms.RandomMap):
    """Draws `size` of the rows in `index` and reads the `part` of them."""

    def __init__(self, rows: np.ndarray, index: np.ndarray, size: int, part: slice):
        self._rows, self._index, self._size, self._part = rows, index, size, part

    def random_map(self, _, rng: np.random.Generator) -> Example:
        drawn = rng.integers(len(self._index), size=self._size)
        return _row_batch(self._rows, self._index[drawn[self._part]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformedNoteSource:
    """Frames of isolated notes of several instruments' sets, such as SoundFonts, by performance.

    An example is `group` rows of one folder, as one of the performances that are played with it.
    """

    folders: Sequence[str]  # each holds note_rows.npy
    names: Sequence[Sequence[str]]  # of the performances, for each folder
    performances: str  # the file that numbers them (`conditions.performances`)
    performance_count: int | None = None  # rows of the model's table: there must be as many names
    group: int = 512  # rows of an example
    none_share: float = 0.5  # of the first folder's examples, as no performance: what is played without one
    holdout: int = 50  # see `NoteRowSource`

    def __post_init__(self):
        if len(self.folders) != len(self.names) or not all(self.names):
            raise UserError(f"PerformedNoteSource: {len(self.folders)} folders and names for "
                            f"{len(self.names)}; give some of each for each")

    def _sets(self) -> list[_PerformedRows]:
        if not self.folders:
            raise UserError("PerformedNoteSource.folders is empty: name at least one folder of note rows")
        known = read_performances(self.performances)
        if self.performance_count not in (None, len(known.names)):
            raise UserError(f"{self.performances}: names {len(known.names)} performances, and the model "
                            f"has {self.performance_count}; set NUM_PERFORMANCES={len(known.names)}")
        return [_PerformedRows(*NoteRowSource(folder=folder, holdout=self.holdout).rows(),
                               tuple(known.number(name) for name in names), len(known.names))
                for folder, names in zip(self.folders, self.names, strict=True)]

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Yields endless batches of [B, group] rows, `mel` [B, group, F], `performance` [B, R] weights."""
        drawn = _DrawnGroups(self._sets(), self.group, self.none_share)
        return shard_batches(grain.MapDataset.range(1 << 40).seed(seed).random_map(drawn), batch_size,
                             shard_index, shard_count)

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Yields a batch of held-out rows of every folder, as its first performance."""
        for i, performed in enumerate(self._sets()):
            index = np.flatnonzero(performed.held)
            drawn = np.random.default_rng(i).integers(len(index), size=(batch_size, self.group))
            weights = np.tile(performed.weights(0), (batch_size, 1))
            yield _row_batch(performed.rows, index[drawn]) | {"performance": weights}


@dataclasses.dataclass(frozen=True)
class _PerformedRows:
    """A folder's rows, which of them are held out, and the numbers of their performances among so many."""

    rows: np.ndarray
    held: np.ndarray
    numbers: tuple[int, ...]
    count: int

    def weights(self, place: int | None) -> np.ndarray:
        """Returns weights of the table's rows, all 0 for None: no performance."""
        chosen = -1 if place is None else self.numbers[place]
        return (np.arange(self.count) == chosen).astype(np.float32)


class _DrawnGroups(grain.transforms.RandomMap):
    def __init__(self, sets: list[_PerformedRows], group: int, none_share: float):
        self._sets, self._group, self._none_share = sets, group, none_share
        self._index = [np.flatnonzero(~s.held) for s in sets]

    def random_map(self, _, rng: np.random.Generator) -> Example:
        i = int(rng.integers(len(self._sets)))
        performed, index = self._sets[i], self._index[i]
        none = not i and rng.random() < self._none_share
        place = None if none else int(rng.integers(len(performed.numbers)))
        drawn = index[rng.integers(len(index), size=self._group)]
        return _row_batch(performed.rows, drawn) | {"performance": performed.weights(place)}


def _row_batch(rows: np.ndarray, index: np.ndarray) -> Example:
    picked = rows[index]
    return {name: picked[name].astype(np.float32 if name in ("age", "release", "mel") else np.int32)
            for name in ROW_DTYPE.names}
