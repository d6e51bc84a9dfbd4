"""Excerpts of a record in memory, and pieces whose record holds what is drawn of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import Excerpt
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.data.records import Record
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.notes.frames import FrameGrid
from music_diffusion.notes.notes import Notes

MELS = 8
# Hops of 20 ms, of 10 2/3 ms and of 10 ms.
CODECS = (MelCodec(mels=MELS),
          MelCodec(mels=MELS, sample_rate=24000, hop=256, window=1024, fft=1024, fmax=12000.0),
          MelCodec(mels=MELS, sample_rate=44100, hop=441, window=1024, fft=1024, fmax=20000.0))
WEIGHTS = np.array([0.25, 0.0, 0.75], np.float32)  # of three performances


@dataclasses.dataclass(frozen=True, kw_only=True)
class InMemory:
    """Records by their numbers; implements `conditions.base.RecordSet`."""

    records: Sequence[Record]
    classes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    folder: str = "memory"

    def describe(self, record: int) -> str:
        return f"{self.folder}: record {record} of train"

    def another(self, kind, label, record, frames, rng):
        """The record before, from a frame that `rng` draws or from the first."""
        first = 0 if rng is None else int(rng.integers(5))
        return self.records[record - 1].mel[first:first + frames]

    def excerpt(self, number: int, first: int, frames: int, codec: MelCodec = CODECS[0], rng=None
                ) -> Excerpt:
        return Excerpt(record=self.records[number], number=number, first=first, frames=frames, codec=codec,
                       records=self, rng=rng)


def excerpt_of(record: Record, first: int, frames: int, codec: MelCodec = CODECS[0], **classes) -> Excerpt:
    """Of the only record of its set."""
    return InMemory(records=[record], classes=classes).excerpt(0, first, frames, codec)


def random_notes(seconds: float, count: int = 40, seed: int = 0) -> Notes:
    """Notes that begin within `seconds` and end at most 0.4 s later; some are drums."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, seconds, count)
    drum = rng.uniform(size=count) < 0.2
    return Notes(start, start + rng.uniform(0.0, 0.4, count), rng.integers(30, 90, count),
                 rng.integers(1, 128, count), np.where(drum, 0, rng.integers(0, 128, count)), drum)


def tiny_timbre(codec: MelCodec) -> tuple[NoteTimbreConfig, dict]:
    """A note timbre network whose three performances differ, and its random parameters."""
    config = NoteTimbreConfig(width=8, layers=1, codec=codec,
                              performances=PerformanceConfig(count=3, features=4))
    ids, seconds = np.zeros((1, 1), np.int32), np.zeros((1, 1))
    fresh = jax.eval_shape(NoteTimbre(config).init, jax.random.key(0), ids, ids, ids, seconds, seconds,
                           np.eye(3)[:1])["params"]
    rng = np.random.default_rng(0)
    return config, jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), fresh)


def mapped_record(config: NoteTimbreConfig, timbre: dict, notes: Notes, frames: int, ring: float) -> Record:
    """The record that training has of a piece: its maps, drawn at once, in single precision."""
    codec = config.codec
    grid = FrameGrid(hop=codec.hop / codec.sample_rate, half_window=codec.window / codec.sample_rate / 2,
                     tail=ring)
    maps = [draw_note_maps(config, timbre, notes, 0.0, frames, grid, weights)
            for weights in (WEIGHTS, None)]
    return Record(mel=np.zeros((frames, codec.mels)), notes=notes, maps=np.concatenate(maps, 1))
