"""Items of a data set → a folder of records: spectrograms with notes, source, stems and labels."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.data import records
from music_diffusion.data.items import DataSet, Item, Sound, unused
from music_diffusion.data.listening import Listener, gain_to_level, hear
from music_diffusion.data.parallel import Runner, run_tasks
from music_diffusion.data.records import LISTENER
from music_diffusion.data.shards import Account, ShardMember, ShardPlan, write_shards
from music_diffusion.data.splits import assign_splits
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.types import StepProgress

HEARD_BEFORE = 2.0  # seconds; notes that ended less than this before a record are kept in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """Plan by which items become records."""

    codec: MelCodec = MelCodec()  # of the spectrograms
    frames: int = 2048  # of a record; the last of an item has 0.5 to 1.5 times that
    stems: bool = False  # keep the spectrograms of an item's stems, too
    validation: float = 0.05  # share of the items without a split of their own, 0..1
    silence_db: float = -60.0  # dBFS; items whose peak is below are left out
    suffix: str = records.ARRAY_RECORD  # or TF_RECORD
    listener: Listener | None = None  # hears the sources of pairs; see `data.listening`
    level: bool = False  # bring every item to one level (`conditions.heard.LEVEL`), as a listener does
    refuse: bool = False  # end with the first item that cannot be used, rather than skip it
    shards: int = 32  # of a split, at most
    seed: int = 0  # of the hashes that choose splits and shards
    workers: int = 2  # processes

    def __post_init__(self):
        if self.frames < 2 or self.shards < 1 or self.workers < 1:
            raise UserError(f"{self.frames=} must be at least 2, {self.shards=} and {self.workers=} 1")
        if not 0 < self.validation < 1:
            raise UserError(f"the share for validation, {self.validation}, must be between 0 and 1")
        if self.suffix not in (records.ARRAY_RECORD, records.TF_RECORD):
            raise UserError(f"records in {self.suffix!r}: choose array_record or tfrecord")

    def options(self) -> dict:
        """Returns the settings that the records depend on."""
        kept = ("frames", "stems", "validation", "silence_db", "suffix", "shards", "seed")
        heard: dict[str, Any] = {} if self.listener is None else {LISTENER: self.listener.identity()}
        heard |= {"level": LEVEL} if self.level else {}
        return {k: getattr(self, k) for k in kept} | {"codec": self.codec.to_dict()} | heard


def build(data_set: DataSet, name: str, plan: BuildPlan, destination: str, *,
          progress: StepProgress = lambda i, n: None, run: Runner = run_tasks) -> dict:
    """Writes shards and manifest; returns the manifest. Finished shards are kept.

    Args:
      data_set: the reader.
      name: of the data set, for the manifest.
      plan: how.
      destination: folder.
      progress: takes (finished shards, shards in all).
      run: see `data.shards.write_shards`.

    Raises:
      UserError: of the reader; see `write_shards`; with `plan.refuse` also the
        first item that cannot be used.
    """
    listing = data_set.list()
    if plan.refuse and listing.skipped:
        raise UserError("{}: {}".format(*listing.skipped[0]))
    shard_plan = ShardPlan(
        kind=records.EXAMPLES, maker=functools.partial(_messages, plan), shards=plan.shards,
        options={"data_set": name, "reader": dict(data_set.identity())} | plan.options(),
        seed=plan.seed, suffix=plan.suffix, refuse=plan.refuse, workers=plan.workers)
    splits = assign_splits(listing.items, plan.seed, plan.validation)
    members = [ShardMember(name=item.name, split=split, state=_state(item), content=item, shard=item.shard)
               for item, split in zip(listing.items, splits, strict=True)]
    members.sort(key=lambda member: member.name)  # however the reader comes across them
    return write_shards(shard_plan, members, destination, skipped=listing.skipped,
                        more={"data_set": name, "codec": plan.codec.to_dict()},
                        progress=progress, run=run)


def _state(item: Item) -> tuple:
    """Returns what the item's records depend on: how its sounds are made, sizes and times of its files."""
    stats = [os.stat(path) if os.path.exists(path) else None for path in item.files]
    made = json.dumps(_described((item.audio, item.source, item.stems)), default=str)
    return (item.performance, item.style, item.piece, item.velocities,
            hashlib.sha256(made.encode()).hexdigest()[:16],
            [[s.st_size, s.st_mtime_ns] if s else 0 for s in stats])


def _described(value: Any) -> Any:
    """Returns a sound as plain data, without functions and folders of files, which may move."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        without = unused(value)
        return {f.name: _described(getattr(value, f.name)) for f in dataclasses.fields(value)
                if f.name not in without}
    if isinstance(value, tuple | list):
        return [_described(v) for v in value]
    if isinstance(value, str):
        return os.path.basename(value)
    return None if callable(value) else value


def _notes(item: Item) -> Notes:
    """Reads the item's notes. Raises UserError, also where it should have some and has none."""
    if item.notes is None:
        return Notes.empty()
    try:
        notes = item.notes()
    except (ValueError, LookupError, EOFError) as e:  # of a file that its reader did not expect
        raise UserError(f"its notes cannot be read ({type(e).__name__}: {' '.join(str(e).split())}); "
                        "repair them, or leave it out") from e
    if not len(notes):
        raise UserError("has no notes; leave it out, or give it its notes")
    return notes


def _messages(plan: BuildPlan, member: ShardMember, account: Account) -> Iterator[bytes]:
    """Yields the records of one item, in order."""
    item: Item = member.content
    heard = None if plan.listener is None else hear(plan.listener, item, plan.codec)
    notes = _notes(item) if heard is None else heard.notes
    labels = {k: v for k in records.LABELS if (v := getattr(item, k)) is not None}
    step = plan.codec.hop / plan.codec.sample_rate
    tracks = [item.audio] + [s.audio for s in item.stems if plan.stems]
    if item.source is not None:
        tracks.append(item.source)
    threshold = 10 ** (plan.silence_db / 20)
    first = 0
    held: list[tuple[bytes, int, int]] = []  # until it is known that the item is not silent
    gains = None if heard is None else heard.gains(len(tracks))
    if gains is None and plan.level:
        gains = [gain_to_level(item.audio, plan.codec)[1]] * len(tracks)
    for (mel, *others), peak in _pieces(plan, tracks, gains):
        start, last = first * step, (first + len(mel)) * step
        source = others.pop() if item.source is not None else None
        record = records.Record(
            mel=mel, notes=notes.between(start - HEARD_BEFORE, last + 2 * step), start=start,
            **({} if heard is None else heard.part(first, len(mel))),
            source=source, labels=labels, stems=np.stack(others) if others else None,
            stem_programs=np.array([s.program for s in item.stems]) if others else None)
        begun = int(((notes.start >= start) & (notes.start < last)).sum())
        held.append((record.to_bytes(plan.suffix), len(mel), begun))
        first += len(mel)
        while peak >= threshold and held:
            message, frames, begun = held.pop(0)
            account.totals["seconds"] += frames * step
            account.totals["notes"] += begun
            account.lengths.append(frames)
            account.styles.append(item.style)
            for kind in labels.keys() & {"performance", "style"}:
                account.labels[kind].add(labels[kind])
            yield message
    if held or not first:
        account.totals["silent_seconds"] += first * step
        raise UserError(f"silent (peak below {plan.silence_db:g} dBFS); leave it out" if first
                        else "has no samples; leave it out")


def _pieces(plan: BuildPlan, tracks: Sequence[Sound], gains: Sequence[float] | None = None
            ) -> Iterator[tuple[list[Float[np.ndarray, "T F"]], float]]:
    """Yields spectrograms of all tracks, cut alike, with the first one's peak amplitude so far."""
    streams = [_Spectrogram(plan.codec, track, gain)
               for track, gain in zip(tracks, gains or [1.0] * len(tracks), strict=True)]
    while True:
        streams[0].fill(math.ceil(1.5 * plan.frames))
        count = len(streams[0])
        count = plan.frames if count >= 1.5 * plan.frames else count
        if not count:
            return
        for stream in streams[1:]:
            stream.fill(count)
        yield [stream.take(count) for stream in streams], streams[0].peak


class _Spectrogram:
    """Frames of a sound, read as they are needed; silence after its end."""

    def __init__(self, codec: MelCodec, sound: Sound, gain: float = 1.0):
        self._codec, self._mel, self._gain = codec, MelStream(codec), np.float32(gain)
        self._blocks = sound.blocks(codec.sample_rate)
        self._parts: list[np.ndarray] = []
        self._ended = False
        self.peak = 0.0

    def __len__(self) -> int:
        return sum(len(part) for part in self._parts)

    def fill(self, frames: int) -> None:
        """Reads until that many frames are there, or the end."""
        while not self._ended and len(self) < frames:
            block = next(self._blocks, None)
            self._ended = block is None
            if block is not None and len(block):
                self.peak = max(self.peak, float(np.abs(block).max()))
            self._parts.append(self._mel.finish() if block is None else
                               self._mel.push(block if self._gain == 1 else self._gain * block))

    def take(self, frames: int) -> Float[np.ndarray, "T F"]:
        """Returns the next frames."""
        mel = np.concatenate([np.zeros((0, self._codec.mels), np.float32), *self._parts])
        self._parts = [mel[frames:]]
        mel = mel[:frames]
        return np.pad(mel, ((0, frames - len(mel)), (0, 0)), constant_values=np.log(self._codec.clip_min))
