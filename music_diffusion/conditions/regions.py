"""Conditions of what is generated freely: a class, and a part of the spectrogram that is given.

Features (see types.py for axes):

======== ====== ==================================================
class    int32  number of the record's class; [K] weights while rendering, all 0 for none
given    T F    scaled mel of a recording; while rendering only
region   T F    1 where the recording stays, else 0; while rendering only
======== ====== ==================================================
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import (
    STYLE,
    ConditionsBase,
    Example,
    Excerpt,
    Given,
    Source,
    numbered,
)
from music_diffusion.errors import UserError
from music_diffusion.types import Batch, Params

CLASS, GIVEN, REGION = "class", "given", "region"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassAndRegion(ConditionsBase):
    """Conditions of the unconditional member; implements `conditions.base.Conditions`."""

    classes: tuple[str, ...] = ()  # names, in the order of their numbers; (): there are none
    context: int = 0  # frames that a segment is given of the one before

    def __post_init__(self):
        if len(set(self.classes)) < len(self.classes):
            raise UserError(f"ClassAndRegion: {self.classes=} has a name twice")

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        return (STYLE,) if self.classes else ()

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes. Raises UserError where the folder's styles are not among these."""
        if self.classes:
            numbered(classes, STYLE, folder)
            self._check(set(classes[STYLE]), folder)
        return classes

    def _check(self, names: set[str], folder: str) -> None:
        if unknown := sorted(names - set(self.classes)):
            raise UserError(f"{folder}: {', '.join(unknown[:5])}: not among the classes of this model; "
                            f"give CLASSES = {tuple(sorted(names))}")

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns the class of a training example, if there are such."""
        if not self.classes:
            return {}
        name = excerpt.record.labels.get(STYLE, "")
        self._check({name}, excerpt.records.folder)
        return {CLASS: np.array(self.classes.index(name), np.int32)}

    def number(self, name: str) -> int:
        """Returns the number of a class. Raises UserError: there is none, with the nearest names."""
        if name in self.classes:
            return self.classes.index(name)
        if not self.classes:
            raise UserError(f"--class {name}: this model has no classes; leave it out")
        near = difflib.get_close_matches(name, self.classes, 3, 0.5) or self.classes
        raise UserError(f"--class {name}: unknown; choose {', '.join(near)}")

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Takes a source that says how long the piece is, and what of it is given."""
        if isinstance(given, Source):
            return given
        raise UserError("this model makes sound from nothing: say how long, not what")

    def of_piece(self, source: Source, params: Params) -> RegionPiece:
        """Returns the features of any windows; no parameter plays a part."""
        return RegionPiece(source=source, classes=len(self.classes), context=self.context)


def region_windows(source: Source, firsts: Sequence[int], size: int) -> Batch:
    """Returns `given` and `region` [G, W, F] of windows; beyond the recording nothing is given."""
    codec = source.codec
    given = np.full((len(firsts), size, codec.mels), codec.scale(np.float32(codec.log_min)), np.float32)
    region = np.zeros_like(given)
    if source.mel is not None:
        for k, first in enumerate(firsts):
            part = source.mel[first:first + size]
            given[k, :len(part)] = codec.scale(part)
            if source.region is not None:
                region[k, :len(part)] = source.region[first:first + size]
    return {GIVEN: given, REGION: region}


def stays_of_windows(source: Source, firsts: Sequence[int], size: int) -> Batch:
    """Returns `region_windows` of a source of which a part stays; of others nothing."""
    return {} if source.region is None else region_windows(source, firsts, size)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RegionPiece:
    """A piece that is generated; implements `conditions.base.Piece`."""

    source: Source
    classes: int  # K
    context: int = 0

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        return self.source.frames

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns `class`, `given` and `region` of G windows.

        Of `before` the last frames, as many as the context has, are the first that are given.
        """
        batch = dict(region_windows(self.source, firsts, size))
        if before is not None and self.context:
            batch[GIVEN][:, :self.context] = before[:, -self.context:]
            batch[REGION][:, :self.context] = 1
        if self.classes:
            given = self.source.classes
            weights = np.zeros(self.classes, np.float32) if given is None else given
            batch[CLASS] = np.broadcast_to(weights, (len(firsts), self.classes))
        return batch
