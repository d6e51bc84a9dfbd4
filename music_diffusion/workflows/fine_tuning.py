"""Training as a step of a workflow: the recipe is a gin file, its values are Python objects."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.errors import StoppedError, UserError

EVALUATIONS = "eval.csv"  # in the folder of a run


def fine_tune(gin_files: Sequence[str], values: Mapping[str, Any], bindings: Sequence[str], *,
              model_dir: str, **given: Any) -> None:
    """Trains to the end, or goes on with what lies in `model_dir`.

    Args:
      gin_files: of the recipe.
      values: what the workflow sets in it, by the names of gin files ('BATCH_SIZE', 'adamw.b1').
      bindings: what a person changes, as 'NAME = value'; they win.
      model_dir: folder of the run.
      given: further arguments of `training.loop.train`, instead of the recipe's.

    Raises:
      UserError: a binding that does not fit, or of the training.
      StoppedError: a signal ended it; the same call goes on.
    """
    with gin_setup.private_gin() as gin:
        gin_setup.parse(gin_files, bindings, values=values)
        try:
            result = gin.get_configurable("train")(model_dir=model_dir, **given)
        except UserError as e:  # gin adds lines on where it was raised
            raise UserError(str(e).strip().splitlines()[0]) from e
    if result.reason != "finished":
        message = f"training {result.reason} at step {result.step}; run the same command again to go on"
        raise UserError(message) if result.signal is None else StoppedError(message, result.signal)


def shorter(steps: int | None, warmup: int) -> dict[str, int]:
    """Returns what `fine_tune` takes for so many steps: all, and of warming up `warmup` or a tenth.

    None leaves both to the recipe.
    """
    if steps is None:
        return {}
    return {"TOTAL_STEPS": steps, "warmup_cosine.warmup_steps": min(warmup, steps // 10)}


def validation_losses(run_dir: str) -> dict[int, float]:
    """Returns the validation losses of a run by step, in their order."""
    with open(os.path.join(run_dir, EVALUATIONS), newline="") as f:
        return {int(row["step"]): float(row["loss"]) for row in csv.DictReader(f)}


def best_step(run_dir: str) -> tuple[int, float]:
    """Returns the checkpoint with the lowest validation loss, and that loss.

    Raises UserError: no checkpoint, or none of those that are kept was evaluated.
    """
    folder = pathlib.Path(run_dir, "checkpoints")
    kept = {int(p.name) for p in folder.iterdir() if p.name.isdecimal()} if folder.is_dir() else set[int]()
    losses = validation_losses(run_dir) if os.path.isfile(os.path.join(run_dir, EVALUATIONS)) else {}
    known = {step: loss for step, loss in losses.items() if step in kept}
    if not known:
        raise UserError(f"{run_dir}: no checkpoint with a validation loss; delete it to begin anew")
    step = min(known, key=lambda s: known[s])
    return step, known[step]
