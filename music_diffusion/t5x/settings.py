"""t5x's checkpoint settings and configuration file, of a recipe."""

from __future__ import annotations

import os

import jax
import tensorflow as tf
from clu import metric_writers
from t5x import checkpoints as t5x_checkpoints
from t5x import utils

import gin
from music_diffusion.errors import UserError
from music_diffusion.models.weights import CONFIG
from music_diffusion.t5x.averages import AverageReader
from music_diffusion.t5x.recipe import Recipe


def checkpoints(recipe: Recipe) -> utils.CheckpointConfig:
    """Saved by the recipe's period, in float32, with the position in the data."""
    config = recipe.config
    return utils.CheckpointConfig(save=utils.SaveCheckpointConfig(
        dtype="float32", period=config.checkpoint_every, keep=config.keep, save_dataset=True))


def restored(recipe: Recipe, path: str, *, average: bool = True, every: bool = False
             ) -> utils.RestoreCheckpointConfig:
    """Returns what evaluation and inference read.

    Args:
      recipe: of the run.
      path: a model_dir of `t5x.train`, whose newest checkpoint is taken, or one of its checkpoints.
      average: whether the averaged parameters are taken, where the recipe keeps them.
      every: all checkpoints of the model_dir, which evaluation can take.

    Raises UserError where there is no checkpoint.
    """
    prefix, _, step = os.path.basename(path.rstrip("/")).rpartition("_")
    mode = "specific"
    if every:
        mode = "all"
    elif not (prefix and step.isdigit() and tf.io.gfile.isdir(path)):
        newest = t5x_checkpoints.latest_step(path) if tf.io.gfile.isdir(path) else None
        if newest is None:
            raise UserError(f"{path}: no checkpoint there; set MODEL_DIR to that of `t5x.train`")
        path = t5x_checkpoints.get_checkpoint_dir(path, newest)
    return utils.RestoreCheckpointConfig(
        path=path, mode=mode, dtype="float32", strict=False, checkpoint_manager_cls=(
            AverageReader if average and recipe.config.ema_decay > 0
            else t5x_checkpoints.OrbaxCheckpointManagerInterface))


def write_config(model_dir: str, summary_writer: metric_writers.MetricWriter | None, step: int
                 ) -> None:
    """A function for t5x's `summarize_config_fn`: as the built-in trainer, every parameter that the
    run has read, defaults too."""
    if jax.process_index():
        return
    text = gin.operative_config_str()
    tf.io.gfile.makedirs(model_dir)
    with tf.io.gfile.GFile(os.path.join(model_dir, CONFIG), "w") as file:
        file.write(text)
    if summary_writer is not None:
        summary_writer.write_texts(step, {"config": gin.markdown(text)})
        summary_writer.flush()
