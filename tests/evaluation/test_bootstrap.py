"""Intervals that hold what they should, as often as they should."""

import math

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.bootstrap import Interval, bootstrap_interval
from music_diffusion.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance


def test_coverage_of_a_mean():
    """Rows of a file share its offset: 25 files of 8 rows say little more than 25 numbers.

    Of 200 intervals at 90 % a few less than 90 % should hold the true mean (25 files are few), with
    an error of 2 %. Measured: 85 %; drawing rows instead of files gives 40 %.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for repeat in range(200):
        clips = [rng.normal() + 0.3 * rng.normal(size=(8, 1)) for _ in range(25)]
        interval = bootstrap_interval(np.mean, clips, draws=100, level=0.9, seed=repeat)
        hits += interval.low <= 0 <= interval.high
    assert 0.79 <= hits / 200 <= 0.95


def test_percentiles():
    """Of two files the mean is 0, ½ or 1, with probabilities ¼, ½, ¼."""
    clips = [np.zeros((3, 1)), np.ones((3, 1))]
    wide = bootstrap_interval(np.mean, clips, draws=400, level=0.9)
    assert (wide.low + wide.bias, wide.high + wide.bias) == pytest.approx((0, 1))
    narrow = bootstrap_interval(np.mean, clips, draws=400, level=0.3)
    assert narrow.low + narrow.bias == narrow.high + narrow.bias == pytest.approx(0.5)
    assert abs(wide.bias) < 4 * math.sqrt(1 / 8 / 400)


def test_whole_files_are_drawn_as_many_as_there_are():
    clips = [np.full((size, 2), size) for size in (1, 2, 5)]
    seen = []

    def statistic(x):
        assert x.shape[1] == 2
        seen.append(sorted(x[:, 0]))
        return 0.0

    assert bootstrap_interval(statistic, clips, draws=100) == Interval(0.0, 0.0, 0.0)
    assert seen[0] == [1, 2, 2, 5, 5, 5, 5, 5]  # the value itself
    files = {tuple(rows.count(size) / size for size in (1, 2, 5)) for rows in seen}
    assert len(files) == 10  # the multisets of three out of three
    assert all(sum(counts) == 3 for counts in files)


def test_a_distance_grows_with_repeated_files_and_its_interval_does_not():
    """Bias is measured, and taken off: the interval holds the expectation of the distance.

    Measured: 19 times of 20; plain percentiles, 15 times.
    """
    rng = np.random.default_rng(0)
    dim, reference = 8, Gaussian(np.zeros(8), np.eye(8), 0)

    def draw():
        return [rng.normal(size=dim) + rng.normal(size=(10, dim)) for _ in range(12)]

    def distance(x):
        return frechet_distance(fit_gaussian(x), reference)

    expected = np.mean([distance(np.concatenate(draw())) for _ in range(100)])
    held = held_by_percentiles = 0
    for repeat in range(20):
        interval = bootstrap_interval(distance, draw(), draws=60, seed=repeat)
        assert interval.bias > 0
        held += interval.low <= expected <= interval.high
        held_by_percentiles += (interval.low + interval.bias <= expected
                                <= interval.high + interval.bias)
    assert held >= 18
    assert held_by_percentiles < held


def test_a_seed_fixes_it():
    clips = list(np.random.default_rng(0).normal(size=(6, 4, 2)))
    first = bootstrap_interval(np.mean, clips, draws=50)
    assert bootstrap_interval(np.mean, clips, draws=50) == first
    assert bootstrap_interval(np.mean, clips, draws=50, seed=1) != first


def test_files():
    one = bootstrap_interval(np.mean, [np.ones((5, 2))])
    assert math.isnan(one.low) and math.isnan(one.high) and math.isnan(one.bias)
    with pytest.raises(UserError, match="no files"):
        bootstrap_interval(np.mean, [])


@pytest.mark.parametrize("wrong", [{"draws": 1}, {"level": 0.0}, {"level": 1.0}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="need"):
        bootstrap_interval(np.mean, [np.ones((2, 1)), np.ones((2, 1))], **wrong)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.9, 1.0), (0.0, 0.02)])
def test_an_interval_of_shares_holds_shares_alone(seed, ends):
    """With few draws the bias of a mean is noise, which moves the ends of skewed scores beyond."""
    rng = np.random.default_rng(seed)
    clips = [np.full((1, 1), rng.choice(ends)) for _ in range(4)]
    free = bootstrap_interval(np.mean, clips, draws=20, seed=seed)
    held = bootstrap_interval(np.mean, clips, draws=20, seed=seed, bounds=(0.0, 1.0))
    assert 0 <= held.low <= held.high <= 1 and held.bias == free.bias
    assert held.low == max(0.0, free.low) and held.high == min(1.0, free.high)


def test_that_test_can_fail():
    """Without bounds some interval of those reaches beyond."""
    rng = np.random.default_rng(1)
    beyond = 0
    for seed in range(20):
        clips = [np.full((1, 1), x) for x in rng.choice([0.0, 1.0], size=4)]
        interval = bootstrap_interval(np.mean, clips, draws=20, seed=seed)
        beyond += interval.low < 0 or interval.high > 1
    assert beyond > 2
