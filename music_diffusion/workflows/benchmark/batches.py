"""Made-up training batches, as the data of a recipe would give them, without the data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import (
    HEARD,
    MAPS,
    PERFORMANCE,
    STYLE,
    Example,
    Excerpt,
    RecordConditions,
)
from music_diffusion.conditions.regions import ClassAndRegion
from music_diffusion.data.audio_source import AudioSource
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.data.pipeline import (
    MixtureSource,
    NoteRowSource,
    PerformedNoteSource,
    RecordSource,
)
from music_diffusion.data.recording_source import RecordingSource
from music_diffusion.data.records import Record
from music_diffusion.data.style_pictures import FRAMES, PICTURE_CODEC, PicturePairSource
from music_diffusion.data.synthetic import SyntheticSource
from music_diffusion.notes.heard import CHANNELS
from music_diffusion.notes.notes import Notes
from music_diffusion.training.config import DataSource
from music_diffusion.types import Batch
from music_diffusion.workflows.benchmark.piece import piece

DISTINCT = 16  # examples, which come again in larger batches
NOTES = 4  # of a made-up segment: they fit into any number of tokens
CLASSES: Mapping[str, Sequence[str]] = {PERFORMANCE: ("a",), STYLE: ("a",)}  # of made-up records
# What `RecordingSource` knows of a file besides its notes.
ROW = {"file": "", "split": "train", "soundfont": "", "rt60": "0.5"}


def made_up_batch(source: DataSource, size: int) -> Batch:
    """`size` examples with the shapes and dtypes of the source's; their values are random.

    Note tokens fill all places that a segment has for them. A source of a kind that
    is not known here gives its own first batch.
    """
    if _example.dispatch(type(source)) is _example.dispatch(object):
        return next(source.train_iterator(size, 0))
    made = [_example(source, np.random.default_rng(i)) for i in range(min(size, DISTINCT))]
    return {k: np.resize(np.stack([e[k] for e in made]), (size, *made[0][k].shape)) for k in made[0]}


@functools.singledispatch
def _example(source: object, rng: np.random.Generator) -> Example:
    raise TypeError(f"{type(source).__name__} is not known here")


@_example.register
def _(source: PicturePairSource, rng: np.random.Generator) -> Example:
    return {name: rng.uniform(-1, 1, (FRAMES, PICTURE_CODEC.mels)).astype(np.float32)
            for name in ("targets", "style")}


@_example.register
def _(source: RecordSource, rng: np.random.Generator) -> Example:
    def mel(*more: int) -> np.ndarray:
        return rng.uniform(-1, 1, (source.frames, *more, source.codec.mels)).astype(np.float32)

    conditions, frames = source.conditions, source.frames
    maps = None
    if MAPS in conditions.needs or conditions.mapped() == conditions:
        # A model may want the maps without performance, too; one that does not leaves them.
        maps = mel(4 if PERFORMANCE in conditions.needs else 2)
    heard = rng.integers(0, 256, (frames, CHANNELS), np.uint8) if HEARD in conditions.needs else None
    record = Record(mel=source.codec.unscale(mel()), source=source.codec.unscale(mel()), maps=maps,
                    heard=heard, notes=_notes(frames / source.codec.frame_rate),
                    labels=dict.fromkeys(CLASSES, "a") | _class(conditions, rng))
    excerpt = Excerpt(record=record, number=0, first=0, frames=frames, codec=source.codec,
                      records=_MadeUpRecords(rng, source.codec), rng=rng)
    return {"targets": mel()} | _filled(conditions.of_record(excerpt))


def _class(conditions: RecordConditions, rng: np.random.Generator) -> dict[str, str]:
    """Returns a style that the conditions know, if they name any."""
    if not isinstance(conditions, ClassAndRegion) or not conditions.classes:
        return {}
    return {STYLE: conditions.classes[rng.integers(len(conditions.classes))]}


@_example.register
def _(source: MixtureSource, rng: np.random.Generator) -> Example:
    return _example(source.sources[0], rng)


@_example.register
def _(source: SyntheticSource, rng: np.random.Generator) -> Example:
    return _filled(source.segment(int(rng.integers(100))))


@_example.register
def _(source: NoteRowSource, rng: np.random.Generator) -> Example:
    row: Example = {name: np.array(rng.integers(100), np.int32) for name in ROW_DTYPE.names or ()}
    row |= {name: np.array(rng.uniform(0, 2), np.float32) for name in ("age", "release")}
    return row | {"mel": rng.uniform(-11, 4, ROW_DTYPE["mel"].shape).astype(np.float32)}


@_example.register
def _(source: PerformedNoteSource, rng: np.random.Generator) -> Example:
    rows = [_example(NoteRowSource(folder=""), rng) for _ in range(source.group)]
    count = source.performance_count or 1
    return {k: np.stack([row[k] for row in rows]) for k in rows[0]} | {
        "performance": np.eye(count, dtype=np.float32)[0]}


@_example.register
def _(source: AudioSource, rng: np.random.Generator) -> Example:
    return {"audio": rng.uniform(-0.1, 0.1, source.samples).astype(np.float32)}


@_example.register
def _(source: RecordingSource, rng: np.random.Generator) -> Example:
    seconds = source.samples / source.sample_rate
    audio = rng.uniform(-0.1, 0.1, source.samples).astype(np.float32)
    return {"audio": audio} | source.features(_notes(seconds), 0.0, seconds, ROW)


@dataclasses.dataclass(frozen=True)
class _MadeUpRecords:
    """The set that a made-up record is of; implements `conditions.base.RecordSet`."""

    rng: np.random.Generator
    codec: MelCodec
    folder: ClassVar[str] = "made-up records"
    classes: ClassVar[Mapping[str, Sequence[str]]] = CLASSES

    def describe(self, record: int) -> str:
        return self.folder

    def another(self, kind: str, label: int, record: int, frames: int, rng: object) -> np.ndarray:
        return self.codec.unscale(self.rng.uniform(-1, 1, (frames, self.codec.mels)).astype(np.float32))


def _notes(seconds: float) -> Notes:
    return piece(seconds)[:NOTES]


def _filled(example: Example) -> Example:
    """Returns the example with its note tokens again and again where padding was."""
    if "inputs" in example:
        ids = example["inputs"]
        example["inputs"] = np.resize(ids[ids > 0], ids.shape)
    return example
