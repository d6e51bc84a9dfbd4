"""A model's functions, compiled once for all tests of a file."""

import functools

import jax


@functools.partial(jax.jit, static_argnums=0)
def loss_fn(model, params, batch, rng):
    return model.loss_fn(params, batch, rng)


@functools.partial(jax.jit, static_argnums=0)
def eval_fn(model, params, batch, rng):
    return model.eval_fn(params, batch, rng)


@functools.partial(jax.jit, static_argnums=0)
def predict(model, params, batch, rng):
    return model.predict_batch(params, batch, rng)
