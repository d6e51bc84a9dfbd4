import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.data.augment import (
    Augmentation,
    draw_program,
    fit_range,
    split_parts,
    stretched,
    with_program,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES, nearest_slakh_class, program_range

STILL = Augmentation(reorchestrate=0.0, subset=0.0, transpose=0, stretch=0.0, onset_jitter=0.0,
                     velocity_jitter=0.0, part_level=0.0)


def band(n=30, seed=0):
    """Piano, violin and drums, all within their ranges even when moved by three semitones."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 10, n)
    kind = np.arange(n) % 3
    return Notes(start, start + rng.uniform(0.1, 1, n), rng.integers(60, 84, n),
                 rng.integers(40, 100, n), np.where(kind == 1, 40, 0), kind == 2)


def rows(notes):
    return sorted(zip(notes.start.tolist(), notes.end.tolist(), notes.pitch.tolist(),
                      notes.velocity.tolist(), notes.program.tolist(), notes.is_drum.tolist(),
                      strict=True))


def varied(seed=0, notes=None, **changes):
    augmentation = dataclasses.replace(STILL, **changes)
    return augmentation(band() if notes is None else notes, np.random.default_rng(seed))


def test_without_variation_the_notes_stay():
    assert rows(varied()) == rows(band())


def test_the_same_generator_gives_the_same_notes():
    a, b, c = (Augmentation()(band(), np.random.default_rng(s)) for s in (1, 1, 2))
    assert rows(a) == rows(b) != rows(c)


def test_transposition_moves_all_melodic_parts_alike_and_no_drums():
    steps = set()
    for seed in range(40):
        moved = varied(seed, transpose=3)
        step = {int(b - a) for a, b, d in zip(band().pitch, moved.pitch, moved.is_drum, strict=True)
                if not d}
        drums = {int(b - a) for a, b, d in zip(band().pitch, moved.pitch, moved.is_drum, strict=True)
                 if d}
        assert len(step) == 1 and drums == {0}
        steps |= step
    assert steps == set(range(-3, 4))


def test_subsets_are_some_but_not_all_parts_whole():
    sizes = set()
    for seed in range(30):
        parts = split_parts(varied(seed, subset=1.0))
        sizes.add(len(parts))
        whole = [rows(p) for p in split_parts(band())]
        assert all(rows(p) in whole for p in parts)
    assert sizes == {1, 2}


def test_a_single_part_is_never_dropped():
    piano = band()[band().program + band().is_drum == 0]
    assert len(varied(0, piano, subset=1.0)) == len(piano)


def test_new_programs_are_one_a_part_and_drums_stay_drums():
    seen = set()
    for seed in range(30):
        new = varied(seed, reorchestrate=1.0)
        assert rows(new[new.is_drum]) == rows(band()[band().is_drum])
        for part in (0, 40):
            at = np.isin(new.start, band().start[(band().program == part) & ~band().is_drum])
            programs = set(new.program[at & ~new.is_drum].tolist())
            assert len(programs) == 1
            seen |= programs
            low, high = program_range(programs.pop())
            assert new.pitch[at & ~new.is_drum].min() >= low
            assert new.pitch[at & ~new.is_drum].max() <= high
    assert len(seen) > 20


def test_stretching_scales_all_times_by_one_factor():
    factors = set()
    for seed in range(30):
        stretched = varied(seed, stretch=0.15)
        ratio = np.concatenate([stretched.start / band().start, stretched.end / band().end])
        assert np.ptp(ratio) < 1e-9
        factors.add(round(float(ratio[0]), 6))
    assert 0.85 <= min(factors) < 0.9 and 1.1 < max(factors) <= 1.15


def test_stretched_notes_keep_all_but_their_times():
    notes, slow = band(), stretched(band(), 1.25)
    np.testing.assert_allclose(slow.end - slow.start, 1.25 * (notes.end - notes.start))
    np.testing.assert_array_equal(slow.pitch, notes.pitch)
    with pytest.raises(UserError, match="above 0"):
        stretched(notes, 0.0)


def test_jitter_has_its_deviation_and_keeps_notes_whole():
    # Half a second apart, so that no two notes exchange their places.
    notes = band(3000)
    slow = dataclasses.replace(notes, start=np.arange(3000.0) + 1, end=np.arange(3000.0) + 1.5)
    moved = varied(0, slow, onset_jitter=0.012, velocity_jitter=6.0)
    assert np.std(moved.start - slow.start) == pytest.approx(0.012, rel=0.05)
    assert np.std(moved.end - slow.end) == pytest.approx(0.012, rel=0.05)
    assert np.std(moved.velocity - slow.velocity) == pytest.approx(6, rel=0.1)
    assert abs(np.mean(moved.start - slow.start)) < 0.001


def test_a_parts_level_moves_all_its_velocities_alike():
    louder = varied(3, part_level=14.0)
    for a, b in zip(split_parts(band()), split_parts(louder), strict=True):
        change = b.velocity - a.velocity
        free = (b.velocity > 10) & (b.velocity < 127)
        assert len(set(change[free].tolist())) <= 1


@given(seed=st.integers(0, 10**6), n=st.integers(0, 12))
@settings(max_examples=50)
def test_whatever_comes_out_are_notes(seed, n):
    """The constructor of `Notes` checks times and ranges."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(0, 3, n)
    drum = rng.uniform(size=n) < 0.3
    notes = Notes(start, start + rng.uniform(0, 2, n), rng.integers(0, 128, n),
                  rng.integers(1, 128, n), np.where(drum, 0, rng.integers(0, 128, n)), drum)
    out = Augmentation(stretch=0.0)(notes, rng)
    assert len(out) <= n and (n == 0 or len(out) > 0)
    assert (out.end - out.start >= 0.03 - 1e-9).all()
    assert (out.velocity >= 10).all()


@given(pitch=st.lists(st.integers(0, 127), min_size=1, max_size=20), program=st.integers(0, 127))
@settings(max_examples=200)
def test_fitting_keeps_pitch_classes_and_reaches_the_range(pitch, program):
    pitch, (low, high) = np.array(pitch), program_range(program)
    assert high - low >= 11  # an octave, so every pitch class has a place
    fitted = fit_range(pitch, (low, high))
    assert (fitted >= low).all() and (fitted <= high).all()
    assert ((fitted - pitch) % 12 == 0).all()
    inside = (pitch >= low).all() and (pitch <= high).all()
    if inside:
        np.testing.assert_array_equal(fitted, pitch)


def test_a_part_moves_as_a_whole_where_it_can():
    melody = np.array([30, 34, 37, 42])
    fitted = fit_range(melody, program_range(73))  # a flute
    assert (np.diff(fitted) == np.diff(melody)).all() and fitted.min() >= 60


def test_a_part_on_another_instrument_keeps_its_melody_in_the_new_range():
    low = Notes(np.arange(4.0), np.arange(4.0) + 0.5, [30, 34, 37, 42], [90] * 4, [33] * 4, [False] * 4)
    flute = with_program(low, 73)
    assert set(flute.program.tolist()) == {73}
    assert (np.diff(flute.pitch) == np.diff(low.pitch)).all() and flute.pitch.min() >= 60
    np.testing.assert_array_equal(flute.start, low.start)
    drums = dataclasses.replace(low, is_drum=np.ones(4), program=np.zeros(4))
    assert rows(with_program(drums, 73)) == rows(drums)


@pytest.mark.parametrize("field, value", [
    ("reorchestrate", 1.5), ("subset", -0.1), ("transpose", -1), ("stretch", 1.0),
    ("onset_jitter", -0.1), ("velocity_jitter", -1.0), ("part_level", float("nan"))])
def test_impossible_variations_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        Augmentation(**{field: value})


def test_programs_are_drawn_evenly_over_classes():
    rng = np.random.default_rng(0)
    drawn = [draw_program(rng) for _ in range(34 * 100)]
    count = np.bincount([nearest_slakh_class(p) for p in drawn], minlength=34)
    # Binomial: 100 ± 10.
    assert len(count) == 34 and count.min() > 55 and count.max() < 150
    assert set(drawn) == {p for c in SLAKH_CLASSES for p in c.programs}


def test_parts_are_programs_and_the_drums():
    parts = split_parts(band())
    assert [(int(p.program[0]), bool(p.is_drum[0]), len(p)) for p in parts] == [
        (0, False, 10), (40, False, 10), (0, True, 10)]
    assert split_parts(Notes.empty()) == []
