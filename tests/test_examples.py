"""The example pieces: the committed files are the script's, and hold the music they name."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from music_diffusion.notes.midi import read_midi

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
TICK = 0.5 / 480  # seconds; write_midi's default resolution
# Sounding ranges of the instruments, after Adler, The Study of Orchestration.
RANGES = {0: (21, 108), 6: (29, 89), 24: (40, 83), 32: (28, 67), 40: (55, 103), 42: (36, 76),
          56: (52, 84), 57: (40, 77), 68: (58, 91), 71: (50, 94), 73: (59, 96)}
INSTRUMENTS = {
    "bach_prelude_in_c": {0}, "pachelbel_canon_in_d": {6, 40, 42, 68, 73},
    "when_the_saints": {0, 32, 56, 57, 71}, "greensleeves": {24, 71}}


def load_script():
    spec = importlib.util.spec_from_file_location("make_examples", EXAMPLES / "make_examples.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


script = load_script()
every_piece = pytest.mark.parametrize("name", sorted(script.PIECES))


def melody(notes, program):
    return notes.pitch[(notes.program == program) & ~notes.is_drum]


def test_the_folder_holds_exactly_the_scripts_pieces():
    assert {p.stem for p in EXAMPLES.glob("*.mid")} == set(script.PIECES) == set(INSTRUMENTS)


@every_piece
def test_file_is_what_the_script_writes(name, tmp_path):
    script.write_midi(script.PIECES[name](), tmp_path / "again.mid")
    assert (tmp_path / "again.mid").read_bytes() == (EXAMPLES / f"{name}.mid").read_bytes()


@every_piece
def test_no_note_is_lost_or_cut_in_the_file(name):
    written, read = script.PIECES[name](), read_midi(EXAMPLES / f"{name}.mid")
    assert len(read) == len(written)
    # Rounding to ticks may reorder simultaneous notes, so both are put in order of pitch.
    orders = [np.lexsort((n.start, n.pitch, n.program, n.is_drum)) for n in (written, read)]
    for field in ("pitch", "velocity", "program", "is_drum", "start", "end"):
        one, other = (getattr(n, field)[o]
                      for n, o in zip((written, read), orders, strict=True))
        tolerance = TICK if field in ("start", "end") else 0
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance, err_msg=field)


@every_piece
def test_playable(name):
    notes = read_midi(EXAMPLES / f"{name}.mid")
    assert 30 <= notes.duration <= 60
    assert set(np.unique(notes.program[~notes.is_drum])) == INSTRUMENTS[name]
    for program in INSTRUMENTS[name]:
        low, high = RANGES[program]
        assert low <= melody(notes, program).min() and melody(notes, program).max() <= high, program
    assert 40 <= notes.velocity.min() and notes.velocity.max() <= 115
    assert len(np.unique(notes.velocity)) > 20  # played, not typed
    assert notes.is_drum.any() == (name == "when_the_saints")


def test_line_reads_pitches_and_lengths():
    events = script.line(0, "C4:1 r:2 F#4:.5 | Bb3:1", start=8, transpose=1, length=1.0)
    assert [(e.pitch, e.beat, e.beats) for e in events] == [
        (61, 8, 1), (67, 11, 0.5), (59, 11.5, 1)]
    with pytest.raises(ValueError, match="C4"):
        script.line(script.PIANO, "C4")


def test_melodies_fill_their_bars():
    def beats(tokens):
        return [sum(float(t.partition(":")[2]) for t in bar.split()) for bar in tokens.split("|")]

    assert beats(script.GREENSLEEVES) == [6] * 17
    assert beats(script.SAINTS) == [4] * 16
    assert [beats(s) for s in script.STRAINS] == [[4, 4]] * 5
    assert len(script.GREENSLEEVES_CHORDS) == 2 * 16
    assert len(script.SAINTS_CHORDS) == 16


def test_prelude_begins_with_bachs_first_bar_twice_over():
    notes = script.prelude()
    first = "C4 E4 G4 C5 E5 G4 C5 E5".split()
    np.testing.assert_array_equal(notes.pitch[:16], [script.pitch(n) for n in first * 2])
    gaps = np.diff(notes.start[:16])
    np.testing.assert_allclose(gaps, 60 / 88 / 4, atol=0.024)  # sixteenths, each ±12 ms


def test_canon_voices_imitate_each_other_at_two_bars():
    notes = script.canon()
    violin = melody(notes, script.VIOLIN)[:-1]  # without the final chord
    two_bars = 8 * 60 / 66
    for k, program in enumerate((script.OBOE, script.FLUTE), start=1):
        voice = melody(notes, program)[:-1]
        np.testing.assert_array_equal(voice, violin[:len(voice)])
        start = notes.start[notes.program == program][0]
        violin_start = notes.start[notes.program == script.VIOLIN][0]
        assert start - violin_start == pytest.approx(k * two_bars, abs=0.024)
    cello = melody(notes, script.CELLO)[:-1].reshape(6, 8)
    assert (cello == cello[0]).all()  # the ground


def test_tempo_slows_down_continuously_and_swing_is_two_to_one():
    seconds = script.tempo(60, slow_from=4, slow_until=8, slow_to=2)
    beats = np.linspace(0, 12, 121)
    times = np.array([seconds(b) for b in beats])
    rate = np.diff(times) / 0.1
    np.testing.assert_allclose(rate[:40], 1)
    np.testing.assert_allclose(rate[80:], 2)
    assert (np.diff(rate) > -1e-9).all() and np.diff(rate).max() < 0.03
    swing = script.swung(60)
    assert [swing(b) for b in (2, 2.5, 3)] == pytest.approx([2, 2 + 2 / 3, 3])
