"""A linear regression and a random-access source for the trainer's tests."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import partitioning

from music_diffusion.data.sharding import shard_batches
from music_diffusion.models.base import ModelBase

IN, HIDDEN, OUT = 8, 16, 4


class _Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = partitioning.param_with_axes(
            "w", nn.initializers.lecun_normal(), (IN, HIDDEN), axes=("embed", "mlp"))
        u = partitioning.param_with_axes(
            "u", nn.initializers.lecun_normal(), (HIDDEN, OUT), axes=("mlp", "embed"))
        bias = partitioning.param_with_axes("bias", nn.initializers.ones, (OUT,), axes=("embed",))
        hidden = partitioning.with_sharding_constraint(x @ w, ("batch", "mlp"))
        return hidden @ u + bias[None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyModel(ModelBase):
    """y = x W U + b by least squares, with optional noise from the step's key."""

    noise: float = 0.0  # standard deviation added to the inputs while training
    frozen: tuple[str, ...] = ()
    explode_over: float = np.inf  # an example whose first input is larger has an infinite loss

    def init(self, rng, shapes):
        return _Net().init(rng, jnp.zeros(shapes["x"]))

    def loss_fn(self, params, batch, rng):
        x = batch["x"] + self.noise * jax.random.normal(rng, batch["x"].shape)
        error = _Net().apply({"params": params}, x) - batch["y"]
        exploded = (batch["x"][:, 0] > self.explode_over)[:, None]
        loss = jnp.mean(jnp.where(exploded, jnp.inf, error**2))
        return loss, {"abs_error": jnp.mean(jnp.abs(error))}

    def eval_fn(self, params, batch, rng):
        error = _Net().apply({"params": params}, batch["x"]) - batch["y"]
        return jnp.mean(error**2), {"abs_error": jnp.mean(jnp.abs(error))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySource:
    """Examples y = x A, drawn from a fixed table."""

    size: int = 64
    spike_at: int = -1  # the batch (from 0) whose inputs are huge; -1: none

    def table(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(self.size, IN)).astype(np.float32)
        a = rng.normal(size=(IN, OUT)).astype(np.float32)
        return x, x @ a

    def train_iterator(self, batch_size, seed, *, shard_index=0, shard_count=1):
        x, y = self.table()
        data = grain.MapDataset.source(range(self.size)).seed(seed).shuffle().repeat()
        data = data.map(lambda i: {"x": x[i], "y": y[i]}).map_with_index(
            lambda i, example: self._spike(i // (batch_size * shard_count), example))
        return shard_batches(data, batch_size, shard_index, shard_count)

    def _spike(self, batch, example):
        return {**example, "x": example["x"] + 1e4} if batch == self.spike_at else example

    def eval_batches(self, batch_size):
        x, y = self.table()
        yield {"x": x[:batch_size], "y": y[:batch_size]}
        yield {"x": x[:3], "y": y[:3]}
