"""Frame-aligned note features for frame-wise denoisers.

Frame i of a segment that begins at `start` is centred on
start + (i + 1) * hop seconds: the codec's window of two hops begins at sample
i * hop (see `audio.codec`).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np

from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM

DRUMS = 128  # "program" of every drum note in slot features
NUM_CLASSES = DRUM_CLASS + 1  # MT3's instrument classes and the drums
ROLL_CHANNELS = 3 * 128 + 2 * NUM_CLASSES
# Notes of a frame that note maps are drawn of. A full orchestra has up to 332 of them, most of them
# released; what has more ("black MIDI") would take any amount of time.
VOICES = 512
ROWS = 2**21  # rows that are looked at in one go
AGING = 3.0  # dB a second by which a note that is held falls behind a new one
RINGING = 60.0  # dB by which a released note falls over the tail


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameGrid:
    """Places of the frames, in seconds."""

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


def note_states(notes: Notes, start: float, frames: int, grid: FrameGrid,
                voices: int | None = None) -> dict[str, np.ndarray]:
    """Every note in every frame that hears it, as R rows in order of frames.

    Args:
      notes: absolute times.
      start: seconds, time of the segment's first sample.
      frames: T.
      grid: frame times and tail.
      voices: most notes of a frame; None: all. Where there are more, the loudest and newest are
        taken, as synthesizers do (`_loudness`); `left_out` counts the others.

    Returns:
      `frame` (0..T-1), `program` (0..127, DRUMS), `pitch`, `velocity` [R]
      int32; `age` and `release`, seconds since onset and since note-off [R]
      float32 (negative before).
    """
    notes = _heard(notes, start, frames, grid)
    centre = grid.centres(start, frames)
    first, last = _ranges(notes, centre, grid)
    heard = _counts(first, last, frames)
    if voices is None or heard.max(initial=0) <= voices:
        note, frame = _rows(first, last, 0, frames)
    else:
        parts = [_loudest(notes, centre, grid, *_rows(first, last, a, b), voices)
                 for a, b in _portions(heard)]
        note, frame = (np.concatenate(part) for part in zip(*parts, strict=True))
    at = centre[frame]
    program = np.where(notes.is_drum, DRUMS, notes.program)
    return {
        "frame": frame.astype(np.int32), "program": program[note].astype(np.int32),
        "pitch": notes.pitch[note], "velocity": notes.velocity[note],
        "age": (at - notes.start[note]).astype(np.float32),
        "release": (at - notes.end[note]).astype(np.float32)}


def _ranges(notes: Notes, centre: np.ndarray, grid: FrameGrid) -> tuple[np.ndarray, np.ndarray]:
    """Frames in which age > -half_window and release < tail: first, and the one behind the last; [N]."""
    first = np.searchsorted(centre, notes.start - grid.half_window, side="right")
    last = np.searchsorted(centre, notes.end + grid.tail, side="left")
    return first, np.maximum(last, first)


def _counts(first: np.ndarray, last: np.ndarray, frames: int) -> np.ndarray:
    """Notes of every frame, [T]."""
    begun, over = (np.bincount(at, minlength=frames + 1) for at in (first, last))
    return np.cumsum(begun - over)[:frames]


def _portions(heard: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of frames with about ROWS notes in all, or of one frame."""
    first, total = 0, 0
    for frame, count in enumerate(heard.tolist()):
        if total and total + count > ROWS:
            yield first, frame
            first, total = frame, 0
        total += count
    yield first, len(heard)


def _rows(first: np.ndarray, last: np.ndarray, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """(note, frame) of the frames begin to end, in order of frames, then of notes."""
    first, last = np.clip(first, begin, end), np.clip(last, begin, end)
    count = last - first
    note = np.repeat(np.arange(len(first)), count)
    frame = np.arange(len(note)) - np.repeat(np.cumsum(count) - count, count) + first[note]
    order = np.argsort(frame, kind="stable")
    return note[order], frame[order]


def _loudest(notes: Notes, centre: np.ndarray, grid: FrameGrid, note: np.ndarray, frame: np.ndarray,
             voices: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of at most so many notes of a frame, in their order."""
    at = centre[frame]
    loudness = _loudness(notes.velocity[note], at - notes.start[note], at - notes.end[note], grid)
    order = np.lexsort((-loudness, frame))
    count = np.bincount(frame - frame[0])
    rank = np.arange(len(frame)) - np.repeat(np.cumsum(count) - count, count)
    kept = np.sort(order[rank < voices])
    return note[kept], frame[kept]


def _loudness(velocity: np.ndarray, age: np.ndarray, release: np.ndarray, grid: FrameGrid) -> np.ndarray:
    """About how loud a note is by now, in dB: General MIDI's curve of velocities, less what it has lost."""
    lost = AGING * np.maximum(age, 0) + RINGING * np.maximum(release, 0) / max(grid.tail, grid.hop)
    return 40 * np.log10(velocity / 127) - lost


def left_out(notes: Notes, start: float, frames: int, grid: FrameGrid, voices: int = VOICES
             ) -> tuple[int, int, int]:
    """Counts what `note_states` leaves out: frames with too many notes, the most of a frame, and rows."""
    heard = _heard(notes, start, frames, grid)
    counts = _counts(*_ranges(heard, grid.centres(start, frames), grid), frames)
    return (int((counts > voices).sum()), int(counts.max(initial=0)),
            int(np.maximum(counts - voices, 0).sum()))


def warn_if_crowded(notes: Notes, start: float, frames: int, grid: FrameGrid) -> None:
    """Warns once about the notes of a piece that are too many to be drawn; see `note_states`."""
    crowded, most, rows = left_out(notes, start, frames, grid)
    if crowded:
        warnings.warn(
            f"up to {most} notes sound or ring at once; in {crowded * grid.hop:.1f} s only the {VOICES} "
            f"loudest and newest are heard, and {rows / crowded:.0f} others of a frame are left out",
            stacklevel=2)


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
