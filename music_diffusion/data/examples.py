"""Examples of records: pure functions of a folder and a position, whichever pipeline asks.

The grain pipeline (`data.pipeline`) and the seqio tasks (`music_diffusion.tasks`) are thin adapters
over `Examples`: with the same positions they give the same arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import STYLE, Example, Excerpt, RecordConditions
from music_diffusion.conditions.note_tokens import TooManyEventsError
from music_diffusion.conditions.spectrograms import Nothing
from music_diffusion.data import records
from music_diffusion.data.shards import ShardFacts, read_facts
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

TRIES = 32  # crops of a record, or segments in a row, of which the first whose events fit is taken

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Segments of T frames of the records of one split, at random access. Picklable.

    Features are `targets`, [T, F] float32 scaled mel in [-1, 1], and those of the conditions. A record
    shorter than T is followed by silence.

    Raises:
      UserError: the folder is missing, unfinished, damaged, of another codec, or
        lacks what the conditions need.
    """

    folder: str  # written by `data.build`
    split: str
    codec: MelCodec = MelCodec()
    frames: int = 256  # T
    conditions: RecordConditions = Nothing()  # what an example has beside its target

    def __post_init__(self):
        if self.frames < 1:
            raise UserError(f"segments of {self.frames} frames: give 1 or more")
        self.classes  # noqa: B018 finds what the records lack

    @functools.cached_property
    def _manifest(self) -> dict:
        return records.read_manifest(self.folder, self.codec)

    @functools.cached_property
    def _paths(self) -> list[str]:
        paths = records.shard_paths(self.folder, self.split)
        there = {os.path.basename(path) for path in paths}
        missing = sorted(name for name in self._manifest.get("checksums", ())
                         if name.startswith(f"{self.split}-") and name not in there)
        if missing:
            raise UserError(f"{self.folder}: {len(missing)} shards are missing ({missing[0]} …); copy them "
                            "too, or run the same `music-diffusion prepare` again")
        return paths

    @functools.cached_property
    def _messages(self) -> Sequence[bytes]:
        return records.open_shards(self._paths)

    @functools.cached_property
    def _facts(self) -> list[ShardFacts] | None:
        """Returns what the builder wrote about the shards; None where another one made them."""
        facts = [read_facts(path) for path in self._paths]
        known = [f for f in facts if f is not None]
        if len(known) < len(facts):
            return None
        if sum(len(f.lengths) for f in known) != len(self._messages):
            raise UserError(f"{self.folder}: shards and their .json files do not fit each other; run "
                            "the same `music-diffusion prepare` again")
        return known

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Returns the frames of every record."""
        if self._facts is None:
            return np.array([len(self._record(i).mel) for i in range(len(self._messages))])
        return np.concatenate([np.array(f.lengths, int) for f in self._facts])

    @functools.cached_property
    def segments(self) -> Int[np.ndarray, "n 2"]:
        """Returns (record, first frame) of all segments in order; the last of a record reaches its end."""
        count = np.maximum(-(-self.lengths // self.frames), 1)
        record = np.repeat(np.arange(len(count)), count)
        place = np.arange(len(record)) - np.repeat(np.cumsum(count) - count, count)
        last = np.maximum(self.lengths - self.frames, 0)[record]
        return np.stack([record, np.minimum(place * self.frames, last)], axis=1)

    def __len__(self) -> int:
        """Returns the number of segments of the split."""
        return len(self.segments)

    def __getstate__(self):
        """Leaves open files out, so that examples can be pickled."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def grid(self) -> Callable[[int], Example]:
        """Returns position → segment, all of them in order, and again from the start."""
        return _Grid(self)

    def crops(self, seed: int) -> Callable[[int], Example]:
        """Returns position → random crop. An epoch of n has each record as often as it has segments."""
        return _Crops(self, seed)

    def spread(self, count: int) -> Sequence[Example]:
        """Returns `count` segments, evenly spaced over all; some come again where there are fewer."""
        return _Spread(self, count)

    def segment(self, record: int, first: int, rng: np.random.Generator | None = None) -> Example:
        """Returns the example that begins at a record's frame; `rng` chooses what is left open."""
        found = self._record(record)
        excerpt = Excerpt(record=found, number=record, first=first, frames=self.frames,
                          codec=self.codec, records=self, rng=rng)
        return {"targets": excerpt.scaled(excerpt.part(found.mel))} | self.conditions.of_record(excerpt)

    def blank(self) -> Excerpt:
        """Returns the start of the first record without its notes, whose features cost little.

        Its style, too, is of the same record: to find another one is to read them all.
        """
        found = dataclasses.replace(self._record(0), notes=Notes.empty())
        return Excerpt(record=found, number=0, first=0, frames=self.frames, codec=self.codec,
                       records=_Alone(self, found))

    def describe(self, record: int) -> str:
        """Returns words for a record, to name it in messages."""
        return f"{self.folder}: record {record} of {self.split}"

    @functools.cached_property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Returns the names of performances and styles, in the order of their numbers."""
        return self.conditions.check(self._manifest.get("classes", {}), self.folder)

    def _record(self, number: int) -> records.Record:
        try:
            return records.Record.from_bytes(self._messages[number], self._suffix)
        except (ValueError, KeyError) as e:
            raise UserError(f"{self.describe(number)} is damaged ({e}); delete its "
                            "shard and run `music-diffusion prepare` again") from e

    @property
    def _suffix(self) -> str:
        return os.path.splitext(self._paths[0])[1]

    @functools.cached_property
    def _labelled(self) -> Mapping[str, Mapping[int, np.ndarray]]:
        """Returns the records of every style."""
        labels = [label for f in self._facts or () for label in f.styles]
        if len(labels) < len(self._messages):
            labels = [self._record(i).labels.get(STYLE) for i in range(len(self._messages))]
        for i, label in enumerate(labels):
            if label not in self.classes[STYLE]:
                raise UserError(f"{self.describe(i)} has no {STYLE}")
        numbers = np.array([self.classes[STYLE].index(label) for label in labels])
        return {STYLE: {number: np.flatnonzero(numbers == number) for number in set(numbers.tolist())}}

    def another(self, kind: str, label: int, record: int, frames: int,
                rng: np.random.Generator | None) -> np.ndarray:
        """Returns log-mel of another record of the style; see `conditions.base.RecordSet.another`."""
        rng = rng if rng is not None else np.random.default_rng(record)
        others = self._labelled[kind][label]
        others = others[others != record] if len(others) > 1 else others
        chosen = int(others[rng.integers(len(others))])
        first = int(rng.integers(max(self.lengths[chosen] - frames, 0) + 1))
        return self._record(chosen).mel[first:first + frames]


@dataclasses.dataclass(frozen=True)
class _Alone:
    """A record as the only one of its set."""

    examples: Examples
    record: records.Record

    @property
    def folder(self) -> str:
        return self.examples.folder

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        return self.examples.classes

    def describe(self, record: int) -> str:
        return self.examples.describe(record)

    def another(self, kind: str, label: int, record: int, frames: int, rng: object) -> np.ndarray:
        return self.record.mel[:frames]


@dataclasses.dataclass(frozen=True)
class _Grid:
    examples: Examples

    def __call__(self, position: int) -> Example:
        record, first = self.examples.segments[position % len(self.examples)]
        return self.examples.segment(int(record), int(first))


@dataclasses.dataclass(frozen=True)
class _Crops:
    examples: Examples
    seed: int

    def __call__(self, position: int) -> Example:
        examples = self.examples
        epoch, place = divmod(int(position), len(examples))
        record = int(examples.segments[_order(self.seed, epoch, len(examples))[place], 0])
        rng = np.random.default_rng([self.seed, int(position)])
        spare = max(int(examples.lengths[record]) - examples.frames, 0)
        for left in reversed(range(TRIES)):
            try:
                return examples.segment(record, int(rng.integers(spare + 1)), rng)
            except TooManyEventsError:
                if not left:
                    raise
                _tell_once(examples.folder, examples.split, record)
        raise AssertionError("unreachable")


@functools.lru_cache(maxsize=1 << 16)  # once for each record
def _tell_once(folder: str, split: str, record: int) -> None:
    log.warning("%s: record %d of %s is too dense here and there for the model's tokens; other crops of "
                "it are taken", folder, record, split)


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)


class _Spread(Sequence[Example]):
    def __init__(self, examples: Examples, count: int):
        self._examples, self._count = examples, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        index, n = range(self._count)[index], len(self._examples)
        # The middle of the index's share; where that is too dense for the model, what follows.
        place = int((index + 0.5) * n / self._count) if n > self._count else index % n
        for left in reversed(range(TRIES)):
            try:
                return self._examples.grid()(place)
            except TooManyEventsError:
                if not left:
                    raise
                place += 1
        raise AssertionError("unreachable")
