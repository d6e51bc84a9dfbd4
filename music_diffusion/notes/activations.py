"""Notes ↔ what a transcriber says of every frame: onsets, sounding pitches, velocities, classes.

Onsets are regressed as in "High-resolution Piano Transcription with Pedals by
Regressing Onset and Offset Times" (Kong et al., 2021, section III-B): around
each onset the target is a triangle in time, so that the frames beside a peak
tell where in the frame the note begins.

Frame i is centred on (i + 0.5) * frame_seconds.
"""

from __future__ import annotations

import dataclasses

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
        """From R cells in any order: frame and pitch column [R], probability [R, 34]."""
        cell = pitch.astype(np.int64) * frames + frame
        order = np.argsort(cell)
        return cls(cell=cell[order], probability=probability[order], frames=frames)

    def rows(self, pitch: int, first: int, last: int) -> np.ndarray:
        """[last - first, 34] of one pitch column."""
        begin, end = np.searchsorted(self.cell, pitch * self.frames + np.array([first, last]))
        result = np.zeros((last - first, self.probability.shape[1]), self.probability.dtype)
        result[self.cell[begin:end] - pitch * self.frames - first] = self.probability[begin:end]
        return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Activations:
    """What is heard in each of T frames; all but `velocity` are 0..1 like probabilities."""

    onset: np.ndarray  # [T, 88] max(0, 1 - |centre - onset| / 0.05 s) of the nearest onset
    frame: np.ndarray  # [T, 88] does the pitch sound at the frame's centre?
    velocity: np.ndarray  # [T, 88] MIDI velocity / 127; meaningful where onset > 0
    drums: np.ndarray  # [T, 61] as `onset`, by drum key from 27
    # [T, 88, 34] does Slakh class k sound this pitch? Or these as bits, [T, 88, 5] uint8, packed
    # by np.packbits. None: instruments are not told apart.
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
    """Which pitches sound in which frames, whoever plays them; drums are left out.

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How activations become notes. Thresholds are the least values that count."""

    onset_threshold: float = 0.4
    frame_threshold: float = 0.5
    class_threshold: float = 0.5
    drum_threshold: float = 0.4
    min_seconds: float = 0.0  # shorter melodic notes are dropped
    gap_frames: int = 0  # a note goes on over so many frames below the threshold
    # A run of so many sounding frames begins a note even without an onset; 0: none does.
    frames_without_onset: int = 0
    velocity_without_onset: int = 64  # of such notes
    drum_velocity: int = 100
    drum_seconds: float = 0.05

    def __post_init__(self):
        for name in ("onset_threshold", "frame_threshold", "class_threshold", "drum_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        for name in ("min_seconds", "gap_frames", "frames_without_onset", "drum_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("velocity_without_onset", "drum_velocity"):
            if not 1 <= getattr(self, name) <= 127:
                raise ValueError(f"{name} must be in 1..127, got {getattr(self, name)}")


def decode_notes(activations: Activations, config: DecodeConfig) -> Notes:
    """The notes that activations speak of.

    A note begins where `onset` has a local maximum in time, at the time that
    its neighbours tell (Kong et al., 2021, eq. 9-11). It ends at the edge of
    the first frame in which the pitch is silent, or where the pitch begins
    anew. Its class probabilities are averaged over its frames, weighted by
    `frame`; every class above the threshold plays it, else the likeliest one.
    The program is the first of the class, or 0 where classes are unknown.

    What is lost: two instruments that share a pitch share its onsets and its
    end, and onsets of one pitch within 50 ms of each other are one.

    Args:
      activations: T frames.
      config: thresholds.

    Returns:
      Notes in seconds from the beginning of frame 0.
    """
    if not len(activations):
        return Notes.empty()
    drum, _, start = _peaks(activations.drums, config.drum_threshold, activations.frame_seconds)
    drums = Notes(
        start, start + config.drum_seconds, drum + LOWEST_DRUM,
        np.full(len(drum), config.drum_velocity), np.zeros(len(drum)), np.ones(len(drum), bool))
    return Notes.concatenate([_decode_melodic(activations, config), drums])


def _peaks(values: np.ndarray, threshold: float,
           frame_seconds: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima in time of values [T, P] → column, frame, seconds; by column, then frame."""
    frame, column = np.nonzero(values >= threshold)
    order = np.lexsort((frame, column))
    frame, column = frame[order], column[order]
    # A maximum among all frames that the triangle of one onset reaches.
    reach = max(1, int(ONSET_HALF_WIDTH / frame_seconds + 1e-6))
    near = frame[:, None] + np.arange(-reach, reach + 1)
    value = values[np.clip(near, 0, len(values) - 1), column[:, None]].astype(np.float64)
    value[(near < 0) | (near >= len(values))] = -np.inf
    peak = value[:, reach]
    # Of equal values the first.
    is_peak = (peak > value[:, :reach].max(1)) & (peak >= value[:, reach + 1:].max(1))
    column, frame, peak, value = column[is_peak], frame[is_peak], peak[is_peak], value[is_peak]
    # A triangle that peaks d frames after the centre has, with the slope s per frame, the values
    # p - s d and p - s (1 ± d) beside it: d is half the difference of the neighbours over the
    # larger fall. Where there is no neighbour, its value is what the true slope makes it.
    beside = value[:, [reach - 1, reach + 1]]
    beside = np.where(np.isinf(beside), peak[:, None] - frame_seconds / ONSET_HALF_WIDTH, beside)
    fall = peak - beside.min(1)
    difference = beside[:, 1] - beside[:, 0]
    shift = np.divide(difference, 2 * fall, out=np.zeros_like(fall), where=fall > 0)
    return column, frame, (frame + 0.5 + shift) * frame_seconds


def _decode_melodic(activations: Activations, config: DecodeConfig) -> Notes:
    hop, frames = activations.frame_seconds, len(activations)
    pitch, first, start = _peaks(activations.onset, config.onset_threshold, hop)
    velocity = np.rint(activations.velocity[first, pitch].astype(np.float64) * 127)
    # Frames of all pitches one after the other, in `width` places each: a place is a pitch and a
    # frame in one number.
    width = frames + 2
    place = pitch * width + first
    run, run_end = _runs(activations.frame, place, config)
    if config.frames_without_onset:
        next_onset = np.append(place, width * NUM_PITCHES)[np.searchsorted(place, run)]
        new = run[np.minimum(next_onset, run_end) - run >= config.frames_without_onset]
        place = np.concatenate([place, new])
        start = np.concatenate([start, new % width * hop])
        velocity = np.append(velocity, np.full(len(new), config.velocity_without_onset))
        order = np.argsort(place)
        place, start, velocity = place[order], start[order], velocity[order]
    pitch, first = np.divmod(place, width)
    own_end = run_end[np.searchsorted(run, place, side="right") - 1]
    last = np.minimum(own_end, np.append(place[1:], np.iinfo(np.int64).max)) - pitch * width
    # Where the sound goes on into the next onset, that is the end. An onset behind its frame's
    # centre may follow a rest: then the end is the edge of that frame.
    held = activations.frame[first, pitch] >= config.frame_threshold
    again = (place[1:] < own_end[:-1]) & held[1:]
    end = last * hop
    end[:-1] = np.where(again, start[1:], end[:-1])
    # A single frame whose onset lies at its end would have no duration.
    end = np.maximum(end, start + hop / 2)
    kept = end - start >= config.min_seconds
    start, end, pitch, velocity = start[kept], end[kept], pitch[kept], velocity[kept]
    # The frame of an onset behind its centre tells who played before.
    first = np.minimum(np.ceil(start / hop - 0.5).astype(np.int64), last[kept] - 1)
    note, program = _instruments(activations, pitch, first, last[kept], config.class_threshold)
    return Notes(start[note], end[note], pitch[note] + LOWEST_PITCH,
                 np.clip(velocity[note], 1, 127), program, np.zeros(len(note), bool))


def _runs(frame: np.ndarray, onsets: np.ndarray,
          config: DecodeConfig) -> tuple[np.ndarray, np.ndarray]:
    """First places of unbroken sound, and the places behind their last ones, ascending."""
    active = np.zeros((NUM_PITCHES, len(frame) + 2), bool)
    active[:, 1:-1] = frame.T >= config.frame_threshold
    active.ravel()[onsets + 1] = True  # an onset sounds, if only for a frame
    edge = np.flatnonzero(np.diff(active.ravel()))
    first, last = edge[0::2], edge[1::2]
    # Never across pitches: between the frames of two pitches lie two places.
    apart = first[1:] - last[:-1] > config.gap_frames
    apart |= first[1:] // active.shape[1] != first[:-1] // active.shape[1]
    return (first[np.concatenate([[True], apart])[:len(first)]],
            last[np.concatenate([apart, [True]])[:len(last)]])


def _class_rows(classes: np.ndarray | SparseClasses, pitch: int, first: int, last: int
                ) -> np.ndarray:
    """[last - first, 34] of one pitch."""
    if isinstance(classes, SparseClasses):
        return classes.rows(pitch, first, last)
    rows = classes[first:last, pitch]
    return np.unpackbits(rows, axis=-1, count=NUM_CLASSES) if rows.dtype == np.uint8 else rows


def _instruments(activations: Activations, pitch: np.ndarray, first: np.ndarray,
                 last: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Who plays the notes of frames [first, last) → index of the note, and program; [M >= N]."""
    if activations.classes is None:
        return np.arange(len(pitch)), np.zeros(len(pitch), np.int32)
    probability = np.zeros((len(pitch), NUM_CLASSES))
    for i, (p, a, b) in enumerate(zip(pitch.tolist(), first.tolist(), last.tolist(), strict=True)):
        classes = _class_rows(activations.classes, p, a, b)
        weight = activations.frame[a:b, p].astype(np.float64)
        total = weight.sum()
        weight = weight / total if total > 0 else np.full(b - a, 1 / (b - a))
        probability[i] = weight @ classes
    plays = probability >= threshold
    plays[np.arange(len(pitch)), probability.argmax(1)] |= ~plays.any(1)
    note, kind = np.nonzero(plays)
    return note, np.array([c.programs[0] for c in SLAKH_CLASSES], np.int32)[kind]
