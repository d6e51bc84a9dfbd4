"""Content, the pitches that should be heard, and style, the sound that they should have.

Features (see types.py for axes):

======= ===== ==================================================
content T E   how surely onsets and pitches are heard in the content, 0..1 [2 P], and how loud a frame
              is, scaled as mel is
style   S F   scaled mel of a recording that is, or sounds, like the target
source  T F   scaled mel of the content; while rendering only
======= ===== ==================================================

All recordings are at one level (`conditions.heard.LEVEL`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.base import HEARD, ConditionsBase, Example, Excerpt, Given, Source
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import CHANNELS
from music_diffusion.types import Batch, Mel, Params

CONTENT, STYLE_MEL, CONTENT_MEL = "content", "style", "source"
CONTENT_FEATURES = CHANNELS + 1  # E
NEAR = 3.5  # nat (30 dB) below a recording's loudest frame, where it still plays


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentAndStyle(ConditionsBase):
    """Pitches that are heard, and a stretch of another recording; implements `conditions.base.Conditions`.

    A training example's style is another part of the same record.
    """

    style_frames: int = 256  # S

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        return (HEARD,)

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns `content` and `style`. Raises UserError: the record was not heard."""
        record, codec = excerpt.record, excerpt.codec
        if record.heard is None:
            raise UserError(f"{excerpt.records.folder}: its records were not heard; prepare with --heard")
        heard_in = record.mel if record.source is None else record.source
        content = content_features(excerpt.padded(excerpt.part(record.heard), 0),
                                   excerpt.padded(excerpt.part(heard_in), codec.log_min), codec)
        return {CONTENT: content, STYLE_MEL: style_beside(excerpt, self.style_frames)}

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Returns a source that was heard, or is a length alone. Raises UserError: it is neither."""
        if not isinstance(given, Source) or given.mel is not None and given.heard is None:
            raise UserError("this model restyles recordings: use restyle, which hears them first")
        return given

    def of_piece(self, source: Source, params: Params) -> RestyledPiece:
        """Returns the features of any windows; no parameter plays a part."""
        if source.style is None:
            return RestyledPiece(source=source)
        return RestyledPiece(source=source, style=style_cut(source.style, self.style_frames, source.codec))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RestyledPiece:
    """A content, or none, in a style, or none; implements `conditions.base.Piece`."""

    source: Source
    style: Float[np.ndarray, "S F"] | None = None  # scaled

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        return self.source.frames

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns the features of G windows, silent beyond the content's end; of what is not given none."""
        codec, mel, heard = self.source.codec, self.source.mel, self.source.heard
        batch = {}
        if mel is not None and heard is not None:
            pairs = [(_cut(heard, first, size, 0), _cut(mel, first, size, codec.log_min))
                     for first in firsts]
            batch[CONTENT] = np.stack([content_features(*pair, codec) for pair in pairs])
            batch[CONTENT_MEL] = np.stack([codec.scale(part) for _, part in pairs]).astype(np.float32)
        if self.style is not None:
            batch[STYLE_MEL] = np.stack([self.style] * len(firsts))
        return batch


def _cut(values: np.ndarray, first: int, size: int, fill: float) -> np.ndarray:
    part = np.asarray(values[first:first + size])
    return np.pad(part, ((0, size - len(part)), (0, 0)), constant_values=fill)


def content_features(heard: np.ndarray, mel: Mel, codec: MelCodec) -> Float[np.ndarray, "T E"]:
    """Returns activations (`notes.heard.heard_frames`) beside the scaled level of log-mel in nat."""
    energy = np.square(np.exp(mel.astype(np.float32))).mean(axis=-1, keepdims=True)
    loud = codec.scale(0.5 * np.log(np.maximum(energy, codec.clip_min**2)))
    return np.concatenate([heard.astype(np.float32) / 255, loud.astype(np.float32)], axis=-1)


def style_beside(excerpt: Excerpt, frames: int) -> Float[np.ndarray, "S F"]:
    """Returns a scaled stretch of the excerpt's record, drawn from those that lie beside it, if any."""
    mel, last = excerpt.record.mel, len(excerpt.record.mel) - frames
    starts = np.arange(max(last, 0) + 1)
    apart = (starts + frames <= excerpt.first) | (starts >= excerpt.first + excerpt.frames)
    starts = starts[apart] if apart.any() else starts
    first = int(starts[len(starts) // 2] if excerpt.rng is None else excerpt.rng.choice(starts))
    style = repeated(mel[first:first + frames].astype(np.float32), frames)
    return excerpt.codec.scale(style).astype(np.float32)


def style_cut(mel: Mel, frames: int, codec: MelCodec) -> Float[np.ndarray, "S F"]:
    """Returns the stretch of a style's log-mel in nat that the model sees, scaled; see `most_played`."""
    return codec.scale(most_played(mel, frames, codec)).astype(np.float32)


def repeated(mel: Mel, frames: int) -> Mel:
    """Returns so many frames: those of `mel`, again and again. Raises ValueError: there are none."""
    if not len(mel):
        raise ValueError("there are no frames to repeat")
    return np.tile(mel, (-(-frames // len(mel)), 1))[:frames]


def most_played(mel: Mel, frames: int, codec: MelCodec) -> Mel:
    """Returns the stretch of so many frames in which most frames are near the loudest of log-mel in nat.

    Of equal ones the first; what is shorter is repeated.
    """
    loud = 0.5 * np.log(np.maximum(np.exp(2 * mel.astype(np.float32)).mean(axis=-1), codec.clip_min**2))
    played = np.concatenate([[0], np.cumsum(loud > loud.max() - NEAR)])
    if len(mel) <= frames:
        return repeated(mel, frames)
    first = int((played[frames:] - played[:-frames]).argmax())
    return mel[first:first + frames]
