"""Notes aligned with frames: a map of the score on the mel axis, rolls, and tails of rooms.

Features (see types.py for axes):

==================== ========= ==================================================
roll                 T C       onset, sounding and instrument class rolls
slot_program … (5)   T P       note slots, for the map; while training, without maps
maps                 T 2 F     the scaled map of all notes, and of those in their first frames
base_maps            T 2 F     the same without performance, where it may be dropped
tails                T K F     scaled tails of the first map (`audio.tails`)
performance          int32     number of the record's performance; [R] weights while rendering
==================== ========= ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.tails import energy_tails, lead_frames
from music_diffusion.conditions.base import (
    MAPS,
    NOTES,
    PERFORMANCE,
    ConditionsBase,
    Example,
    Excerpt,
    Given,
    Source,
)
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.conditions.opening import notes_source
from music_diffusion.conditions.performance_numbers import (
    PerformanceNumbers,
    performance_of_windows,
)
from music_diffusion.conditions.regions import stays_of_windows
from music_diffusion.errors import UserError
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.notes.frames import FrameGrid, roll_features, slot_features, warn_if_crowded
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Batch, Params

SILENT = 0.02  # nat above the codec's floor, within which a bin is silent
ROUNDING = 1.0  # seconds of notes around a window that are looked at beyond what it hears


def louder(scaled: Float[np.ndarray, "*N F"], nat: float, codec: MelCodec) -> Float[np.ndarray, "*N F"]:
    """Returns scaled mel that is louder by so many nat; what is silent stays so."""
    if not nat:
        return scaled
    mel = codec.unscale(scaled)
    return np.where(mel > codec.log_min + SILENT, codec.scale(mel + np.float32(nat)), scaled)


def frame_grid(codec: MelCodec, ring: float) -> FrameGrid:
    """Returns where a codec's frames lie, for notes that ring for `ring` seconds after their end."""
    return FrameGrid(hop=codec.hop / codec.sample_rate, tail=ring,
                     half_window=codec.window / codec.sample_rate / 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteFrames(ConditionsBase):
    """Conditions of the frame-wise models; implements `conditions.base.Conditions`."""

    slots: int = 32  # P, note slots a frame of training examples; 0 where records have maps
    ring: float = 2.0  # seconds that a released note is still listed
    tails: tuple[float, ...] = ()  # decay times of rooms, seconds; records have maps then
    performance: PerformanceNumbers | None = None  # of training examples; None: they have none
    # What draws the maps while rendering; a model gives its own.
    timbre: NoteTimbreConfig | None = None
    base_maps: bool = False  # whether maps without performance are drawn, too

    def __post_init__(self):
        if self.slots < 0 or not self.ring >= 0:
            raise UserError(f"NoteFrames needs {self.slots=} and {self.ring=} of at least 0")

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns what records must have."""
        performed = self.performance is not None and self.performance.only is None
        return (NOTES, *([MAPS] if self.tails else ()), *([PERFORMANCE] if performed else ()))

    def mapped(self) -> NoteFrames:
        """Returns these conditions without slots, which the maps stand for."""
        return dataclasses.replace(self, slots=0)

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes as they are numbered; see `Conditions.check`."""
        return classes if self.performance is None else self.performance.check(classes, folder)

    def of_notes(self, notes: Notes, start: float, frames: int, codec: MelCodec, *, slots: int = 0
                 ) -> Example:
        """Returns `roll` [T, C] and, with slots, `slot_*` [T, P] of the frames from `start` seconds on."""
        grid = frame_grid(codec, self.ring)
        example = {"roll": roll_features(notes, start, frames, grid)}
        if slots:
            listed = slot_features(notes, start, frames, grid, slots)
            listed.pop("dropped")  # the oldest tails
            example |= {f"slot_{k}": v for k, v in listed.items()}
        return example

    def lead(self, first: int, codec: MelCodec) -> int:
        """Returns how many frames before frame `first` are still heard in it, because of the tails."""
        return min(first, lead_frames(self.tails, codec)) if self.tails else 0

    def tails_of(self, whole: Float[np.ndarray, "t F"], lead: int, codec: MelCodec
                 ) -> Float[np.ndarray, "T K F"]:
        """Returns scaled tails of a scaled map, of which `lead` frames lie before the first wanted one."""
        return codec.scale(energy_tails(codec.unscale(whole), self.tails, codec))[lead:]

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns the features of a training example."""
        record, codec = excerpt.record, excerpt.codec
        example = self.of_notes(record.notes, excerpt.start, excerpt.frames, codec, slots=self.slots)
        if record.maps is not None:
            maps = excerpt.padded(excerpt.part(record.maps).astype(np.float32), excerpt.silence)
            example["maps"] = maps[:, :2]
            if maps.shape[1] > 2:
                example["base_maps"] = maps[:, 2:]
        if self.tails:
            example["tails"] = self._recorded_tails(excerpt)
        if self.performance is not None:
            example |= self.performance.of_record(excerpt)
        return example

    def _recorded_tails(self, excerpt: Excerpt) -> np.ndarray:
        maps = excerpt.record.maps
        if maps is None:
            raise UserError(f"{excerpt.records.folder}: its records have no note maps, which tails are "
                            "of; add them (`models note-maps`)")
        lead = self.lead(excerpt.first, excerpt.codec)
        whole = maps[excerpt.first - lead:excerpt.first + excerpt.frames, 0].astype(np.float32)
        tails = self.tails_of(whole, lead, excerpt.codec).astype(np.float32)
        return excerpt.padded(tails, excerpt.silence)

    def open(self, given: Given, codec: MelCodec, tail: float) -> Source:
        """Reads notes or a MIDI file; see `Conditions.open`."""
        return notes_source(given, codec, tail)

    def of_piece(self, source: Source, params: Params) -> NoteFramePiece:
        """Returns the features of any windows; `params` has the note timbre network as `timbre`."""
        if source.notes is not None:
            warn_if_crowded(source.notes, 0.0, source.frames, frame_grid(source.codec, self.ring))
        return NoteFramePiece(conditions=self, source=source, params=params)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NoteFramePiece:
    """The notes of one piece; implements `conditions.base.Piece`."""

    conditions: NoteFrames
    source: Source
    params: Params
    louder: float = 0.0  # nat, by which the maps are louder than they are drawn

    @property
    def frames(self) -> int:
        """Returns the number of frames of the spectrogram."""
        return self.source.frames

    def windows(self, firsts: Sequence[int], size: int, before: np.ndarray | None = None) -> Batch:
        """Returns `maps`, `roll`, `base_maps`, `tails` and `performance` of G windows, and what stays.

        All are drawn once for the span of the windows, which overlap. `before` plays no part.
        """
        c, codec, notes = self.conditions, self.source.codec, self.source.notes
        if c.timbre is None or notes is None:
            raise ValueError("rendering needs a note timbre network and notes")
        span, lead = firsts[-1] + size - firsts[0], c.lead(firsts[0], codec)
        # Rounded as in `Excerpt.start`: an onset on a frame's edge must not be in another frame here.
        begin, start, end = (frame * codec.hop / codec.sample_rate
                             for frame in (firsts[0] - lead, firsts[0], firsts[0] + span))
        # Only a part of the piece is looked at, so a group costs the same in any piece.
        heard = notes.between(begin - c.ring - ROUNDING, end + ROUNDING)
        grid, timbre = frame_grid(codec, c.ring), self.params["timbre"]
        maps = louder(draw_note_maps(c.timbre, timbre, heard, begin, lead + span, grid,
                                     self.source.performance), self.louder, codec)
        features = {"maps": maps[lead:]} | c.of_notes(heard, start, span, codec)
        if c.base_maps:
            features["base_maps"] = louder(draw_note_maps(c.timbre, timbre, heard, start, span, grid),
                                           self.louder, codec)
        if c.tails:
            features["tails"] = c.tails_of(maps[:, 0], lead, codec)
        cut = {name: np.stack([values[first - firsts[0]:][:size] for first in firsts])
               for name, values in features.items()}
        return cut | performance_of_windows(self.source.performance, len(firsts)) | dict(stays_of_windows(
            self.source, firsts, size))
