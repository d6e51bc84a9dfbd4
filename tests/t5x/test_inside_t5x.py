"""What is handed to t5x, in t5x's hands; without its programs, which `test_programs` runs."""

import types

import jax
import numpy as np
import pytest
from reference import needs
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.loop import NonFiniteError, TrainConfig
from music_diffusion.training.optimizers import adafactor, adamw
from music_diffusion.training.partitioning import MeshConfig
from music_diffusion.training.state import init_state
from music_diffusion.training.warm_start import stored_params

pytestmark = needs.installed("t5x.train")
SHAPES = {"x": (8, 8), "y": (8, 4)}


def recipe(optimizer=None, **others):
    others = {"model": ToyModel(frozen=("bias",)), "mesh": MeshConfig()} | others
    return Recipe(data=ToySource(), optimizer=optimizer or adamw(), config=TrainConfig(
        total_steps=4, batch_size=8, eval_every=0, ema_decay=0.9), **others)


def initializer(its):
    from music_diffusion.t5x.model import T5XModel
    from music_diffusion.t5x.partitioner import partitioner
    from music_diffusion.t5x.trainer import RecipeInitializer

    model = T5XModel(its)
    return RecipeInitializer(optimizer_def=model.optimizer_def, init_fn=model.get_initial_variables,
                             input_shapes=SHAPES, partitioner=partitioner(its))


@pytest.mark.parametrize("optimizer", [adamw(), adafactor()])
def test_a_state_is_made_placed_written_and_read(optimizer):
    its = recipe(optimizer)
    made = initializer(its)
    state = made.from_scratch(jax.random.PRNGKey(5))
    fresh, _ = init_state(its.model, its.optimizer, SHAPES, seed=0, ema=True)
    for found in (state.params, state.param_states.ema_params):
        jax.tree.map(np.testing.assert_array_equal, dict(found), dict(fresh.params))
    # t5x writes a dict, in which nothing may be empty, and reads the state from it.
    written = state.state_dict()
    jax.tree.map(np.testing.assert_array_equal, state.restore_state(written), state)
    # Of every array there is a place.
    axes = made.train_state_axes.state_dict()
    assert jax.tree.structure(axes, is_leaf=lambda x: x is None) == jax.tree.structure(written)


def test_a_run_begins_with_the_parameters_that_the_recipe_names(tmp_path):
    from music_diffusion.models.weights import save_safetensors

    params = jax.tree.map(lambda x: x + 1, init_state(
        ToyModel(), adamw(), SHAPES, seed=0, ema=False)[0].params)
    save_safetensors(tmp_path / "w.safetensors", params, dtype="float32")
    its = recipe(init_from=str(tmp_path / "w.safetensors"), init_parts=("w",))
    state = initializer(its).from_scratch(jax.random.PRNGKey(0))
    stored = stored_params(tmp_path / "w.safetensors")
    fresh, _ = init_state(its.model, its.optimizer, SHAPES, seed=0, ema=True)
    for found in (state.params, state.param_states.ema_params):
        np.testing.assert_array_equal(found["w"], stored["w"])
        np.testing.assert_array_equal(found["u"], fresh.params["u"])


@pytest.mark.parametrize("name, value", [("loss", np.nan), ("grad_norm", np.inf)])
def test_numbers_that_are_not_finite_end_the_run(name, value):
    from music_diffusion.t5x.trainer import StopAtNonFinite

    metrics = {"loss": types.SimpleNamespace(value=1.0), "grad_norm": types.SimpleNamespace(value=2.0)}
    state = types.SimpleNamespace(step=12)
    assert StopAtNonFinite().run(state, {"train": metrics}) is False
    with pytest.raises(NonFiniteError, match=f"{name} was not finite shortly before step 12") as error:
        StopAtNonFinite().run(state, {"train": metrics | {name: types.SimpleNamespace(value=value)}})
    assert "\n" not in str(error.value)


def test_a_submesh_of_another_size_is_refused():
    from music_diffusion.errors import UserError
    from music_diffusion.t5x.partitioner import partitioner

    with pytest.raises(UserError, match="must have MeshConfig.model=1 devices"):
        partitioner(recipe(), model_parallel_submesh=(2, 1, 1, 1))
