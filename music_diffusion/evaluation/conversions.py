"""Scores of timbre transfer: who is heard in what was made, and whether it is as loud as what was given."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Collection

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.notes.conversions import (
    MIXTURE,
    NOTES,
    PARTS,
    SINGLE,
    SOURCE,
    TABLE,
    TARGET,
)

QUIET_DB = 50.0  # below the loudest patch, or window of an envelope, a sound counts as silent
ENVELOPE_SECONDS = 0.05  # of a window
# [S] samples → [n, classes]: how surely each is heard in each patch, the melodic ones first.
Presence = Callable[[np.ndarray], np.ndarray]


def named_share(presence: Float[np.ndarray, "n C"], wanted: Collection[int], loud: np.ndarray | None = None
                ) -> float:
    """Returns the share of wanted instruments among as many that are heard most surely, mean of patches.

    Args:
      presence: how surely each class is heard in each patch.
      wanted: k classes; with one of them it is the share of patches in which it is the surest.
      loud: [n] bool, patches that count; None: all.

    Returns 0..1; NaN where no patch counts.
    """
    if loud is not None:
        presence = presence[np.asarray(loud, bool)]
    if not len(presence) or not wanted:
        return math.nan
    surest = np.argsort(-presence, axis=1, kind="stable")[:, :len(wanted)]
    return float(np.isin(surest, sorted(wanted)).mean())


def envelope_correlation(a: Float[np.ndarray, " S"], b: Float[np.ndarray, " S"], sample_rate: int) -> float:
    """Returns Pearson's correlation of two sounds' levels in dB, as far as both go.

    Levels are those of windows of ENVELOPE_SECONDS, at least QUIET_DB below each one's loudest. NaN where
    either does not change.
    """
    size = round(ENVELOPE_SECONDS * sample_rate)
    count = min(len(a), len(b)) // size
    if count < 2:
        return math.nan
    x, y = (_levels(side, count, size) for side in (a, b))
    if min(x.std(), y.std()) < 1e-6:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _levels(samples: np.ndarray, count: int, size: int) -> Float[np.ndarray, " n"]:
    power = np.square(samples[:count * size], dtype=np.float64).reshape(count, size).mean(axis=1)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    return np.maximum(level, level.max() - QUIET_DB)


def loud_patches(samples: Float[np.ndarray, " S"], patches: int) -> np.ndarray:
    """Returns which of equally spaced patches are not silent, [n] bool."""
    if not patches:
        return np.zeros(0, bool)
    size = max(len(samples) // patches, 1)
    level = _levels(np.pad(samples, (0, max(0, patches * size - len(samples)))), patches, size)
    return level > level.max() - QUIET_DB + 1e-9


def transfer_rows(*, plan: Callable[..., EvaluationPlan], pairs: str, model: str, player: str
                  ) -> dict[str, EvaluationPlan]:
    """Returns a table's rows: the tasks of Comanducci et al. (2023), each with what a model has to beat.

    Args:
      plan: makes a row's plan of its folders, its model and its method.
      pairs: folder that `data.conversions` wrote; tasks that are not in it are left out.
      model: changes recordings.
      player: model of notes.

    Raises UserError: no such folder.
    """
    tasks = {"single": (SINGLE, False), "single/mixed": (MIXTURE, True), "mixture": (MIXTURE, False)}
    rows = {}
    for title, (task, apart) in tasks.items():
        folder = pathlib.Path(pairs, task)
        if not (folder / TABLE).is_file():
            continue
        for label, (method, by) in {
                "nothing": ("nothing", None), "re-coloured": ("recoloured", None),
                "heard and played": ("played", player), "noised": ("noised", model),
                "model": ("model", model)}.items():
            rows[f"{title}: {label}"] = plan(
                reference=str(folder / TARGET), sources=str(folder / SOURCE),
                conversions=str(folder / TABLE), notes=str(folder / NOTES),
                parts=str(folder / PARTS) if apart else None, method=method, model=by)
    if not rows:
        raise UserError(f"{pairs}: has neither {SINGLE}/{TABLE} nor {MIXTURE}/{TABLE}; make them with "
                        "`music-diffusion prepare conversions`")
    return rows
