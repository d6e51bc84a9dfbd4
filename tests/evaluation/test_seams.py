"""The statistic of seams: made-up spectrograms whose seams are known."""

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.seams import Piece, level_db, mel_change, seams

STRIDE, MELS = 64, 16


def walk(seed, frames=600):
    """Log-mel that wanders, as music does: its change varies slowly and its level, too."""
    rng = np.random.default_rng(seed)
    pace = 0.1 * np.exp(0.5 * np.sin(np.arange(frames) / 40 + seed))
    steps = rng.normal(size=(frames, MELS)) * pace[:, None]
    mel = np.zeros((frames, MELS))
    for t in range(1, frames):
        mel[t] = 0.95 * mel[t - 1] + steps[t]
    return mel - 3


def joins_of(mel, overlap=0):
    return np.arange(STRIDE, len(mel) - overlap, STRIDE)


def piece(seed, *, overlap=0, jump=0.0, louder=0.0, frames=600, onsets=()):
    """`jump`: nat of noise that every other segment has; `louder`: nat that it is louder; both are
    faded in and out along the overlap, as segments are."""
    mel = walk(seed, frames)
    joins = joins_of(mel, overlap)
    odd = np.zeros(frames)
    for k, join in enumerate(joins):
        ramp = np.clip((np.arange(frames) - join + 1) / (overlap + 1), 0, 1)
        odd += ramp * (1 if k % 2 == 0 else -1)
    rng = np.random.default_rng(1000 + seed)
    mel += odd[:, None] * (louder + jump * rng.choice([-1, 1], MELS))
    return Piece(mel=mel, joins=joins, overlap=overlap, onsets=np.asarray(onsets, int))


def test_change_and_level_are_what_the_equations_say():
    mel = np.log(np.array([[1.0, 2.0], [2.0, 2.0], [2.0, 8.0]]))
    np.testing.assert_allclose(mel_change(mel), [np.log(2) / 2, np.log(4) / 2])
    assert level_db(mel) == pytest.approx(10 * np.log10((5 + 8 + 68) / 3))
    assert level_db(mel + 1) - level_db(mel) == pytest.approx(20 * np.log10(np.e))


@pytest.mark.parametrize("overlap, along", [(0, True), (16, True), (16, False)])
def test_without_seams_p_is_uniform(overlap, along):
    """24 data sets of two pieces: p-values spread evenly (Kolmogorov-Smirnov at 1 %)."""
    found = [seams([piece(10 * i + k, overlap=overlap) for k in range(2)], along=along, draws=100, seed=i)
             for i in range(24)]
    for name in ("change", "level"):
        p = np.sort([getattr(one, name).p for one in found])
        even = (np.arange(len(p)) + 0.5) / len(p)
        assert np.abs(p - even).max() < 1.63 / np.sqrt(len(p)), name


def test_cuts_are_found():
    pieces = [piece(i, jump=0.3) for i in range(4)]
    found = seams(pieces)
    assert found.change.p < 0.01 and found.change.ratio > 2 and found.change.percentile == 100
    # (1) grows from |walk| to |walk ± jump| on average.
    assert found.change.at_joins == pytest.approx(0.3, rel=0.15)
    assert found.change.joins == sum(len(p.joins) for p in pieces)


def test_a_step_of_the_level_is_found_and_measured():
    found = seams([piece(i, louder=0.5) for i in range(4)])
    assert found.level.p < 0.01 and found.level.at_joins == pytest.approx(20 * np.log10(np.e) * 0.5,
                                                                          rel=0.25)


def test_fading_hides_the_same_seam_from_the_change():
    """The jump that is found as a cut is 1/17 of it a frame along an overlap of 16."""
    found = seams([piece(i, overlap=16, jump=0.3) for i in range(4)], along=False)
    assert found.change.p > 0.05
    loud = seams([piece(i, overlap=16, louder=1.5) for i in range(4)])
    assert loud.level.p < 0.01  # but levels that differ are found across the overlap


def test_blur_is_a_small_percentile():
    pieces = []
    for i in range(4):
        one = piece(i, overlap=16)
        for join in one.joins:
            part = slice(join, join + 16)
            one.mel[part] = one.mel[part].mean(axis=0)
        pieces.append(one)
    assert seams(pieces).change.percentile < 1


def test_onsets_at_the_joins_are_no_seams():
    """A note begins near every join, and seldom elsewhere: each a jump of 1 nat."""
    def busy(seed, told):
        mel, rng = walk(seed, 900), np.random.default_rng(seed)
        joins = joins_of(mel)
        others = rng.choice(np.arange(24, 880), 20)
        others = others[np.abs(others[:, None] - joins).min(axis=1) > 6]
        onsets = np.sort(np.concatenate([joins + rng.integers(-3, 3, len(joins)), others]))
        jump = rng.choice([-1.0, 1.0], (len(onsets), MELS))
        for at, step in zip(onsets, jump, strict=True):
            mel[at:] += step
            mel[at + 3:] -= step
        return Piece(mel=mel, joins=joins, overlap=0, onsets=onsets if told else np.zeros(0, int))

    assert seams([busy(i, True) for i in range(3)]).change.p > 0.05
    assert seams([busy(i, False) for i in range(3)]).change.p < 0.01  # where they are not known


def test_a_piece_counts_by_its_joins_and_short_ones_do_not():
    short = Piece(mel=walk(0, 40), joins=np.zeros(0, int), overlap=0, onsets=np.zeros(0, int))
    both = seams([short, piece(1)])
    assert both == seams([piece(1)])
    with pytest.raises(UserError, match="give longer pieces"):
        seams([short])
    with pytest.raises(UserError, match="finite"):
        Piece(mel=np.full((3, 2), np.nan), joins=np.zeros(0, int), overlap=0, onsets=np.zeros(0, int))
