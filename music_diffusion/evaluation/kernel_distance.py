"""Kernel audio distance (KAD): an unbiased distance of two sets of embeddings.

Chung et al. 2025 (arXiv:2502.15602): the squared maximum mean discrepancy of the distributions
behind generated x_1 … x_n and reference y_1 … y_m, estimated without bias (Gretton et al. 2012,
JMLR 13, equation 3),

    KAD = mean_{i≠j} k(x_i, x_j) + mean_{i≠j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j),    (1)
    k(u, v) = exp(-|u - v|² / (2 σ²)),

where σ is the median distance between two embeddings of the reference. The figures that the
authors' toolkit (kadtk) prints are 100 times this.

Everything is computed in float64, in blocks: memory does not grow with n · m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.evaluation.frechet import check_embeddings

BLOCK = 1024  # rows whose mutual distances are in memory at once, 8 MB
KEEP = 1 << 22  # distances that are sorted at once, 32 MB
BINS = 4096  # of a histogram of distances


def kernel_audio_distance(generated: Float[np.ndarray, "n D"], reference: Float[np.ndarray, "m D"],
                          *, bandwidth: float | None = None) -> float:
    """Returns equation (1), without a factor; n, m >= 2.

    Its expectation is 0 for equal distributions and positive otherwise, at every n and m, so it
    can be below 0. It is at most 2.

    Args:
      generated, reference: embeddings. The two are not alike: the reference sets the bandwidth.
      bandwidth: σ > 0, by default `median_distance(reference)`. To compare many sets with one
        reference, compute it once.

    Raises:
      UserError: fewer than two embeddings, values that are not finite, different dimensions, or a
        reference of which more than half the distances are 0.
    """
    x = check_embeddings(generated, "the generated embeddings", at_least=2)
    y = check_embeddings(reference, "the reference embeddings", at_least=2)
    if x.shape[1] != y.shape[1]:
        raise UserError(f"embeddings of {x.shape[1]} and of {y.shape[1]} dimensions cannot be "
                        "compared; use one embedding network for both")
    if bandwidth is None:
        bandwidth = median_distance(y)
        if not bandwidth:
            raise UserError("most reference embeddings are equal, so they set no bandwidth; give "
                            "other reference audio, or the bandwidth")
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"need {bandwidth=} > 0")
    # Around 0 and in units of σ the distances lose least to rounding.
    mean = y.mean(axis=0, dtype=np.float64)
    x, y = (x - mean) / bandwidth, (y - mean) / bandwidth
    n, m = len(x), len(y)
    within_x = sum(_kernel_sum(squared) for squared in _squared_within(x)) / (n * (n - 1) / 2)
    within_y = sum(_kernel_sum(squared) for squared in _squared_within(y)) / (m * (m - 1) / 2)
    across = sum(_kernel_sum(squared) for squared in _squared_across(x, y)) / (n * m)
    return float(within_x + within_y - 2 * across)


def median_distance(x: Float[np.ndarray, "n D"]) -> float:
    """Returns the median Euclidean distance of all n (n - 1) / 2 pairs of embeddings [n, D], n >= 2.

    With an even number of pairs it is the lower of the two in the middle.
    """
    x = check_embeddings(x, at_least=2)
    centred = x - x.mean(axis=0, dtype=np.float64)
    scale = float(np.abs(centred).max())
    if not scale:
        return 0.0
    centred /= scale  # so squares neither vanish nor overflow
    farthest = 4 * float(np.square(centred).sum(axis=1).max())  # by the triangle inequality
    pairs = len(x) * (len(x) - 1) // 2
    return scale * math.sqrt(_kth(lambda: _squared_within(centred), (pairs - 1) // 2, farthest))


def _kernel_sum(squared: np.ndarray) -> float:
    return float(np.exp(-0.5 * squared).sum())


def _squared_across(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """Yields all |x_i - y_j|², block by block."""
    for i in range(0, len(x), BLOCK):
        for j in range(0, len(y), BLOCK):
            yield _squared(x[i:i + BLOCK], y[j:j + BLOCK])


def _squared_within(x: np.ndarray) -> Iterator[np.ndarray]:
    """Yields |x_i - x_j|² of all i < j, block by block."""
    for i in range(0, len(x), BLOCK):
        block = x[i:i + BLOCK]
        yield _squared(block, block)[np.triu_indices(len(block), 1)]
        yield from _squared_across(block, x[i + BLOCK:])


def _squared(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "n m"]:
    """Returns |x_i - y_j|², not below 0 by rounding."""
    squared = -2 * (x @ y.T)
    squared += np.square(x).sum(axis=1)[:, np.newaxis]
    squared += np.square(y).sum(axis=1)[np.newaxis, :]
    return np.maximum(squared, 0, out=squared)


def _kth(blocks: Callable[[], Iterator[np.ndarray]], k: int, highest: float) -> float:
    """Returns the k-th smallest (from 0) of values in [0, highest] that come in blocks, as often as asked.

    A histogram shows in which of its bins that is, a finer one of that bin in which part of it,
    and so on until the values of one bin can be sorted, or are equal but for rounding.
    """
    low, high = 0.0, highest
    while high - low > 1e-11 * high:
        width = (high - low) / BINS
        counts = np.zeros(BINS + 2, np.int64)  # the first and the last: outside
        for block in blocks():
            bins = np.clip(np.floor((block - low) / width), -1, BINS).astype(np.int64)
            counts += np.bincount(bins.ravel() + 1, minlength=BINS + 2)
        at = int(np.searchsorted(counts.cumsum(), k, side="right")) - 1
        # Wider by more than the rounding of the division; ranks are counted anew in every pass.
        low, high = low + (at - 1e-6) * width, low + (at + 1 + 1e-6) * width
        if counts[at + 1] <= KEEP:
            break
    else:
        return low
    below, inside = 0, []
    for block in blocks():
        below += int((block < low).sum())
        inside.append(block[(block >= low) & (block <= high)])
    return float(np.partition(np.concatenate(inside), k - below)[k - below])
