"""What t5x asks of a model, for every zoo member. Runs without t5x; `test_programs` runs t5x."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import AbstractMesh, PartitionSpec
from reference import needs
from reference.toy_regression import IN, OUT, ToyModel, ToySource
from reference.zoo_recipes import ZOO

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.models.base import split_variables
from music_diffusion.t5x import recipe as recipe_module
from music_diffusion.t5x.adapter import NUMBER, Adapter, averages
from music_diffusion.t5x.axes import state_axes, t5x_rules
from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.loop import TrainConfig
from music_diffusion.training.optimizers import adafactor, adamw
from music_diffusion.training.partitioning import MeshConfig, partition_spec
from music_diffusion.training.state import init_state
from music_diffusion.training.whole_update import whole_update

# Parameters of t5x.models.BaseModel's methods, after `self`.
BASE_MODEL = {
    "get_initial_variables": ["rng", "input_shapes", "input_types"],
    "loss_fn": ["params", "batch", "dropout_rng"],
    "eval_fn": ["params", "batch"],
    "predict_batch": ["params", "batch", "rng"],
    "predict_batch_with_aux": ["params", "batch", "rng"],
    "score_batch": ["params", "batch", "return_intermediates"],
}
BATCH = next(ToySource().train_iterator(8, 0))


class Toy(ToyModel):
    """Predicts, with noise."""

    def predict_batch(self, params, batch, rng, *, progress=None):
        return batch["x"] @ params["w"] @ params["u"] + jax.random.normal(rng, (len(batch["x"]), OUT))


class Noisy(ToyModel):
    """Whose evaluation is random, too."""

    def eval_fn(self, params, batch, rng):
        loss, metrics = super().eval_fn(params, batch, rng)
        return loss + jax.random.uniform(rng), metrics


def toy_recipe(model=None, **settings):
    settings = {"total_steps": 4, "batch_size": 8, "eval_every": 0, "seed": 7} | settings
    return Recipe(model=model or Toy(noise=0.1), data=ToySource(), optimizer=adamw(),
                  config=TrainConfig(**settings))


@pytest.fixture
def params():
    return init_state(ToyModel(), adamw(), {"x": (8, IN)}, seed=0, ema=False)[0].params


@pytest.mark.parametrize("name", BASE_MODEL)
def test_methods_take_what_t5x_gives(name):
    parameters = list(inspect.signature(getattr(Adapter, name)).parameters.values())[1:]
    assert [p.name for p in parameters[:len(BASE_MODEL[name])]] == BASE_MODEL[name]
    assert all(p.default is not p.empty for p in parameters[len(BASE_MODEL[name]):])


@needs.installed("t5x.train")
def test_t5x_has_the_methods_that_are_written_down_here():
    from t5x.models import BaseModel

    theirs = {n: list(inspect.signature(f).parameters)[1:] for n, f in vars(BaseModel).items()
              if inspect.isfunction(f) and not n.startswith("__")}
    assert theirs == BASE_MODEL


def test_initial_parameters_are_the_built_in_trainers_whatever_t5xs_key_is():
    recipe = toy_recipe()
    shapes = {k: v.shape for k, v in BATCH.items()}
    state, axes = init_state(recipe.model, recipe.optimizer, shapes, seed=7, ema=False)
    for seed in (0, 1):
        variables = Adapter(recipe).get_initial_variables(jax.random.PRNGKey(seed), shapes)
        assert set(variables) == {"params", "params_axes"}
        jax.tree.map(np.testing.assert_array_equal, dict(variables["params"]), state.params)
        assert dict(variables["params_axes"]) == axes


def test_the_training_loss_is_the_models_and_frozen_parameters_have_no_gradient(params):
    model = ToyModel(noise=0.1, frozen=("bias",))
    adapter, rng = Adapter(toy_recipe(model)), jax.random.key(3)
    (loss, metrics), grads = jax.value_and_grad(adapter.loss_fn, has_aux=True)(params, BATCH, rng)
    expected, scalars = model.loss_fn(params, BATCH, rng)
    assert loss == expected and set(metrics) == {"loss", *scalars}
    assert metrics["loss"].compute() == expected
    assert not np.any(grads["bias"]) and np.all(grads["w"])


def test_evaluation_has_the_noise_of_the_batch_of_that_number(params):
    model = Noisy()
    adapter = Adapter(toy_recipe(model))
    for number in (0, 5):
        batch = dict(BATCH) | {NUMBER: np.full(8, number, np.int32)}
        rng = jax.random.fold_in(jax.random.key(7), number)
        loss, metrics = adapter.eval_fn(params, batch)
        assert loss == model.eval_fn(params, BATCH, rng)[0] and metrics["loss"].count == 8
    assert adapter.eval_fn(params, BATCH)[0] == model.eval_fn(
        params, BATCH, jax.random.fold_in(jax.random.key(7), 0))[0]
    assert adapter.loss_fn(params, BATCH, None)[0] == adapter.eval_fn(params, BATCH)[0]


def test_averages_weigh_batches_by_their_examples():
    merged = averages({"a": jnp.float32(1.0)}, 6)["a"].merge(averages({"a": jnp.float32(5.0)}, 2)["a"])
    assert merged.compute() == 2.0


def test_predictions_take_t5xs_key_or_the_recipes(params):
    adapter, model = Adapter(toy_recipe()), Toy()
    key = jax.random.PRNGKey(1)  # of the old kind, as t5x's are
    np.testing.assert_array_equal(adapter.predict_batch(params, BATCH, key),
                                  model.predict_batch(params, BATCH, key))
    predictions, others = adapter.predict_batch_with_aux(params, BATCH)
    np.testing.assert_array_equal(predictions, model.predict_batch(params, BATCH, jax.random.key(7)))
    assert others == {}


def test_scores_are_of_every_example_by_itself(params):
    adapter = Adapter(toy_recipe(ToyModel()))
    scores = adapter.score_batch(params, BATCH)
    assert scores.shape == (8,)
    for i in range(8):
        alone = {k: v[i:i + 1] for k, v in BATCH.items()}
        assert scores[i] == pytest.approx(-float(ToyModel().eval_fn(params, alone, None)[0]), rel=1e-5)
    with pytest.raises(UserError, match="no intermediate values"):
        adapter.score_batch(params, BATCH, return_intermediates=True)


def test_examples_are_scored_with_noise_of_their_own(params):
    same = {k: np.repeat(v[:1], 8, 0) for k, v in BATCH.items()}
    assert len(set(np.asarray(Adapter(toy_recipe(Noisy())).score_batch(params, same)))) == 8


# ---- every recipe of the package ----

RECIPES = sorted(p.name for p in (gin_setup.gin_root() / "recipes").glob("*.gin"))


@pytest.fixture
def model_of():
    def build(files, bindings=()):
        gin_setup.parse(files, bindings)
        return gin.query_parameter("train.model").scoped_configurable_fn()

    yield build
    gin.clear_config()


def test_the_recipes_are_found():
    assert {member.recipe for member in ZOO.values()} <= set(RECIPES)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_every_parameter_has_axes_and_a_place_on_t5xs_mesh(model_of, name):
    model = model_of([f"recipes/{name}"])
    shapes = getattr(model, "feature_shapes", {})
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), shapes))
    params, axes = split_variables(variables)
    sizes = {k: v.shape for k, v in flatten_dict(params).items()}
    names = flatten_dict(axes)
    assert set(names) == set(sizes)
    mesh = AbstractMesh((2, 2), ("data", "model"))
    spread = 0
    for path, shape in sizes.items():
        assert len(names[path]) == len(shape), path
        spec = partition_spec(tuple(names[path]), shape, mesh, t5x_rules(MeshConfig(fsdp=2, model=2)))
        for size, over in zip(shape, spec, strict=True):
            assert over in (None, "data", "model") and (over is None or size % 2 == 0), path
        spread += np.prod(shape) * any(spec)
    # Most of a model is shared out, not copied.
    assert spread > 0.5 * sum(np.prod(s) for s in sizes.values())


RULES = (("batch", ("data", "fsdp")), ("mlp", "model"), ("embed", "fsdp"), ("mlp", "fsdp"),
         ("kv", None), ("vocab", ("model", "fsdp")))


@pytest.mark.parametrize("fsdp, expected", [
    (1, (("batch", "data"), ("mlp", "model"), ("kv", None), ("vocab", "model"))),
    (4, (("batch", "data"), ("mlp", "model"), ("embed", "data"), ("mlp", "data"), ("kv", None),
         ("vocab", ("model", "data")))),
    (-1, (("batch", "data"), ("mlp", "model"), ("embed", "data"), ("mlp", "data"), ("kv", None),
          ("vocab", ("model", "data"))))])
def test_rules_on_t5xs_mesh(fsdp, expected):
    data = 1 if fsdp == -1 else -1
    assert t5x_rules(MeshConfig(data=data, fsdp=fsdp, rules=RULES)) == expected


def test_axes_of_an_optimizers_state_are_those_of_its_parameters():
    """Factored statistics, counters and what is masked have none."""
    wide = {"a": {"kernel": jnp.zeros((128, 256))}, "bias": jnp.zeros((4,)), "held": jnp.zeros((3,))}
    axes = {"a": {"kernel": PartitionSpec("embed", "mlp")}, "bias": PartitionSpec("mlp"),
            "held": PartitionSpec("embed")}

    class Model:
        frozen = ("held",)

    for optimizer, moments in ((adamw(), 2), (adafactor(), 0)):
        transform = whole_update(Model(), optimizer, clip_norm=1.0, ema_decay=0.9, ema_warmup=True)
        state = jax.eval_shape(transform.init, wide)
        found = state_axes(state, wide, axes)
        is_leaf = lambda x: x is None or isinstance(x, PartitionSpec)  # noqa: E731
        leaves = jax.tree.leaves(found, is_leaf=is_leaf)
        assert len(leaves) == len(jax.tree.leaves(state))
        # Of the average each one, and the moments of the two that are trained.
        assert leaves.count(PartitionSpec("embed", "mlp")) == 1 + moments
        assert leaves.count(PartitionSpec("embed")) == 1
        biases = 1 + (2 if moments else 1)  # adafactor keeps one, of vectors
        assert leaves.count(PartitionSpec("mlp")) == biases
        for axis, leaf in zip(leaves, jax.tree.leaves(state), strict=True):
            assert axis is None or len(axis) == leaf.ndim
        assert found.ema_params == axes


# ---- what t5x is told of a recipe ----


def test_settings_are_the_recipes():
    recipe = toy_recipe(total_steps=50, eval_every=20, log_every=5, checkpoint_every=10, seed=3)
    read = {n: getattr(recipe_module, n)(recipe) for n in (
        "total_steps", "eval_period", "stats_period", "random_seed")}
    assert read == {"total_steps": 50, "eval_period": 20, "stats_period": 5,
                    "random_seed": 3}


@pytest.mark.parametrize("settings, message", [
    ({"time_limit_minutes": 3.0}, "no time limit"), ({"profile_steps": (1, 2)}, "profile_steps"),
    ({"eval_every": 15, "checkpoint_every": 10}, "multiples of each other")])
def test_what_t5x_has_not_is_refused(settings, message):
    with pytest.raises(UserError, match=message) as error:
        toy_recipe(**settings)
    assert "\n" not in str(error.value)


def test_no_evaluation_goes_with_any_checkpoints():
    assert toy_recipe(eval_every=0, checkpoint_every=7).config.checkpoint_every == 7
