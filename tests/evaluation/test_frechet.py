"""Fréchet distances against closed forms, for moments and for samples that have them exactly."""

import decimal
import math

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.errors import UserError
from music_diffusion.evaluation import frechet
from music_diffusion.evaluation.frechet import (
    Gaussian,
    check_embeddings,
    fad_infinity,
    fit_gaussian,
    fit_line,
    frechet_audio_distance,
    frechet_distance,
)


def gaussian(mean, cov):
    return Gaussian(np.asarray(mean, np.float64), np.asarray(cov, np.float64), 0)


def random_spd(rng, dim, rank=None, low=0.3):
    """Symmetric, with eigenvalues in [low, 3], `rank` of them, the others 0."""
    q = np.linalg.qr(rng.normal(size=(dim, dim)))[0][:, :rank]
    return q * rng.uniform(low, 3, q.shape[1]) @ q.T


def with_moments(rng, count, mean, root):
    """Samples [count, D] that have exactly this mean and the covariance rootᵀ root.

    Orthonormal columns that are orthogonal to the ones have mean 0 and covariance 1 / (count - 1).
    """
    rank = len(root)
    assert count > rank
    basis = np.concatenate([np.ones((count, 1)), rng.normal(size=(count, rank))], axis=1)
    return np.linalg.qr(basis)[0][:, 1:] * math.sqrt(count - 1) @ root + mean


# Closed forms, of moments.


@pytest.mark.parametrize("dim", [1, 2, 128])
def test_commuting_covariances(dim):
    """Diagonal ones, some with zeros: |Δμ|² + Σ (√a - √b)². Measured error: 1e-15."""
    rng = np.random.default_rng(dim)
    mu, nu, a, b = rng.normal(size=(4, dim))
    a, b = np.maximum(a, 0) ** 2, b ** 2
    expected = np.sum((mu - nu) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    got = frechet_distance(gaussian(mu, np.diag(a)), gaussian(nu, np.diag(b)))
    assert got == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("dim, rank", [(2, 2), (10, 10), (128, 128), (10, 3), (128, 20)])
def test_covariances_that_do_not_commute(dim, rank):
    """A symmetric positive T is the optimal transport from N(μ, Σ) to N(ν, T Σ T), for every Σ.

    So the distance is |μ - ν|² + tr((T - 1) Σ (T - 1)). Measured error: 1e-15.
    """
    rng = np.random.default_rng(dim)
    cov, transport = random_spd(rng, dim, rank), random_spd(rng, dim)
    assert np.abs(cov @ transport - transport @ cov).max() > 0.1
    mu, nu = rng.normal(size=(2, dim))
    move = transport - np.eye(dim)
    expected = np.sum((mu - nu) ** 2) + np.trace(move @ cov @ move)
    got = frechet_distance(gaussian(mu, cov), gaussian(nu, transport @ cov @ transport))
    assert got == pytest.approx(expected, rel=1e-11)


def test_a_flat_covariance_against_a_full_one():
    """Commuting again, but turned, so that the zero eigenvalues are rounded. Measured error: 1e-14.

    The roots of the rounded ones, 1e-8 each, must not count.
    """
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    a, b = np.where(np.arange(64) < 20, rng.uniform(1, 3, 64), 0), rng.uniform(1, 3, 64)
    first, second = (q * a @ q.T, q * b @ q.T)
    got = frechet_distance(gaussian(np.zeros(64), first), gaussian(np.zeros(64), second))
    assert got == pytest.approx(np.sum((np.sqrt(a) - np.sqrt(b)) ** 2), rel=1e-12)


def test_directions_of_very_different_variance():
    """From 1 down to 1e-12, in other directions in each. Measured error: 1e-14."""
    rng = np.random.default_rng(0)
    rotations = [np.linalg.qr(rng.normal(size=(64, 64)))[0] for _ in range(2)]
    cov, transport = [(q * np.logspace(0, low, 64)) @ q.T
                      for q, low in zip(rotations, (-12, -3), strict=True)]
    move = transport - np.eye(64)
    got = frechet_distance(gaussian(np.zeros(64), (cov + cov.T) / 2),
                           gaussian(np.zeros(64), transport @ cov @ transport))
    assert got == pytest.approx(np.trace(move @ cov @ move), rel=1e-9)


@pytest.mark.parametrize("skew", ["0", "0.5", "0.999999"])
def test_two_dimensions_in_fifty_digits(skew):
    """Of a 2 x 2 matrix, tr √M = √(tr M + 2 √det M)."""
    d = decimal.Decimal
    with decimal.localcontext(prec=50):
        s = d(skew)
        (a, b, c), (e, f, g) = (d(2), 2 * s, d(2)), (d(3), -s, d(1) / 2)
        product_trace = a * e + 2 * b * f + c * g
        det = (a * c - b * b) * (e * g - f * f)
        cross = (product_trace + 2 * det.sqrt()).sqrt()
        expected = float(a + c + e + g - 2 * cross + 9 + 16)
    first, second = [[float(a), float(b)], [float(b), float(c)]], [[float(e), float(f)],
                                                                  [float(f), float(g)]]
    got = frechet_distance(gaussian([1, 2], first), gaussian([4, -2], second))
    assert got == pytest.approx(expected, rel=1e-12)


def test_against_the_square_root_of_the_product():
    rng = np.random.default_rng(0)
    a, b = random_spd(rng, 16), random_spd(rng, 16)
    root = scipy.linalg.sqrtm(a @ b)
    np.testing.assert_allclose(root @ root, a @ b, atol=1e-12)
    expected = np.trace(a + b) - 2 * np.trace(root).real
    assert frechet_distance(gaussian(np.zeros(16), a), gaussian(np.zeros(16), b)) == pytest.approx(
        expected, rel=1e-10)


@pytest.mark.parametrize("dim", [1, 5])
def test_points(dim):
    """Without any variance, the squared distance of the means."""
    zero = np.zeros((dim, dim))
    assert frechet_distance(gaussian(np.zeros(dim), zero), gaussian(np.full(dim, 2.0), zero)) == 4 * dim


# Samples.


@pytest.mark.parametrize("count, dim", [(2, 3), (5, 40), (40, 40), (41, 40), (500, 40), (50, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments(count, dim, dtype, monkeypatch):
    """The unbiased ones; they lie far from 0, as numbers of float32 may."""
    monkeypatch.setattr(frechet, "BLOCK", 64)
    x = (np.random.default_rng(0).normal(size=(count, dim)) + 100).astype(dtype)
    fit = fit_gaussian(x)
    assert fit.mean.dtype == fit.cov.dtype == np.float64
    assert fit.count == count
    np.testing.assert_allclose(fit.mean, x.astype(np.float64).mean(axis=0), rtol=1e-14)
    expected = np.cov(x.astype(np.float64), rowvar=False).reshape(dim, dim)
    np.testing.assert_allclose(fit.cov, expected, atol=1e-12)
    np.testing.assert_allclose(fit.root.T @ fit.root, fit.cov, atol=1e-12)


@pytest.mark.parametrize("count", [33, 40, 5000])
def test_samples_of_known_moments(count):
    """As for the moments themselves, from samples that have them. Measured error: 1e-15."""
    rng = np.random.default_rng(count)
    root, transport = np.linalg.cholesky(random_spd(rng, 32)).T, random_spd(rng, 32)
    mu, nu = rng.normal(size=(2, 32))
    move = transport - np.eye(32)
    expected = np.sum((mu - nu) ** 2) + np.square(root @ move).sum()
    reference = with_moments(rng, count, mu, root)
    generated = with_moments(rng, count + 7, nu, root @ transport)
    assert frechet_audio_distance(generated, reference) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("count", [2, 3, 20, 63])
def test_fewer_samples_than_dimensions(count):
    """Singular covariances: the samples moved by a transport, so the moments are too.

    Measured error: 1e-15, from the covariances alone too.
    """
    rng = np.random.default_rng(count)
    reference, transport = rng.normal(size=(count, 64)), random_spd(rng, 64)
    shift = rng.normal(size=64)
    centred = reference - reference.mean(axis=0)
    generated = centred @ transport + shift
    move = centred @ transport - centred
    expected = np.sum((shift - reference.mean(axis=0)) ** 2) + np.square(move).sum() / (count - 1)
    assert frechet_audio_distance(generated, reference) == pytest.approx(expected, rel=1e-11)
    # Without the samples, from the singular covariances alone.
    moments = [gaussian(fit.mean, fit.cov)
               for fit in (fit_gaussian(generated), fit_gaussian(reference))]
    assert frechet_distance(*moments) == pytest.approx(expected, rel=1e-9)


@given(st.integers(2, 40), st.integers(2, 40), st.integers(1, 24), st.integers(0, 10**6),
       st.sampled_from([0.0, 1e-9, 1.0, 1e4]))
@settings(max_examples=60)
def test_never_negative_and_symmetric(n, m, dim, seed, spread):
    rng = np.random.default_rng(seed)
    a, b = spread * rng.normal(size=(n, dim)), rng.normal(size=(m, dim))
    b[rng.random(m) < 0.3] = 0  # some equal rows
    forth, back = frechet_audio_distance(a, b), frechet_audio_distance(b, a)
    assert math.isfinite(forth) and forth >= 0
    assert forth == pytest.approx(back, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("count", [2, 10, 64, 300])
def test_a_set_has_no_distance_to_itself(count):
    x = 3 * np.random.default_rng(0).normal(size=(count, 64)) + 50
    assert 0 <= frechet_audio_distance(x, x) <= 1e-12 * 9 * 64
    assert 0 <= frechet_audio_distance(x, x[::-1]) <= 1e-12 * 9 * 64


@pytest.mark.parametrize("count", [20, 300])
def test_precision_of_the_input_does_not_matter(count):
    """Values around 50, of which float32 keeps 4e-6. Measured difference: 5e-8."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(count, 64)) + 50, 1.3 * rng.normal(size=(200, 64)) + 50.2
    expected = frechet_audio_distance(a, b)
    assert frechet_audio_distance(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(
        expected, rel=1e-3)


@pytest.mark.parametrize("count", [10, 100])
def test_rotations_and_shifts_of_both_do_not_matter(count):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(count, 32)), 0.5 * rng.normal(size=(50, 32)) + 1
    rotation, shift = np.linalg.qr(rng.normal(size=(32, 32)))[0], 10 * rng.normal(size=32)
    expected = frechet_audio_distance(a, b)
    assert frechet_audio_distance(a @ rotation + shift, b @ rotation + shift) == pytest.approx(
        expected, rel=1e-10)
    assert abs(frechet_audio_distance(a + shift, b) - expected) > 1  # of one, they do


# FAD∞.


def test_a_line():
    x = np.array([0.1, 0.2, 0.7])
    assert fit_line(x, 3 - 2 * x) == pytest.approx((3, -2, 1), rel=1e-12)
    value, slope, r2 = fit_line(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0]))
    assert (value, slope, r2) == pytest.approx((0.5, 0.5, 0.25))  # by hand
    assert math.isnan(fit_line(x, np.ones(3))[2])


def test_extrapolation_is_nearer_to_the_truth():
    """The reference has exactly the moments 0 and 1, the generated ones are drawn from N(ν, Σ)."""
    rng = np.random.default_rng(0)
    dim, count, repeats = 16, 300, 8
    reference = with_moments(rng, 50, np.zeros(dim), np.eye(dim))
    scale = rng.uniform(0.5, 1.5, dim)
    shift = 0.2 * rng.normal(size=dim)
    truth = np.sum(shift ** 2) + np.sum((scale - 1) ** 2)
    plain, infinite = np.zeros(repeats), np.zeros(repeats)
    for i in range(repeats):
        generated = rng.normal(size=(count, dim)) * scale + shift
        plain[i] = frechet_audio_distance(generated, reference)
        fit = fad_infinity(generated, reference, seed=i)
        infinite[i] = fit.value
        assert fit.slope > 0 and fit.r2 > 0.9
    # Measured: 0.26 too large, and 0.01 too small; both vary by 0.08.
    assert plain.mean() - truth > 0.2
    assert abs(infinite.mean() - truth) < 0.3 * (plain.mean() - truth)
    assert (np.abs(infinite - truth) < np.abs(plain - truth)).mean() > 0.8


def test_subsets():
    """They end with all embeddings; a seed fixes them; enough draws of them agree."""
    rng = np.random.default_rng(0)
    generated, reference = rng.normal(size=(100, 4)), rng.normal(size=(30, 4)) + 1
    fit = fad_infinity(generated, reference, points=5, smallest=20)
    assert fit.sizes == (20, 40, 60, 80, 100)
    assert fit.distances[-1] == pytest.approx(frechet_audio_distance(generated, reference), rel=1e-12)
    again = fad_infinity(generated, reference, points=5, smallest=20)
    assert again.distances == fit.distances and again.value == fit.value
    assert fad_infinity(generated, reference, points=5, smallest=20, seed=1).value != fit.value
    assert fad_infinity(generated, reference).sizes[0] == 20
    assert fad_infinity(generated, np.zeros((2, 4))).distances[-1] > 0
    assert fad_infinity(rng.normal(size=(4, 2)), reference[:, :2]).sizes == (2, 3, 4)
    mean = np.mean([fad_infinity(generated, reference, points=3, smallest=20, draws=1, seed=seed
                                 ).distances[0] for seed in range(40)])
    many = fad_infinity(generated, reference, points=3, smallest=20, draws=40).distances[0]
    assert many == pytest.approx(mean, rel=0.15)


def test_equal_embeddings_have_no_trend():
    fit = fad_infinity(np.ones((10, 2)), np.zeros((10, 2)))
    assert fit.value == 2 and fit.slope == 0 and math.isnan(fit.r2)


# Bad input.


@pytest.mark.parametrize("bad, message", [
    (np.zeros((1, 4)), "the generated embeddings are 1, where at least 2 are needed"),
    (np.zeros((0, 4)), "at least 2"),
    (np.zeros(4), r"shape \[4\]"),
    (np.zeros((4, 0)), r"shape \[4, 0\]"),
    (np.full((3, 4), np.nan), "the generated embeddings contain NaN or infinity"),
    (np.full((3, 4), np.inf), "NaN or infinity"),
    (np.zeros((3, 4), complex), "complex128; give real numbers"),
    (np.zeros((3, 5)), "5 and of 4 dimensions"),
])
def test_bad_embeddings(bad, message):
    with pytest.raises(UserError, match=message) as error:
        frechet_audio_distance(bad, np.zeros((3, 4)))
    assert "\n" not in str(error.value)


def test_bad_reference_is_named():
    with pytest.raises(UserError, match="the reference embeddings are 1"):
        frechet_audio_distance(np.zeros((3, 4)), np.zeros((1, 4)))


def test_integers_are_numbers():
    assert check_embeddings([[1, 2]]).shape == (1, 2)
    assert frechet_audio_distance(np.array([[0], [2]]), np.array([[3], [5]])) == 9


def test_too_little_for_fad_infinity():
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(UserError, match="at least 4 are needed"):
        fad_infinity(x[:3], x)
    with pytest.raises(UserError, match="fewer than three sizes"):
        fad_infinity(x, x, smallest=19)
    with pytest.raises(UserError, match="subsets of 500 or more of 20"):
        fad_infinity(x, x, smallest=500)
    for wrong in ({"points": 2}, {"smallest": 1}, {"draws": 0}):
        with pytest.raises(ValueError, match="need"):
            fad_infinity(x, x, **wrong)


def test_moments_that_are_none():
    with pytest.raises(ValueError, match="covariance"):
        gaussian(np.zeros(3), np.eye(2))
    good = gaussian(np.zeros(2), np.eye(2))
    for wrong in ([[1, 2], [2, 1]], [[1, 0.5], [0, 1]]):
        with pytest.raises(ValueError, match="symmetric"):
            frechet_distance(gaussian(np.zeros(2), wrong), good)
