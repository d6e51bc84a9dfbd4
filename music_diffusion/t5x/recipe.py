"""Recipes for t5x: the arguments of the built-in trainer, and t5x's settings made of
them. Needs no t5x."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from music_diffusion.errors import UserError
from music_diffusion.models.base import Model
from music_diffusion.training.config import DataSource, TrainConfig
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.partitioning import MeshConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """The parameters of `train` in a recipe, as `training.loop.train` takes them."""

    model: Model
    data: DataSource
    optimizer: Optimizer
    config: TrainConfig
    mesh: MeshConfig = MeshConfig()
    init_from: str | None = None
    init_parts: Sequence[str] = ()

    def __post_init__(self) -> None:
        c = self.config
        if c.time_limit_minutes is not None:
            raise UserError("t5x knows no time limit: leave TIME_LIMIT_MINUTES=None, and end the run "
                            "by a signal")
        if c.profile_steps is not None:
            raise UserError("t5x traces nothing by TrainConfig.profile_steps: leave it None")
        short, long = sorted((c.checkpoint_every, c.eval_every))
        if short and long % short:
            raise UserError(f"t5x wants TrainConfig.checkpoint_every={c.checkpoint_every} and "
                            f"eval_every={c.eval_every} to be multiples of each other")


def total_steps(recipe: Recipe) -> int:
    """Updates, counted from the very first run."""
    return recipe.config.total_steps


def eval_period(recipe: Recipe) -> int:
    """Updates between evaluations; 0: never."""
    return recipe.config.eval_every


def stats_period(recipe: Recipe) -> int:
    """Updates whose metrics are averaged and written."""
    return recipe.config.log_every


def random_seed(recipe: Recipe) -> int:
    """Returns the seed of initial parameters, data order and every step's randomness."""
    return recipe.config.seed
