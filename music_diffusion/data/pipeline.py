"""Training batches from rendered excerpts, through grain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import grain
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import FrameGrid, roll_features, slot_features
from music_diffusion.notes.notes import Notes

Example = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameFeatures:
    """Notes of a segment → the frame-wise denoiser's features."""

    grid: FrameGrid = FrameGrid()
    slots: int = 32  # P, note slots a frame; 0 where the records have note maps

    def __call__(self, notes: Notes, start: float, frames: int) -> Example:
        """Returns `roll` [T, C] and `slot_*` [T, P] for the segment that begins at `start`."""
        example = {"roll": roll_features(notes, start, frames, self.grid)}
        if self.slots:
            slots = slot_features(notes, start, frames, self.grid, self.slots)
            slots.pop("dropped")  # the oldest tails
            example.update({f"slot_{k}": v for k, v in slots.items()})
        return example


class _Segment(grain.transforms.RandomMap):
    """Cuts a random (or the middle) segment from a record and adds its features."""

    def __init__(self, codec: MelCodec, frames: int, features: Callable, context: bool, random: bool):
        self._codec, self._frames, self._features = codec, frames, features
        self._context, self._random = context, random

    def random_map(self, message: bytes, rng: np.random.Generator) -> Example:
        record = records.Record.from_bytes(message)
        spare = len(record.mel) - self._frames
        if spare < 0:
            raise UserError(f"excerpts of {len(record.mel)} frames are shorter than segments of "
                            f"{self._frames}; render longer ones, or train on fewer frames")
        first = int(rng.integers(spare + 1)) if self._random else spare // 2
        start = first * self._codec.hop / self._codec.sample_rate
        part = slice(first, first + self._frames)
        example = {"targets": self._codec.scale(record.mel[part].astype(np.float32))}
        if self._context:
            example.update(self._segment_before(record.mel, first))
        if record.maps is not None:
            example["maps"] = record.maps[part].astype(np.float32)
        return example | self._features(record.notes, start, self._frames)

    def _segment_before(self, mel: np.ndarray, first: int) -> Example:
        """All zero, mask too, where the record does not hold the whole of it."""
        whole = first >= self._frames
        before = mel[first - self._frames:first] if whole else np.zeros_like(mel[:self._frames])
        scaled = self._codec.scale(before.astype(np.float32))
        return {"targets_context": scaled if whole else np.zeros_like(scaled),
                "targets_context_mask": np.full(self._frames, whole, np.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource:
    """Segments of the excerpts in a data folder."""

    folder: str  # written by `data.render`
    codec: MelCodec = MelCodec()
    frames: int = 256  # T
    features: Callable[[Notes, float, int], Example] = FrameFeatures()
    context: bool = False  # whether examples hold the segment before (`targets_context`, its mask)
    eval_batch_count: int = 8  # batches of the validation split that `eval_batches` gives

    def _dataset(self, split: str, seed: int, random: bool) -> grain.MapDataset:
        records.read_manifest(self.folder, self.codec)
        source = grain.sources.ArrayRecordDataSource(records.shard_paths(self.folder, split))
        data = grain.MapDataset.source(source).seed(seed)
        if random:
            data = data.shuffle().repeat()
        return data.random_map(_Segment(self.codec, self.frames, self.features,
                                        self.context, random))

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> grain.DatasetIterator:
        """Endless shuffled batches; resumable through get_state / set_state."""
        data = self._dataset("train", seed, random=True)[shard_index::shard_count]
        return iter(data.batch(batch_size, drop_remainder=True).to_iter_dataset(
            grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """The same segments every time."""
        data = self._dataset("validation", 0, random=False)
        data = data.batch(batch_size, drop_remainder=True)
        for i in range(min(self.eval_batch_count, len(data))):
            yield data[i]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRowSource:
    """Frames of isolated notes for the note timbre network (rows of `ROW_DTYPE`)."""

    folder: str  # holds note_rows.npy
    holdout: int = 50  # one block of rows in so many is kept for evaluation
    block: int = 512  # consecutive rows that are drawn or held out together

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
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
        """Endless batches of random rows."""
        rows, held = self._rows()
        train = np.flatnonzero(~held)
        data = grain.MapDataset.range(1 << 40).seed(seed).random_map(_Rows(rows, train, batch_size))
        return iter(data[shard_index::shard_count].to_iter_dataset(
            grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def eval_batches(self, batch_size: int) -> Iterator[Example]:
        """Held-out rows."""
        rows, held = self._rows()
        index = np.random.default_rng(0).permutation(np.flatnonzero(held))
        for i in range(min(8, len(index) // batch_size)):
            yield _row_batch(rows, np.sort(index[i * batch_size:(i + 1) * batch_size]))


class _Rows(grain.transforms.RandomMap):
    def __init__(self, rows, index, batch_size: int):
        self._rows, self._index, self._batch_size = rows, index, batch_size

    def random_map(self, _, rng: np.random.Generator) -> Example:
        return _row_batch(self._rows, self._index[rng.integers(len(self._index), size=self._batch_size)])


def _row_batch(rows: np.ndarray, index: np.ndarray) -> Example:
    picked = rows[index]
    return {name: picked[name].astype(np.float32 if name in ("age", "release", "mel") else np.int32)
            for name in ROW_DTYPE.names}
