"""note-seq's NoteSequence ↔ notes, for seqio tasks and MT3's records.

note_seq is an optional extra: it is imported by `to_note_sequence` alone, and
only when that is called. Reading works on anything with the attributes of a
NoteSequence.
"""

from __future__ import annotations

import typing

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.sustain import SOSTENUTO_CONTROL, SUSTAIN_CONTROL, Pedal, apply_pedals

if typing.TYPE_CHECKING:
    from note_seq import NoteSequence

DRUM_INSTRUMENT = 9  # as a MIDI channel counted from 0; melodic instruments go around it
TICKS_PER_QUARTER = 220  # note-seq's usual resolution; a NoteSequence must name one


def to_note_sequence(notes: Notes) -> NoteSequence:
    """Writes notes as a NoteSequence, one instrument number per program.

    Args:
      notes: any number of notes.

    Returns:
      A `note_seq.NoteSequence` in seconds, without tempo or control changes.

    Raises:
      UserError: note-seq is not installed.
    """
    try:
        from note_seq import NoteSequence
    except ImportError as e:
        raise UserError("NoteSequences need note-seq; install it with: pip install note-seq") from e
    sequence = NoteSequence(ticks_per_quarter=TICKS_PER_QUARTER, total_time=notes.duration)
    instruments: dict[int, int] = {}
    columns = (notes.start, notes.end, notes.pitch, notes.velocity, notes.program, notes.is_drum)
    for start, end, pitch, velocity, program, drum in zip(
            *(column.tolist() for column in columns), strict=True):
        number = len(instruments) + (len(instruments) >= DRUM_INSTRUMENT)
        instrument = DRUM_INSTRUMENT if drum else instruments.setdefault(program, number)
        sequence.notes.add(start_time=start, end_time=end, pitch=pitch, velocity=velocity,
                           program=program, is_drum=drum, instrument=instrument)
    return sequence


def from_note_sequence(sequence: NoteSequence) -> Notes:
    """Reads a NoteSequence, its pedals (sustain and sostenuto) applied for each instrument.

    Args:
      sequence: an unquantised NoteSequence, or any object with `notes` (each
        with pitch, velocity, start_time, end_time in seconds, program,
        is_drum, instrument) and `control_changes` (each with time,
        control_number, control_value, instrument).

    Returns:
      The notes; drums get program 0.

    Raises:
      UserError: the sequence is quantised, or a note is out of range.
    """
    name = getattr(sequence, "filename", "") or getattr(sequence, "id", "") or "NoteSequence"
    grid = getattr(sequence, "quantization_info", None)
    if grid is not None and (grid.steps_per_quarter or grid.steps_per_second):
        raise UserError(f"{name}: its times are quantised steps; pass the unquantised sequence")
    rows = [(n.start_time, n.end_time, n.pitch, n.velocity, 0 if n.is_drum else n.program,
             n.is_drum, n.instrument) for n in sequence.notes]
    if not rows:
        return Notes.empty()
    # In the order that Notes keeps, so that instruments stay beside their notes.
    rows.sort(key=lambda r: (r[0], r[5], r[4], r[2]))
    *columns, instrument = zip(*rows, strict=True)
    try:
        notes = Notes(*(np.array(column) for column in columns))
    except ValueError as e:
        raise UserError(f"{name}: {e}") from e
    sustain, sostenuto = (_pedal(sequence, control) for control in (SUSTAIN_CONTROL, SOSTENUTO_CONTROL))
    return apply_pedals(notes, np.array(instrument), sustain, sostenuto)


def _pedal(sequence: NoteSequence, control: int) -> Pedal:
    rows = [(c.time, c.instrument, c.control_value) for c in sequence.control_changes
            if c.control_number == control]
    time, channel, value = np.array(rows, np.float64).reshape(-1, 3).T
    return Pedal(time, channel, value)
