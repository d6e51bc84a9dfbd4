"""The reader of bytes against mido, which reads files without faults; and what both write."""

import io
import time

import mido
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.midi_bytes import BEAT, NOTE, meta, midi, on, sysex, track

from music_diffusion.errors import UserError
from music_diffusion.notes.smf import format_smf, parse_smf
from music_diffusion.notes.smf_container import MAX_BYTES

data = st.integers(0, 127)
channels = st.integers(0, 15)
texts = st.binary(max_size=200).map(lambda b: b.decode("latin1"))
channel_messages = st.one_of(
    *(st.builds(mido.Message, st.just(kind), channel=channels, note=data, velocity=data)
      for kind in ("note_on", "note_off")),
    st.builds(mido.Message, st.just("control_change"), channel=channels, control=data, value=data),
    st.builds(mido.Message, st.just("polytouch"), channel=channels, note=data, value=data),
    st.builds(mido.Message, st.just("program_change"), channel=channels, program=data),
    st.builds(mido.Message, st.just("aftertouch"), channel=channels, value=data),
    st.builds(mido.Message, st.just("pitchwheel"), channel=channels, pitch=st.integers(-8192, 8191)))
other_messages = st.one_of(
    st.builds(mido.Message, st.just("sysex"), data=st.lists(data, max_size=300)),
    st.builds(mido.MetaMessage, st.just("set_tempo"), tempo=st.integers(1, 0xFFFFFF)),
    st.builds(mido.MetaMessage, st.just("midi_port"), port=st.integers(0, 255)),
    st.builds(mido.MetaMessage, st.just("device_name"), name=texts),
    st.builds(mido.MetaMessage, st.just("lyrics"), text=texts),
    st.builds(mido.MetaMessage, st.just("key_signature"), key=st.sampled_from(["C", "F#m"])),
    st.builds(mido.MetaMessage, st.just("time_signature"), numerator=st.integers(1, 255)))
waits = st.one_of(st.integers(0, 200), st.integers(0, 0xFFFFFFF))
messages = st.tuples(waits, st.one_of(channel_messages, other_messages)).map(lambda p: p[1].copy(time=p[0]))
files = st.builds(
    lambda tracks, kind, division: mido.MidiFile(
        type=kind if kind or len(tracks) == 1 else 1, ticks_per_beat=division,
        tracks=[mido.MidiTrack(t) for t in tracks]),
    st.lists(st.lists(messages, max_size=30), min_size=1, max_size=4), st.integers(0, 2),
    st.integers(1, 32767))


def bytes_of(file):
    stream = io.BytesIO()
    file.save(file=stream)
    return stream.getvalue()


PAYLOADS = {"set_tempo": lambda m: m.tempo.to_bytes(3, "big"), "midi_port": lambda m: bytes([m.port]),
            "device_name": lambda m: m.name.encode("latin1"),
            "time_signature": lambda m: bytes([m.numerator, m.denominator.bit_length() - 1,
                                               m.clocks_per_click, m.notated_32nd_notes_per_beat])}


def seen_by_mido(file_track):
    """Events (tick, bytes) that concern how notes sound: what `Track` holds."""
    now, result = 0, []
    for m in file_track:
        now += m.time
        if not m.is_meta:
            result.append((now, bytes(m.bytes())))
        elif m.type in PAYLOADS:
            result.append((now, bytes(m.bytes()[:2]) + PAYLOADS[m.type](m)))
    return now, result


def seen_here(parsed):
    size = {0xC0: 2, 0xD0: 2, 0xF0: 1, 0xFF: 2}
    result = []
    for i, (tick, message) in enumerate(zip(parsed.tick.tolist(), parsed.message.tolist(), strict=True)):
        kind = message[0] if message[0] >= 0xF0 else message[0] & 0xF0
        result.append((tick, bytes(message[:size.get(kind, 3)]) + parsed.data.get(i, b"")))
    return parsed.end, result


@settings(deadline=None, max_examples=60)
@given(files)
def test_files_without_faults_are_read_as_mido_reads_them(file):
    written = bytes_of(file)
    parsed = parse_smf(written, "a.mid")
    theirs = mido.MidiFile(file=io.BytesIO(written))
    assert parsed.warnings == ()
    assert (parsed.format, parsed.division) == (theirs.type, theirs.ticks_per_beat)
    expected = [seen for t in theirs.tracks if (seen := seen_by_mido(t))[1]]
    assert [seen_here(t) for t in parsed.tracks] == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(waits, channel_messages), max_size=40))
def test_running_status_as_mido_reads_it(drawn):
    rows, status = [], None
    for wait, message in drawn:
        row = message.bytes()
        rows.append((wait, *(row[1:] if row[0] == status else row)))
        status = row[0]
    written = midi(track(*rows))
    theirs = mido.MidiFile(file=io.BytesIO(written))
    expected = seen_by_mido(theirs.tracks[0])
    parsed = parse_smf(written, "a.mid")
    assert parsed.warnings == ()
    assert [seen_here(t) for t in parsed.tracks] == [expected] * bool(drawn)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(st.integers(0, 10**6), channel_messages), max_size=20), max_size=4),
       st.integers(1, 32767))
def test_mido_reads_what_is_written(drawn, division):
    tracks = [[(tick, bytes(m.bytes())) for tick, m in sorted(t, key=lambda p: p[0])] for t in drawn]
    theirs = mido.MidiFile(file=io.BytesIO(format_smf(tracks, division)))
    assert (theirs.type, theirs.ticks_per_beat) == (1, division)
    assert [seen_by_mido(t)[1] for t in theirs.tracks] == tracks


def test_a_wait_that_the_format_cannot_hold_is_refused():
    with pytest.raises(ValueError, match="ticks between"):
        format_smf([[(1 << 28, bytes(on(60)))]], 480)


def test_longer_and_damaged_headers():
    body = midi(track(*NOTE))
    longer = body[:4] + (8).to_bytes(4, "big") + body[8:14] + b"??" + body[14:]
    assert len(parse_smf(longer, "a.mid").tracks[0].tick) == 2 and not parse_smf(longer, "a.mid").warnings
    assert len(parse_smf(body[:4] + b"\xff\0\0\6" + body[8:], "a.mid").tracks[0].tick) == 2


def test_texts_are_not_kept_and_packets_are_joined():
    [parsed] = parse_smf(midi(track((0, *meta(1, *b"text")), (1, 0xF0, 2, 5, 6), (2, 0xF7, 2, 7, 0xF7),
                                    (3, *sysex(9)), *NOTE)), "a.mid").tracks
    assert parsed.data == {0: b"\5\6\7\xf7", 1: b"\x09\xf7"}
    assert parsed.tick.tolist() == [1, 6, 6, 6 + BEAT]


def test_more_bytes_than_any_score_has_are_refused():
    with pytest.raises(UserError, match="64 MB"):
        parse_smf(midi(track(*NOTE)) + bytes(MAX_BYTES), "a.mid")


def test_a_million_bytes_take_about_a_second_and_little_memory():
    rng = np.random.default_rng(0)
    rows = [(0, 0x90, pitch, 80) for pitch in rng.integers(0, 128, 250_000).tolist()]
    written = midi(track(*rows))
    began = time.process_time()
    parsed = parse_smf(written, "a.mid")
    assert time.process_time() - began < 4  # 0.15 s measured
    assert len(written) > 1_000_000 and len(parsed.tracks[0].tick) == 250_000
    assert parsed.tracks[0].tick.nbytes + parsed.tracks[0].message.nbytes < 3 * len(written)
