"""Confidence intervals of a metric over a set of files, by the bootstrap.

Embeddings of one file resemble each other, so files are drawn again, not embeddings (Efron and
Tibshirani 1993, An Introduction to the Bootstrap, chapters 8 and 13).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError


@dataclasses.dataclass(frozen=True)
class Interval:
    """What a statistic may have been with other files of the same kind; NaN for a single file."""

    low: float
    high: float
    # Mean of the statistic over the draws minus its value: by how much a draw is too large because
    # it repeats files. `low` and `high` are corrected for it.
    bias: float


def bootstrap_interval(statistic: Callable[[Float[np.ndarray, "N D"]], float],
                       clips: Sequence[Float[np.ndarray, "n D"]], *, draws: int = 200,
                       level: float = 0.95, seed: int = 0,
                       bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """The interval that holds a statistic of all files with about the probability `level`.

    As many files as there are, drawn with replacement, give one value of the statistic; quantiles
    of `draws` values, less their bias, are the interval. For a mean the bias is near 0 and this is
    the percentile interval. But a Fréchet or kernel distance grows where files repeat: plain
    percentiles lie above its value, usually without including it. The corrected interval is for
    the statistic at this number of files. It is too narrow for fewer than about 10 files.

    The correction is an estimate and moves both ends alike, so that it may move one beyond what the
    statistic can be (an F1 above 1, a distance below 0). Such an end is put on the bound: of an
    interval that holds the truth nothing is lost, as the truth does not lie beyond.

    Args:
      statistic: of embeddings [N, D], or of anything else that has a row per item.
      clips: one array [n, D] per file, n >= 1.
      draws: number of values, >= 2.
      level: 0..1.
      seed: of the draws.
      bounds: the least and the greatest value that the statistic can have.

    Raises:
      UserError: no files.
    """
    if not clips:
        raise UserError("no files to draw from; give at least two for an interval")
    if draws < 2 or not 0 < level < 1:
        raise ValueError(f"need {draws=} >= 2 and 0 < {level=} < 1")
    if len(clips) == 1:  # says nothing about how files differ
        return Interval(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    value = statistic(np.concatenate(clips))
    drawn = np.array([
        statistic(np.concatenate([clips[i] for i in rng.integers(len(clips), size=len(clips))]))
        for _ in range(draws)])
    bias = drawn.mean() - value
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) - bias
    low, high = np.clip((low, high), *bounds)
    return Interval(float(low), float(high), float(bias))
