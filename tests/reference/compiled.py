"""A model's functions, compiled once for all tests of a file; and its first parameters, as one program."""

import functools

import jax

from music_diffusion.training.state import init_state


def init(model, shapes=None, key=0):
    """Returns what `model.init` returns; without `jit` every layer's every operation is a program."""
    key = jax.random.key(key) if isinstance(key, int) else key
    return jax.jit(lambda key: model.init(key, {} if shapes is None else shapes))(key)


def first_state(model, optimizer, shapes, *, ema=False):
    """Returns the state that training of seed 0 begins with."""
    return jax.jit(lambda: init_state(model, optimizer, shapes, seed=0, ema=ema)[0])()


@functools.partial(jax.jit, static_argnums=0)
def loss_fn(model, params, batch, rng):
    return model.loss_fn(params, batch, rng)


@functools.partial(jax.jit, static_argnums=0)
def eval_fn(model, params, batch, rng):
    return model.eval_fn(params, batch, rng)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, batch, rng):
    return model.predict_batch(params, batch, rng)
