"""What a file asks for and is not played: counted where it would be heard."""

import pytest
from reference.midi_bytes import (
    BEAT,
    GM_ON,
    GS_RESET,
    NOTE,
    bend,
    control,
    gs,
    midi,
    off,
    on,
    program,
    sysex,
    track,
)


@pytest.fixture
def ignored(report):
    def ignored(*events):
        return report(midi(track(*events))).ignored

    return ignored


USUAL = {1: 0, 2: 0, 4: 0, 7: 100, 8: 64, 10: 64, 11: 127, 65: 0, 67: 63, 68: 0, 69: 0, 71: 64, 74: 64,
         91: 40, 93: 0}
KINDS = {1: "modulation", 2: "breath", 4: "foot", 7: "volume", 8: "balance", 10: "pan", 11: "expression",
         65: "portamento", 67: "soft pedal", 68: "legato", 69: "hold 2", 71: "sound control",
         74: "sound control", 91: "reverb", 93: "chorus"}


@pytest.mark.parametrize("which", KINDS)
def test_controllers_count_where_a_note_sounds_at_another_value_than_usual(ignored, which):
    strange, usual = (0, *control(which, 99)), (0, *control(which, USUAL[which]))
    elsewhere = (0, *control(which, 99, 5))
    assert ignored(strange, *NOTE) == {KINDS[which]: 1}
    assert ignored(usual, *NOTE) == {}
    assert ignored(elsewhere, *NOTE) == {}
    assert ignored(strange, usual, *NOTE) == {}  # taken back before a note
    assert ignored(*NOTE, strange) == {}
    twice = (10, *control(which, 99)), (10, *control(which, 98))
    assert ignored(NOTE[0], *twice, NOTE[1]) == {KINDS[which]: 2}
    assert ignored(*NOTE, strange, (BEAT, *control(which, USUAL[which])), *NOTE) == {}  # in a rest


@pytest.mark.parametrize("which", [65, 67, 68, 69])
def test_switches_are_on_from_64(ignored, which):
    assert ignored((0, *control(which, 64)), *NOTE) == {KINDS[which]: 1}
    assert ignored((0, *control(which, 63)), *NOTE) == {}


def test_the_pedals_that_are_played_are_not_counted(ignored):
    assert ignored((0, *control(64, 127)), (0, *control(66, 127)), *NOTE, (BEAT, *control(64, 0))) == {}


def test_bends_and_pressure(ignored):
    assert ignored((0, *bend(0)), (0, *bend(8191)), *NOTE) == {"pitch bend": 1}
    assert ignored((0, *bend(1)), *NOTE) == {"pitch bend": 1}
    assert ignored((0, 0xD0, 0), *NOTE) == {}
    assert ignored((0, 0xD0, 5), NOTE[0], (1, 0xA0, 60, 7), NOTE[1]) == {"aftertouch": 2}


def test_reset_controllers_clears_what_the_standard_says(ignored):
    asked = *((0, *control(which, 9)) for which in (1, 7, 10, 11)), (0, *bend(9))
    assert ignored(*asked, (0, *control(121, 0)), *NOTE) == {"volume": 1, "pan": 1}
    for reset in (GM_ON, GS_RESET):
        assert ignored(*asked, (0, *reset), *NOTE) == {}


def test_a_note_that_the_pedal_holds_hears_what_comes(ignored):
    hold, fade, lift = (0, *control(64, 127)), (BEAT, *control(7, 9)), (BEAT, *control(64, 0))
    assert ignored(hold, *NOTE, fade, lift) == {"volume": 1}
    assert ignored(*NOTE, fade, lift) == {}


def parameter(most, least, value, kind=101):
    return (0, *control(kind, most)), (0, *control(kind - 1, least)), (0, *control(6, value))


def test_parameters(ignored):
    assert ignored(*parameter(0, 0, 12), *NOTE) == {}  # the range of bends, without a bend
    assert ignored(*parameter(0, 2, 64), *NOTE) == {}
    assert ignored(*parameter(0, 2, 60), *NOTE) == {"tuning": 1}
    # Another parameter that is left as usual does not take it back; the same one does.
    assert ignored(*parameter(0, 2, 60), *parameter(0, 1, 64), *NOTE) == {"tuning": 1}
    assert ignored(*parameter(0, 2, 60), *parameter(0, 2, 64), *NOTE) == {}
    assert ignored(*parameter(127, 127, 60), *NOTE) == {}
    assert ignored(*parameter(1, 8, 70, kind=99), *parameter(1, 9, 64, kind=99), *NOTE) == {
        "unregistered parameter": 1}


def test_settings_of_the_device(ignored):
    def master(what, least, most):
        return (0, *sysex(0x7F, 0x7F, 4, what, least, most))

    assert ignored(master(1, 0, 100), *NOTE) == {"volume": 1}
    assert ignored(master(1, 0, 127), master(3, 0, 64), master(4, 0, 64), *NOTE) == {}
    assert ignored(master(4, 0, 66), *NOTE) == {"tuning": 1}
    assert ignored((0, *gs(0x400004, 90)), (0, *gs(0x400005, 65)), *NOTE) == {"volume": 1, "tuning": 1}
    assert ignored((0, *gs(0x400004, 127)), (0, *gs(0x400005, 64)), (0, *gs(0x400110, 1)), *NOTE) == {}
    assert ignored(*NOTE, master(4, 0, 66)) == {}


def test_banks_and_kits_count_where_a_note_uses_them(ignored):
    def bank(most, least, number, channel=0):
        return ((0, *control(0, most, channel)), (0, *control(32, least, channel)),
                (0, *program(number, channel)))

    assert ignored(*bank(8, 0, 4), *NOTE) == {"bank": 1}
    assert ignored(*bank(0, 3, 4), *NOTE) == {"bank": 1}
    assert ignored(*bank(0, 0, 4), *NOTE) == ignored(*bank(121, 0, 4), *NOTE) == {}
    assert ignored(*bank(8, 0, 4), (0, *control(0, 0)), (0, *control(32, 0)), (0, *program(4)), *NOTE) == {}
    hit = (0, *on(38, 80, 9)), (9, *off(38, 9))
    assert ignored((0, *program(25, 9)), *hit) == {"drum kit": 1}
    assert ignored((0, *program(0, 9)), *hit) == {}


def test_a_program_that_changes_under_a_note(ignored):
    assert ignored(NOTE[0], (9, *program(8)), NOTE[1]) == {"program change": 1}
    assert ignored(NOTE[0], (9, *program(0)), NOTE[1]) == {}
    assert ignored(*NOTE, (0, *program(8)), *NOTE) == {}


def test_mono_mode(ignored):
    assert ignored((0, *control(126, 1)), *NOTE) == {"mono mode": 1}
    assert ignored((0, *control(126, 1)), (0, *control(127, 0)), *NOTE) == {}


def test_the_most_frequent_comes_first_and_the_report_is_one_line(report):
    bends = [(1, *bend(k)) for k in range(1, 4)]
    file = report(midi(track((0, *control(10, 9)), NOTE[0], *bends, NOTE[1])))
    assert list(file.ignored.items()) == [("pitch bend", 3), ("pan", 1)]
    assert file.report() == (
        f"{file.path}: the file asks for what is not played: pitch bend (3), pan (1)",)
    assert report(midi(track(*NOTE))).report() == ()
