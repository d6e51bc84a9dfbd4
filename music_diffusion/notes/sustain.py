"""The sustain pedal (MIDI control 64), written into the ends of notes."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.notes.notes import Notes

SUSTAIN_CONTROL = 64  # MIDI controller number of the damper pedal
PEDAL_DOWN = 64  # controller values from here on mean "down"


def apply_sustain(
    notes: Notes,
    channel: np.ndarray,
    pedal_time: np.ndarray,
    pedal_channel: np.ndarray,
    pedal_value: np.ndarray,
) -> Notes:
    """Lengthens the notes that are released while the pedal of their channel is down.

    Such a note lasts until the pedal goes up or the same pitch is struck again
    on the same channel, whichever is first; without either, until the last
    event of the piece. A pedal event at the very time of a release counts as
    before it; pedal events of one time count in the order given, and so does a
    release and a new press (the old notes end there). No note is shortened.
    Drums are left alone. The same rules as note_seq's
    `apply_sustain_control_changes`, except that overlapping notes of one pitch
    both survive.

    Args:
      notes: [N] notes with the ends of their keys.
      channel: [N] integers; any labels that tell the pedals apart.
      pedal_time: [P] float seconds, in any order.
      pedal_channel: [P] integers.
      pedal_value: [P] integers 0..127; from 64 on the pedal is down.

    Returns:
      [N] notes in the same order.
    """
    channel, pedal_time = np.asarray(channel), np.asarray(pedal_time, np.float64)
    pedal_channel, pedal_value = np.asarray(pedal_channel), np.asarray(pedal_value)
    if channel.shape != notes.start.shape:
        raise ValueError(f"channel has shape {channel.shape}, the notes {notes.start.shape}")
    if not len(notes) or not len(pedal_time):
        return notes
    last = max(notes.duration, float(pedal_time.max()))
    end = notes.end.copy()
    for c in np.unique(pedal_channel):
        i = np.flatnonzero((channel == c) & ~notes.is_drum)
        mine = pedal_channel == c
        until = _pedal_end(notes.end[i], pedal_time[mine], pedal_value[mine], last)
        until = np.minimum(until, _next_onset(notes[i]))
        end[i] = np.maximum(end[i], until)
    return dataclasses.replace(notes, end=end)


def _pedal_end(released: np.ndarray, time: np.ndarray, value: np.ndarray, last: float):
    """[N] seconds until when a pedal holds notes released at `released`; -inf: it does not."""
    order = np.argsort(time, kind="stable")
    time, down = time[order], value[order] >= PEDAL_DOWN
    # state[k] after k events; up_after[k] is the time of the first release among events k, k+1, …
    state = np.concatenate([[False], down])
    up_time = np.where(down, np.inf, time)
    up_after = np.concatenate([np.minimum.accumulate(up_time[::-1])[::-1], [np.inf]])
    k = np.searchsorted(time, released, side="right")
    return np.where(state[k], np.minimum(up_after[k], last), -np.inf)


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
