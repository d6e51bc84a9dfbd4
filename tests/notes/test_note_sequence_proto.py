"""Serialised NoteSequences against bytes made by hand and, where it is installed, note-seq."""

import dataclasses

import numpy as np
import pytest
from layouts import wire
from layouts.common import scale
from layouts.compare import assert_same_notes
from reference import needs

from music_diffusion.errors import UserError
from music_diffusion.notes.note_sequence import from_note_sequence
from music_diffusion.notes.note_sequence_proto import note_sequence_class, parse_note_sequence
from music_diffusion.notes.notes import Notes

NOTES = Notes.concatenate([scale(count=4, program=40, velocity=64), scale(count=3, pitch=36, drum=True)])


def test_reads_bytes_made_by_hand():
    sequence = parse_note_sequence(wire.note_sequence(NOTES, id="/id/1", filename="a.midi"))
    assert (sequence.id, sequence.filename, sequence.ticks_per_quarter) == ("/id/1", "a.midi", 220)
    assert sequence.tempos[0].qpm == 120
    assert sequence.total_time == NOTES.duration
    assert_same_notes(from_note_sequence(sequence), NOTES, seconds=0)


@pytest.mark.parametrize("instruments, ends", [
    ((), [0.7, 0.7, 0.94, 1.24]),
    ((0, 1, 0, 1), [0.7, 0.64, 0.94, 1.24]),  # the pedal is the first one's
])
def test_the_pedal_is_read(instruments, ends):
    keys = scale(count=4)  # from 0.1 s, one every 0.3 s, each 0.24 s long
    message = wire.note_sequence(keys, pedal=((0.2, 127), (0.7, 0)), instruments=instruments)
    notes = from_note_sequence(parse_note_sequence(message))
    assert_same_notes(notes, dataclasses.replace(keys, end=np.array(ends)))


@pytest.mark.parametrize("number", [1, 2])  # steps per quarter note, per second
def test_quantised_sequences_are_refused(number):
    message = wire.note_sequence(NOTES) + wire.field(15, wire.field(number, 4))
    with pytest.raises(UserError, match="quantised"):
        from_note_sequence(parse_note_sequence(message))


def test_unknown_fields_are_left_alone():
    bends = wire.field(10, wire.field(1, 0.5) + wire.field(2, 100))
    texts = wire.field(14, wire.field(3, "Cmaj7"))
    sequence = parse_note_sequence(bends + wire.note_sequence(NOTES) + texts)
    assert_same_notes(from_note_sequence(sequence), NOTES, seconds=0)


@pytest.mark.parametrize("message", [b"\xff", b"RIFFxxxx"])
def test_other_bytes_are_refused(message):
    with pytest.raises(ValueError, match="bytes are no NoteSequence"):
        parse_note_sequence(message)


def test_note_seq_reads_and_writes_the_same():
    note_seq = needs.module("note_seq")
    values = dict(
        id="/id/1", filename="a.midi", ticks_per_quarter=480, total_time=3.5,
        tempos=[dict(time=0.5, qpm=90.0)],
        notes=[dict(pitch=60, velocity=70, start_time=0.25, end_time=1.5, instrument=3, program=41),
               dict(pitch=38, velocity=1, start_time=1.0, end_time=1.1, instrument=9, is_drum=True)],
        control_changes=[dict(time=1.25, control_number=64, control_value=127, instrument=3,
                              program=41, is_drum=True)],
        quantization_info=dict(steps_per_second=31))
    for one in ("steps_per_second", "steps_per_quarter"):
        values["quantization_info"] = {one: 31}
        theirs, ours = note_seq.NoteSequence(**values), note_sequence_class()(**values)
        assert note_seq.NoteSequence.FromString(ours.SerializeToString()) == theirs
        assert parse_note_sequence(theirs.SerializeToString()) == ours
    by_hand = wire.note_sequence(NOTES, pedal=((0.2, 127), (0.7, 0)), id="x")
    theirs = from_note_sequence(note_seq.NoteSequence.FromString(by_hand))
    assert_same_notes(from_note_sequence(parse_note_sequence(by_hand)), theirs, seconds=0)
