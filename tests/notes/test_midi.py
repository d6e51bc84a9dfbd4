"""What MIDI files mean as notes; the files are written byte by byte."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference.midi_bytes import (
    BEAT,
    NOTE,
    midi,
    off,
    on,
    pedal,
    program,
    rows,
    tempo,
    times,
    track,
)

from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi, read_midi_file, write_midi
from music_diffusion.notes.notes import Notes


def test_format_0(read):
    notes = read(midi(track((0, *program(5)), (48, *on(60, 70)), (96, *off(60)),
                            (0, *on(62, 90)), (192, *off(62))), format=0))
    assert rows(notes) == [(0.25, 0.75, 60, 70, 5, 0), (0.75, 1.75, 62, 90, 5, 0)]


def test_format_1_shares_one_tempo_map_among_tracks(read):
    conductor = track((0, *tempo(1_000_000)), (2 * BEAT, *tempo(250_000)))
    melody = track((0, *program(40, 1)), (BEAT, *on(60, 80, 1)), (2 * BEAT, *off(60, 1)))
    bass = track((0, *program(32, 2)), (0, *on(36, 80, 2)), (4 * BEAT, *off(36, 2)))
    notes = read(midi(conductor, melody, bass))
    # Two beats of 1 s, then beats of 0.25 s: beat 1 is at 1 s, beat 3 at 2.25 s, beat 4 at 2.5 s.
    assert rows(notes) == [(0, 2.5, 36, 80, 32, 0), (1, 2.25, 60, 80, 40, 0)]


def test_tempo_change_within_a_note_and_twice_at_one_tick(read):
    notes = read(midi(track((0, *on(60)), (BEAT, *tempo(100_000)), (0, *tempo(2_000_000)),
                            (BEAT, *off(60)))))
    assert times(notes) == [(0, 2.5, 60)]  # 0.5 s, then the later of the two tempos


def test_running_status(read):
    # The status byte 0x90 is written once; then pairs of data bytes follow.
    notes = read(midi(track((0, *on(60)), (BEAT, 64, 80), (BEAT, 60, 0), (BEAT, 64, 0))))
    assert times(notes) == [(0, 1.0, 60), (0.5, 1.5, 64)]


def test_note_on_of_velocity_0_is_an_off(read):
    assert times(read(midi(track((0, *on(60)), (BEAT, *on(60, 0)))))) == [(0, 0.5, 60)]


def test_sustain_pedal_belongs_to_its_channel(read):
    notes = read(midi(track(
        (0, *pedal(127)), (0, *on(60)), (0, *on(60, 80, 1)),
        (BEAT, *off(60)), (0, *off(60, 1)), (BEAT, *pedal(0)))))
    assert sorted(notes.end) == [0.5, 1.0]


def test_sustain_pedal_and_a_repeated_note(read):
    notes = read(midi(track((0, *pedal(64)), (0, *on(60)), (BEAT, *off(60)), (BEAT, *on(60)),
                            (BEAT, *off(60)), (BEAT, *pedal(63)))))
    assert times(notes) == [(0, 1.0, 60), (1.0, 2.0, 60)]


def test_drums_on_channel_10(read):
    notes = read(midi(track((0, *program(8, 9)), (0, *pedal(127, 9)), (0, *on(38, 100, 9)),
                            (BEAT, *off(38, 9)), (BEAT, *on(42, 80, 9)), (BEAT, *off(42, 9)))))
    assert rows(notes) == [(0, 0.5, 38, 100, 0, 1), (1.0, 1.5, 42, 80, 0, 1)]


def test_program_change_mid_track_and_under_a_sounding_note(read):
    notes = read(midi(track((0, *program(3)), (0, *on(60)), (BEAT, *program(7)), (0, *on(62)),
                            (BEAT, *off(60)), (0, *off(62)))))
    # A note keeps the program it began with.
    assert [(r[2], r[4]) for r in rows(notes)] == [(60, 3), (62, 7)]


def test_program_change_in_another_track_of_the_channel(read):
    notes = read(midi(track((0, *program(9))), track(*NOTE)))
    assert list(notes.program) == [9]


def test_overlapping_notes_of_one_pitch_end_in_order(read):
    notes = read(midi(track((0, *on(60)), (BEAT, *on(60)), (BEAT, *off(60)), (BEAT, *off(60)))))
    assert times(notes) == [(0, 1.0, 60), (0.5, 1.5, 60)]


def test_an_off_without_an_on_is_ignored(read):
    assert times(read(midi(track((0, *off(61)), *NOTE)))) == [(0, 0.5, 60)]


def test_other_events_are_skipped(read):
    text = (0xFF, 0x01, 2, *b"hi")
    sysex = (0xF0, 3, 0x7E, 0x7F, 0xF7)
    bend, pressure, poly, modulation = (0xE0, 0, 64), (0xD0, 9), (0xA0, 60, 9), (0xB0, 1, 9)
    head = [(0, *e) for e in (text, sysex, bend, pressure, poly, modulation)]
    assert times(read(midi(track(*head, *NOTE)))) == [(0, 0.5, 60)]


def test_unknown_chunks_after_the_tracks_are_skipped(read):
    assert times(read(midi(track(*NOTE)) + b"XFIH\x00\x00\x00\x02ab")) == [(0, 0.5, 60)]


def test_zero_length_notes_last_ten_milliseconds(read):
    assert times(read(midi(track((BEAT, *on(60)), (0, *off(60)))))) == [(0.5, 0.51, 60)]


def test_highest_resolution(read):
    notes = read(midi(track((32767, *on(60)), (32767, *off(60))), division=32767))
    assert times(notes) == [(0.5, 1.0, 60)]


def test_slowest_tempo(read):
    notes = read(midi(track((0, *tempo(0xFFFFFF)), *NOTE)))  # 16.777215 s a beat
    assert times(notes) == [(0, 16.777215, 60)]


def test_fastest_tempo(read):
    notes = read(midi(track((0, *tempo(1)), (BEAT, *on(60)), (BEAT, *off(60)))))
    assert times(notes) == [(1e-6, 0.010001, 60)]


def test_ten_hours(read):
    ticks = 10 * 3600 * 2 * BEAT
    notes = read(midi(track((0, *on(50)), *([(ticks // 1000, *on(60)), (1, *off(60))] * 1000),
                            (0, *off(50)))))
    assert len(notes) == 1001
    assert notes.duration == pytest.approx(36_000 + 1000 / BEAT / 2)


def one_line(error, path):
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


BAD = {
    "empty": (b"", "empty"),
    "text": (b"This is not MIDI.\n" * 20, "not a MIDI file"),
    "header only": (midi(), "no notes"),
    "half a header": (midi(track(*NOTE))[:9], "truncated"),
    "truncated before the first note": (midi(track(*NOTE))[:24], "truncated"),
    "no notes": (midi(track((0, *program(5)), (BEAT, *pedal(127)))), "no notes"),
    "SMPTE of no rate": (midi(track(*NOTE), division=0xF028), "SMPTE"),  # 16 frames/s
    "SMPTE without ticks": (midi(track(*NOTE), division=0xE700), "SMPTE"),
    "RIFF without MIDI": (b"RIFF\x04\0\0\0RMID", "without MIDI"),
    "gzip of nothing": (b"\x1f\x8b\x08nothing", "gzip"),
    "division 0": (midi(track(*NOTE), division=0), "ticks"),
    "days long": (midi(track((0, *tempo(0xFFFFFF)), (0, *on(60)), (0xFFFFFF, *off(60))),
                       division=1), "hours"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_line_with_the_name_and_the_reason(tmp_path, name):
    data, reason = BAD[name]
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read_midi(path)
    assert reason in one_line(error, path)


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "none.mid", tmp_path):
        with pytest.raises(UserError) as error:
            read_midi(path)
        one_line(error, path)


TICK = 0.5 / 480  # of write_midi at its defaults


@st.composite
def writable_notes(draw):
    """Notes that MIDI can hold: at most 15 programs, one voice for each of their pitches."""
    result, taken = [], {}
    programs = draw(st.lists(st.integers(0, 127), min_size=1, max_size=15, unique=True))
    for _ in range(draw(st.integers(1, 25))):
        start = draw(st.integers(0, 20_000))
        end = start + draw(st.integers(10, 5_000))
        drum, pitch = draw(st.booleans()), draw(st.integers(0, 127))
        prog = 0 if drum else draw(st.sampled_from(programs))
        others = taken.setdefault((drum, prog, pitch), [])
        if all(end <= a or b <= start for a, b in others):
            others.append((start, end))
            result.append((start * TICK, end * TICK, pitch, draw(st.integers(1, 127)), prog, drum))
    return Notes(*(np.array(c) for c in zip(*result, strict=True)))


shared_folder = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared_folder
@given(writable_notes())
def test_write_then_read(tmp_path, notes):
    path = tmp_path / "written.mid"
    write_midi(notes, path)
    back = read_midi(path)
    assert rows(back) == rows(notes)


@shared_folder
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.02, 9), st.integers(0, 127)), min_size=1,
                max_size=20, unique_by=lambda r: r[2]))
def test_write_rounds_to_the_nearest_tick(tmp_path, drawn):
    start, length, pitch = (np.array(c) for c in zip(*drawn, strict=True))
    n = len(start)
    notes = Notes(start, start + length, pitch, np.full(n, 80), np.zeros(n), np.zeros(n))
    write_midi(notes, tmp_path / "written.mid")
    back = read_midi(tmp_path / "written.mid")
    order = np.argsort(notes.pitch), np.argsort(back.pitch)
    for name in ("start", "end"):
        error = getattr(back, name)[order[1]] - getattr(notes, name)[order[0]]
        assert np.abs(error).max() <= TICK / 2 + 1e-9


def test_more_programs_than_channels_are_written_with_a_warning(tmp_path):
    n = 20
    notes = Notes(np.arange(n), np.arange(n) + 0.5, np.full(n, 60), np.full(n, 80), np.arange(n),
                  np.zeros(n))
    with pytest.warns(UserWarning, match="20 programs"):
        write_midi(notes, tmp_path / "many.mid")
    back = read_midi(tmp_path / "many.mid")
    np.testing.assert_array_equal(back.program, notes.program)
    np.testing.assert_array_equal(back.pitch, notes.pitch)


GOOD = midi(
    track((0, *tempo(400_000)), (BEAT, *tempo(600_000))),
    track((0, *program(5)), (0, *pedal(127)), *NOTE, (BEAT, *pedal(0)), *NOTE),
    track((0, *on(38, 90, 9)), (BEAT, *off(38, 9))))


def check_reads_or_explains(tmp_path, data):
    path = tmp_path / "fuzzed.mid"
    path.write_bytes(data)
    try:
        notes = read_midi_file(path).notes
    except UserError as e:
        assert "\n" not in str(e) and str(path) in str(e)
        return
    assert len(notes) and (notes.end > notes.start).all()
    assert notes.duration <= 19 * 3600


@shared_folder
@given(st.binary(max_size=200), st.sampled_from([b"", b"MThd", GOOD[:14], GOOD[:22]]))
def test_random_bytes(tmp_path, data, head):
    check_reads_or_explains(tmp_path, head + data)


@shared_folder
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=6),
       st.integers(0, len(GOOD)))
def test_mutated_files(tmp_path, changes, cut):
    data = bytearray(GOOD)
    for position, value in changes:
        data[position] = value
    check_reads_or_explains(tmp_path, bytes(data))
    check_reads_or_explains(tmp_path, bytes(data[:cut]))
