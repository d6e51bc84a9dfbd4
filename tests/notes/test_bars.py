"""Bars of MIDI files, counted by hand."""

import numpy as np
import pytest
from reference.midi_bytes import BEAT, midi, off, on, tempo, track

from music_diffusion.errors import UserError
from music_diffusion.notes.bars import parse_bars
from music_diffusion.notes.midi import read_midi_file


def signature(beats, power):
    return 0xFF, 0x58, 4, beats, power, 24, 8


@pytest.fixture
def bars(tmp_path):
    def read(*events, **options):
        path = tmp_path / "song.mid"
        path.write_bytes(midi(track(*events), **options))
        return read_midi_file(path).bars
    return read


def test_four_quarters_of_half_a_second_where_nothing_is_said(bars):
    assert bars((0, *on(60)), (9 * BEAT, *off(60))) == (0.0, 2.0, 4.0, 6.0)


def test_signatures_and_tempos(bars):
    # Two bars of 3/4 at half a second a beat, then 6/8 (three quarters) at a second a beat.
    found = bars((0, *signature(3, 2)), (0, *on(60)), (6 * BEAT, *signature(6, 3)), (0, *tempo(1_000_000)),
                 (4 * BEAT, *off(60)))
    np.testing.assert_allclose(found, [0, 1.5, 3, 6, 9])


def test_signature_within_a_bar_begins_a_new_one(bars):
    found = bars((0, *on(60)), (2 * BEAT, *signature(2, 2)), (3 * BEAT, *off(60)))
    np.testing.assert_allclose(found, [0, 1, 2, 3])


def test_the_last_of_several_signatures_counts_and_empty_ones_do_not(bars):
    found = bars((0, *signature(3, 2)), (0, *signature(2, 2)), (0, *signature(0, 2)), (0, *on(60)),
                 (2 * BEAT, *off(60)))
    np.testing.assert_allclose(found, [0, 1])


def test_smpte_has_no_bars(bars):
    assert bars((0, *on(60)), (40, *off(60)), division=0xE728) == ()


def test_bars_are_counted_from_one():
    starts = (0.0, 2.0, 4.0, 5.5)
    assert parse_bars("1", starts) == (0.0, 2.0)
    assert parse_bars("2:3", starts) == (2.0, 5.5)
    for text, words in (("0", "bars 1 to 3"), ("3:4", "bars 1 to 3"), ("2:1", "bars 1 to 3"),
                        ("x", "write a bar"), ("1-2", "write a bar")):
        with pytest.raises(UserError, match=words):
            parse_bars(text, starts)
    with pytest.raises(UserError, match="no bars; give --anew"):
        parse_bars("1", ())
