"""The model that t5x is given."""

from __future__ import annotations

import seqio
from t5x import models

from music_diffusion.t5x.adapter import Adapter
from music_diffusion.t5x.optimizer import RecipeOptimizer
from music_diffusion.t5x.recipe import Recipe


class T5XModel(Adapter, models.BaseModel):
    """Any zoo member under t5x; see `Adapter`."""

    FEATURE_CONVERTER_CLS = seqio.PassThroughFeatureConverter  # tasks give what the model takes

    def __init__(self, recipe: Recipe):
        Adapter.__init__(self, recipe)
        models.BaseModel.__init__(self, optimizer_def=RecipeOptimizer(recipe))
