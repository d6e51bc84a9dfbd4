"""Released weights: safetensors beside a gin configuration. Pickle is never loaded."""

from __future__ import annotations

import os
import pathlib

from music_diffusion.files import write_text
from music_diffusion.models.weights import CONFIG, WEIGHTS, check_dtype, save_safetensors


def export(
    model_dir: str | os.PathLike, out_dir: str | os.PathLike, *, step: int | None = None,
    dtype: str = "float16",
) -> pathlib.Path:
    """Writes the averaged parameters of a checkpoint and the configuration that made them.

    Args:
      model_dir: of a training run.
      out_dir: gets `weights.safetensors` (names joined by '/') and `config.gin`.
      step: which checkpoint; None for the newest.
      dtype: see `models.weights.save_safetensors`.

    Returns the path of the weights. Raises UserError where there is no such
    checkpoint, no such dtype, or a weight does not fit into it.
    """
    from music_diffusion.training.runs import read_run

    check_dtype(dtype)
    params, step, config = read_run(model_dir, step)
    out = pathlib.Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    save_safetensors(out / WEIGHTS, params, dtype=dtype, facts={"step": step})
    write_text(out / CONFIG, config)
    return out / WEIGHTS
