"""Made-up training batches, as the data of a recipe would give them, without the data."""

from __future__ import annotations

import functools

import numpy as np

from music_diffusion.data.audio_source import AudioSource
from music_diffusion.data.note_features import Example, FrameFeatures, NoteFeatures
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.data.pipeline import (
    MixtureSource,
    NoteRowSource,
    PerformedNoteSource,
    RecordSource,
)
from music_diffusion.data.recording_source import RecordingSource
from music_diffusion.data.synthetic import SyntheticSource
from music_diffusion.notes.notes import Notes
from music_diffusion.training.config import DataSource
from music_diffusion.types import Batch
from music_diffusion.workflows.benchmark.piece import piece

DISTINCT = 16  # examples, which come again in larger batches
NOTES = 4  # of a made-up segment: they fit into any number of tokens
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
def _(source: RecordSource, rng: np.random.Generator) -> Example:
    def mel() -> np.ndarray:
        return rng.uniform(-1, 1, (source.frames, source.codec.mels)).astype(np.float32)

    performed = source.performance or source.performance_count or source.only_performance is not None
    example = {"targets": mel()}
    if source.context:
        example |= {"targets_context": mel(),
                    "targets_context_mask": np.ones(source.frames, np.float32)}
    if isinstance(source.features, FrameFeatures) and not source.features.slots:
        example["maps"] = np.stack([mel(), mel()], axis=1)  # what then stands for the slots
        if performed:  # a model may want them; one that does not leaves them
            example["base_maps"] = np.stack([mel(), mel()], axis=1)
    if source.features is not None:
        seconds = source.frames * source.codec.hop / source.codec.sample_rate
        example |= _of_notes(source.features, seconds, source.frames)
    if performed:
        example["performance"] = np.array(0, np.int32)
    if source.tails:
        example["tails"] = np.stack([mel() for _ in source.tails], axis=1)
    if source.source:
        example["source"] = mel()
    if source.style:
        example |= {"style": mel(), "style_label": np.array(0, np.int32)}
    return example


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


def _of_notes(features: NoteFeatures, seconds: float, frames: int) -> Example:
    return _filled(features(_notes(seconds), 0.0, frames))


def _notes(seconds: float) -> Notes:
    return piece(seconds)[:NOTES]


def _filled(example: Example) -> Example:
    """With the note tokens again and again where padding was."""
    if "inputs" in example:
        ids = example["inputs"]
        example["inputs"] = np.resize(ids[ids > 0], ids.shape)
    return example
