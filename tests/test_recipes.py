"""Every recipe is read, and its model is what its header says."""

import jax
import pytest

import gin
from music_diffusion import gin_setup

RECIPES = sorted(p.name for p in (gin_setup.gin_root() / "recipes").glob("*.gin"))
PARAMETERS = {  # by the layout of the published checkpoints, and by the model card
    "spectrogram_diffusion_small_context.gin": 104_035_840,
    "spectrogram_diffusion_base_context.gin": 411_665_664,
    "default.gin": 11_863_424,
}


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_builds_its_parts(recipe):
    gin_setup.parse([f"recipes/{recipe}"])
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")
    parts = {name: gin.query_parameter(f"train.{name}").scoped_configurable_fn()
             for name in ("model", "data", "optimizer", "config")}
    assert parts["config"].batch_size >= 1 and parts["optimizer"].learning_rate(0) >= 0
    if recipe in PARAMETERS:
        model = parts["model"]
        variables = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))
        assert sum(x.size for x in jax.tree.leaves(variables["params"])) == PARAMETERS[recipe]
    model_bindings = [u for u in gin_setup.unused_bindings() if not u.startswith(
        ("mesh", "MICROBATCHES"))]
    assert not [u for u in model_bindings if "Config" in u or "Model" in u], model_bindings
