"""Checkpoints of training runs, by whichever trainer."""

from __future__ import annotations

import os
import pathlib

from music_diffusion.errors import UserError
from music_diffusion.models.weights import CONFIG
from music_diffusion.training.t5x_checkpoints import is_t5x, read_t5x
from music_diffusion.types import Params

FOLDER = "checkpoints"  # of the built-in trainer, as in `training.checkpoints`


def is_run(path: str | os.PathLike) -> bool:
    """Returns whether there are checkpoints of the built-in trainer or of t5x."""
    return (pathlib.Path(path) / FOLDER).is_dir() or is_t5x(path)


def read_run(model_dir: str | os.PathLike, step: int | None = None) -> tuple[Params, int, str]:
    """(params, step, gin configuration) of a checkpoint, without building its model.

    The parameters are the averaged ones where the run kept an average, else the
    last; nested dicts of NumPy arrays.

    Args:
      model_dir: of the built-in trainer or of t5x; also one checkpoint of t5x.
      step: which checkpoint; None for the newest.

    Raises UserError where there is none, or no configuration.
    """
    if not is_t5x(model_dir):
        from music_diffusion.training import checkpoints

        return checkpoints.read_params(model_dir, step)
    params, step = read_t5x(model_dir, step)
    folder = pathlib.Path(model_dir)
    for file in (folder / CONFIG, folder.parent / CONFIG):
        if file.is_file():
            return params, step, file.read_text()
    raise UserError(f"{folder}: has no {CONFIG}, which t5x.train writes with runs/t5x_train.gin")
