"""A zoo member with the interface of `t5x.models.BaseModel`. Needs no t5x; `t5x.model` is the class
that t5x is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import clu.metrics
import jax
import jax.numpy as jnp
from flax.core import freeze, unfreeze
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics
from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.state import never_trained
from music_diffusion.types import Batch, Params

NUMBER = "batch_number"  # int32 [B], in batches of evaluation: which one it is, for its noise


class Adapter:
    """Losses, predictions and initial parameters of a recipe's model, as the built-in trainer's."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.model = recipe.model

    def get_initial_variables(
        self, rng: PRNGKeyArray, input_shapes: Mapping[str, tuple[int, ...]],
        input_types: Mapping[str, Any] | None = None,
    ) -> Mapping[str, Any]:
        """Fresh parameters and their axes, of the recipe's seed and not of `rng`."""
        del rng, input_types
        return freeze(dict(self.model.init(self._key, {k: tuple(v) for k, v in input_shapes.items()})))

    def training_loss(self, params: Params, batch: Batch, rng: PRNGKeyArray
                      ) -> tuple[Float[Array, ""], Metrics]:
        """The model's loss, without gradients of what is never trained."""
        mask = never_trained(self.model, self.recipe.optimizer, params)
        params = jax.tree.map(lambda p, frozen: jax.lax.stop_gradient(p) if frozen else p, params,
                              mask)
        return self.model.loss_fn(params, batch, rng)

    def loss_fn(self, params: Params, batch: Batch, dropout_rng: PRNGKeyArray | None
                ) -> tuple[Float[Array, ""], dict[str, clu.metrics.Metric]]:
        """Loss and metrics of t5x's kind; without a key, those of `eval_fn`."""
        if dropout_rng is None:
            return self.eval_fn(params, batch)
        loss, metrics = self.training_loss(unfreeze(params), batch, dropout_rng)
        return loss, averages({**metrics, "loss": loss})

    def eval_fn(self, params: Params, batch: Batch
                ) -> tuple[Float[Array, ""], dict[str, clu.metrics.Metric]]:
        """The loss without dropout, with the noise that the built-in trainer's batch of the same
        number gets; metrics weigh as much as the batch has examples."""
        batch = dict(batch)
        number = batch.pop(NUMBER, None)
        rng = jax.random.fold_in(self._key, 0 if number is None else number[0])
        loss, metrics = self.model.eval_fn(unfreeze(params), batch, rng)
        size = len(next(iter(batch.values())))
        return loss, averages({**metrics, "loss": loss}, size)

    def predict_batch_with_aux(self, params: Params, batch: Batch, rng: PRNGKeyArray | None = None
                               ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        """Returns what the model makes of the batch's conditions, and nothing beside."""
        return self.predict_batch(params, batch, rng), {}

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray | None = None
                      ) -> jax.Array:
        """Returns what the model makes of the batch's conditions."""
        return self.model.predict_batch(unfreeze(params), batch, self._key if rng is None else rng)

    def score_batch(self, params: Params, batch: Batch, return_intermediates: bool = False
                    ) -> Float[Array, " B"]:
        """Minus the loss of every example by itself, each with noise of its own."""
        if return_intermediates:
            raise UserError(f"{type(self.model).__name__} has no intermediate values to return")
        size = len(next(iter(batch.values())))

        def score(example: Batch, rng: PRNGKeyArray) -> jax.Array:
            alone = jax.tree.map(lambda x: x[None], example)
            return -self.model.eval_fn(unfreeze(params), alone, rng)[0]

        return jax.vmap(score)(dict(batch), jax.random.split(self._key, size))

    @property
    def _key(self) -> PRNGKeyArray:
        return jax.random.key(self.recipe.config.seed)


def averages(metrics: Metrics, weight: int = 1) -> dict[str, clu.metrics.Metric]:
    """Scalars as t5x gathers them over steps; each counts `weight` times."""
    return {name: clu.metrics.Average(total=jnp.float32(weight) * jnp.asarray(value, jnp.float32),
                                      count=jnp.asarray(weight, jnp.int32))
            for name, value in metrics.items()}
