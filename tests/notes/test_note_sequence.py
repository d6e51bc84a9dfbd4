"""NoteSequence in and out: with a stand-in always, with note-seq itself where it is installed."""

import subprocess
import sys
import types

import numpy as np
import pytest
from reference import needs

from music_diffusion.errors import UserError
from music_diffusion.notes.note_sequence import from_note_sequence, to_note_sequence
from music_diffusion.notes.notes import Notes

needs_note_seq = needs.installed("note_seq")


class Repeated(list):
    """A protobuf repeated field: `add` makes the element."""

    def add(self, **fields):
        self.append(types.SimpleNamespace(**fields))


class StandIn:
    """The part of NoteSequence that is used, with protobuf's default values."""

    def __init__(self, ticks_per_quarter=0, total_time=0.0):
        self.ticks_per_quarter, self.total_time = ticks_per_quarter, total_time
        self.notes, self.control_changes = Repeated(), Repeated()
        self.quantization_info = types.SimpleNamespace(steps_per_quarter=0, steps_per_second=0)


@pytest.fixture(params=["stand-in", pytest.param("note_seq", marks=needs_note_seq)])
def sequence_class(request, monkeypatch):
    if request.param == "stand-in":
        module = types.ModuleType("note_seq")
        module.NoteSequence = StandIn
        monkeypatch.setitem(sys.modules, "note_seq", module)
        return StandIn
    import note_seq

    return note_seq.NoteSequence


def add(sequence, start, end, pitch, *, velocity=80, program=0, is_drum=False, instrument=0):
    sequence.notes.add(start_time=start, end_time=end, pitch=pitch, velocity=velocity,
                       program=program, is_drum=is_drum, instrument=instrument)


def test_round_trip(sequence_class):
    rng = np.random.default_rng(0)
    n = 200
    start = np.sort(rng.uniform(0, 60, n))
    drum = rng.random(n) < 0.2
    notes = Notes(start, start + rng.uniform(0, 3, n), rng.integers(0, 128, n),
                  rng.integers(1, 128, n), np.where(drum, 0, rng.integers(0, 128, n)), drum)
    sequence = to_note_sequence(notes)
    assert isinstance(sequence, sequence_class)
    assert sequence.total_time == notes.duration
    back = from_note_sequence(sequence)
    for name in ("start", "end", "pitch", "velocity", "program", "is_drum"):
        assert np.array_equal(getattr(back, name), getattr(notes, name)), name


def test_one_instrument_per_program_and_nine_for_drums(sequence_class):
    programs = np.arange(12) * 3
    notes = Notes(np.arange(13.0), np.arange(13.0) + 1, np.full(13, 60), np.full(13, 80),
                  np.append(programs, 0), np.arange(13) == 12)
    sequence = to_note_sequence(notes)
    numbers = [note.instrument for note in sequence.notes]
    assert numbers == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 9]


def test_pedal_of_each_instrument(sequence_class):
    sequence = sequence_class()
    # Unsorted on purpose.
    add(sequence, 2.0, 2.5, 60, instrument=1)
    add(sequence, 0.0, 1.0, 60, instrument=0)
    add(sequence, 0.0, 1.0, 62, instrument=1)
    add(sequence, 0.0, 1.0, 38, is_drum=True, program=16, instrument=0)
    for time, number, value, instrument in (
            (0.5, 64, 127, 0), (3.0, 64, 0, 0), (0.5, 7, 127, 1), (3.0, 7, 0, 1)):
        sequence.control_changes.add(
            time=time, control_number=number, control_value=value, instrument=instrument)
    notes = from_note_sequence(sequence)
    assert list(notes.pitch) == [60, 62, 38, 60]
    assert list(notes.end) == [3.0, 1.0, 1.0, 2.5]  # only instrument 0 has a pedal
    assert list(notes.program) == [0, 0, 0, 0]


def test_empty(sequence_class):
    assert len(from_note_sequence(sequence_class())) == 0
    assert len(to_note_sequence(Notes.empty()).notes) == 0


@pytest.mark.parametrize("bad", [
    dict(start=2.0), dict(velocity=0), dict(pitch=128), dict(start=-1.0), dict(end=float("nan"))])
def test_notes_out_of_range(sequence_class, bad):
    sequence = sequence_class()
    add(sequence, **(dict(start=0.0, end=1.0, pitch=60) | bad))
    with pytest.raises(UserError, match="^NoteSequence: [^\n]*$"):
        from_note_sequence(sequence)


def test_quantised_sequences_are_refused(sequence_class):
    sequence = sequence_class()
    add(sequence, 0.0, 1.0, 60)
    sequence.quantization_info.steps_per_quarter = 4
    with pytest.raises(UserError, match="quantised"):
        from_note_sequence(sequence)


def test_without_note_seq(monkeypatch):
    monkeypatch.setitem(sys.modules, "note_seq", None)
    with pytest.raises(UserError, match="pip install note-seq"):
        to_note_sequence(Notes.empty())


def test_importing_does_not_import_note_seq():
    code = ("import sys, music_diffusion.notes.note_sequence; "
            "sys.exit('note_seq' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@needs_note_seq
def test_pedal_as_note_seq_applies_it():
    """Random pieces without overlaps: the same ends as note-seq's own function."""
    import note_seq

    rng = np.random.default_rng(1)
    for _ in range(50):
        sequence, taken = note_seq.NoteSequence(), set()
        for _ in range(10):
            start, length = int(rng.integers(0, 15)), int(rng.integers(1, 4))
            pitch, instrument = int(rng.integers(60, 63)), int(rng.integers(0, 2))
            cells = {(pitch, instrument, t) for t in range(start, start + length)}
            if not cells & taken:
                taken |= cells
                add(sequence, start, start + length, pitch, instrument=instrument)
        for time in rng.choice(18, 6, replace=False).tolist():
            sequence.control_changes.add(
                time=time, control_number=64, control_value=int(rng.choice([0, 63, 64, 127])),
                instrument=int(rng.integers(0, 2)))
        expected = note_seq.apply_sustain_control_changes(sequence)
        got = from_note_sequence(sequence)
        assert sorted(zip(got.start, got.end, got.pitch, strict=True)) == sorted(
            (n.start_time, n.end_time, n.pitch) for n in expected.notes)
