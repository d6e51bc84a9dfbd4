"""Examples of records: pure functions of a folder and a position, whichever pipeline asks.

The grain pipeline (`data.pipeline`) and the seqio tasks (`music_diffusion.tasks`) are thin adapters
over `Examples`: with the same positions they give the same arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.tails import energy_tails, lead_frames
from music_diffusion.data import records
from music_diffusion.data.note_features import Example, NoteFeatures, TooManyEventsError
from music_diffusion.data.shards import ShardFacts, read_facts
from music_diffusion.errors import UserError
from music_diffusion.models.performances import read_performances

EXTRAS = ("performance", "source", "style")
TRIES = 32  # crops of a record, or segments in a row, of which the first whose events fit is taken

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Segments of T frames of the records of one split, at random access. Picklable.

    Features, where asked for (F mel bins, see `types`):

    ==================== ============ ===================================================
    targets              T F float32  scaled mel, in [-1, 1]
    maps                 T 2 F        note maps, if the records have them
    base_maps            T 2 F        … those without performance, if they have both
    tails                T K F        scaled tails of the first map, for K decay times (`audio.tails`)
    (`features`)                      of the notes (`data.note_features`)
    targets_context      T F          scaled mel of the T frames before; zeros where the
                                      record does not hold them all
    targets_context_mask T            1, or all 0 there
    performance          int32        its number in `performances`, or among the manifest's classes
    source               T F          scaled mel of the same notes in another timbre
    style                T F          scaled mel of another record of the same style
    style_label          int32        the style's number among the manifest's classes
    ==================== ============ ===================================================

    A record shorter than T is followed by silence.

    Raises:
      UserError: the folder is missing, unfinished, damaged, of another codec, or
        lacks what `extras` name.
    """

    folder: str  # written by `data.build`
    split: str
    codec: MelCodec = MelCodec()
    frames: int = 256  # T
    features: NoteFeatures | None = None  # None: of the spectrogram alone
    context: bool = False
    extras: tuple[str, ...] = ()  # of EXTRAS
    performances: str | None = None  # a file that numbers them (`data.performances`), not the manifest
    only_performance: int | None = None  # `performance` of all records, whatever they tell
    tails: tuple[float, ...] = ()  # decay times, seconds, for `tails`; the records have note maps then

    def __post_init__(self):
        if self.frames < 1:
            raise UserError(f"segments of {self.frames} frames: give 1 or more")
        classes = self._classes
        hop = self.codec.hop / self.codec.sample_rate
        its_hop = getattr(self.features, "hop", hop)
        if abs(its_hop - hop) > 1e-9:
            raise UserError(f"{type(self.features).__name__} has frames of {its_hop} s, and the codec of "
                            f"{hop} s; give both the same")
        for extra in self.extras:
            if extra not in EXTRAS:
                raise UserError(f"{extra!r} is no feature; choose among {', '.join(EXTRAS)}")
            if extra in ("performance", "style") and not classes.get(extra):
                raise UserError(f"{self.folder}: its records have no {extra}; prepare a data set that "
                                "tells it (see `prepare sets`), or leave this feature out")

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
        """What the builder tells of the shards; None where another one made them."""
        facts = [read_facts(path) for path in self._paths]
        told = [f for f in facts if f is not None]
        if len(told) < len(facts):
            return None
        if sum(len(f.lengths) for f in told) != len(self._messages):
            raise UserError(f"{self.folder}: shards and their .json files do not fit each other; run "
                            "the same `music-diffusion prepare` again")
        return told

    @functools.cached_property
    def lengths(self) -> Int[np.ndarray, " R"]:
        """Frames of every record."""
        if self._facts is None:
            return np.array([len(self._record(i).mel) for i in range(len(self._messages))])
        return np.concatenate([np.array(f.lengths, int) for f in self._facts])

    @functools.cached_property
    def segments(self) -> Int[np.ndarray, "n 2"]:
        """(record, first frame) of all segments in order; the last of a record reaches its end."""
        count = np.maximum(-(-self.lengths // self.frames), 1)
        record = np.repeat(np.arange(len(count)), count)
        place = np.arange(len(record)) - np.repeat(np.cumsum(count) - count, count)
        last = np.maximum(self.lengths - self.frames, 0)[record]
        return np.stack([record, np.minimum(place * self.frames, last)], axis=1)

    def __len__(self) -> int:
        """Segments of the split."""
        return len(self.segments)

    def __getstate__(self):
        """Without open files."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def grid(self) -> Callable[[int], Example]:
        """position → segment, all of them in order, and again from the start."""
        return _Grid(self)

    def crops(self, seed: int) -> Callable[[int], Example]:
        """position → a random crop. n positions are an epoch: every record as often as it has segments."""
        return _Crops(self, seed)

    def spread(self, count: int) -> Sequence[Example]:
        """`count` segments, evenly spaced over all; some come again where there are fewer."""
        return _Spread(self, count)

    def segment(self, record: int, first: int, rng: np.random.Generator | None = None) -> Example:
        """The example that begins at a record's frame; `rng` chooses its style's record."""
        found = self._record(record)
        part = slice(first, first + self.frames)
        example = {"targets": self._scaled(found.mel[part])}
        if self.context:
            example |= self._before(found.mel, first)
        if found.maps is not None:
            silence = self.codec.scale(np.log(np.float32(self.codec.clip_min)))
            maps = self._padded(found.maps[part].astype(np.float32), silence)
            example["maps"] = maps[:, :2]
            if maps.shape[1] > 2:
                example["base_maps"] = maps[:, 2:]
        if self.tails:
            example["tails"] = self._tails(found, first)
        if self.features is not None:
            start = found.start + first * self.codec.hop / self.codec.sample_rate
            try:
                example |= self.features(found.notes, start, self.frames)
            except TooManyEventsError as e:
                raise TooManyEventsError(f"{self.folder}: record {record} of {self.split}: {e}") from e
        for extra in self.extras:
            example |= self._extra(extra, found, part, record, rng)
        if self.only_performance is not None:
            example["performance"] = np.array(self.only_performance, np.int32)
        return example

    def _record(self, number: int) -> records.Record:
        try:
            return records.Record.from_bytes(self._messages[number], self._suffix)
        except (ValueError, KeyError) as e:
            raise UserError(f"{self.folder}: record {number} of {self.split} is damaged ({e}); delete its "
                            "shard and run `music-diffusion prepare` again") from e

    @property
    def _suffix(self) -> str:
        return os.path.splitext(self._paths[0])[1]

    def _padded(self, values: np.ndarray, fill: float) -> np.ndarray:
        missing = self.frames - len(values)
        if not missing:
            return values
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=fill)

    def _scaled(self, mel: np.ndarray) -> np.ndarray:
        floor = float(np.log(self.codec.clip_min))
        return self.codec.scale(self._padded(mel.astype(np.float32), floor)).astype(np.float32)

    def _tails(self, found: records.Record, first: int) -> np.ndarray:
        """Also of what the record has before the segment."""
        if found.maps is None:
            raise UserError(f"{self.folder}: its records have no note maps, which tails are of; add them "
                            "(`models note-maps`)")
        begin = max(0, first - lead_frames(self.tails, self.codec))
        whole = self.codec.unscale(found.maps[begin:first + self.frames, 0].astype(np.float32))
        tails = self.codec.scale(energy_tails(whole, self.tails, self.codec))
        return self._padded(tails[first - begin:].astype(np.float32),
                            self.codec.scale(np.log(np.float32(self.codec.clip_min))))

    def _before(self, mel: np.ndarray, first: int) -> Example:
        whole = first >= self.frames
        shape = (self.frames, mel.shape[1])
        before = self._scaled(mel[first - self.frames:first]) if whole else np.zeros(shape, np.float32)
        return {"targets_context": before,
                "targets_context_mask": np.full(self.frames, whole, np.float32)}

    def _extra(self, extra: str, found: records.Record, part: slice, record: int,
               rng: np.random.Generator | None) -> Example:
        if extra == "source":
            if found.source is None:
                raise UserError(f"{self.folder}: its records have no second timbre; prepare starnet, or "
                                "soundfont in pairs")
            return {"source": self._scaled(found.source[part])}
        number = self._number(extra, found.labels.get(extra), record)
        if extra == "performance":
            return {"performance": np.array(number, np.int32)}
        return {"style": self._of_style(number, record, rng), "style_label": np.array(number, np.int32)}

    def _number(self, kind: str, label: str | None, record: int) -> int:
        classes = self._classes[kind]
        if label not in classes:
            raise UserError(f"{self.folder}: record {record} of {self.split} has no {kind}")
        return classes.index(label)

    @property
    def performance_names(self) -> Sequence[str]:
        """In the order of their numbers."""
        return self._classes.get("performance", ())

    @functools.cached_property
    def _classes(self) -> dict[str, Sequence[str]]:
        """Names of performances and styles, in the order of their numbers."""
        classes = dict(self._manifest.get("classes", {}))
        if self.performances is not None:
            names = read_performances(self.performances).names
            strange = sorted(set(classes.get("performance", ())) - set(names))
            if strange:
                raise UserError(f"{self.folder}: {strange[0]!r} is no performance of {self.performances}; "
                                "make that file of this folder too (`models performances`)")
            classes["performance"] = names
        return classes

    @functools.cached_property
    def _styles(self) -> dict[int, np.ndarray]:
        """Records of every style."""
        labels = [label for f in self._facts or () for label in f.styles]
        if len(labels) < len(self._messages):
            labels = [self._record(i).labels.get("style") for i in range(len(self._messages))]
        numbers = np.array([self._number("style", label, i) for i, label in enumerate(labels)])
        return {number: np.flatnonzero(numbers == number) for number in set(numbers.tolist())}

    def _of_style(self, style: int, record: int, rng: np.random.Generator | None) -> np.ndarray:
        """A segment of another record of the style, or of the same where it has just one."""
        rng = rng if rng is not None else np.random.default_rng(record)
        others = self._styles[style]
        others = others[others != record] if len(others) > 1 else others
        chosen = int(others[rng.integers(len(others))])
        first = int(rng.integers(max(self.lengths[chosen] - self.frames, 0) + 1))
        return self._scaled(self._record(chosen).mel[first:first + self.frames])


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
