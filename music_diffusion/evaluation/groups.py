"""Group-FAD: does a rendering sound like the performance that it was conditioned on?

Maman et al. (Performance conditioning for diffusion-based multi-instrument music synthesis,
arXiv:2309.12283, section 4.2.2) compare what was generated for a performance, or any other group,
with the reference audio of that group by FAD, and ask whether that group is the nearest of all.

FAD falls with the number of embeddings (`frechet.frechet_audio_distance`), so Group-FADs are above
the FAD of all together, and groups with more reference audio are a little nearer to everything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from music_diffusion.errors import UserError
from music_diffusion.evaluation.frechet import (
    Gaussian,
    check_embeddings,
    fit_gaussian,
    frechet_distance,
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class GroupScores:
    """Generated groups against reference groups; names ascending."""

    group_fad: dict[str, float]  # of each generated group, against the reference of its name
    mean_group_fad: float
    distances: Float[np.ndarray, "G_gen G_ref"]  # FADs
    generated_names: tuple[str, ...]  # rows of distances
    reference_names: tuple[str, ...]  # columns
    # Share of generated groups whose own reference is the nearest, or among the three nearest.
    # NaN where it cannot be missed: with one reference group, and with up to three.
    top1: float
    top3: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ItemScores:
    """Single generated items, each of some group, against reference groups."""

    fads: Float[np.ndarray, " I"]  # of each item, against the reference of its group
    mean_fad: float
    distances: Float[np.ndarray, "I G_ref"]  # FADs
    reference_names: tuple[str, ...]  # columns of distances, ascending
    top1: float  # share of items nearest to their own group, NaN as in GroupScores
    top3: float


def group_scores(generated: Mapping[str, Float[np.ndarray, "n D"]],
                 reference: Mapping[str, Float[np.ndarray, "m D"]]) -> GroupScores:
    """Compares all that was generated for each group with the reference of every group.

    Of equally near reference groups the one earlier in the alphabet counts as nearer.

    Args:
      generated, reference: group -> embeddings, n, m >= 2. Reference groups without generated ones
        take part in the search for the nearest.

    Raises:
      UserError: no generated group, one that the reference lacks, or bad embeddings; it names the
        group.
    """
    names = tuple(sorted(generated))
    columns = _fit_reference(names, reference)
    distances = _distances(
        [fit_gaussian(generated[name], f"generated embeddings of {name!r}") for name in names], columns)
    own = [list(columns).index(name) for name in names]
    fads = distances[np.arange(len(names)), own]
    return GroupScores(
        group_fad=dict(zip(names, fads.tolist(), strict=True)), mean_group_fad=float(fads.mean()),
        distances=distances, generated_names=names, reference_names=tuple(columns),
        top1=_accuracy(distances, own, 1), top3=_accuracy(distances, own, 3))


def item_scores(items: Sequence[tuple[str, Float[np.ndarray, "n D"]]],
                reference: Mapping[str, Float[np.ndarray, "m D"]]) -> ItemScores:
    """Compares every single item (group, embeddings), such as a file, with every reference group.

    This is the paper's classification "for each test performance", and its mean FAD weighs items
    equally. Ties and errors as in `group_scores`.
    """
    columns = _fit_reference([group for group, _ in items], reference)
    distances = _distances(
        [fit_gaussian(x, f"generated embeddings of item {at} (group {group!r})")
         for at, (group, x) in enumerate(items)], columns)
    own = [list(columns).index(group) for group, _ in items]
    fads = distances[np.arange(len(items)), own]
    return ItemScores(
        fads=fads, mean_fad=float(fads.mean()), distances=distances, reference_names=tuple(columns),
        top1=_accuracy(distances, own, 1), top3=_accuracy(distances, own, 3))


def item_accuracy(items: Sequence[tuple[str, Float[np.ndarray, "n D"]]],
                  reference: Mapping[str, Float[np.ndarray, "m D"]]) -> tuple[float, float]:
    """Returns the top-1 and the top-3 accuracy of `item_scores`."""
    scores = item_scores(items, reference)
    return scores.top1, scores.top3


def mean_accuracy(items: Sequence[tuple[str, Float[np.ndarray, "n D"]]],
                  reference: Mapping[str, Float[np.ndarray, "m D"]]) -> tuple[float, float]:
    """Returns the top-1 and the top-3 accuracy by the distance of mean embeddings, |μ_item - μ_group|².

    It serves files with few embeddings, n >= 1: their covariance, and so their FAD, is mostly bias, which
    prefers groups that vary little. Ties and errors as in `group_scores`.
    """
    columns = _fit_reference([group for group, _ in items], reference)
    means = np.stack([g.mean for g in columns.values()])
    rows = np.stack([check_embeddings(x, f"generated embeddings of item {at} (group {group!r})",
                                      at_least=1).mean(axis=0, dtype=np.float64)
                     for at, (group, x) in enumerate(items)])
    distances = np.square(rows[:, np.newaxis] - means).sum(axis=-1)
    own = [list(columns).index(group) for group, _ in items]
    return _accuracy(distances, own, 1), _accuracy(distances, own, 3)


def _fit_reference(needed: Sequence[str], reference: Mapping[str, np.ndarray]) -> dict[str, Gaussian]:
    """Fits a Gaussian to every reference group, by name, ascending."""
    if not needed:
        raise UserError("no generated groups; name the group of at least one generated file")
    for name in needed:
        if name not in reference:
            raise UserError(f"group {name!r} has no reference audio; add some, or leave the group out")
    return {name: fit_gaussian(reference[name], f"reference embeddings of {name!r}")
            for name in sorted(reference)}


def _distances(rows: Sequence[Gaussian], columns: Mapping[str, Gaussian]
               ) -> Float[np.ndarray, "R C"]:
    return np.array([[frechet_distance(row, column) for column in columns.values()] for row in rows])


def _accuracy(distances: Float[np.ndarray, "R C"], own: Sequence[int], top: int) -> float:
    """Returns the share of rows whose own column is among the `top` smallest; NaN where all columns are."""
    if distances.shape[1] <= top:
        return math.nan
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :top]
    hit: Bool[np.ndarray, " R"] = (nearest == np.array(own)[:, np.newaxis]).any(axis=1)
    return float(hit.mean())
