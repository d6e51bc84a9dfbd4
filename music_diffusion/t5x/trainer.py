"""t5x's trainer with the built-in trainer's step: its randomness, microbatches and average."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import optax
from flax.core import unfreeze
from t5x import train_state, trainer, utils

from music_diffusion.t5x.adapter import averages
from music_diffusion.t5x.datasets import RECIPE_TASK
from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.loop import NonFiniteError
from music_diffusion.training.metrics import CsvLog
from music_diffusion.training.state import mean_gradients
from music_diffusion.training.warm_start import stored_params, warm_start


class RecipeTrainer(trainer.Trainer):
    """Trainer that makes the same losses and parameters as the built-in one, of the same batches.

    The randomness of a step is of the recipe's seed and the step's number, and
    evaluation takes the averaged parameters.
    """

    def __init__(self, recipe: Recipe, *, summary_dir: str | None, learning_rate_fn: Any = None,
                 num_microbatches: int | None = None, **others: Any):
        """`recipe` sets what `learning_rate_fn` and `num_microbatches` are for."""
        del learning_rate_fn, num_microbatches
        self._recipe = recipe
        super().__init__(learning_rate_fn=recipe.optimizer.learning_rate, summary_dir=summary_dir,
                         num_microbatches=recipe.config.microbatches, **others)
        self._tables: dict[str, CsvLog] = {}
        self._folder = None  # of the tables; t5x's own logs are wherever it can write
        if summary_dir is not None and "://" not in summary_dir and jax.process_index() == 0:
            self._folder = pathlib.Path(summary_dir)

    def train(self, batch_iter: Any, num_steps: int, start_step: int | None = None) -> Any:
        """See `Trainer.train`; adds a row to train.csv."""
        first = int(self.train_state.step) if start_step is None else start_step
        summary = super().train(batch_iter, num_steps, first)
        self._write("train", first, first + num_steps, summary.result())
        return summary

    def eval(self, batch_iters: Any) -> Any:
        """See `Trainer.eval`; adds a row to eval.csv, or to eval_TASK.csv of a seqio task."""
        summaries = super().eval(batch_iters)
        step = int(self.train_state.step)
        for name, summary in summaries.items():
            self._write("eval" if name == RECIPE_TASK else f"eval_{name}", step - 1, step, summary)
        return summaries

    def _write(self, table: str, done: int, step: int, summary: Any) -> None:
        """Takes the place of rows after step `done`."""
        if self._folder is None:
            return
        if table not in self._tables:
            self._tables[table] = CsvLog(self._folder / f"{table}.csv", done)
        self._tables[table].write(step, {name: float(metric.value) for name, metric
                                         in sorted(summary.items()) if "/" not in name})

    @functools.cached_property
    def _partitioned_train_step(self):
        config = self._recipe.config

        def train_step(state, batch):
            rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
            loss, metrics, grads = mean_gradients(self._model.training_loss, state.params, batch, rng,
                                                  config.microbatches)
            metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
            return trainer.apply_grads(state, grads, averages(metrics),
                                       self._learning_rate_fn(state.step),
                                       self._weight_metrics_computer)

        return self._partitioner.partition(
            train_step, donate_argnums=(0,),
            in_axis_resources=(self._train_state_axes, self._partitioner.data_partition_spec),
            out_axis_resources=(self._train_state_axes, None))

    @functools.cached_property
    def _partitioned_eval_step(self):
        return self._partitioner.partition(
            lambda state, batch: trainer.eval_step(self._model, averaged(state), batch),
            in_axis_resources=(self._train_state_axes, self._partitioner.data_partition_spec),
            out_axis_resources=None)


def averaged(state: train_state.TrainState) -> train_state.TrainState:
    """Returns the state with the averaged parameters, where there are such."""
    if isinstance(state, train_state.InferenceState):  # restored with them, see `inference`
        return state
    average = state.param_states.ema_params
    if not average:  # an empty state
        return state
    structure = jax.tree.structure(state.params)
    return state.replace_params(jax.tree.unflatten(structure, jax.tree.leaves(average)))


class RecipeInitializer(utils.TrainStateInitializer):
    """Begins with the parameters of `train.init_from`, where a recipe binds it."""

    def __init__(self, *arguments: Any, init_fn: Any, **others: Any):
        super().__init__(*arguments, init_fn=init_fn, **others)
        self._recipe: Recipe = init_fn.__self__.recipe

    def from_scratch(self, init_rng: jax.Array) -> train_state.TrainState:
        """See `TrainStateInitializer.from_scratch`."""
        source = self._recipe.init_from
        if source is None:
            self._recipe.model.require_start()
        state = super().from_scratch(init_rng)
        if source is None:
            return state
        parts = state.state_dict()
        params = unfreeze(state.params)
        stored = self._recipe.model.adopt(params, stored_params(source))
        params = warm_start(params, stored, self._recipe.init_parts, source)
        parts["target"] = params
        if "ema_params" in parts["state"]["param_states"]:
            parts["state"]["param_states"]["ema_params"] = jax.tree.map(jax.numpy.copy, params)
        return state.restore_state(parts)


class StopAtNonFinite(trainer.BaseAction):
    """Ends the run, before another checkpoint, where a loss or gradient was not finite."""

    def run(self, train_state: Any, metrics_by_task: Any) -> bool:
        """Raises NonFiniteError. Of the metrics since the last time, t5x has the means."""
        for metrics in metrics_by_task.values():
            for name in ("loss", "grad_norm"):
                if name in metrics and not np.isfinite(metrics[name].value):
                    raise NonFiniteError(
                        f"{name} was not finite shortly before step {int(train_state.step)}; the "
                        "checkpoint before is good; lower the learning rate or clip_norm")
        return False
