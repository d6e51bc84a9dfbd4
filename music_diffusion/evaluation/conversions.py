"""Scores of timbre transfer: who is heard in what was made, and whether it is as loud as what was given."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence

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
    Conversion,
)

# Tasks: the folder of their files, and whether instruments are changed one by one.
TASKS = {"single": (SINGLE, False), "single/mixed": (MIXTURE, True), "mixture": (MIXTURE, False)}
METHOD_OF = {"re-coloured": "recoloured", "heard and played": "played"}  # of rows that are called otherwise
QUIET_DB = 50.0  # below the loudest patch, or window of an envelope, a sound counts as silent
ENVELOPE_SECONDS = 0.05  # of a window


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

    Levels are those of windows of ENVELOPE_SECONDS, at most QUIET_DB below each one's loudest. NaN where
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


def style_files(rows: Mapping[str, Conversion], recordings: Mapping[str, str]) -> dict[str, str]:
    """Returns which recording each file should sound like: that of another one with the same target.

    That is the next one in the order of names; after the last comes the first.

    Args:
      rows: by name.
      recordings: paths by the same names.
    """
    found: dict[str, str] = {}
    for name, row in rows.items():
        alike = sorted(other for other in rows if rows[other].target == row.target and other != name)
        alike = [other for other in alike if other in recordings]
        if alike:
            found[name] = recordings[next((other for other in alike if other > name), alike[0])]
    return found


def restyle_rows(*, plan: Callable[..., EvaluationPlan], pairs: str, model: str, player: str,
                 others: str | None = None, strengths: Sequence[float] = ()) -> dict[str, EvaluationPlan]:
    """Returns the rows of a table: single instruments in styles of recordings, and what has to be beaten.

    Args:
      plan: makes a row's plan of its folders, its model and its method.
      pairs: folder that `data.conversions` wrote.
      model: restyles, or changes recordings and gets the style as its reference.
      player: model of notes, which gets the target by name.
      others: such a folder of the same scores, played by what the model never learned from: its targets are
        styles, too; None: those of `pairs` alone.
      strengths: of further rows of the model.
    """
    rows: dict[str, EvaluationPlan] = {}
    for label, folder in {"heard": pairs, "unheard": others}.items():
        if folder is None:
            continue
        own = _folders(pairs, "single") | {"styles": _folders(folder, "single")["reference"]}
        rows |= {f"{label}: {name}": plan(method=method, model=by, **own) for name, method, by in (
            ("nothing", "nothing", None), ("heard and played", "played", player),
            ("model", "liked", model))}
        rows |= {f"{label}: strength {strength:g}": plan(
            method="liked", model=model, strength=strength, **own) for strength in strengths}
    return rows


def transfer_rows(*, plan: Callable[..., EvaluationPlan], pairs: str, model: str, player: str,
                  tasks: Sequence[str] = tuple(TASKS)) -> dict[str, EvaluationPlan]:
    """Returns the rows of a table: the tasks of the paper, each with what a model has to beat.

    Args:
      plan: makes a row's plan of its folders, its model and its method.
      pairs: folder that `data.conversions` wrote.
      model: changes recordings.
      player: model of notes.
      tasks: of TASKS.
    """
    methods = {"nothing": None, "re-coloured": None, "heard and played": player, "noised": model,
               "model": model}
    return {f"{task}: {label}": plan(method=METHOD_OF.get(label, label), model=by, **_folders(pairs, task))
            for task in tasks for label, by in methods.items()}


def strength_rows(*, plan: Callable[..., EvaluationPlan], pairs: str, model: str, task: str = "mixture",
                  strengths: Sequence[float] = (0.2, 0.4, 0.6, 0.8, 1.0)) -> dict[str, EvaluationPlan]:
    """Returns a table's rows: a model from ever more noise, after the recording as it is."""
    rows = {"nothing": plan(method="nothing", **_folders(pairs, task))}
    return rows | {f"strength {strength:g}": plan(model=model, strength=strength, **_folders(pairs, task))
                   for strength in strengths}


def _folders(pairs: str, task: str) -> dict[str, str | None]:
    """Returns the fields of a plan that say where a task's files are. Raises UserError: no such task."""
    if task not in TASKS:
        raise UserError(f"task {task!r}: unknown; choose {', '.join(TASKS)}")
    kind, apart = TASKS[task]
    folder = pathlib.Path(pairs, kind)
    return {"reference": str(folder / TARGET), "sources": str(folder / SOURCE),
            "notes": str(folder / NOTES), "conversions": str(folder / TABLE),
            "parts": str(folder / PARTS) if apart else None}
