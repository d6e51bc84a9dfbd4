"""Fréchet audio distance (FAD) of two sets of embeddings, and FAD∞, which does not depend on their number.

Kilgour et al. 2019 (arXiv:1812.08466) fit a Gaussian to each set and take the squared
2-Wasserstein distance of the two,

    d²(a, b) = |μ_a - μ_b|² + tr(Σ_a) + tr(Σ_b) - 2 tr((Σ_a Σ_b)^½).           (1)

With any roots F_aᵀ F_a = Σ_a and F_bᵀ F_b = Σ_b the last trace is the sum of the singular values
of F_a F_bᵀ. That needs no matrix square root of a product, is real, and holds for singular
covariances, so it is exact for fewer samples than dimensions too.

Embeddings are float [n, D], a row per piece of audio; everything is computed in float64. Bad
embeddings raise UserError.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError

BLOCK = 4096  # rows converted to float64 at once


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Moments of a set of embeddings."""

    mean: Float[np.ndarray, " D"]  # float64
    cov: Float[np.ndarray, "D D"]  # float64, symmetric, positive semi-definite
    count: int  # embeddings it was fitted to; 0 where the moments are known otherwise
    # A root [r, D] with cov = factorᵀ factor, where one is at hand: with few samples, they are one.
    factor: Float[np.ndarray, "r D"] | None = None

    def __post_init__(self):
        if self.mean.ndim != 1 or self.cov.shape != 2 * self.mean.shape:
            raise ValueError(f"need a mean [D] and a covariance [D, D], not {self.mean.shape} and "
                             f"{self.cov.shape}")

    @functools.cached_property
    def root(self) -> Float[np.ndarray, "r D"]:
        """Returns `factor`, or one from the eigenvalues of the covariance; r <= D is its rank."""
        if self.factor is not None:
            return self.factor
        values, vectors = np.linalg.eigh(self.cov)
        asymmetry = np.abs(self.cov - self.cov.T).max()
        if max(asymmetry, -values[0]) > 1e-6 * np.abs(values).max():
            raise ValueError("a covariance must be symmetric and have no negative eigenvalues; "
                             f"{asymmetry=}, least eigenvalue {values[0]}")
        # The eigenvalues are known to about this; the root of a false one would be seen.
        known = values > len(values) * np.finfo(np.float64).eps * values[-1]
        return np.sqrt(values[known])[:, np.newaxis] * vectors[:, known].T


def fit_gaussian(x: Float[np.ndarray, "n D"], name: str = "the embeddings") -> Gaussian:
    """Returns mean and unbiased covariance (division by n - 1) of embeddings [n, D], n >= 2.

    Args:
      x: embeddings.
      name: what error messages call them.

    Raises:
      UserError: fewer than two embeddings, or a value that is not finite.
    """
    x = check_embeddings(x, name, at_least=2)
    count, dim = x.shape
    mean = x.mean(axis=0, dtype=np.float64)
    if count < dim:
        factor = (x - mean) / math.sqrt(count - 1)
        return Gaussian(mean, factor.T @ factor, count, factor)
    cov = np.zeros((dim, dim))
    for start in range(0, count, BLOCK):
        centred = x[start:start + BLOCK] - mean
        cov += centred.T @ centred
    return Gaussian(mean, cov / (count - 1), count)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Returns equation (1), the squared Fréchet (2-Wasserstein) distance of two Gaussians, >= 0.

    Its error is about 1e-15 of the traces, at worst 1e-7 of them for covariances without a factor
    that have eigenvalues near the rounding of the largest.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(f"embeddings of {len(a.mean)} and of {len(b.mean)} dimensions cannot be "
                        "compared; use one embedding network for both")
    # Products of roots of rank r cost r² D and have at most r singular values.
    cross = np.linalg.svd(a.root @ b.root.T, compute_uv=False).sum()
    spread = np.square(a.root).sum() + np.square(b.root).sum()
    # Rounding may put the distance of equal Gaussians below zero.
    return max(0.0, float(np.square(a.mean - b.mean).sum() + spread - 2 * cross))


def frechet_audio_distance(generated: Float[np.ndarray, "n D"],
                           reference: Float[np.ndarray, "m D"]) -> float:
    """Returns the FAD of two sets of embeddings; n, m >= 2.

    It is too large by about c / n + c' / m (see `fad_infinity`), so values are comparable only at
    equal numbers of embeddings; with n or m below D it is mostly that bias.
    """
    return frechet_distance(fit_gaussian(generated, "the generated embeddings"),
                            fit_gaussian(reference, "the reference embeddings"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FadInfinity:
    """The line distance = value + slope / size, fitted to FADs of subsets."""

    value: float  # FAD extrapolated to infinitely many generated embeddings; may be below 0
    slope: float
    r2: float  # share of the variance of the distances that the line explains; NaN if they are equal
    sizes: tuple[int, ...]  # of the subsets, ascending; the last is all
    distances: tuple[float, ...]  # mean FAD of the subsets of each size against the whole reference


def fad_infinity(generated: Float[np.ndarray, "n D"], reference: Float[np.ndarray, "m D"], *,
                 points: int = 15, smallest: int | None = None, draws: int = 4, seed: int = 0
                 ) -> FadInfinity:
    """Returns FAD∞, which FAD would be with infinitely many generated embeddings.

    FAD of n samples is too large by about c / n. So it is measured on random subsets of evenly
    spaced sizes, a line in 1 / n is fitted by least squares, and its intercept taken: Gui et al.
    2024 (arXiv:2311.01616), after Chong and Forsyth 2020 (arXiv:1911.07023). Subsets are drawn
    without replacement: repeated embeddings would show how FAD grows when drawing from these n,
    and the line would end at FAD itself. The bias from the finite reference stays. With fewer than
    about 4 D embeddings the intercept is unreliable, mostly too low.

    Args:
      generated: embeddings, n >= 4.
      reference: embeddings, m >= 2.
      points: number of sizes, >= 3; fewer where n does not have so many.
      smallest: the smallest size, >= 2. By default n / 5, raised to 2 D but not above n / 2:
        below 2 D the bias is far from linear in 1 / n.
      draws: subsets of each size, whose FADs are averaged; the papers take one.
      seed: of the subsets.

    Raises:
      UserError: too few embeddings for three sizes, or bad ones.
    """
    generated = check_embeddings(generated, "the generated embeddings", at_least=4)
    count, dim = generated.shape
    if smallest is None:
        smallest = max(2, count // 5, min(2 * dim, count // 2))
    if points < 3 or smallest < 2 or draws < 1:
        raise ValueError(f"need {points=} >= 3, {smallest=} >= 2 and {draws=} >= 1")
    sizes = np.unique(np.linspace(min(smallest, count), count, points).round().astype(int))
    if len(sizes) < 3:
        raise UserError(f"subsets of {smallest} or more of {count} generated embeddings have fewer "
                        "than three sizes; give more audio")
    target = fit_gaussian(reference, "the reference embeddings")
    rng = np.random.default_rng(seed)
    distances = np.array([
        np.mean([frechet_distance(fit_gaussian(generated[rng.permutation(count)[:size]]), target)
                 for _ in range(draws if size < count else 1)])
        for size in sizes])
    value, slope, r2 = fit_line(1 / sizes, distances)
    return FadInfinity(value=value, slope=slope, r2=r2, sizes=tuple(sizes.tolist()),
                       distances=tuple(distances.tolist()))


def fit_line(x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Returns intercept, slope and R² of the least-squares line; R² is NaN for constant y."""
    dx, dy = x - x.mean(), y - y.mean()
    slope = float(dx @ dy / (dx @ dx))
    scatter = float(dy @ dy)
    r2 = 1 - float(np.square(dy - slope * dx).sum()) / scatter if scatter > 0 else math.nan
    return float(y.mean() - slope * x.mean()), slope, r2


def check_embeddings(x: np.ndarray, name: str = "the embeddings", *, at_least: int = 1) -> np.ndarray:
    """Returns embeddings as an array of real numbers; UserError unless [n >= at_least, D >= 1], finite.

    Args:
      x: what should be embeddings.
      name: what messages call them, in the plural.
    """
    x = np.asarray(x)
    if x.ndim != 2 or not x.shape[1]:
        raise UserError(f"{name} have shape {list(x.shape)}; give a matrix [n, D]")
    if x.dtype.kind not in "fiu":
        raise UserError(f"{name} are of type {x.dtype}; give real numbers")
    if len(x) < at_least:
        raise UserError(f"{name} are {len(x)}, where at least {at_least} are needed; "
                        "give more audio")
    if not np.isfinite(x).all():
        raise UserError(f"{name} contain NaN or infinity; look for broken audio")
    return x
