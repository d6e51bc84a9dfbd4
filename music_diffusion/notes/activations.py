"""Notes → what a transcriber should say of every frame: onsets, sounding pitches, velocities, classes.

The way back is `notes.decoding`.

Onsets are regressed as in "High-resolution Piano Transcription with Pedals by
Regressing Onset and Offset Times" (Kong et al., 2021, section III-B): around
each onset the target is a triangle in time, so that the frames beside a peak
tell where in the frame the note begins.

Frame i is centred on (i + 0.5) * frame_seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM, SLAKH_CLASSES

LOWEST_PITCH, NUM_PITCHES = 21, 88  # the keys of a piano, A0..C8
LOWEST_DRUM, NUM_DRUMS = 27, 61  # drum keys 27..87
NUM_CLASSES = len(SLAKH_CLASSES)
CLASS_BYTES = -(-NUM_CLASSES // 8)
ONSET_HALF_WIDTH = 0.05  # seconds from the peak of an onset's triangle to its foot


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SparseClasses:
    """Class probabilities of R cells of an hour-long roll, most of which is silent.

    In order of pitch, then of frame; what is not listed is 0.
    """

    cell: np.ndarray  # [R] int64, pitch column * frames + frame; ascending
    probability: np.ndarray  # [R, 34]
    frames: int  # T

    @classmethod
    def gather(cls, frame: np.ndarray, pitch: np.ndarray, probability: np.ndarray,
               frames: int) -> SparseClasses:
        """Gathers R cells that come in any order: frame and pitch column [R], probability [R, 34]."""
        cell = pitch.astype(np.int64) * frames + frame
        order = np.argsort(cell)
        return cls(cell=cell[order], probability=probability[order], frames=frames)

    @classmethod
    def concatenate(cls, parts: Sequence[SparseClasses]) -> SparseClasses:
        """One after the other in time; at least one."""
        first = np.cumsum([0, *(part.frames for part in parts)])
        pitch, frame = (np.concatenate(x) for x in zip(*(
            np.divmod(part.cell, part.frames) for part in parts), strict=True))
        frame += np.repeat(first[:-1], [len(part.cell) for part in parts])
        return cls.gather(frame, pitch, np.concatenate([p.probability for p in parts]), int(first[-1]))

    def rows(self, pitch: int, first: int, last: int) -> np.ndarray:
        """[last - first, 34] of one pitch column."""
        begin, end = np.searchsorted(self.cell, pitch * self.frames + np.array([first, last]))
        result = np.zeros((last - first, self.probability.shape[1]), self.probability.dtype)
        result[self.cell[begin:end] - pitch * self.frames - first] = self.probability[begin:end]
        return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activations:
    """Activations of each of T frames; all but `velocity` are 0..1 like probabilities."""

    onset: np.ndarray  # [T, 88] max(0, 1 - |centre - onset| / 0.05 s) of the nearest onset
    frame: np.ndarray  # [T, 88] does the pitch sound at the frame's centre?
    velocity: np.ndarray  # [T, 88] MIDI velocity / 127; meaningful where onset > 0
    drums: np.ndarray  # [T, 61] as `onset`, by drum key from 27
    # [T, 88, 34] does Slakh class k sound this pitch? Or these as bits, [T, 88, 5] uint8, packed
    # by np.packbits. None: instruments are not distinguished.
    classes: np.ndarray | SparseClasses | None
    frame_seconds: float = 0.02

    def __post_init__(self):
        frames = len(self.onset)
        shapes = {"onset": (NUM_PITCHES,), "frame": (NUM_PITCHES,), "velocity": (NUM_PITCHES,),
                  "drums": (NUM_DRUMS,)}
        if isinstance(self.classes, np.ndarray):
            packed = self.classes.dtype == np.uint8
            shapes["classes"] = (NUM_PITCHES, CLASS_BYTES if packed else NUM_CLASSES)
        for name, rest in shapes.items():
            shape = getattr(self, name).shape
            if shape != (frames, *rest):
                raise ValueError(f"{name} has shape {shape}, expected {(frames, *rest)}")
        if not self.frame_seconds > 0:
            raise ValueError(f"{self.frame_seconds=} must be > 0")

    def __len__(self) -> int:
        """T."""
        return len(self.onset)

    @classmethod
    def concatenate(cls, parts: Sequence[Activations]) -> Activations:
        """One after the other; at least one, all with sparse classes."""
        names = ("onset", "frame", "velocity", "drums")
        classes = [part.classes for part in parts if isinstance(part.classes, SparseClasses)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
                   classes=SparseClasses.concatenate(classes), frame_seconds=parts[0].frame_seconds)


def draw_activations(notes: Notes, start: float, frames: int,
                     frame_seconds: float = 0.02) -> Activations:
    """The activations that a perfect transcriber would give: its training targets.

    A note covers the frames whose centres lie in [start, end), and at least
    the frame that holds its onset. Where triangles of one pitch overlap, the
    larger value counts, and its note's velocity (of equal ones the loudest);
    the velocity is 0 where there is no triangle. Onsets up to 50 ms outside
    the crop reach into it. Pitches outside 21..108 and drum keys outside
    27..87 are left out.

    Args:
      notes: [N] notes of the whole piece, at their own times.
      start: seconds, time where frame 0 begins.
      frames: T >= 1.
      frame_seconds: seconds from frame to frame.

    Returns:
      float32 arrays; `classes` packed, [T, 88, 5] uint8.
    """
    notes = notes.between(start - ONSET_HALF_WIDTH - frame_seconds,
                          start + frames * frame_seconds + ONSET_HALF_WIDTH)
    # With one frame before and one after, so that a note that begins in the last frame behind
    # its centre is not taken for one that covers no frame.
    centres = start + (np.arange(-1, frames + 1) + 0.5) * frame_seconds
    drums = _within(notes, notes.is_drum, LOWEST_DRUM, NUM_DRUMS)
    drum_onset, _ = _onsets(drums, centres, LOWEST_DRUM, NUM_DRUMS)
    notes = _within(notes, ~notes.is_drum, LOWEST_PITCH, NUM_PITCHES)
    onset, velocity = _onsets(notes, centres, LOWEST_PITCH, NUM_PITCHES)
    frame, classes = _sounding(notes, centres)
    inside = slice(1, -1)
    return Activations(onset=onset[inside], frame=frame[inside], velocity=velocity[inside],
                       drums=drum_onset[inside], classes=classes[inside],
                       frame_seconds=frame_seconds)


def _within(notes: Notes, mask: np.ndarray, lowest: int, count: int) -> Notes:
    return notes[mask & (notes.pitch >= lowest) & (notes.pitch < lowest + count)]


def _onsets(notes: Notes, centres: np.ndarray, lowest: int,
            count: int) -> tuple[np.ndarray, np.ndarray]:
    """Triangles around onsets and their velocities, both [len(centres), count] float32."""
    onset = np.zeros((len(centres), count), np.float32)
    velocity = np.zeros_like(onset)
    reach = int(2 * ONSET_HALF_WIDTH / (centres[1] - centres[0])) + 2
    first = np.searchsorted(centres, notes.start - ONSET_HALF_WIDTH)
    frame = first[:, None] + np.arange(reach)  # [N, reach]
    distance = np.abs(centres[np.minimum(frame, len(centres) - 1)] - notes.start[:, None])
    value = 1 - distance / ONSET_HALF_WIDTH
    note, column = np.nonzero((value > 0) & (frame < len(centres)))
    frame, value = frame[note, column], value[note, column]
    # Of several values assigned to one element NumPy keeps the last: the largest.
    order = np.lexsort((notes.velocity[note], value))
    at = frame[order], notes.pitch[note[order]] - lowest
    onset[at] = value[order]
    velocity[at] = notes.velocity[note[order]] / 127
    return onset, velocity


def _sounding(notes: Notes, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`frame` [T, 88] float32 and packed `classes` [T, 88, 5] uint8, T = len(centres)."""
    note, covered = _covered(notes, centres)
    at = covered, notes.pitch[note] - LOWEST_PITCH
    frame = np.zeros((len(centres), NUM_PITCHES), np.float32)
    frame[at] = 1
    classes = np.zeros((len(centres), NUM_PITCHES, CLASS_BYTES), np.uint8)
    kind = SLAKH_CLASS_OF_PROGRAM[notes.program]
    bit = np.uint8(128) >> (kind % 8).astype(np.uint8)  # np.packbits begins with the highest
    np.bitwise_or.at(classes, (*at, (kind // 8)[note]), bit[note])
    return frame, classes


def _covered(notes: Notes, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a note and a frame in which it sounds → indices of both, [R] each."""
    first = np.searchsorted(centres, notes.start)
    last = np.searchsorted(centres, notes.end)
    # Too short to meet a centre: the frame that holds the onset is the one before or after it.
    hop = centres[1] - centres[0]
    holding = np.floor((notes.start - centres[0]) / hop + 0.5).astype(np.int64)
    short = (first >= last) & (holding >= 0) & (holding < len(centres))
    first, last = np.where(short, holding, first), np.where(short, holding + 1, last)
    length = np.maximum(last - first, 0)
    note = np.repeat(np.arange(len(notes)), length)
    return note, np.arange(len(note)) - np.repeat(np.cumsum(length) - length - first, length)


def pitch_roll(notes: Notes, frame_seconds: float, frames: int | None = None) -> np.ndarray:
    """Returns which pitches sound in which frames, whoever plays them; drums are left out.

    Args:
      notes: [N] notes; each covers frames as in `draw_activations`.
      frame_seconds: seconds from frame to frame.
      frames: T; None takes as many as the notes need.

    Returns:
      [T, 128] bool.
    """
    if not frame_seconds > 0:
        raise ValueError(f"{frame_seconds=} must be > 0")
    notes = notes[~notes.is_drum]
    if frames is None:
        last_onset = notes.start.max(initial=-frame_seconds)
        frames = max(int(np.ceil(notes.duration / frame_seconds)),
                     int(np.floor(last_onset / frame_seconds)) + 1)
    # One frame more on both sides, as in `draw_activations`.
    note, frame = _covered(notes, (np.arange(-1, frames + 1) + 0.5) * frame_seconds)
    roll = np.zeros((frames + 2, 128), bool)
    roll[frame, notes.pitch[note]] = True
    return roll[1:-1]
