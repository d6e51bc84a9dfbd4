"""The recipe's optimizer as t5x takes it: an OptimizerDef over optax."""

from __future__ import annotations

from typing import Any

import jax
from flax.core import unfreeze
from t5x import optimizers

from music_diffusion.t5x.axes import state_axes
from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.whole_update import whole_update


class RecipeOptimizer(optimizers.OptaxWrapper):
    """Clips, updates and averages as the built-in trainer does.

    t5x's wrapper, but for two things: optax sees plain dicts where t5x has frozen
    ones, and the axes of the state are found by name and shape, of whatever optax
    type it is.
    """

    def __init__(self, recipe: Recipe):
        config = recipe.config
        super().__init__(whole_update(
            recipe.model, recipe.optimizer, clip_norm=config.clip_norm, ema_decay=config.ema_decay,
            ema_warmup=config.ema_warmup))

    def init_state(self, params: Any) -> optimizers.OptimizerState:
        """See `OptimizerDef.init_state`."""
        return super().init_state(unfreeze(params))

    def apply_gradient(self, hyper_params: Any, params: Any, state: optimizers.OptimizerState,
                       grads: Any) -> tuple[Any, optimizers.OptimizerState]:
        """See `OptimizerDef.apply_gradient`."""
        new, state = super().apply_gradient(hyper_params, unfreeze(params), state, unfreeze(grads))
        # As they were given, frozen or not: leaves have the same order in both.
        return jax.tree.unflatten(jax.tree.structure(params), jax.tree.leaves(new)), state

    def derive_logical_axes(self, optimizer: optimizers.Optimizer, param_logical_axes: Any
                            ) -> optimizers.Optimizer:
        """`optimizer` with PartitionSpecs of logical names for its arrays, or None."""
        axes = state_axes(optimizer.state, optimizer.target, unfreeze(param_logical_axes))
        return optimizer.replace(state=axes, target=param_logical_axes)
