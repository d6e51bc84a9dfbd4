"""Notes as MT3's event tokens, with the segment before where a model reads it.

Features (see types.py for axes):

==================== ========= ==================================================
inputs               N         int32 note tokens, 0 for padding
targets_context      T F       scaled mel of the T frames before; zeros where they are not known
targets_context_mask T         1, or all 0 there
performance          int32     number of the record's performance; [R] weights while rendering
==================== ========= ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import (
    NOTES,
    PERFORMANCE,
    ConditionsBase,
    Example,
    Excerpt,
    Given,
    Source,
)
from music_diffusion.conditions.opening import notes_source
from music_diffusion.conditions.performance_numbers import (
    PerformanceNumbers,
    performance_of_windows,
)
from music_diffusion.conditions.regions import stays_of_windows
from music_diffusion.errors import UserError
from music_diffusion.notes.events import encode_segment, pad
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.vocabulary import EventConfig
from music_diffusion.types import Batch, Params


class TooManyEventsError(UserError):
    """A segment has more events than a model takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteTokens(ConditionsBase):
    """Conditions of the token models; implements `conditions.base.Conditions`."""

    events: EventConfig = EventConfig()
    tokens: int = 2048  # N, ids that a segment is padded to
    context: bool = False  # whether the segment before is a condition, too
    performance: PerformanceNumbers | None = None  # of training examples; None: they have none

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        performed = self.performance is not None and self.performance.only is None
        return (NOTES, *([PERFORMANCE] if performed else ()))

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes as they are numbered; see `Conditions.check`."""
        return classes if self.performance is None else self.performance.check(classes, folder)

    def of_notes(self, notes: Notes, start: float, frames: int, codec: MelCodec) -> Example:
        """Returns `inputs` [N] of the frames from `start` seconds on.

        Raises:
          TooManyEventsError: there are more than `tokens` events.
          UserError: the frames do not begin and end at steps of the tokens, or are too many.
        """
        end = start + frames / codec.frame_rate
        rate, most = self.events.steps_per_second, self.events.segment_steps
        steps = np.array([start, end]) * rate
        if np.abs(steps - np.rint(steps)).max() > 1e-4 or np.ptp(steps) > most + 0.5:
            raise UserError(f"{frames} frames of {1 / codec.frame_rate:g} s from {start:g} s on: tokens "
                            f"come in steps of 1/{rate} s, at most {most} of them; choose a codec and "
                            "frames that fit, or another EventConfig")
        ids = encode_segment(notes, start, end, config=self.events)
        if len(ids) > self.tokens:
            raise TooManyEventsError(f"{len(ids)} events between {start:.2f} and {end:.2f} s are more than "
                                     f"the model's {self.tokens} tokens: thin out the notes there, or "
                                     "raise NoteTokens.tokens to train with more")
        return {"inputs": pad([ids], self.tokens)[0][0]}

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns the features of a training example."""
        record = excerpt.record
        try:
            example = self.of_notes(record.notes, excerpt.start, excerpt.frames, excerpt.codec)
        except TooManyEventsError as e:
            raise TooManyEventsError(f"{excerpt.records.describe(excerpt.number)}: {e}") from e
        if self.context:
            whole = excerpt.first >= excerpt.frames
            known = record.mel[excerpt.first - excerpt.frames:excerpt.first] if whole else None
            before = None if known is None else excerpt.scaled(known)
            example |= _context(before, (excerpt.frames, record.mel.shape[1]))
        if self.performance is not None:
            example |= self.performance.of_record(excerpt)
        return example

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Reads notes or a MIDI file; see `Conditions.open`."""
        return notes_source(given, codec, tail)

    def of_piece(self, source: Source, params: Params) -> NoteTokenPiece:
        """Returns the features of any windows; no parameter plays a part."""
        return NoteTokenPiece(conditions=self, source=source)


def _context(before: Float[np.ndarray, "T F"] | None, shape: tuple[int, int]) -> Example:
    known = np.float32(before is not None)
    return {"targets_context": np.zeros(shape, np.float32) if before is None else before,
            "targets_context_mask": np.full(shape[0], known)}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NoteTokenPiece:
    """The notes of one piece; implements `conditions.base.Piece`."""

    conditions: NoteTokens
    source: Source

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        return self.source.frames

    def windows(self, firsts: Sequence[int], size: int,
                before: Float[np.ndarray, "G W F"] | None = None) -> Batch:
        """Returns `inputs` of G windows, `performance`, what stays, and with context that of `before`.

        Raises UserError: a window has more events than the model takes, or begins between two steps
        of its tokens.
        """
        c, codec = self.conditions, self.source.codec
        windows = []
        for number, first in enumerate(firsts):
            example = self._tokens(first, size)
            if c.context:
                known = None if before is None else np.asarray(before[number])
                example |= _context(known, (size, codec.mels))
            windows.append(example)
        batch = {name: np.stack([w[name] for w in windows]) for name in windows[0]}
        return batch | performance_of_windows(self.source.performance, len(firsts)) | dict(stays_of_windows(
            self.source, firsts, size))

    def _tokens(self, first: int, size: int) -> Example:
        notes, c = self.source.notes, self.conditions
        if notes is None:
            raise ValueError("token models render notes")
        start = first / self.source.codec.frame_rate
        steps = start * c.events.steps_per_second
        if abs(steps - round(steps)) > 1e-4:
            raise UserError(f"segments that begin at {start:g} s: this model's notes come in steps of "
                            f"1/{c.events.steps_per_second} s; take another --overlap")
        return c.of_notes(notes, start, size, self.source.codec)
