"""Frame features against loops over notes and frames, written from the docstrings."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.notes import frames as frames_module
from music_diffusion.notes.frames import (
    DRUMS,
    NUM_CLASSES,
    ROLL_CHANNELS,
    FrameGrid,
    left_out,
    note_states,
    roll_features,
    slot_features,
    warn_if_crowded,
)
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, nearest_slakh_class

GRID = FrameGrid()
ONSET, SOUNDING, DRUM, CLASS_ONSET, CLASS_SOUNDING = 0, 128, 256, 384, 384 + NUM_CLASSES


def one(start, end, pitch=60, velocity=127, program=0, drum=False):
    return Notes([start], [end], [pitch], [velocity], [program], [drum])


def heard_rows(notes, start, frames, grid):
    """(frame, program, pitch, velocity, age, release) of every note that a frame hears."""
    rows = []
    for i in range(frames):
        centre = start + (i + 1) * grid.hop
        for s, e, pitch, velocity, program, drum in zip(
                notes.start, notes.end, notes.pitch, notes.velocity, notes.program, notes.is_drum,
                strict=True):
            if centre - s > -grid.half_window and centre - e < grid.tail:
                rows.append((i, 128 if drum else int(program), int(pitch), int(velocity),
                             centre - s, centre - e))
    return rows


def roll(notes, start, frames, grid):
    """The five rolls, a note and a frame at a time."""
    out = np.zeros((frames, ROLL_CHANNELS))

    def raise_to(i, channel, value):
        if 0 <= i < frames:
            out[i, channel] = max(out[i, channel], value)

    for s, e, pitch, velocity, program, drum in zip(
            notes.start, notes.end, notes.pitch, notes.velocity, notes.program, notes.is_drum,
            strict=True):
        loud = velocity / 127
        kind = DRUM_CLASS if drum else nearest_slakh_class(int(program))
        first = int(np.floor((s - start) / grid.hop))
        raise_to(first, (DRUM if drum else ONSET) + pitch, loud)
        raise_to(first, CLASS_ONSET + kind, loud)
        for i in range(frames):  # frames that begin before the note ends, or its very first
            if i == first or i > first and start + i * grid.hop < e:
                raise_to(i, CLASS_SOUNDING + kind, loud)
                if not drum:
                    raise_to(i, SOUNDING + pitch, loud)
    return out


# Times off the grid of frames, where a rounding error would decide.
TIME = st.integers(0, 60).map(lambda i: i * 0.02 + 0.0071)
NOTE = st.tuples(TIME, st.integers(0, 40).map(lambda i: i * 0.02 + 0.0037), st.integers(0, 127),
                 st.integers(1, 127), st.integers(0, 127), st.booleans())


@st.composite
def pieces(draw):
    rows = draw(st.lists(NOTE, max_size=8))
    start, length, pitch, velocity, program, drum = (
        np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 6
    return Notes(start, start + length, pitch, velocity, np.where(drum, 0, program), drum)


CASES = dict(notes=pieces(), start=st.integers(0, 40).map(lambda i: 0.02 * i),
             frames=st.integers(1, 20), tail=st.sampled_from([0.0, 0.055, 2.0]),
             half_window=st.sampled_from([0.0171, 0.0213, 0.0913]))


@given(**CASES)
@settings(max_examples=150)
def test_note_states_are_those_of_the_loop(notes, start, frames, tail, half_window):
    grid = FrameGrid(tail=tail, half_window=half_window)
    states = note_states(notes, start, frames, grid)
    got = np.stack([states[f] for f in ("frame", "program", "pitch", "velocity", "age", "release")], 1)
    want = np.array(heard_rows(notes, start, frames, grid)).reshape(-1, 6)
    assert (np.diff(states["frame"]) >= 0).all()

    def canonical(table):
        return table[np.lexsort(np.round(table, 4).T)]

    np.testing.assert_allclose(canonical(got), canonical(want), atol=1e-5)


@pytest.mark.slow
@given(**CASES)
@settings(max_examples=150)
def test_slots_list_the_states_of_each_frame(notes, start, frames, tail, half_window):
    grid = FrameGrid(tail=tail, half_window=half_window)
    rows = heard_rows(notes, start, frames, grid)
    slots = slot_features(notes, start, frames, grid)
    assert slots["dropped"] == 0
    fullest = max(sum(r[0] == i for r in rows) for i in range(frames))
    assert slots["age"].shape == (frames, max(1, fullest))
    for i in range(frames):
        used = slots["program"][i] >= 0
        got = sorted(zip(*(slots[f][i][used].round(4).tolist() for f in (
            "program", "pitch", "velocity", "age", "release")), strict=True))
        want = sorted(r[1:] for r in rows if r[0] == i)
        np.testing.assert_allclose(np.array(got).reshape(-1, 5), np.array(want).reshape(-1, 5),
                                   atol=2e-4)


@pytest.mark.slow
@given(limit=st.integers(1, 3), **CASES)
@settings(max_examples=150)
def test_too_few_slots_keep_sounding_then_latest_notes_and_count_the_rest(
        limit, notes, start, frames, tail, half_window):
    grid = FrameGrid(tail=tail, half_window=half_window)
    slots = slot_features(notes, start, frames, grid, limit)
    dropped = 0
    for i in range(frames):
        rows = [r for r in heard_rows(notes, start, frames, grid) if r[0] == i]
        # Sounding notes by age, then released ones by time since their release.
        rank = sorted((r[5] >= 0, r[5] if r[5] >= 0 else r[4]) for r in rows)
        dropped += max(0, len(rows) - limit)
        used = slots["program"][i] >= 0
        assert used.sum() == min(limit, len(rows))
        got = sorted((bool(e >= 0), float(e if e >= 0 else a)) for a, e in zip(
            slots["age"][i][used], slots["release"][i][used], strict=True))
        np.testing.assert_allclose(np.array(got).reshape(-1, 2),
                                   np.array(rank[:limit], float).reshape(-1, 2), atol=1e-5)
    assert slots["dropped"] == dropped


@given(notes=CASES["notes"], start=CASES["start"], frames=CASES["frames"])
@settings(max_examples=150)
def test_rolls_are_those_of_the_loop(notes, start, frames):
    got = roll_features(notes, start, frames, GRID)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, roll(notes, start, frames, GRID), atol=1e-6)


def test_ages_count_from_the_centres_of_the_codecs_windows():
    # Frame 4's window of 40 ms begins at sample 4 * 320 of 16000, so its centre is at 0.1 s.
    states = note_states(one(0.05, 0.15), 0.0, 8, GRID)
    age = dict(zip(states["frame"].tolist(), states["age"].tolist(), strict=True))
    release = dict(zip(states["frame"].tolist(), states["release"].tolist(), strict=True))
    assert age[4] == pytest.approx(0.05) and release[4] == pytest.approx(-0.05)
    # The first frame whose window reaches into the note is that of [0.02, 0.06).
    assert min(age) == 1 and age[1] == pytest.approx(-0.01)
    assert max(age) == 7  # the tail lasts longer than the segment


def test_a_later_segment_sees_the_same_notes_at_the_same_frames():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 2, 12)
    notes = Notes(start, start + rng.uniform(0, 1, 12), rng.integers(0, 128, 12),
                  rng.integers(1, 128, 12), rng.integers(0, 128, 12), np.zeros(12))
    whole = roll_features(notes, 0.0, 100, GRID)
    np.testing.assert_array_equal(roll_features(notes, 40 * 0.02, 60, GRID), whole[40:])
    whole = slot_features(notes, 0.0, 100, GRID, 12)
    part = slot_features(notes, 40 * 0.02, 60, GRID, 12)
    for field in ("program", "pitch", "velocity", "age", "release"):
        np.testing.assert_allclose(part[field], whole[field][40:], atol=1e-5)


def test_channels_of_one_note_and_one_drum():
    notes = Notes.concatenate([one(0.025, 0.065, 60, 100, 71), one(0.045, 0.05, 38, 50, drum=True)])
    got = {(int(i), int(c)): round(float(v) * 127) for (i, c), v in np.ndenumerate(
        roll_features(notes, 0.0, 6, GRID)) if v}
    clarinet = CLASS_ONSET + nearest_slakh_class(71)
    want = {(1, ONSET + 60): 100, (1, clarinet): 100, (2, DRUM + 38): 50,
            (2, CLASS_ONSET + DRUM_CLASS): 50, (2, CLASS_SOUNDING + DRUM_CLASS): 50}
    want |= {(i, c): 100 for i in (1, 2, 3) for c in (SOUNDING + 60, clarinet + NUM_CLASSES)}
    assert got == want


def test_of_two_notes_on_one_pitch_the_louder_counts():
    notes = Notes.concatenate([one(0.01, 0.05, 60, 100, 0), one(0.01, 0.05, 60, 30, 40)])
    got = roll_features(notes, 0.0, 2, GRID)
    np.testing.assert_allclose(got[:, SOUNDING + 60] * 127, 100, atol=1e-4)
    np.testing.assert_allclose(got[0, ONSET + 60] * 127, 100, atol=1e-4)


def test_without_notes_all_is_empty():
    assert not roll_features(Notes.empty(), 3.0, 5, GRID).any()
    slots = slot_features(Notes.empty(), 3.0, 5, GRID)
    assert slots["program"].shape == (5, 1) and (slots["program"] == -1).all()
    assert slots["dropped"] == 0
    assert all(len(v) == 0 for v in note_states(Notes.empty(), 3.0, 5, GRID).values())
    far = one(100.0, 101.0)
    assert not roll_features(far, 0.0, 5, GRID).any()
    assert not len(note_states(far, 0.0, 5, GRID)["frame"])


def test_drums_are_one_program_beyond_general_midi():
    assert slot_features(one(0, 1, drum=True), 0.0, 1, GRID)["program"].tolist() == [[DRUMS]]
    assert DRUMS == 128


@pytest.mark.parametrize("fields", [{"hop": 0.0}, {"half_window": -0.01}, {"tail": -1.0}])
def test_a_grid_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        dataclasses.replace(GRID, **fields)


def crowd(count, seed=0, seconds=1.0):
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, seconds, count)
    return Notes(start, start + rng.uniform(0, 0.3, count), rng.integers(0, 128, count),
                 rng.integers(1, 128, count), rng.integers(0, 128, count), rng.random(count) < 0.1)


@pytest.mark.parametrize("voices", [1, 7, 40])
def test_of_a_crowd_the_loudest_are_kept_in_every_frame(voices, monkeypatch):
    """Against a loop over frames; the formula is that of the docstring."""
    monkeypatch.setattr(frames_module, "ROWS", 100)  # many portions
    notes, count = crowd(60), 40
    everything, some = (note_states(notes, 0.1, count, GRID, limit) for limit in (None, voices))
    rows = 0
    for frame in range(count):
        a, b = ({k: v[s["frame"] == frame] for k, v in s.items()} for s in (everything, some))
        lost = 3 * np.maximum(a["age"], 0) + 60 * np.maximum(a["release"], 0) / GRID.tail
        loudness = 40 * np.log10(a["velocity"] / 127) - lost
        best = np.sort(np.argsort(-loudness, kind="stable")[:voices])
        for name in a:
            np.testing.assert_array_equal(b[name], a[name][best])
        rows += len(a["frame"]) - len(best)
    assert rows == left_out(notes, 0.1, count, GRID, voices)[2]


def test_what_is_no_crowd_is_left_as_it_is():
    notes = crowd(60)
    most = left_out(notes, 0.0, 50, GRID, 10)[1]
    a, b = (note_states(notes, 0.0, 50, GRID, limit) for limit in (None, most))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    assert left_out(notes, 0.0, 50, GRID, most) == (0, most, 0)
    assert most == max(np.bincount(a["frame"])) and most > 30


def test_a_crowd_is_warned_about_once_and_an_orchestra_is_not():
    text = "up to 600 notes sound or ring at once; in .* s only the 512"
    with pytest.warns(UserWarning, match=text) as told:
        warn_if_crowded(crowd(600, seconds=1e-3), 0.0, 50, GRID)
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_crowded(crowd(500), 0.0, 200, GRID)
        warn_if_crowded(Notes.empty(), 0.0, 200, GRID)
