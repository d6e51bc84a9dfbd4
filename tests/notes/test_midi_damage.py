"""Files as people have them: wrapped, damaged, cut off."""

import gzip
import os
import pathlib
import random
import threading
import time

import pytest
from reference.midi_bytes import (
    BEAT,
    NOTE,
    chunk,
    events,
    meta,
    midi,
    off,
    on,
    program,
    sounds,
    sysex,
    tempo,
    times,
    track,
)

from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi, read_midi_file

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
SONG = midi(track(*NOTE, *NOTE))


def riff(data, before=b""):
    body = b"RMID" + before + b"data" + len(data).to_bytes(4, "little") + data
    return b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize("wrapped", [
    gzip.compress(SONG, mtime=0), riff(SONG), riff(SONG, b"DISP\5\0\0\0hello\0"), b"\0" * 128 + SONG,
    riff(SONG)[:4] + b"\xff\0\0\0" + riff(SONG)[8:], gzip.compress(riff(SONG), mtime=0)],
    ids=["gzip", "riff", "riff with more", "MacBinary", "wrong length", "both"])
def test_wrappings(read, wrapped):
    assert times(read(wrapped)) == [(0, 0.5, 60), (0.5, 1.0, 60)]


def test_junk_before_the_header_and_cut_gzip_are_said(report):
    assert "7 bytes before" in report(b"garbage" + SONG).warnings[0]
    many = midi(track(*NOTE * 2000))
    file = report(gzip.compress(many, 0)[:9000])
    assert len(file.notes) > 1000 and "gzip" in file.warnings[0]


@pytest.mark.parametrize("event", [
    (0xFF, 0x59, 2, 0xFE, 0xFF), (0xFF, 0x59, 0), (0xFF, 0x58, 2, 4, 2), (0xFF, 0x58, 4, 0, 0, 0, 0),
    (0xFF, 0x54, 5, 0x41, 0, 0, 0, 0), (0xFF, 0x54, 1, 9), (0xFF, 0x20, 1, 99), (0xFF, 0x20, 0),
    (0xFF, 0x7F, 3, 1, 2, 3), (0xFF, 0x60, 2, 1, 2), (0xFF, 0x21, 0), (0xFF, 0x00, 0),
    (0xFF, 0x05, 4, 0xE4, 0xFF, 0x80, 0x81), (0xF0, 0), (0xF7, 2, 0xF3, 1), sysex(1, 2, 3)])
def test_events_that_nobody_needs_cost_nothing(read, event):
    assert times(read(midi(track((0, *event), *NOTE)))) == [(0, 0.5, 60)]


def test_running_status_goes_on_after_a_meta_event_and_an_exclusive_message(read):
    notes = read(midi(track((0, *on(60)), (48, *meta(1, *b"la")), (48, 60, 0), (0, *sysex(9)), (0, 62, 80),
                            (BEAT, 62, 0))))
    assert times(notes) == [(0, 0.5, 60), (0.5, 1.0, 62)]


def test_chunks_of_other_kinds_are_skipped(read):
    head, body = midi(announced=1), track(*NOTE)
    other = chunk(b"XFIH", b"anything, even MTrk")
    assert times(read(head + other + body + other)) == [(0, 0.5, 60)]


@pytest.mark.parametrize("length", [0, 5, 9, 200, 2**31])
def test_wrong_lengths_of_tracks(report, length):
    body = events(*NOTE)
    file = report(midi(announced=2) + chunk(b"MTrk", body, length)
                  + track((0, *on(72)), (BEAT, *off(72))))
    assert times(file.notes) == [(0, 0.5, 60), (0, 0.5, 72)]
    assert len(file.warnings) == 1 and "track 1" in file.warnings[0] and "length" in file.warnings[0]


def test_a_track_without_its_end_is_whole(read):
    body = events(*NOTE, end=False)
    assert times(read(midi(announced=1) + chunk(b"MTrk", body))) == [(0, 0.5, 60)]


@pytest.mark.parametrize("announced", [0, 1, 9])
def test_wrong_numbers_of_tracks(report, announced):
    file = report(midi(track(*NOTE), track((0, *on(72)), (BEAT, *off(72))), announced=announced))
    assert len(file.notes) == 2
    assert [f"announces {announced} tracks" in w for w in file.warnings] == [True]


def test_junk_between_tracks_and_a_second_file(report):
    file = report(midi(announced=2) + track(*NOTE) + b"\0\xff??" + track(*NOTE))
    assert len(file.notes) == 2 and "4 bytes between" in file.warnings[0]
    file = report(SONG + SONG)
    assert len(file.notes) == 2 and "another MIDI file" in file.warnings[0]


@pytest.mark.parametrize("bad", [tempo(0), meta(0x51), meta(0x51, 7)])
def test_a_tempo_that_is_none_is_ignored_and_said_if_notes_follow(read, report, bad):
    assert times(read(midi(track(*NOTE, (4, *bad))))) == [(0, 0.5, 60)]
    file = report(midi(track((0, *tempo(1_000_000)), *NOTE, (0, *bad), *NOTE)))
    assert times(file.notes) == [(0, 1.0, 60), (1.0, 2.0, 60)]
    assert [("tempo" in w) for w in file.warnings] == [True]


def test_smpte_time(read):
    # 25 frames a second, 40 ticks a frame: a tick is a millisecond, whatever the tempo.
    notes = read(midi(track((0, *tempo(9_000_000)), (0, *on(60)), (1000, *off(60))), division=0xE728))
    assert times(notes) == [(0, 1.0, 60)]
    # 30 drop frame: 30000/1001 frames a second
    notes = read(midi(track((0, *on(60)), (3000, *off(60))), division=0xE364))
    assert times(notes) == [(0, 1.001, 60)]


def test_patterns_follow_each_other(report):
    slow = track((0, *tempo(1_000_000)), (0, *program(9)), *NOTE)
    file = report(midi(slow, track(*NOTE), format=2))
    assert sounds(file.notes) == [(0, 1.0, 60, 9), (1.0, 1.5, 60, 0)]
    assert len(file.warnings) == 1 and "format 2" in file.warnings[0]


def test_a_single_pattern_and_a_format_that_is_none(read, report):
    assert times(read(midi(track(*NOTE), format=2))) == [(0, 0.5, 60)]
    file = report(midi(track(*NOTE), format=7))
    assert times(file.notes) == [(0, 0.5, 60)] and "format 7" in file.warnings[0]


@pytest.mark.parametrize("missing", range(1, 17))
def test_of_a_file_that_is_cut_off_the_notes_before_are_there(report, missing):
    whole = midi(track(*NOTE, (0, *on(72)), (BEAT, *off(72))))
    file = report(whole[:-missing])
    assert times(file.notes)[0] == (0, 0.5, 60)
    # 4 bytes are the end of the track, 4 the note-off, 4 the note-on.
    assert len(file.notes) == (2 if missing <= 8 else 1)
    if missing <= 8:
        assert times(file.notes)[1] == (0.5, 1.0, 72)
    assert "missing" in file.warnings[0] or "length" in file.warnings[0]


GARBAGE = {
    "a data byte above 127 in a pitch": (0, 0x90, 200, 80),
    "real-time messages": (0, 0xF8),
    "a status that is none": (0, 0xF4),
    "a length beyond the file": (0, 0xFF, 0x01, 0xFF, 0xFF, 0x7F),
    "noise": (0, *b"\xff\xfe\xfd\xf5\xf4\xf4\xf5\xfd\xfe"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_one_bad_event_costs_no_other_note(report, name):
    file = report(midi(track(*NOTE * 8, GARBAGE[name], (0, *on(64)), (BEAT, *off(64)), *NOTE * 8)))
    expected = [(0.5 * i, 0.5 * i + 0.5, 64 if i == 8 else 60) for i in range(17)]
    assert times(file.notes) == expected
    assert any("damaged" in w for w in file.warnings)


def test_a_velocity_above_127_is_the_highest(report):
    file = report(midi(track((0, 0x90, 60, 200), (BEAT, *off(60)), *NOTE)))
    assert times(file.notes) == [(0, 0.5, 60), (0.5, 1.0, 60)]
    assert list(file.notes.velocity) == [127, 80] and "above 127" in file.warnings[0]


def test_the_time_of_a_dropped_event_is_kept(report):
    file = report(midi(track(*NOTE, (BEAT, 0xF8), *NOTE)))
    assert times(file.notes) == [(0, 0.5, 60), (1.0, 1.5, 60)]


def test_read_midi_warns(tmp_path):
    (tmp_path / "cut.mid").write_bytes(SONG[:-2])
    with pytest.warns(UserWarning, match="cut.mid: track 1: bytes are missing"):
        assert len(read_midi(tmp_path / "cut.mid")) == 2


def test_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(SONG,), daemon=True)
    writer.start()
    assert len(read_midi(tmp_path / "pipe")) == 2
    writer.join(10)


def mutate(data, random):
    """Damages a file in one of the ways in which files are damaged."""
    data = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        at, size = random.randrange(len(data)), random.choice([1, 1, 2, 10, 300])
        kind = random.randrange(6)
        if kind == 0:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[at:at + size]
        elif kind == 2:
            data[at:at] = random.randbytes(size)
        elif kind == 3:
            data[at:at + size] = random.randbytes(size)
        elif kind == 4 and len(data) > 100:
            del data[random.randrange(50, len(data)):]
        else:  # pieces of tracks in another order
            cut = random.randrange(14, max(len(data), 15))
            data = data[:14] + data[cut:] + data[14:cut]
        if not data:
            return b"MThd"
    return bytes(data)


@pytest.mark.parametrize("seed", range(24))
def test_damaged_files_are_read_or_explained(tmp_path, seed):
    dice = random.Random(seed)
    source = dice.choice(sorted(EXAMPLES.glob("*.mid"))).read_bytes()
    (tmp_path / "damaged.mid").write_bytes(mutate(source, dice))
    began = time.process_time()
    try:
        file = read_midi_file(tmp_path / "damaged.mid")
    except UserError as e:
        assert "\n" not in str(e) and str(e).startswith(f"{tmp_path}")
    else:
        assert len(file.notes) and (file.notes.end > file.notes.start).all()
    assert time.process_time() - began < 5
