"""Frame-aligned note features for frame-wise denoisers.

Frame i of a segment that begins at `start` is centred on
start + (i + 1) * hop seconds: the codec's window of two hops begins at sample
i * hop (see `audio.codec`).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM

DRUMS = 128  # "program" of every drum note in slot features
NUM_CLASSES = DRUM_CLASS + 1  # MT3's instrument classes and the drums
ROLL_CHANNELS = 3 * 128 + 2 * NUM_CLASSES


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Where the frames lie, in seconds."""

    hop: float = 0.02  # seconds from frame to frame
    half_window: float = 0.02  # seconds from a frame's centre to its window's edge
    tail: float = 2.0  # seconds a released note is still listed

    def __post_init__(self):
        if not (self.hop > 0 and self.half_window > 0 and self.tail >= 0):
            raise ValueError(f"{self.hop=}, {self.half_window=} must be > 0 and {self.tail=} >= 0")

    def centres(self, start: float, frames: int) -> np.ndarray:
        """Centres of the frames in seconds, [T]."""
        return start + (np.arange(frames) + 1) * self.hop


def _heard(notes: Notes, start: float, frames: int, grid: FrameGrid) -> Notes:
    last = start + frames * grid.hop + max(grid.hop, grid.half_window)
    return notes.between(start - grid.tail - grid.hop, last + grid.hop)


def note_states(notes: Notes, start: float, frames: int, grid: FrameGrid) -> dict[str, np.ndarray]:
    """Every note in every frame that hears it, as R rows in order of frames.

    Args:
      notes: absolute times.
      start: seconds, time of the segment's first sample.
      frames: T.
      grid: frame times and tail.

    Returns:
      `frame` (0..T-1), `program` (0..127, DRUMS), `pitch`, `velocity` [R]
      int32; `age` and `release`, seconds since onset and since note-off [R]
      float32 (negative before).
    """
    notes = _heard(notes, start, frames, grid)
    centre = grid.centres(start, frames)
    # Frames in which age > -half_window and release < tail, as ranges.
    first = np.searchsorted(centre, notes.start - grid.half_window, side="right")
    last = np.searchsorted(centre, notes.end + grid.tail, side="left")
    count = np.maximum(last - first, 0)
    note = np.repeat(np.arange(len(notes)), count)
    frame = np.arange(len(note)) - np.repeat(np.cumsum(count) - count, count) + first[note]
    order = np.argsort(frame, kind="stable")
    note, frame = note[order], frame[order]
    at = centre[frame]
    program = np.where(notes.is_drum, DRUMS, notes.program)
    return {
        "frame": frame.astype(np.int32), "program": program[note].astype(np.int32),
        "pitch": notes.pitch[note], "velocity": notes.velocity[note],
        "age": (at - notes.start[note]).astype(np.float32),
        "release": (at - notes.end[note]).astype(np.float32)}


def slot_features(notes: Notes, start: float, frames: int, grid: FrameGrid,
                  slots: int | None = None) -> dict[str, np.ndarray]:
    """The notes heard in each frame, listed in P slots.

    Args:
      notes, start, frames, grid: as in `note_states`.
      slots: P; None takes as many as the fullest frame needs (at least 1).
        With fewer slots than notes, sounding notes stay before ringing ones,
        then the latest begun or released; `dropped` counts the rest.

    Returns:
      `program` (0..127, DRUMS; -1 in an empty slot), `pitch`, `velocity`
      [T, P] int32; `age`, `release` [T, P] float32; `dropped` int32 [].
    """
    states = note_states(notes, start, frames, grid)
    frame = states.pop("frame")
    count = np.bincount(frame, minlength=frames)
    if slots is None:
        slots = max(1, int(count.max(initial=0)))
    ringing = states["release"] >= 0
    since = np.where(ringing, states["release"], states["age"])
    order = np.lexsort((since, ringing, frame))
    slot = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
    kept = slot < slots
    order, slot = order[kept], slot[kept]
    result = {}
    for name, values in states.items():
        result[name] = np.full((frames, slots), -1 if name == "program" else 0, values.dtype)
        result[name][frame[order], slot] = values[order]
    return result | {"dropped": np.int32(np.maximum(count - slots, 0).sum())}


def roll_features(notes: Notes, start: float, frames: int, grid: FrameGrid) -> np.ndarray:
    """Onset, sounding, instrument class and velocity as rolls.

    Returns:
      [T, C] float32 with C = 3 * 128 + 2 * NUM_CLASSES: by pitch, the loudest
      onset and the loudest sounding melodic note (velocity / 127) and the
      loudest drum onset by key; by instrument class (35 with drums), onset
      and sounding alike.
    """
    notes = _heard(notes, start, frames, grid)
    # Softest first: of values that are written to one place, the last one stays.
    order = np.argsort(notes.velocity, kind="stable")
    onset, end, pitch, drum = (a[order] for a in (notes.start, notes.end, notes.pitch, notes.is_drum))
    loud = (notes.velocity[order] / 127.0).astype(np.float32)
    kind = np.where(drum, DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM[notes.program[order]])
    on = np.floor((onset - start) / grid.hop).astype(int)
    off = np.maximum(np.ceil((end - start) / grid.hop).astype(int), on + 1)
    out = np.zeros((frames, ROLL_CHANNELS), np.float32)

    first, last = np.clip(on, 0, frames), np.clip(off, 0, frames)
    count = last - first
    note = np.repeat(np.arange(len(on)), count)
    frame = np.arange(len(note)) - np.repeat(np.cumsum(count) - last, count)
    out[frame, 384 + NUM_CLASSES + kind[note]] = loud[note]
    melodic = ~drum[note]
    note, frame = note[melodic], frame[melodic]
    out[frame, 128 + pitch[note]] = loud[note]

    begun = (on >= 0) & (on < frames)
    out[on[begun], (np.where(drum, 256, 0) + pitch)[begun]] = loud[begun]
    out[on[begun], 384 + kind[begun]] = loud[begun]
    return out
