"""Distances of two sets of recordings, each with an interval, a floor and a ceiling.

Sets are lists of embeddings [n, D], an array for each file: intervals and the floor
draw files, because the embeddings of one file resemble each other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.evaluation.bootstrap import bootstrap_interval
from music_diffusion.evaluation.frechet import (
    fad_infinity,
    fit_gaussian,
    frechet_audio_distance,
    frechet_distance,
)
from music_diffusion.evaluation.kernel_distance import kernel_audio_distance, median_distance
from music_diffusion.evaluation.plan import EvaluationPlan

Clips = Sequence[np.ndarray]
INFINITY_SHARE = 4  # FAD∞ costs 15 FADs, so its interval has so many times fewer draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetMetric:
    """One distance of a set from the reference; NaN where there is too little to compute it."""

    value: float
    low: float  # interval over the generated files
    high: float
    floor: float  # mean over random halves of the reference, one against the other
    ceiling: float  # of the reference through the inverter
    reason: str = ""  # why the value is NaN


def fad(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Fréchet audio distance."""
    target = fit_gaussian(np.concatenate(reference), "the reference")
    return _metric(lambda x: frechet_distance(fit_gaussian(x, "the generated"), target),
                   frechet_audio_distance, generated, reference, inverted, plan, plan.draws)


def fad_infinite(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Fréchet audio distance extrapolated to infinitely many generated embeddings."""
    target = np.concatenate(reference)
    return _metric(lambda x: fad_infinity(x, target, seed=plan.seed).value,
                   lambda a, b: fad_infinity(a, b, seed=plan.seed).value,
                   generated, reference, inverted, plan, plan.draws // INFINITY_SHARE)


def _metric(statistic: Callable[[np.ndarray], float], between: Callable[[np.ndarray, np.ndarray], float],
            generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan,
            draws: int) -> SetMetric:
    """Of a distance from the reference (`statistic`), which is `between` two sets."""
    def half(indices: np.ndarray) -> np.ndarray:
        return np.concatenate([reference[i] for i in indices])

    value = statistic(np.concatenate(generated))
    low, high = _interval(statistic, generated, plan, draws)
    floor = _or_nan(lambda: float(np.mean(
        [between(half(a), half(b)) for a, b in _halves(reference, plan)] or [math.nan])))
    ceiling = _or_nan(lambda: statistic(np.concatenate(inverted))) if len(inverted) else math.nan
    return SetMetric(value=value, low=low, high=high, floor=floor, ceiling=ceiling)


def _or_nan(number: Callable[[], float]) -> float:
    """NaN, an empty cell in the report, where there is too little audio beside the value's own."""
    try:
        return number()
    except UserError:
        return math.nan


def _interval(statistic: Callable[[np.ndarray], float], clips: Clips, plan: EvaluationPlan,
              draws: int) -> tuple[float, float]:
    if draws < 2 or len(clips) < 2:
        return math.nan, math.nan
    try:
        found = bootstrap_interval(statistic, clips, draws=draws, level=plan.level, seed=plan.seed)
    except UserError:  # some draw has too few embeddings
        return math.nan, math.nan
    return found.low, found.high


def _halves(clips: Clips, plan: EvaluationPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of two halves of the files, `plan.splits` times; none of fewer than four files."""
    rng = np.random.default_rng(plan.seed)
    for _ in range(plan.splits if len(clips) >= 4 else 0):
        order = rng.permutation(len(clips))
        yield order[:len(order) // 2], order[len(order) // 2:]


def kad(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Kernel audio distance; its bandwidth is the reference's, everywhere."""
    target = np.concatenate(reference)
    bandwidth = median_distance(target)
    if not bandwidth:
        raise UserError("most reference embeddings are equal, so they set no bandwidth")
    value = kernel_audio_distance(np.concatenate(generated), target, bandwidth=bandwidth)
    # Intervals and floor from the sums of the kernel over pairs of files, which are computed once.
    yy = kernel_sums(reference, reference, bandwidth)
    size_y = np.array([len(c) for c in reference])
    all_y = np.ones(len(reference))

    def of_drawn(xx: np.ndarray, xy: np.ndarray, size_x: np.ndarray) -> Callable[[np.ndarray], float]:
        def statistic(drawn: np.ndarray) -> float:
            return _from_sums(xx, yy, xy, size_x, size_y,
                              np.bincount(drawn[:, 0], minlength=len(size_x)).astype(float), all_y)

        return statistic

    statistic = of_drawn(kernel_sums(generated, generated, bandwidth),
                         kernel_sums(generated, reference, bandwidth),
                         np.array([len(c) for c in generated]))
    low, high = _interval(statistic, [np.array([[i]]) for i in range(len(generated))], plan, plan.draws)
    halves = []
    for a, b in _halves(reference, plan):
        in_a, in_b = (np.isin(np.arange(len(reference)), half).astype(float) for half in (a, b))
        halves.append(_from_sums(yy, yy, yy, size_y, size_y, in_a, in_b))
    ceiling = math.nan
    if len(inverted):
        ceiling = kernel_audio_distance(np.concatenate(inverted), target, bandwidth=bandwidth)
    return SetMetric(value=value, low=low, high=high, ceiling=ceiling,
                     floor=float(np.mean(halves)) if halves else math.nan)


def kernel_sums(x: Clips, y: Clips, bandwidth: float) -> np.ndarray:
    """Sums of exp(-|u - v|² / (2 σ²)) over u of a file of x and v of a file of y, [Fx, Fy]."""
    mean = np.concatenate(y).mean(axis=0, dtype=np.float64)
    columns = (np.concatenate(y) - mean) / bandwidth
    starts = np.cumsum([0, *(len(c) for c in y)])[:-1]
    squares = np.square(columns).sum(axis=1)
    rows = []
    for clip in x:
        rows_x = (clip - mean) / bandwidth
        squared = np.square(rows_x).sum(axis=1)[:, np.newaxis] + squares[np.newaxis]
        squared -= 2 * rows_x @ columns.T
        rows.append(np.add.reduceat(np.exp(-0.5 * np.maximum(squared, 0)).sum(axis=0), starts))
    return np.array(rows)


def _from_sums(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, size_x: np.ndarray, size_y: np.ndarray,
               times_x: np.ndarray, times_y: np.ndarray) -> float:
    """KAD of sets that hold every file so many times; see `kernel_distance`, equation (1)."""
    n, m = times_x @ size_x, times_y @ size_y
    within_x = (times_x @ xx @ times_x - n) / (n * (n - 1))  # without each embedding and itself
    within_y = (times_y @ yy @ times_y - m) / (m * (m - 1))
    return float(within_x + within_y - 2 * (times_x @ xy @ times_y) / (n * m))


METRICS: dict[str, Callable[[Clips, Clips, Clips, EvaluationPlan], SetMetric]] = {
    "fad": fad, "fad_infinity": fad_infinite, "kad": kad}


def set_metrics(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan
                ) -> dict[str, SetMetric]:
    """All of METRICS; what cannot be computed is NaN, with the reason."""
    found = {}
    for name, metric in METRICS.items():
        try:
            found[name] = metric(generated, reference, inverted, plan)
        except UserError as e:
            nan = math.nan
            found[name] = SetMetric(value=nan, low=nan, high=nan, floor=nan, ceiling=nan, reason=str(e))
    return found
