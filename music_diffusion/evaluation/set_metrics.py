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
    FadInfinity,
    Gaussian,
    fad_infinity,
    fit_gaussian,
    fit_line,
    frechet_audio_distance,
    frechet_distance,
)
from music_diffusion.evaluation.kernel_distance import kernel_audio_distance, median_distance
from music_diffusion.evaluation.plan import EvaluationPlan

Clips = Sequence[np.ndarray]
INFINITY_SHARE = 4  # FAD∞ costs 15 FADs, so its interval has so many times fewer draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetMetric:
    """A distance of a set from the reference; NaN where there is too little to compute it."""

    value: float
    low: float  # interval over the generated files
    high: float
    floor: float  # mean over random halves of the reference, one against the other
    ceiling: float  # of the reference through the inverter
    reason: str = ""  # why the value is NaN


def fad(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Returns the Fréchet audio distance."""
    target = fit_gaussian(np.concatenate(reference), "the reference")
    value = frechet_distance(fit_gaussian(np.concatenate(generated), "the generated"), target)
    low, high = _interval(lambda x: quick_frechet(x, target), generated, plan, plan.draws, (0.0, math.inf))
    return _bounded(value, low, high, frechet_audio_distance, reference, inverted, plan)


def fad_infinite(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Returns the Fréchet audio distance extrapolated to infinitely many generated embeddings."""
    def distance(a: np.ndarray, b: np.ndarray) -> FadInfinity:
        return fad_infinity(a, b, seed=plan.seed)

    everything = np.concatenate(generated)
    found = distance(everything, np.concatenate(reference))
    target = fit_gaussian(np.concatenate(reference), "the reference")
    shares = np.array(found.sizes) / len(everything)
    rng = np.random.default_rng(plan.seed)

    def drawn(x: np.ndarray) -> float:
        """Returns the same extrapolation as `fad_infinity`, at as many sizes."""
        order = rng.permutation(len(x))
        sizes = np.maximum(2, (shares * len(x)).round().astype(int))
        if sizes[0] == sizes[-1]:  # too few for a line
            return math.nan
        return fit_line(1 / sizes, np.array([quick_frechet(x[order[:n]], target) for n in sizes]))[0]

    low, high = _interval(drawn, generated, plan, plan.draws // INFINITY_SHARE)
    return _bounded(found.value, low, high, lambda a, b: distance(a, b).value, reference, inverted, plan)


def quick_frechet(x: np.ndarray, target: Gaussian) -> float:
    """Returns `frechet_distance` of a set's Gaussian, by eigenvalues alone: to about 1e-6 of the traces.

    With the target's root R the trace of the root of a product is that of (R Σ Rᵀ)^½.
    """
    x = np.asarray(x, np.float64)
    centred = x - x.mean(axis=0)
    product = centred @ target.root.T
    crossed = product.T @ product if len(product) > product.shape[1] else product @ product.T
    cross = np.sqrt(np.linalg.eigvalsh(crossed / (len(x) - 1)).clip(0)).sum()
    spread = np.square(centred).sum() / (len(x) - 1) + np.square(target.root).sum()
    return float(np.square(x.mean(axis=0) - target.mean).sum() + spread - 2 * cross)


def _bounded(value: float, low: float, high: float, between: Callable[[np.ndarray, np.ndarray], float],
             reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Returns a metric with floor and ceiling of the distance `between` two sets."""
    def half(indices: np.ndarray) -> np.ndarray:
        return np.concatenate([reference[i] for i in indices])

    floor = _or_nan(lambda: float(np.mean(
        [between(half(a), half(b)) for a, b in _halves(reference, plan)] or [math.nan])))
    ceiling = math.nan
    if len(inverted):
        ceiling = _or_nan(lambda: between(np.concatenate(inverted), np.concatenate(reference)))
    return SetMetric(value=value, low=low, high=high, floor=floor, ceiling=ceiling)


def _or_nan(number: Callable[[], float]) -> float:
    """Returns a bound; NaN, an empty cell in the report, where there is too little audio for it."""
    try:
        return number()
    except UserError:
        return math.nan


def _interval(statistic: Callable[[np.ndarray], float], clips: Clips, plan: EvaluationPlan,
              draws: int, bounds: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float]:
    if draws < 2 or len(clips) < 2:
        return math.nan, math.nan
    try:
        found = bootstrap_interval(statistic, clips, draws=draws, level=plan.level, seed=plan.seed,
                                   bounds=bounds)
    except UserError:  # some draw has too few embeddings
        return math.nan, math.nan
    return found.low, found.high


def _halves(clips: Clips, plan: EvaluationPlan) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields indices of two halves of the files, `plan.splits` times; none of fewer than four files."""
    rng = np.random.default_rng(plan.seed)
    for _ in range(plan.splits if len(clips) >= 4 else 0):
        order = rng.permutation(len(clips))
        yield order[:len(order) // 2], order[len(order) // 2:]


def kad(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan) -> SetMetric:
    """Returns the kernel audio distance; its bandwidth is the reference's, everywhere."""
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
    """Returns sums of exp(-|u - v|² / (2 σ²)) over u of a file of x and v of a file of y, [Fx, Fy]."""
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
    """Returns the KAD of sets that hold every file so many times; see `kernel_distance`, equation (1)."""
    n, m = times_x @ size_x, times_y @ size_y
    within_x = (times_x @ xx @ times_x - n) / (n * (n - 1))  # without each embedding and itself
    within_y = (times_y @ yy @ times_y - m) / (m * (m - 1))
    return float(within_x + within_y - 2 * (times_x @ xy @ times_y) / (n * m))


METRICS: dict[str, Callable[[Clips, Clips, Clips, EvaluationPlan], SetMetric]] = {
    "fad": fad, "fad_infinity": fad_infinite, "kad": kad}


def set_metrics(generated: Clips, reference: Clips, inverted: Clips, plan: EvaluationPlan
                ) -> dict[str, SetMetric]:
    """Computes all of METRICS; what cannot be computed is NaN, with the reason."""
    found = {}
    for name, metric in METRICS.items():
        try:
            found[name] = metric(generated, reference, inverted, plan)
        except UserError as e:
            nan = math.nan
            found[name] = SetMetric(value=nan, low=nan, high=nan, floor=nan, ceiling=nan, reason=str(e))
    return found
