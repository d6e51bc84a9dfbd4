"""Batch norms: the batch's statistics while training, running ones else, which follow the batch's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.errors import UserError
from music_diffusion.networks.layers import TRACKED, BatchNorm, follow
from music_diffusion.training.optimizers import adamw, tracking

NORM = BatchNorm(epsilon=1e-3)


def draw(seed=0, shape=(3, 4, 5, 2)):
    rng = np.random.default_rng(seed)
    return rng.normal([2.0, -1.0], [0.5, 3.0], shape).astype(np.float32)


def made(scale=(1.0, 1.0), bias=(0.0, 0.0), mean=(0.0, 0.0), variance=(1.0, 1.0)):
    return {"scale": jnp.asarray(scale), "bias": jnp.asarray(bias), "running_mean": jnp.asarray(mean),
            "running_variance": jnp.asarray(variance)}


def test_training_normalises_by_the_batch():
    x = draw()
    params = made(scale=(1.0, 2.0), bias=(0.0, 5.0), mean=(9.0, 9.0))
    y, _ = NORM.apply({"params": params}, x, True, mutable=[TRACKED])
    want = (x - np.mean(x, (0, 1, 2))) / np.sqrt(np.var(x, (0, 1, 2)) + 1e-3) * [1, 2] + [0, 5]
    np.testing.assert_allclose(y, want, atol=1e-5)


def test_otherwise_it_normalises_by_running_statistics_and_examples_do_not_see_each_other():
    x = draw()
    params = made(mean=(2.0, -1.0), variance=(0.25, 9.0))
    y = NORM.apply({"params": params}, x)
    np.testing.assert_allclose(y, (x - np.array([2, -1])) / np.sqrt(np.array([0.25, 9]) + 1e-3), atol=1e-5)
    np.testing.assert_allclose(NORM.apply({"params": params}, x[:1]), y[:1], atol=1e-6)


def loss(params, x):
    y, sown = NORM.apply({"params": params}, x, True, mutable=[TRACKED])
    return jnp.sum(y * jnp.arange(x.size).reshape(x.shape)) + follow(sown)


def test_following_costs_no_loss_and_moves_the_statistics_alone():
    x, params = draw(), made(mean=(9.0, 9.0))
    without = loss(made(), x)
    np.testing.assert_allclose(loss(params, x), without, rtol=1e-6)
    gradient, plain = jax.grad(loss)(params, x), jax.grad(loss)(made(), x)
    np.testing.assert_allclose(gradient["running_mean"], 9 - np.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(gradient["running_variance"], 1 - np.var(x, (0, 1, 2)), rtol=1e-5)
    for name in ("scale", "bias"):
        np.testing.assert_allclose(gradient[name], plain[name])


def test_tracking_is_the_running_mean_of_batches_and_leaves_the_rest_to_the_optimizer():
    optimizer = tracking(optimizer=adamw(learning_rate=0.1, weight_decay=0.0), momentum=0.9)
    params, mean = {"norm": made()}, np.zeros(2)
    state = optimizer.transform.init(params)
    plain = adamw(learning_rate=0.1, weight_decay=0.0).transform
    alone = {name: made()[name] for name in ("scale", "bias")}
    state_alone = plain.init(alone)
    for seed in range(4):
        x = draw(seed)
        gradients = jax.grad(lambda p, x=x: loss(p["norm"], x))(params)
        updates, state = optimizer.transform.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        own, state_alone = plain.update(
            {name: gradients["norm"][name] for name in alone}, state_alone, alone)
        alone = optax.apply_updates(alone, own)
        mean = 0.9 * mean + 0.1 * np.mean(x, (0, 1, 2))
        np.testing.assert_allclose(params["norm"]["running_mean"], mean, rtol=1e-5)
    for name, value in alone.items():
        np.testing.assert_allclose(params["norm"][name], value, rtol=1e-5)
    assert np.abs(alone["scale"] - 1).max() > 0.05


def test_what_is_named_alike_elsewhere_is_trained():
    optimizer = tracking(optimizer=adamw(learning_rate=0.1))
    params = {"running_shoes": {"kernel": jnp.ones(2)}}
    updates, _ = optimizer.transform.update(
        jax.tree.map(jnp.ones_like, params), optimizer.transform.init(params), params)
    np.testing.assert_allclose(updates["running_shoes"]["kernel"], -0.1, rtol=1e-2)


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 1.5])
def test_momentum_is_a_share(momentum):
    with pytest.raises(UserError, match="momentum"):
        tracking(optimizer=adamw(), momentum=momentum)


def test_parameters_have_logical_axes():
    variables = NORM.init(jax.random.key(0), draw())
    axes = unfreeze(get_axis_names(variables["params_axes"]))
    assert {name: tuple(a) for name, a in axes.items()} == dict.fromkeys(variables["params"], ("embed",))
