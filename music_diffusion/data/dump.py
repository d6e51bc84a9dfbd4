"""Features of a segment → its notes, for people to look at: the inverse of `conditions`."""

from __future__ import annotations

import numpy as np

from music_diffusion.conditions.base import Example
from music_diffusion.notes.events import Segment, decode
from music_diffusion.notes.frames import DRUMS, NUM_CLASSES
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASSES
from music_diffusion.notes.vocabulary import EventConfig

SAME_NOTE = 1e-3  # seconds; onsets this close to each other, of one key, are one note


def example_notes(example: Example, events: EventConfig | None, hop: float) -> Notes | None:
    """Returns an example's notes, in seconds from its start and cut to it; None without any.

    Args:
      example: of `data.examples.Examples`.
      events: of its note tokens, if it has some.
      hop: seconds from frame to frame.
    """
    frames = len(example["targets"])
    if "inputs" in example and events is not None:
        return token_notes(example["inputs"], frames * hop, events)
    if "slot_program" in example:
        return slot_notes(example, hop)
    return roll_notes(example["roll"], hop) if "roll" in example else None


def token_notes(ids: np.ndarray, seconds: float, config: EventConfig) -> Notes:
    """Returns the notes of a segment's tokens [N]; those that are tied into it begin with it."""
    vocabulary = config.vocabulary
    first = vocabulary.first_ids
    tie = int(np.argmax(ids == first["tie"]))
    loud = first["velocity"] + config.velocity_bins
    step = 1 / config.steps_per_second
    # A step earlier they are struck, so that there is something to tie.
    struck = np.concatenate([[first["tie"], loud], ids[:tie]])
    notes = decode([Segment(0.0, step, struck), Segment(step, step + seconds, ids)], config).notes
    return cut(notes, step, step + seconds)


def slot_notes(example: Example, hop: float) -> Notes:
    """Returns the notes of `slot_program` and its siblings [T, P]; as many as had room."""
    program, pitch, velocity, age, release = (
        example[f"slot_{name}"] for name in ("program", "pitch", "velocity", "age", "release"))
    frame, slot = np.nonzero(program >= 0)
    centre = (frame + 1) * hop
    at = (frame, slot)
    columns = [program[at], pitch[at], centre - age[at], centre - release[at], velocity[at]]
    order = np.lexsort((columns[2], columns[1], columns[0]))
    program, pitch, start, end, velocity = (column[order] for column in columns)
    new = (np.diff(program, prepend=-1) != 0) | (np.diff(pitch, prepend=-1) != 0)
    new |= np.diff(start, prepend=-np.inf) > SAME_NOTE
    drum = program == DRUMS
    # The roundoff of an age may put an onset a little after its end.
    columns = [start, np.maximum(start, end), pitch, velocity, np.where(drum, 0, program), drum]
    start, end, *others = (column[new] for column in columns)
    earliest = min(0.0, start.min(initial=0.0))  # Notes begin at 0 or later
    seconds = len(example["slot_program"]) * hop
    return cut(Notes(start - earliest, end - earliest, *others), -earliest, seconds - earliest)


def roll_notes(roll: np.ndarray, hop: float) -> Notes:
    """Returns the notes of a roll [T, C], on the grid of frames.

    A roll does not say which instrument plays which pitch: a note gets one of those that are
    heard in its first frame, the one whose velocity is nearest to its own.
    """
    rows = []
    onset, sounding, drums, class_onset, class_sounding = np.split(
        roll, [128, 256, 384, 384 + NUM_CLASSES], axis=1)
    before = np.pad(sounding, ((1, 0), (0, 0)))[:-1]
    begins = (sounding > 0) & ((before == 0) | (onset > 0))
    ends = ~((sounding > 0) & ~begins)  # a frame in which no earlier note goes on
    for frame, pitch in np.argwhere(begins):
        later = np.flatnonzero(ends[frame + 1:, pitch])
        end = frame + 1 + (later[0] if len(later) else len(roll) - frame - 1)
        value = sounding[frame, pitch]
        heard = class_onset if onset[frame, pitch] else class_sounding
        classes = heard[frame, :DRUM_CLASS]
        kind = int(np.argmin(np.where(classes > 0, np.abs(classes - value), np.inf)))
        rows.append((frame * hop, end * hop, pitch, value, SLAKH_CLASSES[kind].programs[0], False))
    rows += [(frame * hop, (frame + 1) * hop, key, drums[frame, key], 0, True)
             for frame, key in np.argwhere(drums > 0)]
    start, end, pitch, value, program, drum = np.array(rows, np.float64).reshape(-1, 6).T
    return Notes(start, end, pitch, np.rint(value * 127), program, drum)


def cut(notes: Notes, start: float, end: float) -> Notes:
    """Returns the stretch [start, end) of seconds, which begins at 0 in the result."""
    notes = notes.between(start, end)
    return Notes(np.maximum(notes.start, start) - start, np.minimum(notes.end, end) - start, notes.pitch,
                 notes.velocity, notes.program, notes.is_drum)
