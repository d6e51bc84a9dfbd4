"""Adapting a model to one more performance leaves the others as they were."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from reference import compiled

from music_diffusion.errors import UserError
from music_diffusion.models.adaptation import AdaptationModel, losses_of
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.performance import FILM, PERFORMANCE_TABLE
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS
from music_diffusion.training.optimizers import adamw
from music_diffusion.training.state import make_train_step

KNOWN = 3


def random_like(params, seed):
    """No zeros, so that everything that is read has an effect."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype) for x in leaves])


@pytest.fixture(scope="module", params=[False, True], ids=["one kind of notes", "performed notes"])
def base(request):
    table = PerformanceConfig(count=KNOWN, features=4)
    config = ScoreDenoiserConfig(
        timbre=NoteTimbreConfig(layers=1, width=8, performances=table if request.param else None),
        performances=table,
        unet=UNet1DConfig(widths=(16, 16), blocks=1, time_features=8, heads=2, head_dim=4))
    model = FrameDiffusionModel(config=config, performance_dropout=0.0)
    params = random_like(compiled.init(model)["params"], 1)
    return model, params


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(2)
    states = {"program": rng.integers(-1, 129, (4, 16, 3)), "pitch": rng.integers(30, 90, (4, 16, 3)),
              "velocity": rng.integers(1, 128, (4, 16, 3)), "age": rng.uniform(0, 1, (4, 16, 3)),
              "release": rng.uniform(-1, 1, (4, 16, 3))}
    slots = {f"slot_{k}": v.astype(np.int32 if i < 3 else np.float32)
             for i, (k, v) in enumerate(states.items())}
    return {**slots, "roll": rng.uniform(0, 1, (4, 16, ROLL_CHANNELS)).astype(np.float32),
            "targets": rng.uniform(-1, 1, (4, 16, 128)).astype(np.float32),
            "performance": np.full(4, KNOWN, np.int32)}


@pytest.fixture(scope="module")
def adapted(base, batch):
    """The adapter, its parameters at first and after some steps, and the merged parameters."""
    model, params = base
    adapter = AdaptationModel(model=model.one_more_performance(), begin_with=1)
    optimizer = adamw(learning_rate=1e-2, weight_decay=0.0)
    state = compiled.first_state(adapter, optimizer, {k: v.shape for k, v in batch.items()})
    state = dataclasses.replace(state, params=adapter.adopt(state.params, params))
    step = jax.jit(make_train_step(adapter, optimizer, seed=0))
    first, losses = state.params, []
    for _ in range(24):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    return adapter, first, state.params, losses


@functools.partial(jax.jit, static_argnums=0)
def jitted_loss(model, params, batch):
    return model.eval_fn(params, batch, jax.random.key(5))[0]


def loss(model, params, batch, performance):
    return float(jitted_loss(model, params, {**batch, "performance": np.full(4, performance, np.int32)}))


@pytest.mark.slow
def test_begins_as_the_performance_that_it_begins_with(base, batch, adapted):
    model, params = base
    adapter, first, _, _ = adapted
    merged = adapter.merged(first)
    assert loss(adapter.model, merged, batch, KNOWN) == pytest.approx(
        loss(model, params, batch, 1), rel=1e-5)


def test_learns(adapted):
    losses = adapted[3]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


@pytest.mark.slow
def test_others_are_as_they_were(base, batch, adapted):
    model, params = base
    adapter, _, last, _ = adapted
    merged = adapter.merged(last)
    for performance in range(KNOWN):
        assert loss(adapter.model, merged, batch, performance) == pytest.approx(
            loss(model, params, batch, performance), rel=1e-5)
    assert loss(adapter.model, merged, batch, KNOWN) < 0.9 * loss(model, params, batch, 1)


def test_only_new_rows_differ(base, adapted):
    _, params = base
    adapter, _, last, _ = adapted
    merged = flatten_dict(adapter.merged(last), sep="/")
    for name, old in flatten_dict(params, sep="/").items():
        if name.endswith(PERFORMANCE_TABLE):
            assert np.array_equal(merged[name][:KNOWN, :-1], old)
            assert np.array_equal(merged[name][:, -1], [0, 0, 0, 1])
        elif name.endswith(FILM):
            assert np.array_equal(merged[name][:-1], old)
            assert np.abs(merged[name][-1]).max() > 0
        else:
            assert np.array_equal(merged[name], old)


@pytest.mark.slow
def test_a_second_adaptation_leaves_the_first(base, batch, adapted):
    adapter, _, last, _ = adapted
    merged = adapter.merged(last)
    second = AdaptationModel(model=adapter.model.one_more_performance())
    params = second.adopt(compiled.init(second)["params"], merged)
    params["adapter"] = random_like(params["adapter"], 3)
    twice = second.merged(params)
    assert loss(second.model, twice, batch, KNOWN) == pytest.approx(
        loss(adapter.model, merged, batch, KNOWN), rel=1e-5)


@pytest.mark.slow
def test_nearest_performance_has_the_least_loss(base, batch):
    model, params = base
    losses = losses_of(model, params, batch, KNOWN, jax.random.key(5))
    assert losses == pytest.approx([loss(model, params, batch, i) for i in range(KNOWN)], rel=1e-5)


def test_needs_performances():
    model = FrameDiffusionModel()
    with pytest.raises(UserError, match="without performances"):
        model.one_more_performance()


@pytest.mark.slow
def test_maps_are_fitted_by_the_new_rows_alone(base, batch):
    """The map's error falls, by what the network of notes learns too, and others' maps stay."""
    model, params = base
    larger = model.one_more_performance()
    adapter = AdaptationModel(model=larger.map_model(), begin_with=1)
    optimizer = adamw(learning_rate=1e-2, weight_decay=0.0)
    state = compiled.first_state(adapter, optimizer, {k: v.shape for k, v in batch.items()})
    state = dataclasses.replace(state, params=adapter.adopt(state.params, params))
    step = jax.jit(make_train_step(adapter, optimizer, seed=0))
    first = adapter.merged(state.params)
    losses = []
    for _ in range(12):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    merged = adapter.merged(state.params)
    codec, keep = model.codec, np.ones(4)
    cond = larger.condition(first, batch, keep)  # the loss, said otherwise
    error = np.abs(codec.unscale(cond["map"]) - codec.unscale(batch["targets"])).mean()
    assert losses[0] == pytest.approx(float(error), rel=1e-5)
    assert losses[-1] < 0.97 * losses[0]
    # Maps made beforehand are not what is fitted.
    given = {**batch, "maps": np.zeros((4, 16, 2, 128), np.float32)}
    assert float(adapter.loss_fn(state.params, given, jax.random.key(0))[0]) == pytest.approx(
        float(adapter.loss_fn(state.params, batch, jax.random.key(0))[0]))
    for row in range(KNOWN):
        performance = {"performance": np.full(4, row, np.int32)}
        old, new = (m.condition(p, {**batch, **performance}, keep)["map"]
                    for m, p in ((model, params), (larger, merged)))
        np.testing.assert_allclose(old, new, atol=1e-5)
    moved = {name for name, value in flatten_dict(state.params["adapter"], sep="/").items()
             if not np.array_equal(value, flatten_dict(adapter.adopt(
                 state.params, params)["adapter"], sep="/")[name])}
    performed = model.config.timbre.performances is not None
    assert ("timbre/performed/DenseGeneral_0/kernel" in moved) == performed
    assert "map_film/DenseGeneral_0/kernel" in moved
    assert not any(name.startswith("unet/") for name in moved)


@pytest.mark.slow
def test_goes_on_from_parameters_of_a_training(base):
    model, params = base
    adapter = AdaptationModel(model=model.one_more_performance())
    fresh = compiled.init(adapter)["params"]
    trained = {"base": random_like(fresh["base"], 4), "adapter": random_like(fresh["adapter"], 5)}
    assert adapter.adopt(fresh, trained) is trained
