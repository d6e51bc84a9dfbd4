"""Conditions: what a member of the zoo is conditioned on, for training and for rendering.

A `Conditions` object turns a part of a record into the features of a training example, and a source
(notes, a recording, or nothing) into a `Piece` that gives the features of any windows of it. Both go
through the same code, so that a model hears while rendering what it has learned from.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, Self, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import MidiFile
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig
from music_diffusion.types import Batch, Params

Example = dict[str, np.ndarray]
# What records may have beside their spectrogram: `Conditions.needs` are of these.
NOTES, MAPS, SOURCE, PERFORMANCE, STYLE = "notes", "maps", "source", "performance", "style"
HEARD = "heard"  # the notes are those that are heard in the source, with how surely, and its like


class Record(Protocol):
    """A piece of spectrogram with what is known of it (`data.records.Record`)."""

    @property
    def mel(self) -> np.ndarray:
        """Returns log-mel [T, F] in nat."""
        ...

    @property
    def notes(self) -> Notes:
        """Returns its notes, on the time axis of `start`."""
        ...

    @property
    def start(self) -> float:
        """Returns the time of the first frame's first sample, in the notes' seconds."""
        ...

    @property
    def maps(self) -> np.ndarray | None:
        """Returns note maps, [T, 2, F] or [T, 4, F] scaled; see `data.note_maps`."""
        ...

    @property
    def source(self) -> np.ndarray | None:
        """Returns [T, F] nat of the same notes in another timbre."""
        ...

    @property
    def heard(self) -> np.ndarray | None:
        """Returns [T, 2 P] uint8, how surely onsets and pitches are heard in the source (`notes.heard`)."""
        ...

    @property
    def likes(self) -> np.ndarray | None:
        """Returns embeddings [n, D] of its sound, evenly spread over it."""
        ...

    @property
    def labels(self) -> Mapping[str, str]:
        """Returns the names of its performance, style and piece, by kind."""
        ...


class RecordSet(Protocol):
    """Records that an excerpt is from."""

    @property
    def folder(self) -> str:
        """Returns where they are."""
        ...

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        """Returns the names of performances and styles, by kind, in the order of their numbers."""
        ...

    def describe(self, record: int) -> str:
        """Returns words for a record, to name it in messages."""
        ...

    def another(self, kind: str, label: int, record: int, frames: int,
                rng: np.random.Generator | None) -> Float[np.ndarray, "t F"]:
        """Returns up to `frames` of log-mel (nat) of another record with the same label.

        Where `record` is the only one it is taken; without `rng` the choice depends on it alone.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Excerpt:
    """Excerpt of T frames of a record; what lies beyond the record's end is silence."""

    record: Record
    number: int  # the record's place in its set
    first: int  # the excerpt's first frame in the record
    frames: int  # T
    codec: MelCodec  # of the spectrograms
    records: RecordSet
    rng: np.random.Generator | None = None  # chooses what is left open; None: the same every time

    @property
    def start(self) -> float:
        """Returns the time of the first frame's first sample, in seconds of the notes' time axis."""
        return self.record.start + self.first * self.codec.hop / self.codec.sample_rate

    def part(self, values: np.ndarray) -> np.ndarray:
        """Returns the excerpt's frames of an array [T_record, ...], fewer at the record's end."""
        return values[self.first:self.first + self.frames]

    def padded(self, values: np.ndarray, fill: float) -> np.ndarray:
        """Returns `values` [t, ...] with `fill` behind, [T, ...]."""
        missing = self.frames - len(values)
        if not missing:
            return values
        return np.pad(values, [(0, missing)] + [(0, 0)] * (values.ndim - 1), constant_values=fill)

    def scaled(self, mel: np.ndarray) -> Float[np.ndarray, "T F"]:
        """Returns log-mel [t, F] in nat as scaled mel with silence behind."""
        floor = float(np.log(self.codec.clip_min))
        return self.codec.scale(self.padded(mel.astype(np.float32), floor)).astype(np.float32)

    @property
    def silence(self) -> float:
        """Returns the scaled mel of silence."""
        return float(self.codec.scale(np.log(np.float32(self.codec.clip_min))))

    def label(self, kind: str) -> int:
        """Returns the number of the record's performance or style. Raises UserError: it has none."""
        classes, label = self.records.classes.get(kind, ()), self.record.labels.get(kind)
        if label not in classes:
            raise UserError(f"{self.records.describe(self.number)} has no {kind}")
        return classes.index(label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Source that a piece is rendered from; which parts are there depends on the member."""

    codec: MelCodec  # of the spectrogram to be made
    frames: int  # its length
    notes: Notes | None = None
    mel: Float[np.ndarray, "T F"] | None = None  # a recording, log-mel in nat
    performance: Float[np.ndarray, " R"] | None = None  # weights of the rows of a model's table
    heard: np.ndarray | None = None  # [T, 2 P] uint8 of the recording; see `notes.heard`
    reference: Float[np.ndarray, " D"] | None = None  # embedding of what it should sound like
    style: Float[np.ndarray, "S F"] | None = None  # log-mel in nat of a recording that it should sound like
    classes: Float[np.ndarray, " K"] | None = None  # weights of the classes of a model that has such
    region: Bool[np.ndarray, "T F"] | None = None  # cells of `mel` that stay; None: all are made anew
    span: tuple[int, int] | None = None  # first frame that is made, and the one behind the last; None: all
    name: str = ""  # path of the file, if it was one
    ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)  # see `notes.midi.MidiFile`
    warnings: tuple[str, ...] = ()  # what is wrong with the file


# What a user may give to render from: notes, a recording, a file of either, or nothing.
Given: TypeAlias = Notes | MidiFile | Waveform | Source | str | os.PathLike | None


class Piece(Protocol):
    """The conditions of one piece."""

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        ...

    def windows(self, firsts: Sequence[int], size: int,
                before: Float[np.ndarray, "G W F"] | None = None) -> Batch:
        """Returns the features of G windows of `size` frames, each array [G, ...].

        Args:
          firsts: first frames of the windows, ascending; they may reach beyond the piece.
          size: W, frames of a window.
          before: scaled mel of the W frames before each window, for members with context; None
            where nothing is known of them.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Span:
    """A span of a piece; implements `Piece`."""

    piece: Piece
    first: int  # frame of the piece
    frames: int

    def windows(self, firsts: Sequence[int], size: int,
                before: Float[np.ndarray, "G W F"] | None = None) -> Batch:
        """Returns the features of windows that begin at frames of the span."""
        return self.piece.windows([self.first + first for first in firsts], size, before)


class RecordConditions(Protocol):
    """Conditions of a training example, beside its target. Frozen, hashable, configured by gin."""

    @property
    def events(self) -> EventConfig | None:
        """Returns the vocabulary of its note tokens; None without any."""
        ...

    @property
    def needs(self) -> Collection[str]:
        """Returns what records must have: some of NOTES, MAPS, SOURCE, HEARD, PERFORMANCE and STYLE."""
        ...

    def mapped(self) -> RecordConditions:
        """Returns the conditions for records that have their note maps already."""
        ...

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes of a folder of records as these conditions number them.

        Raises UserError: the folder's records have no such classes, or others.
        """
        ...

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns the features of a training example, its `targets` apart."""
        ...


class ConditionsBase:
    """Answers of conditions that need nothing of records."""

    events: EventConfig | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns that nothing is needed beside the spectrogram."""
        return ()

    def mapped(self) -> Self:
        """Returns the same conditions."""
        return self

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes as they are."""
        return classes


class Conditions(RecordConditions, Protocol):
    """Conditions of a member, while training and while rendering."""

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Reads what a user gives.

        Args:
          given: notes, a recording, a file, or a source as it is.
          codec: of the spectrogram to be made.
          tail: seconds that go on after the last note has ended.

        Raises:
          UserError: it is missing, unreadable or of another kind.
        """
        ...

    def of_piece(self, source: Source, params: Params) -> Piece:
        """Returns the features of any windows of a source; `params` are the whole model's."""
        ...


def numbered(classes: Mapping[str, Sequence[str]], kind: str, folder: str) -> None:
    """Raises UserError where the records of a folder have no classes of a kind."""
    if not classes.get(kind):
        raise UserError(f"{folder}: its records have no {kind}; prepare a data set that has it "
                        "(see `prepare sets`), or leave this feature out")
