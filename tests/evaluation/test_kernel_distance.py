"""The kernel audio distance against its definition in a double loop, and in expectation."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.errors import UserError
from music_diffusion.evaluation import kernel_distance
from music_diffusion.evaluation.kernel_distance import kernel_audio_distance, median_distance


def loop(x, y, sigma):
    """Unbiased MMD², from the definition."""
    def k(u, v):
        return math.exp(-math.dist(u, v) ** 2 / (2 * sigma ** 2))
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(u, v) for u in x for v in y) / (n * m)


def loop_median(x):
    """The lower of the middle ones."""
    distances = sorted(math.dist(x[i], x[j]) for i in range(len(x)) for j in range(i))
    return distances[(len(distances) - 1) // 2]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(kernel_distance, "BLOCK", 4)
    monkeypatch.setattr(kernel_distance, "KEEP", 3)
    monkeypatch.setattr(kernel_distance, "BINS", 5)


@pytest.mark.parametrize("n, m, dim", [(2, 2, 1), (7, 5, 3), (4, 9, 2), (13, 8, 6)])
@pytest.mark.parametrize("sigma", [None, 0.3, 20.0])
def test_definition(n, m, dim, sigma, small_blocks):
    """In blocks that divide neither; measured difference: 1e-15."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, dim)) + 0.5, 2 * rng.normal(size=(m, dim))
    expected = loop(x, y, loop_median(y) if sigma is None else sigma)
    assert kernel_audio_distance(x, y, bandwidth=sigma) == pytest.approx(expected, abs=1e-13)


def test_by_hand():
    """k = exp(-d² / 2): e^-½ within both, and 0, 1, 1, 2 across, whose squares are 0, 1, 1, 4."""
    expected = 2 * math.exp(-0.5) - (1 + 2 * math.exp(-0.5) + math.exp(-2)) / 2
    assert kernel_audio_distance([[0.0], [1.0]], [[1.0], [2.0]]) == pytest.approx(expected, rel=1e-14)


@given(st.integers(2, 30), st.integers(0, 10**6),
       st.sampled_from(["normal", "ties", "outlier", "equal", "tiny", "huge"]))
@settings(max_examples=80)
def test_median(n, seed, kind):
    """Found through several histograms, also where distances are equal or far apart."""
    x = np.random.default_rng(seed).normal(size=(n, 2))
    x = {"normal": x, "ties": x.round(), "equal": np.eye(n), "tiny": 1e-200 * x,
         "huge": 1e200 * x,
         "outlier": x * np.where(np.arange(n) == 0, 1e6, 1)[:, np.newaxis]}[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_distance, "BLOCK", 4)
        patch.setattr(kernel_distance, "KEEP", 3)
        patch.setattr(kernel_distance, "BINS", 5)
        found = median_distance(x)
    # Squares of 1e6 are rounded to 1e-4, which may be near the squares asked for.
    rel, abs_ = (1e-3, 1e-2) if kind == "outlier" else (1e-9, 1e-7 * float(np.abs(x).max()))
    assert found == pytest.approx(loop_median(x), rel=rel, abs=abs_)


def test_nothing_is_expected_of_equal_distributions():
    """The mean over draws is 0 within 4 of its errors; with i = j in the sums it would be 0.18."""
    rng = np.random.default_rng(0)
    values = np.array([kernel_audio_distance(rng.normal(size=(5, 2)), rng.normal(size=(6, 2)),
                                             bandwidth=1.5) for _ in range(2000)])
    error = values.std() / math.sqrt(len(values))
    assert error < 0.005
    assert abs(values.mean()) < 4 * error
    assert (values < 0).mean() > 0.3


def test_distance_of_gaussians():
    """E k(x, y) = (σ² / (σ² + s² + t²))^(D/2) exp(-|μ - ν|² / (2 (σ² + s² + t²)))."""
    rng = np.random.default_rng(0)
    dim, sigma, s, t, shift = 3, 1.2, 0.5, 1.0, np.array([0.8, 0.0, -0.3])

    def mean_kernel(s, t, shift):
        total = sigma ** 2 + s ** 2 + t ** 2
        return (sigma ** 2 / total) ** (dim / 2) * math.exp(-np.sum(shift ** 2) / (2 * total))

    expected = mean_kernel(s, s, 0 * shift) + mean_kernel(t, t, 0 * shift) - 2 * mean_kernel(s, t, shift)
    values = np.array([
        kernel_audio_distance(s * rng.normal(size=(20, dim)) + shift, t * rng.normal(size=(30, dim)),
                              bandwidth=sigma) for _ in range(500)])
    error = values.std() / math.sqrt(len(values))
    assert error < 0.02 * expected
    assert abs(values.mean() - expected) < 4 * error


def test_shift_rotation_and_scale_of_both_do_not_matter():
    """The bandwidth follows the reference; far from 0 nothing is lost."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)) + 0.3, rng.normal(size=(50, 8))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    expected = kernel_audio_distance(x, y)
    moved = kernel_audio_distance(7 * x @ rotation + 1e5, 7 * y @ rotation + 1e5)
    assert moved == pytest.approx(expected, abs=1e-9)
    single = kernel_audio_distance(x.astype(np.float32), y.astype(np.float32))
    assert single == pytest.approx(expected, abs=1e-6)
    assert expected > 0.001


def test_far_apart():
    """Two points each, of which the reference sets the bandwidth: only the kernels within remain."""
    near, far = np.array([[0.0], [1.0]]), np.array([[1e6], [1e6 + 2]])
    assert kernel_audio_distance(far, near) == pytest.approx(math.exp(-0.5) + math.exp(-2))
    assert kernel_audio_distance(near, far) == pytest.approx(math.exp(-0.5) + math.exp(-1 / 8))


def test_memory_does_not_grow_with_the_pairs(monkeypatch):
    monkeypatch.setattr(kernel_distance, "BLOCK", 256)
    monkeypatch.setattr(kernel_distance, "KEEP", 1 << 16)
    x = np.random.default_rng(0).normal(size=(1500, 2))
    tracemalloc.start()
    kernel_audio_distance(x, x + 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6e6  # measured: 2.3 MB; one matrix of all distances has 18 MB


@pytest.mark.parametrize("x, y, message", [
    (np.zeros((1, 2)), np.eye(2), "the generated embeddings are 1, where at least 2"),
    (np.eye(2), np.zeros((1, 2)), "the reference embeddings are 1, where at least 2"),
    (np.full((3, 2), np.nan), np.eye(2), "generated embeddings contain NaN"),
    (np.eye(3), np.eye(2), "3 and of 2 dimensions"),
    (np.eye(2), np.ones((9, 2)), "most reference embeddings are equal"),
])
def test_bad_embeddings(x, y, message):
    with pytest.raises(UserError, match=message):
        kernel_audio_distance(x, y)


def test_a_bandwidth_serves_where_the_reference_sets_none():
    assert kernel_audio_distance(np.eye(2), np.ones((9, 2)), bandwidth=1.0) > 0
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="bandwidth"):
            kernel_audio_distance(np.eye(2), np.eye(2), bandwidth=wrong)
