"""The pedals that hold notes (sustain and sostenuto), written into the ends of notes."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.notes.notes import Notes

SUSTAIN_CONTROL = 64  # MIDI controller number of the damper pedal
SOSTENUTO_CONTROL = 66
PEDAL_DOWN = 64  # controller values from here on mean "down"

Intervals = tuple[np.ndarray, np.ndarray]  # from when to when a pedal is down, ascending


@dataclasses.dataclass(frozen=True)
class Pedal:
    """P movements of one kind of pedal, in any order; those of one time count in the order given."""

    time: np.ndarray  # [P] float64, seconds
    channel: np.ndarray  # [P] integers; any labels that keep the pedals apart
    value: np.ndarray  # [P] integers 0..127; from 64 on the pedal is down

    def __post_init__(self):
        object.__setattr__(self, "time", np.asarray(self.time, np.float64))
        for name in ("channel", "value"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.int64))
            if getattr(self, name).shape != self.time.shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, time {self.time.shape}")

    @classmethod
    def untouched(cls) -> Pedal:
        return cls(np.zeros(0), np.zeros(0), np.zeros(0))

    def down(self, channel: int, last: float) -> Intervals:
        """Returns the times at which the pedal of a channel goes down and up, [D] each.

        A pedal that is never lifted goes up at `last`, or in the end of all at its last movement.
        """
        mine = self.channel == channel
        order = np.argsort(self.time[mine], kind="stable")
        time, down = self.time[mine][order], self.value[mine][order] >= PEDAL_DOWN
        before = np.concatenate([[False], down[:-1]])
        pressed, lifted = time[down & ~before], time[~down & before]
        if len(lifted) < len(pressed):
            lifted = np.append(lifted, max(last, time[-1]))
        return pressed, lifted


def apply_pedals(notes: Notes, channel: np.ndarray, sustain: Pedal,
                 sostenuto: Pedal | None = None) -> Notes:
    """Lengthens the notes that a pedal of their channel holds when their key is released.

    The sustain pedal holds every note that is released while it is down, the
    sostenuto pedal those that sounded when it went down; a note that both hold
    in turn goes on. It lasts until no pedal holds it or the same pitch is
    struck again on the same channel, whichever is first; under a pedal that is
    never lifted until the last event of the piece. A movement of a pedal at the
    very time of a release counts as before it, one at the very time of an onset
    as after it; movements of one time count in the order given, and so does a
    release and a new press (the old notes end there). No note is shortened.
    Drums are left alone. With sustain alone, the same rules as note_seq's
    `apply_sustain_control_changes`, except that overlapping notes of one pitch
    both survive.

    Args:
      notes: [N] notes with the ends of their keys.
      channel: [N] integers; labels as those of the pedals.
      sustain: control 64.
      sostenuto: control 66.

    Returns:
      [N] notes in the same order.
    """
    sostenuto = sostenuto or Pedal.untouched()
    channel = np.asarray(channel)
    if channel.shape != notes.start.shape:
        raise ValueError(f"channel has shape {channel.shape}, the notes {notes.start.shape}")
    times = np.concatenate([sustain.time, sostenuto.time])
    if not len(notes) or not len(times):
        return notes
    last = max(notes.duration, float(times.max()))
    end = notes.end.copy()
    for c in np.unique(np.concatenate([sustain.channel, sostenuto.channel])):
        i = np.flatnonzero((channel == c) & ~notes.is_drum)
        until = _held_until(notes[i], sustain.down(c, last), sostenuto.down(c, last))
        until = np.minimum(until, _next_onset(notes[i]))
        end[i] = np.maximum(end[i], until)
    return dataclasses.replace(notes, end=end)


def _held_until(notes: Notes, sustain: Intervals, sostenuto: Intervals) -> np.ndarray:
    """[N] seconds until when pedals hold each note; its own end where they do not."""
    end = _lift(*sustain, notes.end)
    pressed, lifted = sostenuto
    if not len(pressed):
        return end
    # The one press that may be down at the end without having caught the note: it came before it.
    k = np.searchsorted(pressed, end, side="right") - 1
    uncaught = (k >= 0) & (pressed[k] < notes.start) & (end < lifted[k])
    # For all others, pedals that are down in turn are one pedal, but one that is pressed as soon as it
    # is lifted has let go.
    starts = np.concatenate([sustain[0], pressed])
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.concatenate([sustain[1], lifted])[order]
    reach = np.concatenate([_before_next(*sustain), _before_next(*sostenuto)])[order]
    first = np.concatenate([[True], starts[1:] > np.maximum.accumulate(reach)[:-1]])
    ends = np.maximum.accumulate(ends)[np.append(first[1:], True)]
    lifts = np.where(end > notes.end, np.nextafter(end, -np.inf), end)  # still down
    return np.where(uncaught, end, np.maximum(end, _lift(starts[first], ends, lifts)))


def _before_next(pressed: np.ndarray, lifted: np.ndarray) -> np.ndarray:
    """[D] when a pedal is lifted, a moment earlier where it is pressed again at that time."""
    again = np.append(pressed[1:], np.inf) == lifted
    return np.where(again, np.nextafter(lifted, -np.inf), lifted)


def _lift(pressed: np.ndarray, lifted: np.ndarray, time: np.ndarray) -> np.ndarray:
    """[N] when the pedal that is down at `time` is lifted; `time` itself where none is down.

    pressed, lifted: [D] seconds, ascending and in turn.
    """
    if not len(pressed):
        return time
    k = np.searchsorted(pressed, time, side="right") - 1
    return np.where((k >= 0) & (time < lifted[k]), lifted[k], time)


def _next_onset(notes: Notes) -> np.ndarray:
    """[N] seconds of the first other onset of the same pitch at or after each end, else inf."""
    result = np.full(len(notes), np.inf)
    for pitch in np.unique(notes.pitch):
        i = np.flatnonzero(notes.pitch == pitch)
        start, end = notes.start[i], notes.end[i]  # starts ascend, as Notes keeps them sorted
        k = np.searchsorted(start, end, side="left")
        # A note of zero length must not be stopped by its own onset.
        k = np.where(end == start, np.searchsorted(start, end, side="right"), k)
        result[i] = np.append(start, np.inf)[k]
    return result
