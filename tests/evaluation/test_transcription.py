"""Scores against hand-made cases, and against a matching and loops of our own."""

import math
import sys
import unittest.mock

import mir_eval
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.errors import UserError
from music_diffusion.evaluation import transcription
from music_diffusion.evaluation.transcription import (
    CHUNK,
    FrameScores,
    NoteCounts,
    NoteScores,
    frame_scores,
    mean_scores,
    note_scores,
    pooled_scores,
)
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import family, nearest_slakh_class

PIANO, BRIGHT_PIANO, ELECTRIC_PIANO, VIOLIN, FLUTE = 0, 1, 4, 40, 73
INSTRUMENT_OF = {"program": int, "slakh_class": nearest_slakh_class, "family": family,
                 "flat": lambda _: 0}


def make(rows):
    """Notes from (start, end, pitch[, program[, drum]])."""
    rows = [(*row, PIANO, False)[:5] if len(row) == 3 else (*row, False)[:5] for row in rows]
    start, end, pitch, program, drum = np.array(rows, float).reshape(-1, 5).T
    return Notes(start, end, pitch, np.full(len(rows), 80), program, drum.astype(bool))


def melody(count=8, start=0.5, seconds=0.4):
    """Notes of 0.4 s, one each half second, on different pitches."""
    return make([(start + 0.5 * i, start + 0.5 * i + seconds, 60 + i) for i in range(count)])


def random_piece(rng, count, seconds, drums=0.2):
    start = rng.uniform(0, seconds, count)
    drum = rng.random(count) < drums
    return Notes(start, start + rng.exponential(0.4, count), rng.integers(30, 90, count),
                 rng.integers(1, 128, count), np.where(drum, 0, rng.integers(0, 128, count)), drum)


# By our own means ------------------------------------------------------------------------------


def rows_of(notes, drum, kind=lambda _: 0, merge=True):
    """(start, end, (instrument, pitch)), unisons merged, in no particular order."""
    groups = {}
    for s, e, pitch, program, is_drum in zip(notes.start, notes.end, notes.pitch, notes.program,
                                             notes.is_drum, strict=True):
        if is_drum == drum:
            groups.setdefault((kind(int(program)), int(pitch)), []).append((s, e))
    rows = []
    for key, times in groups.items():
        while times:
            first = min(times)
            together = [t for t in times if round(t[0] - first[0], 4) <= 0.05] if merge else [first]
            rows.append((first[0], max(e for _, e in together), key))
            for t in together:
                times.remove(t)
    return rows


def largest_matching(reference, estimate, offsets):
    """By linear programming on the matrix of allowed pairs."""
    allowed = np.zeros((len(reference), len(estimate)))
    for i, (s, e, key) in enumerate(reference):
        for j, (s2, e2, key2) in enumerate(estimate):
            tolerance = max(0.05, 0.2 * (max(e, s + 1e-6) - s))
            ends = round(abs(max(e, s + 1e-6) - max(e2, s2 + 1e-6)), 4) <= tolerance
            close = round(abs(s - s2), 4) <= 0.05
            allowed[i, j] = key == key2 and close and (ends or not offsets)
    pairs = scipy.optimize.linear_sum_assignment(allowed, maximize=True)
    return NoteCounts(matched=int(allowed[pairs].sum()), reference=len(reference),
                      estimate=len(estimate))


def sounding(notes, frame_seconds, fold=lambda p: p):
    """{(frame, pitch)} of melodic notes."""
    result = set()
    for s, e, pitch in zip(notes.start, notes.end, notes.pitch, strict=True):
        frames = [i for i in range(int(e / frame_seconds) + 2)
                  if s <= (i + 0.5) * frame_seconds < e]
        frames = frames or [int(s / frame_seconds)]
        result |= {(i, fold(int(pitch))) for i in frames}
    return result


def set_counts(reference, estimate):
    return NoteCounts(matched=len(reference & estimate), reference=len(reference),
                      estimate=len(estimate))


HOP = 0.0173  # seconds: neither edges nor centres of such frames lie on the grid of 10 ms


@st.composite
def small_pieces(draw):
    """Few pitches and times on a grid of 10 ms, so that differences of 50 ms are common."""
    count = draw(st.integers(0, 9))
    start = [draw(st.integers(0, 60)) / 100 for _ in range(count)]
    length = [draw(st.sampled_from([0, 1, 5, 20, 30, 41, 60])) / 100 for _ in range(count)]
    pitch = [draw(st.sampled_from([60, 61, 72])) for _ in range(count)]
    drum = [draw(st.integers(0, 3)) == 0 for _ in range(count)]
    program = [0 if d else draw(st.sampled_from([0, 1, 4, 40, 110])) for d in drum]
    return make(list(zip(start, np.add(start, length), pitch, program, drum, strict=True)))


@settings(max_examples=100)
@given(reference=small_pieces(), estimate=small_pieces(), merge=st.booleans(),
       granularity=st.sampled_from(list(INSTRUMENT_OF)), chunk=st.sampled_from([1, 5, CHUNK]))
def test_all_scores_are_those_of_the_definitions(reference, estimate, merge, granularity, chunk):
    """Whatever the parts in which notes are matched."""
    with unittest.mock.patch.object(transcription, "CHUNK", chunk):
        got = note_scores(reference, estimate, granularity=granularity, merge_unisons=merge,
                          frame_seconds=HOP)
    kind = INSTRUMENT_OF[granularity]
    pitch = [rows_of(n, False, merge=merge) for n in (reference, estimate)]
    played = [rows_of(n, False, kind, merge) for n in (reference, estimate)]
    melodic = [n[~n.is_drum] for n in (reference, estimate)]
    assert got == NoteScores(
        onset=largest_matching(*pitch, offsets=False),
        offset=largest_matching(*pitch, offsets=True),
        instrument=largest_matching(*played, offsets=False),
        full=largest_matching(*played, offsets=True),
        drum_onset=largest_matching(
            *[rows_of(n, True, merge=merge) for n in (reference, estimate)], offsets=False),
        frame=set_counts(*[sounding(n, HOP) for n in melodic]),
        chroma=set_counts(*[sounding(n, HOP, lambda p: p % 12) for n in melodic]))


def test_a_long_piece_is_matched_in_parts_as_in_one():
    """mir_eval on the whole piece, instrument by instrument, as MT3 does it."""
    rng = np.random.default_rng(0)
    reference = random_piece(rng, 4 * CHUNK, 60.0)
    moved = reference.start + rng.normal(0, 0.04, len(reference))
    estimate = Notes(np.maximum(moved, 0), np.maximum(moved, 0) + 0.3, reference.pitch,
                     reference.velocity, reference.program, reference.is_drum)[::2]
    got = note_scores(reference, estimate, granularity="slakh_class", merge_unisons=False)

    def whole(a, b, **settings):
        sides = [(np.stack([n.start, n.end], 1), 440 * 2 ** ((n.pitch - 69) / 12)) for n in (a, b)]
        return len(mir_eval.transcription.match_notes(*sides[0], *sides[1], **settings))

    ref, est = (n[~n.is_drum] for n in (reference, estimate))
    assert got.onset.matched == whole(ref, est, offset_ratio=None)
    assert got.offset.matched == whole(ref, est)
    kinds = [np.array([nearest_slakh_class(int(p)) for p in n.program]) for n in (ref, est)]
    tracks = [(ref[kinds[0] == k], est[kinds[1] == k]) for k in range(34)]
    assert got.full.matched == sum(whole(*t) for t in tracks)
    assert got.instrument.matched == sum(whole(*t, offset_ratio=None) for t in tracks)
    drums = [n[n.is_drum] for n in (reference, estimate)]
    assert got.drum_onset.matched == whole(*drums, offset_ratio=None)
    assert 0.3 < got.onset_f1 < 0.9  # neither all nor nothing

    with unittest.mock.patch.object(mir_eval.transcription, "match_notes",
                                    wraps=mir_eval.transcription.match_notes) as match:
        assert note_scores(reference, estimate, merge_unisons=False) == got
    sizes = [len(call.args[0]) + len(call.args[2]) for call in match.call_args_list]
    assert len(sizes) > 20 and max(sizes) <= CHUNK


# By hand ---------------------------------------------------------------------------------------


def test_the_same_notes_score_1_in_any_order():
    piece = random_piece(np.random.default_rng(1), 200, 20.0)
    columns = [piece.start, piece.end, piece.pitch, piece.velocity, piece.program, piece.is_drum]
    order = np.random.default_rng(2).permutation(len(piece))
    for granularity in INSTRUMENT_OF:
        scores = note_scores(piece, Notes(*(c[order] for c in columns)), granularity=granularity)
        assert set(scores.values().values()) == {1.0}


@pytest.mark.parametrize("milliseconds, score", [
    (40, 1.0), (-40, 1.0), (50, 1.0), (-50, 1.0), (51, 0.0), (60, 0.0), (-60, 0.0)])
def test_onsets_may_be_50_ms_off(milliseconds, score):
    scores = note_scores(melody(), melody().shift(milliseconds / 1000))
    assert scores.onset_f1 == scores.instrument_f1 == scores.onset_recall == score
    # Ends that move alike stay within a fifth of 0.4 s.
    assert scores.offset_f1 == scores.full_f1 == score


@pytest.mark.parametrize("length, end, score", [
    (1.0, 0.19, 1.0), (1.0, -0.2, 1.0), (1.0, 0.21, 0.0), (1.0, -0.21, 0.0),
    (0.1, 0.05, 1.0), (0.1, -0.05, 1.0), (0.1, 0.06, 0.0)])
def test_ends_may_be_50_ms_or_a_fifth_off(length, end, score):
    scores = note_scores(make([(1, 1 + length, 60)]), make([(1, 1 + length + end, 60)]))
    assert scores.onset_f1 == scores.instrument_f1 == 1.0
    assert scores.offset_f1 == scores.full_f1 == score


def test_the_tolerance_of_ends_is_the_references():
    """0.25 s are a fifth of 1.25 s, but more than a fifth of 1 s."""
    assert note_scores(make([(0, 1, 60)]), make([(0, 1.25, 60)])).offset_f1 == 0.0
    assert note_scores(make([(0, 1.25, 60)]), make([(0, 1, 60)])).offset_f1 == 1.0


def test_octave_errors_are_right_in_chroma_alone():
    octave_up = melody()
    octave_up = Notes(octave_up.start, octave_up.end, octave_up.pitch + 12, octave_up.velocity,
                      octave_up.program, octave_up.is_drum)
    scores = note_scores(melody(), octave_up)
    assert scores.chroma_f1 == 1.0
    assert scores.onset_f1 == scores.frame_f1 == scores.full_f1 == scores.onset_recall == 0.0


def test_pitch_classes_that_are_doubled_count_once():
    scores = note_scores(make([(0, 1, 60), (0, 1, 72)]), make([(0, 1, 60)]))
    assert scores.chroma_f1 == 1.0 and scores.frame_f1 == pytest.approx(2 / 3)


def test_the_instrument_counts_at_its_granularity():
    """Both pianos are of one family; acoustic ones of one Slakh class; a violin is no piano."""
    reference = make([(0, 1, 60, PIANO), (1, 2, 61, PIANO), (2, 3, 62, PIANO), (3, 4, 63, PIANO)])
    estimate = make([(0, 1, 60, PIANO), (1, 2, 61, BRIGHT_PIANO), (2, 3, 62, ELECTRIC_PIANO),
                     (3, 4, 63, VIOLIN)])
    right = dict(program=0.25, slakh_class=0.5, family=0.75, flat=1.0)
    for granularity, score in right.items():
        scores = note_scores(reference, estimate, granularity=granularity)
        assert scores.instrument_f1 == scores.full_f1 == score
        assert scores.onset_f1 == scores.offset_f1 == 1.0


def test_unisons_are_one_note_where_instruments_do_not_count():
    reference = make([(0, 1.0, 60, PIANO), (0.03, 2.0, 60, FLUTE), (3, 4, 62, PIANO)])
    estimate = make([(0.01, 2.05, 60, PIANO), (3, 4, 62, PIANO)])
    merged = note_scores(reference, estimate)
    assert merged.onset == NoteCounts(matched=2, reference=2, estimate=2)
    assert merged.offset_f1 == 1.0  # to the latest end
    assert merged.instrument == NoteCounts(matched=2, reference=3, estimate=2)
    assert merged.full == NoteCounts(matched=1, reference=3, estimate=2)
    apart = note_scores(reference, estimate, merge_unisons=False)
    assert apart.onset == NoteCounts(matched=2, reference=3, estimate=2)


def test_unisons_on_the_side_of_the_estimate_are_no_false_notes():
    one, two = make([(0, 1, 60, PIANO)]), make([(0, 1, 60, PIANO), (0.02, 1, 60, FLUTE)])
    assert note_scores(one, two).onset_precision == 1.0
    assert note_scores(one, two, merge_unisons=False).onset_precision == 0.5


def test_merging_does_not_chain():
    """Repeated notes 40 ms apart: every second one is more than 50 ms from the first."""
    roll = make([(0.04 * i, 0.04 * i + 0.03, 60) for i in range(8)])
    assert note_scores(roll, roll).onset.reference == 4


def test_drums_are_apart():
    drums = make([(0.5 * i, 0.5 * i, 60 + i, 0, True) for i in range(8)])
    scores = note_scores(drums, melody(start=0.0))
    assert scores.drum_onset_f1 == 0.0
    assert all(math.isnan(v) for k, v in scores.values().items()
               if k not in ("drum_onset_f1", "full_with_drums_f1"))
    both = Notes.concatenate([melody(), drums])
    scores = note_scores(both, melody())
    assert scores.onset_f1 == scores.frame_f1 == scores.full_f1 == 1.0
    assert scores.drum_onset_f1 == 0.0 and scores.full_with_drums_f1 == pytest.approx(2 / 3)
    scores = note_scores(both, drums)
    assert scores.drum_onset_f1 == 1.0 and scores.onset_f1 == scores.frame_f1 == 0.0
    other_keys = make([(0.5 * i, 0.5 * i, 90, 0, True) for i in range(8)])
    assert note_scores(drums, other_keys).drum_onset_f1 == 0.0


def test_an_unrelated_piece_scores_next_to_nothing():
    """Of 60 pitches and 600 windows of 0.1 s, 600 notes meet 600 others by chance in about 1 %."""
    rng = np.random.default_rng(3)
    scores = note_scores(*[random_piece(rng, 600, 60.0, drums=0.5) for _ in range(2)])
    values = scores.values()
    assert values.pop("chroma_f1") < 0.45 and values.pop("frame_f1") < 0.15
    assert all(0 <= v < 0.05 for v in values.values())


def test_nothing_to_hear_is_not_a_number_and_nothing_heard_is_0():
    nothing = Notes.empty()
    for estimate in (nothing, melody()):
        assert all(math.isnan(v) for v in note_scores(nothing, estimate).values().values())
    values = note_scores(melody(), nothing).values()
    assert math.isnan(values.pop("drum_onset_f1")) and set(values.values()) == {0.0}


def test_notes_without_duration_are_matched():
    """mir_eval itself refuses them."""
    struck = make([(0, 0, 60), (1, 1, 62), (1, 1, 62, 0, True)])
    values = note_scores(struck, struck).values()
    assert set(values.values()) == {1.0}
    assert note_scores(struck, make([(0, 0.06, 60), (1, 1.04, 62)])).offset_f1 == 0.5


def test_the_matching_is_the_largest():
    """The estimate at 0.13 s could take either note, the one at 0.06 s only the first."""
    scores = note_scores(make([(0.10, 1, 60), (0.16, 1, 60)]), make([(0.06, 1, 60), (0.13, 1, 60)]))
    assert scores.onset == NoteCounts(matched=2, reference=2, estimate=2)


def test_precision_recall_and_f1():
    counts = NoteCounts(matched=3, reference=4, estimate=6)
    assert (counts.precision, counts.recall) == (0.5, 0.75)
    assert counts.f1 == pytest.approx(2 * 0.5 * 0.75 / (0.5 + 0.75))


def test_pooled_scores_count_notes_and_mean_scores_pieces():
    good = note_scores(melody(6), melody(6))  # 6 of 6
    poor = note_scores(melody(2), melody(2).shift(0.2))  # 0 of 2
    silent = note_scores(Notes.empty(), melody(4))  # 4 false notes, no score of its own
    assert pooled_scores([good, poor, silent])["onset_f1"] == pytest.approx(12 / 20)
    assert pooled_scores([good, poor, silent])["onset_recall"] == pytest.approx(6 / 8)
    assert mean_scores([good, poor, silent])["onset_f1"] == 0.5
    assert math.isnan(mean_scores([good, poor])["drum_onset_f1"])
    for empty in (pooled_scores([]), mean_scores([])):
        assert empty.keys() == good.values().keys() and all(map(math.isnan, empty.values()))


def test_unknown_granularity_is_a_user_error():
    with pytest.raises(UserError, match="slakh_class"):
        note_scores(melody(), melody(), granularity="midi")


def test_without_mir_eval_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mir_eval", None)
    with pytest.raises(UserError, match="evaluate"):
        note_scores(melody(), melody())


# Frames ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 30, 60, 200])
def test_frame_scores_are_those_of_the_sets(frames):
    """Shorter and longer estimates; the reference reaches beyond the 88 pitches."""
    rng = np.random.default_rng(frames)
    start = rng.uniform(0, 1.5, 40)
    reference = Notes(start, start + 0.2, rng.integers(10, 120, 40), np.full(40, 80), np.zeros(40),
                      rng.random(40) < 0.2)
    estimate = rng.random((frames, 88)) < 0.1
    melodic = sounding(reference[~reference.is_drum], 0.02)
    heard = {(int(t), int(p) + 21) for t, p in np.argwhere(estimate)}

    def fold(pairs):
        return {(t, p % 12) for t, p in pairs}

    assert frame_scores(reference, estimate, 0.02) == FrameScores(
        frame=set_counts(melodic, heard), chroma=set_counts(fold(melodic), fold(heard)))


def test_frame_scores_want_decisions():
    for wrong in (np.zeros((5, 88)), np.zeros((5, 128), bool), np.zeros(88, bool)):
        with pytest.raises(ValueError, match="bool"):
            frame_scores(melody(), wrong, 0.02)


def test_frame_scores_add_up_and_have_values():
    some = frame_scores(melody(2), np.zeros((10, 88), bool), 0.02)
    assert (some + some).frame.reference == 2 * some.frame.reference > 0
    assert some.values() == dict(frame_f1=0.0, chroma_f1=0.0)


@pytest.mark.parametrize("a, b", [(0.01, 0.02), (0.02, 0.005)])
def test_frame_scores_hardly_depend_on_the_frame(a, b):
    """Notes of about 0.4 s have 40 frames and more: the edges move F1 by a few percent."""
    rng = np.random.default_rng(5)
    reference = random_piece(rng, 100, 20.0)
    estimate = Notes.concatenate([reference[::2], random_piece(rng, 30, 20.0)])
    scores = [note_scores(reference, estimate, frame_seconds=s).frame_f1 for s in (a, b)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
