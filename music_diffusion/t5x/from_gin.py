"""Makes the names of recipes and of this folder known to gin when it is imported.

For t5x's programs, which take nothing but a module's name: the gin files
`runs/t5x_*.gin` import it, and come before the recipe. No other module here
registers on import.

Recipes bind `train.model` and so on, and t5x's program has a function `train` of its
own, with other parameters. Here `train` means `Recipe`: gin prefers the name that is
exactly what was written to those that only end with it. t5x's own is `__main__.train`.
"""

from __future__ import annotations

import gin
from music_diffusion import gin_setup
from music_diffusion.t5x import datasets, inference, partitioner, recipe, settings, trainer
from music_diffusion.t5x.model import T5XModel

CONFIGURABLES = (
    T5XModel, partitioner.partitioner,
    datasets.dataset, datasets.training_dataset, datasets.training_eval_dataset,
    datasets.training_data, datasets.evaluation_data, datasets.any_feature,
    inference.LossEvaluator, inference.inference_writer, inference.inference_merger,
    recipe.total_steps, recipe.eval_period, recipe.stats_period, recipe.random_seed,
    settings.checkpoints, settings.restored, settings.write_config,
    trainer.RecipeTrainer, trainer.RecipeInitializer, trainer.StopAtNonFinite)


def register() -> None:
    """Registers all names and where recipes lie. Calling twice is harmless."""
    gin_setup.register_configurables()
    gin_setup.search_gin_root()
    for item in CONFIGURABLES:
        gin.external_configurable(item)
    # Without a module, so that its whole name is `train`.
    gin.external_configurable(type("train", (recipe.Recipe,), {"__module__": None}), name="train")


register()
