"""Conditions that are spectrograms, and no condition at all.

Features (see types.py for axes):

=========== ===== ==================================================
source      T F   scaled mel of the same music in another timbre
style       T F   scaled mel of another record of the same style
style_label int32 the style's number among those of the records
=========== ===== ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import (
    SOURCE,
    STYLE,
    ConditionsBase,
    Example,
    Excerpt,
    Given,
    Source,
    numbered,
)
from music_diffusion.conditions.opening import recording_source
from music_diffusion.errors import UserError
from music_diffusion.types import Batch, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing(ConditionsBase):
    """No condition; implements `conditions.base.Conditions`."""

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns no features."""
        return {}

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Takes a source that says how long the piece is."""
        if isinstance(given, Source):
            return given
        raise UserError("this model makes sound from nothing: say how long, not what")

    def of_piece(self, source: Source, params: Params) -> NoPiece:
        """Returns a piece without features."""
        return NoPiece(frames=source.frames)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoPiece:
    """A piece without conditions; implements `conditions.base.Piece`."""

    frames: int

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns no features."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceSpectrogram(ConditionsBase):
    """The music in another timbre; implements `conditions.base.Conditions`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        return (SOURCE,)

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns `source` [T, F]. Raises UserError where the record has no second timbre."""
        if excerpt.record.source is None:
            raise UserError(f"{excerpt.records.folder}: its records have no second timbre; prepare "
                            "starnet, or soundfont in pairs")
        return {"source": excerpt.scaled(excerpt.part(excerpt.record.source))}

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Reads a recording; see `Conditions.open`."""
        return recording_source(given, codec)

    def of_piece(self, source: Source, params: Params) -> SpectrogramPiece:
        """Returns the features of any windows; no parameter plays a part."""
        return SpectrogramPiece(source=source)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SpectrogramPiece:
    """The spectrogram of a recording; implements `conditions.base.Piece`."""

    source: Source

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        return self.source.frames

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns `source` [G, W, F], silent beyond the recording's end. `before` plays no part."""
        codec, mel = self.source.codec, self.source.mel
        if mel is None:
            raise ValueError("the source has no recording")
        floor = np.float32(np.log(codec.clip_min))
        parts = [mel[first:first + size] for first in firsts]
        padded = [np.pad(p, ((0, size - len(p)), (0, 0)), constant_values=floor) for p in parts]
        return {"source": codec.scale(np.stack(padded)).astype(np.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleSpectrogram(ConditionsBase):
    """Another recording of the same style; implements `conditions.base.RecordConditions`."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        return (STYLE,)

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes. Raises UserError where there are no styles."""
        numbered(classes, STYLE, folder)
        return classes

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns `style` [T, F] and its number."""
        label = excerpt.label(STYLE)
        mel = excerpt.records.another(STYLE, label, excerpt.number, excerpt.frames, excerpt.rng)
        return {"style": excerpt.scaled(mel), "style_label": np.array(label, np.int32)}
