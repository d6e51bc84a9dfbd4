"""A recording as it was heard, and the same notes on other instruments: conditions of timbre transfer.

Features, beside those of `conditions.note_frames` (see types.py for axes):

==================== ========= ==================================================
evidence             T E       the recording's scaled mel [F], and how surely onsets and pitches are
                               heard in it, 0..1 [2 P]
wanted               K         programs of the notes, the most frequent first; -1 for none
reference            D         embedding of what it should sound like, all 0 for nothing
style                S F       scaled mel of what it should sound like; see `conditions.style`
==================== ========= ==================================================

Everything is at one level (`level`): recordings are brought to it before they are heard, maps here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import HEARD, MAPS, SOURCE, Example, Excerpt, Given, Source
from music_diffusion.conditions.note_frames import (
    SILENT,
    NoteFramePiece,
    NoteFrames,
    frame_grid,
    louder,
)
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.conditions.style import STYLE_MEL, style_beside, style_cut
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import warn_if_crowded
from music_diffusion.notes.heard import CHANNELS, level
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Batch, Params

LEVEL = 2.0  # nat, of the spectrograms' frames
MOST_LOUDER = 4.0  # nat, by which a map is made louder or quieter at most
LEVEL_SECONDS = 60.0  # of a piece's map, from its first note on, that its level is measured by


def evidence_channels(codec: MelCodec) -> int:
    """Returns E."""
    return codec.mels + CHANNELS


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeardFrames(NoteFrames):
    """Notes on other instruments beside the recording that they were heard in.

    Implements `conditions.base.Conditions`. Records have been heard while they were prepared.
    """

    embedding: int = 128  # D
    wanted: int = 0  # K; 0: without the feature
    style_frames: int = 0  # S; 0: without the feature
    liked: float = 1.0  # share of training examples that have their reference; validation has all or none

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.liked <= 1:
            raise UserError(f"HeardFrames.liked = {self.liked} must be from 0 to 1")

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        notes = super().needs
        return (*notes, *(name for name in (MAPS, SOURCE, HEARD) if name not in notes))

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns the features of a training example. Raises UserError: the record was not heard."""
        record, codec = excerpt.record, excerpt.codec
        heard, source, maps = record.heard, record.source, record.maps
        if heard is None or source is None or maps is None:
            raise UserError(f"{excerpt.records.folder}: its records were not heard, or have no note maps; "
                            "prepare pairs with --heard, then `models note-maps`")
        maps = maps.astype(np.float32)
        by = louder_by(codec.unscale(maps[:, 0]), codec)
        record = dataclasses.replace(record, maps=louder(maps, by, codec))  # type: ignore[type-var]
        seen = evidence(excerpt.scaled(excerpt.part(source)), excerpt.padded(excerpt.part(heard), 0))
        notes = super().of_record(dataclasses.replace(excerpt, record=record))
        return notes | {"evidence": seen, "reference": self._liked(excerpt)} | self.programs(
            excerpt.record.notes) | ({
                STYLE_MEL: style_beside(excerpt, self.style_frames)} if self.style_frames else {})

    def programs(self, notes: Notes) -> Example:
        """Returns the feature `wanted` of a piece's notes, where it is asked for."""
        if not self.wanted:
            return {}
        found, times = np.unique(notes.program[~notes.is_drum], return_counts=True)
        first = found[np.argsort(-times, kind="stable")][:self.wanted].astype(np.int32)
        return {"wanted": np.pad(first, (0, self.wanted - len(first)), constant_values=-1)}

    def _liked(self, excerpt: Excerpt) -> Float[np.ndarray, " D"]:
        """Returns the mean embedding of the record beside the excerpt, where it is not all of it."""
        likes = excerpt.record.likes
        given = self.liked == 1 if excerpt.rng is None else excerpt.rng.random() < self.liked
        if likes is None or not given:
            return np.zeros(self.embedding, np.float32)
        place = (np.arange(len(likes)) + 0.5) / len(likes) * len(excerpt.record.mel)
        outside = (place < excerpt.first) | (place >= excerpt.first + excerpt.frames)
        return likes[outside if outside.sum() > 1 else slice(None)].astype(np.float32).mean(axis=0)

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Returns a recording that was heard; see `synthesis.transfer`. Raises UserError: it was not."""
        if not isinstance(given, Source) or given.mel is None or given.heard is None or given.notes is None:
            command = "restyle" if self.style_frames else "transfer"
            raise UserError(f"this model changes recordings: use {command}, which hears them first")
        if self.style_frames and given.style is None:
            raise UserError("this model needs a style's recording: use restyle")
        return given

    def of_piece(self, source: Source, params: Params) -> HeardPiece:
        """Returns the features of any windows; `params` has the note timbre network as `timbre`."""
        if source.notes is None or self.timbre is None:
            raise ValueError("rendering needs a note timbre network and notes")
        grid = frame_grid(source.codec, self.ring)
        warn_if_crowded(source.notes, 0.0, source.frames, grid)
        start = float(source.notes.start.min(initial=np.inf))
        by = 0.0
        if np.isfinite(start):
            frames = min(source.frames, round(LEVEL_SECONDS * source.codec.frame_rate))
            maps = draw_note_maps(self.timbre, params["timbre"], source.notes, start, frames, grid,
                                  source.performance)
            by = louder_by(source.codec.unscale(maps[:, 0]), source.codec)
        return HeardPiece(conditions=self, source=source, params=params, louder=by)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeardPiece(NoteFramePiece):
    """One recording and its notes on other instruments; implements `conditions.base.Piece`."""

    conditions: HeardFrames

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns the features of G windows, silent beyond the recording's end."""
        codec, mel, heard = self.source.codec, self.source.mel, self.source.heard
        if mel is None or heard is None or self.source.notes is None:
            raise ValueError("the source was not heard")

        def cut(values: np.ndarray, first: int, fill: float) -> np.ndarray:
            part = np.asarray(values[first:first + size])
            return np.pad(part, ((0, size - len(part)), (0, 0)), constant_values=fill)

        seen = [evidence(codec.scale(cut(mel, first, codec.log_min)), cut(heard, first, 0))
                for first in firsts]
        liked = self.source.reference
        if liked is None:
            liked = np.zeros(self.conditions.embedding)
        own = {"reference": liked.astype(np.float32)} | self.conditions.programs(self.source.notes)
        if self.source.style is not None and self.conditions.style_frames:
            own[STYLE_MEL] = style_cut(self.source.style, self.conditions.style_frames, codec)
        return dict(super().windows(firsts, size, before)) | {"evidence": np.stack(seen)} | {
            name: np.stack([value] * len(firsts)) for name, value in own.items()}


def evidence(scaled: Float[np.ndarray, "T F"], heard: np.ndarray) -> Float[np.ndarray, "T E"]:
    """Returns scaled mel and `heard` (`notes.heard.heard_frames`) side by side."""
    return np.concatenate([scaled.astype(np.float32), heard.astype(np.float32) / 255], axis=-1)


def louder_by(mel: Float[np.ndarray, "T F"], codec: MelCodec) -> float:
    """Returns the nat, up to MOST_LOUDER, by which log-mel is quieter than LEVEL; 0 of silence."""
    if not (mel > codec.log_min + SILENT).any():
        return 0.0
    return float(np.clip(LEVEL - level(mel), -MOST_LOUDER, MOST_LOUDER))
