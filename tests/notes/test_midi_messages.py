"""What messages beyond notes mean for the notes: modes, pedals, ports, drums."""

import pytest
from reference.midi_bytes import (
    BEAT,
    GM2_ON,
    GM_ON,
    GS_RESET,
    NOTE,
    XG_ON,
    control,
    gs,
    meta,
    midi,
    off,
    on,
    pedal,
    program,
    rows,
    sounds,
    sysex,
    times,
    track,
)

LATE = ((8 * BEAT, *on(72)), (BEAT, *off(72)))


def test_a_surplus_note_on_ends_when_its_key_is_struck_again(report):
    file = report(midi(track((0, *on(60)), (BEAT, *on(60)), (BEAT, *off(60)), *LATE)))
    assert times(file.notes) == [(0, 0.5, 60), (0.5, 1.0, 60), (5.0, 5.5, 72)]
    assert len(file.warnings) == 1 and "without a note-off: 1" in file.warnings[0]


def test_a_surplus_note_on_does_not_shift_the_later_pairs_of_its_key(read, report):
    repeats = [(96, *on(60)), (24, *off(60))] * 50
    file = report(midi(track((0, *on(60)), *repeats)))
    assert times(file.notes)[0] == (0, 0.5, 60)
    lengths = {round(end - start, 6) for start, end, _ in times(file.notes)[1:]}
    assert lengths == {0.125}


def test_surplus_notes_struck_at_one_tick_end_together(report):
    file = report(midi(track((0, *on(60, 50)), (0, *on(60, 90)), (BEAT, *off(60)))))
    assert times(file.notes) == [(0, 0.5, 60), (0, 0.5, 60)]


@pytest.mark.parametrize("length, expected", [(4 * BEAT, 2.0), (100 * BEAT, 10.0), (0, 0.5)])
def test_a_note_without_end_lasts_to_the_end_of_the_file_within_limits(report, length, expected):
    file = report(midi(track((0, *on(60)), (length, *program(3)))))
    assert times(file.notes) == [(0, expected, 60)]
    assert len(file.warnings) == 1


def test_a_restrike_far_away_does_not_prolong_a_note(report):
    file = report(midi(track((0, *on(60)), (100 * BEAT, *on(60)), (BEAT, *off(60)))))
    assert times(file.notes) == [(0, 10.0, 60), (50.0, 50.5, 60)]


def test_drums_without_note_offs_are_hits(read):
    hits = [(BEAT, *on(38, 90, 9)) for _ in range(4)]
    quick = [(6, *on(42, 90, 9)), (6, *on(42, 90, 9))]
    notes = read(midi(track(*hits, (40 * BEAT, *on(36, 90, 9)), *quick, (100 * BEAT, *program(0)))))
    lengths = [(r[2], round(r[1] - r[0], 6)) for r in rows(notes)]
    # The second of two quick hits has the first one's end; 6 ticks are 31 ms.
    assert lengths == [(38, 0.1)] * 4 + [(36, 0.1), (42, 0.03125), (42, 0.1)]


def test_drums_keep_the_length_that_the_file_gives(read):
    assert times(read(midi(track((0, *on(49, 90, 9)), (4 * BEAT, *off(49, 9)))))) == [(0, 2.0, 49)]


@pytest.mark.parametrize("mode", [120, 123, 124, 125, 126, 127])
def test_mode_messages_end_the_notes_of_their_channel(read, mode):
    notes = read(midi(track((0, *on(60)), (0, *on(60, 80, 1)), (2 * BEAT, *control(mode, 0)),
                            (2 * BEAT, *off(60, 1)), *LATE)))
    assert sorted(times(notes)) == [(0, 1.0, 60), (0, 2.0, 60), (6.0, 6.5, 72)]


def test_an_off_after_a_mode_message_belongs_to_no_earlier_note(read):
    notes = read(midi(track((0, *on(60)), (BEAT, *control(123, 0)), (BEAT, *on(60)), (BEAT, *off(60)),
                            (BEAT, *off(60)))))
    assert times(notes) == [(0, 0.5, 60), (1.0, 1.5, 60)]


def test_mode_messages_come_before_the_notes_of_their_tick(read):
    # Channels are set up in the second track, at the first tick of the notes of the first.
    notes = read(midi(track(*NOTE), track((0, *control(121, 0)), (0, *control(127, 0)))))
    assert times(notes) == [(0, 0.5, 60)]


def test_the_pedal_holds_through_all_notes_off_but_not_through_all_sound_off(read):
    def piece(mode):
        return midi(track((0, *pedal(127)), (0, *on(60)), (BEAT, *off(60)), (BEAT, *control(mode, 0)),
                          (BEAT, *pedal(0))))

    assert times(read(piece(123))) == [(0, 1.5, 60)]
    assert times(read(piece(120))) == [(0, 1.0, 60)]


@pytest.mark.parametrize("reset", [control(121, 0), GM_ON, GS_RESET, XG_ON, GM2_ON])
def test_resets_lift_the_pedals(read, reset):
    for which in (64, 66):
        notes = read(midi(track((0, *on(60)), (0, *control(which, 127)), (BEAT, *off(60)), (BEAT, *reset),
                                *LATE)))
        assert times(notes) == [(0, 1.0, 60), (5.0, 5.5, 72)]


def test_sostenuto_holds_the_keys_that_were_down(read):
    notes = read(midi(track((0, *on(48)), (48, *control(66, 127)), (48, *off(48)), (0, *on(60)),
                            (24, *off(60)), (648, *control(66, 0)), *LATE)))
    assert times(notes) == [(0, 4.0, 48), (0.5, 0.625, 60), (8.0, 8.5, 72)]


def port(number):
    return meta(0x21, number)


def test_tracks_of_other_ports_have_channels_of_their_own(read):
    notes = read(midi(
        track((0, *port(0)), (0, *program(5)), (0, *on(60)), (2 * BEAT, *off(60))),
        track((0, *port(1)), (0, *program(40)), (0, *on(60)), (BEAT, *off(60))),
        track((0, *port(1)), (0, *on(38, 80, 9)), (BEAT, *off(38, 9)))))
    assert sounds(notes) == [(0, 1.0, 60, 5), (0, 0.5, 60, 40), (0, 0.5, 38, "drums")]


def test_a_port_holds_for_the_whole_track_that_names_it(read):
    notes = read(midi(track((0, *program(5)), *NOTE),
                      track((0, *program(40)), (0, *port(1)), (0, *on(62)), (BEAT, *off(62)))))
    assert sounds(notes) == [(0, 0.5, 60, 5), (0, 0.5, 62, 40)]


def test_device_names_are_ports_too(read):
    def part(name, *events):
        return track((0, *meta(9, *name)), *events)

    notes = read(midi(
        track((0, *program(7))),  # a track without a name belongs to the first device
        part(b"synth A", *NOTE),
        part(b"synth B", (0, *program(40)), (0, *on(62)), (BEAT, *off(62))),
        part(b"synth A", (BEAT, *on(64)), (BEAT, *off(64)))))
    assert sounds(notes) == [(0, 0.5, 60, 7), (0, 0.5, 62, 40), (0.5, 1.0, 64, 7)]


def test_what_comes_before_name_and_port_of_a_track_is_for_both(read):
    notes = read(midi(
        track((0, *meta(9, *b"A")), (0, *port(0)), (0, *program(5)), *NOTE),
        track((0, *program(40)), (0, *meta(9, *b"B")), (0, *port(1)), (0, *on(62)), (BEAT, *off(62)))))
    assert dict(zip(notes.pitch.tolist(), notes.program.tolist(), strict=True)) == {60: 5, 62: 40}


def test_a_single_track_may_go_from_port_to_port(read):
    notes = read(midi(track((0, *port(0)), (0, *program(1)), (0, *port(1)), (0, *program(2)), (0, *port(0)),
                            *NOTE, (0, *port(1)), *NOTE), format=0))
    assert sounds(notes) == [(0, 0.5, 60, 1), (0.5, 1.0, 60, 2)]


def bank(most, least, number, channel):
    select = (0, *control(0, most, channel)), (0, *control(32, least, channel))
    return *select, (0, *program(number, channel))


def drums(read, *setup, channel=1):
    """Is a note of the channel one of drums? If not: its program."""
    found = sounds(read(midi(track(*setup, (0, *on(38, 80, channel)), (BEAT, *off(38, channel))))))
    return found[0][3]


@pytest.mark.parametrize("most", [120, 126, 127])
def test_banks_of_drums(read, most):
    assert drums(read, *bank(most, 0, 8, 1)) == "drums"
    assert drums(read, *bank(most, 0, 8, 1), *bank(0, 0, 9, 1)) == 9
    assert drums(read, (0, *control(0, most, 1))) == 0  # it counts from the next program on
    # GS has an older device's melodies there.
    assert drums(read, (0, *GS_RESET), *bank(most, 0, 8, 1)) == 8


def test_other_banks_leave_the_program_as_it_is(read):
    assert drums(read, *bank(8, 3, 40, 1)) == 40
    assert drums(read, *bank(0, 0, 40, 9), channel=9) == "drums"
    assert drums(read, *bank(8, 0, 40, 9), channel=9) == "drums"


def test_melody_on_channel_10_in_xg_and_gm2(read):
    assert drums(read, (0, *XG_ON), *bank(0, 0, 40, 9), channel=9) == 40
    assert drums(read, (0, *XG_ON), (0, *program(40, 9)), channel=9) == "drums"
    assert drums(read, (0, *GM2_ON), *bank(121, 0, 40, 9), channel=9) == 40
    assert drums(read, *bank(121, 0, 40, 9), channel=9) == "drums"


@pytest.mark.parametrize("block, channel", [(1, 0), (2, 1), (9, 8), (0, 9), (10, 10), (15, 15)])
def test_gs_rhythm_parts(read, block, channel):
    address = 0x401015 | block << 8
    assert drums(read, (0, *gs(address, 1)), (0, *program(48, channel)), channel=channel) == "drums"
    assert drums(read, (0, *gs(address, 2, checksum=99)), channel=channel) == "drums"
    assert drums(read, (0, *gs(address, 1)), (0, *gs(address, 0)), (0, *program(48, channel)),
                 channel=channel) == 48
    other = channel ^ 1
    assert drums(read, (0, *gs(address, 1)), channel=other) == ("drums" if other == 9 else 0)


def test_xg_part_mode(read):
    def mode(part, value):
        return (0, *sysex(0x43, 0x10, 0x4C, 8, part, 7, value))

    assert drums(read, (0, *XG_ON), mode(3, 2), (0, *program(0, 3)), channel=3) == "drums"
    assert drums(read, (0, *XG_ON), mode(9, 0), (0, *program(48, 9)), channel=9) == 48


@pytest.mark.parametrize("reset", [GM_ON, GM2_ON, GS_RESET, XG_ON, gs(0x00007F, 0)])
def test_resets_put_programs_and_drums_back(read, reset):
    assert drums(read, *bank(127, 0, 8, 1), (0, *reset)) == 0
    assert drums(read, (0, *gs(0x401015, 0)), (0, *program(48, 9)), (0, *reset), channel=9) == "drums"


def test_an_exclusive_message_in_packets(read):
    whole = gs(0x401215, 1)[2:]
    packets = ((0, 0xF0, 4, *whole[:4]), (10, 0xF7, len(whole) - 4, *whole[4:]))
    assert drums(read, *packets) == "drums"
