"""The update as one transformation against the built-in trainer's step, for every optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference.toy_regression import IN, OUT, ToyModel, ToySource

from music_diffusion.training.optimizers import (
    PartOptimizer,
    adafactor,
    adamw,
    by_part,
    warmup_cosine,
)
from music_diffusion.training.state import init_state, make_train_step
from music_diffusion.training.whole_update import whole_update

SHAPES = {"x": (8, IN), "y": (8, OUT)}
STEPS = 6
PARTS = by_part(parts={
    "w": PartOptimizer(optimizer=adamw(learning_rate=0.03), clip_norm=0.05, every=2),
    "u": PartOptimizer(optimizer=adamw(learning_rate=0.01)),
    "bias": PartOptimizer(optimizer=adafactor(learning_rate=0.1))})


@pytest.mark.slow
@pytest.mark.parametrize("optimizer, frozen", [
    (adamw(learning_rate=warmup_cosine(peak=0.1, warmup_steps=2, total_steps=STEPS)), ()),
    (adafactor(learning_rate=0.05), ()),
    (adamw(learning_rate=0.03, frozen=("u",)), ("bias",)),
    (PARTS, ())], ids=["adamw", "adafactor", "frozen", "by_part"])
@pytest.mark.parametrize("settings", [
    {"clip_norm": None, "ema_decay": 0.0}, {"clip_norm": 0.3, "ema_decay": 0.9},
    {"clip_norm": 100.0, "ema_decay": 0.5, "ema_warmup": False}], ids=["plain", "clipped", "loose"])
def test_it_is_the_built_in_trainers_step(optimizer, frozen, settings):
    model = ToyModel(noise=0.1, frozen=frozen)
    settings = {"ema_warmup": True} | settings
    state, _ = init_state(model, optimizer, SHAPES, seed=0, ema=settings["ema_decay"] > 0)
    step = jax.jit(make_train_step(model, optimizer, seed=0, **settings))
    transform = whole_update(model, optimizer, **settings)

    def loss(params, batch, rng):  # of frozen parameters there is no gradient
        held = {k: jax.lax.stop_gradient(v) if k in (*frozen, *optimizer.frozen) else v
                for k, v in params.items()}
        return model.loss_fn(held, batch, rng)[0]

    @jax.jit
    def apply(params, own, batch, number):
        rng = jax.random.fold_in(jax.random.key(0), number)
        updates, own = transform.update(jax.grad(loss)(params, batch, rng), own, params)
        return optax.apply_updates(params, updates), own

    params, iterator = state.params, ToySource().train_iterator(8, 0)
    own = transform.init(params)
    for number in range(STEPS):
        batch = next(iterator)
        state, _ = step(state, batch)
        params, own = apply(params, own, batch, number)
        # The same arithmetic, compiled twice.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), params,
                     state.params)
        if state.ema_params is None:
            assert not own.ema_params
        else:
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
                         own.ema_params, state.ema_params)
    assert int(own.step) == STEPS
    for name in (*frozen, *optimizer.frozen):
        fresh = init_state(model, optimizer, SHAPES, seed=0, ema=False)[0].params
        np.testing.assert_array_equal(params[name], fresh[name])


def test_the_average_begins_as_a_copy_of_the_parameters():
    params = {"w": jnp.ones((2,))}
    own = whole_update(ToyModel(), adamw(), clip_norm=None, ema_decay=0.9, ema_warmup=True).init(params)
    np.testing.assert_array_equal(own.ema_params["w"], params["w"])
    assert own.ema_params["w"].unsafe_buffer_pointer() != params["w"].unsafe_buffer_pointer()


def test_it_needs_the_parameters():
    transform = whole_update(ToyModel(), adamw(), clip_norm=None, ema_decay=0.0, ema_warmup=True)
    params = {"w": jnp.ones((2,))}
    with pytest.raises(ValueError, match="parameters"):
        transform.update(params, transform.init(params))
