"""The data sets that t5x's programs read: the recipe's own, or seqio tasks."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import seqio
import tensorflow as tf
from t5x import utils

from music_diffusion.errors import UserError
from music_diffusion.t5x.data import EvalBatches, TrainBatches, batch_spec, examples
from music_diffusion.t5x.recipe import Recipe

RECIPE_TASK = "recipe"  # name of the seqio task of a recipe's evaluation examples


def dataset(recipe: Recipe, split: str = "validation", task: str | None = None
            ) -> utils.DatasetConfig:
    """Returns what t5x's evaluation and inference read, in order.

    Args:
      recipe: its batch size; and its data, unless a task is named.
      split: of the task. Of a recipe's data there is 'validation'.
      task: name of a seqio task or mixture, of `tasks.from_environment` unless it is registered.

    Raises UserError where no such task is registered.
    """
    if task is None:
        register_recipe(recipe)
    return _config(recipe, split, task)


def training_dataset(recipe: Recipe, task: str | None = None) -> utils.DatasetConfig:
    """Returns what is trained on, shuffled by the recipe's seed; see `dataset`."""
    return dataclasses.replace(_config(recipe, "train", task), shuffle=True)


def training_eval_dataset(recipe: Recipe, task: str | None = None) -> utils.DatasetConfig | None:
    """Returns what is evaluated while training; None where the recipe never does."""
    return _config(recipe, "validation", task) if recipe.config.eval_every else None


def _config(recipe: Recipe, split: str, task: str | None) -> utils.DatasetConfig:
    if task is not None:
        _find(task)
    return utils.DatasetConfig(
        mixture_or_task_name=RECIPE_TASK if task is None else task, task_feature_lengths={},
        split=split, batch_size=recipe.config.batch_size, shuffle=False, seed=recipe.config.seed)


def _find(task: str) -> None:
    """Sees to it that a task is registered."""
    registries = (seqio.TaskRegistry, seqio.MixtureRegistry)
    if any(task in registry.names() for registry in registries):
        return
    importlib.import_module("music_diffusion.tasks.from_environment")  # registers
    names = sorted(name for registry in registries for name in registry.names())
    if task not in names:
        raise UserError(f"TASK {task}: no such seqio task; MUSIC_DIFFUSION_TASKS has {', '.join(names)}")


def any_feature(recipe: Recipe, task: str | None = None) -> str:
    """Name of a feature, which t5x's inference asks for its vocabulary, for text."""
    name = dataset(recipe, task=task).mixture_or_task_name
    return next(iter(seqio.get_mixture_or_task(name).output_features))


def register_recipe(recipe: Recipe) -> None:
    """Registers the evaluation examples as the seqio task RECIPE_TASK, in place of an earlier one."""
    data, batch_size = recipe.data, recipe.config.batch_size
    first = next(data.eval_batches(batch_size))
    spec = {k: tf.TensorSpec(s.shape[1:], s.dtype) for k, s in batch_spec(first).items()}

    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del split, shuffle_files, seed  # one split, in one order
        return tf.data.Dataset.from_generator(lambda: examples(data, batch_size),
                                              output_signature=spec)

    if RECIPE_TASK in seqio.TaskRegistry.names():
        seqio.TaskRegistry.remove(RECIPE_TASK)
    seqio.TaskRegistry.add(
        RECIPE_TASK, source=seqio.FunctionDataSource(read, splits=("validation",)),
        preprocessors=[], output_features={
            k: seqio.ContinuousFeature(dtype=s.dtype, rank=len(s.shape)) for k, s in spec.items()})


def training_data(recipe: Recipe):
    """A function for t5x's `train.get_dataset_fn`."""
    def get(config: utils.DatasetConfig, shard_id: int, num_shards: int, feature_converter_cls: Any,
            **others: Any) -> TrainBatches | tf.data.Dataset:
        if config.mixture_or_task_name != RECIPE_TASK:
            return utils.get_dataset(config, shard_id, num_shards, feature_converter_cls, **others)
        return TrainBatches(recipe.data, config.batch_size // num_shards, config.seed,
                            shard_index=shard_id, shard_count=num_shards)

    return get


def evaluation_data(recipe: Recipe):
    """A function for t5x's `train_eval_get_dataset_fn`."""
    def get(config: utils.DatasetConfig, shard_id: int, num_shards: int, eval_steps: int = 8,
            feature_converter_cls: Any = None) -> Mapping[str, EvalBatches | tf.data.Dataset]:
        if config.mixture_or_task_name != RECIPE_TASK:
            return utils.get_training_eval_datasets(config, shard_id, num_shards, eval_steps,
                                                    feature_converter_cls)
        return {RECIPE_TASK: EvalBatches(recipe.data, config.batch_size, shard_index=shard_id,
                                         shard_count=num_shards)}

    return get
