"""A training step and an evaluation, compiled for the devices of all processes.

Both also tell every process whether one of them wants to stop.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from music_diffusion.models.base import Metrics, Model
from music_diffusion.training import partitioning
from music_diffusion.training.config import DataSource, TrainConfig
from music_diffusion.training.cost import flops_by_dtype, seconds_at_peak, step_cost
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.state import TrainState, make_eval_step, make_train_step
from music_diffusion.training.stopping import Ending, Stop, Stopped, by_signal
from music_diffusion.types import Batch


class Wishes:
    """All processes stop at the same step, if one of them has to.

    Every step and evaluation takes one number a device, in which its process says
    whether it wants to stop, and gives the greatest: so all know, at no cost.
    """

    LIMIT = 1  # at the time limit; the greater numbers are those of signals

    def __init__(self, stop: Stop, devices: Mesh):
        self._stop, self.devices = stop, devices
        self._alone = jax.process_count() == 1
        self._shape = (devices.size,)
        self._heard = 0
        self.sharding = NamedSharding(devices, PartitionSpec(devices.axis_names))

    def array(self) -> jax.Array:
        """Returns this process's part: int32 [devices]."""
        ending = self._stop.ending
        number = 0 if ending is None else int(ending.signal or self.LIMIT)
        wish = np.full(self._shape, number, np.int32)
        return jax.make_array_from_callback(self._shape, self.sharding, lambda index: wish[index])

    def hear(self, greatest: jax.Array) -> None:
        """Takes the greatest number of a step or evaluation that is done."""
        self._heard = max(self._heard, int(greatest))

    @property
    def ending(self) -> Ending | None:
        """Returns why all processes stop, by what has been heard; a single one needs to hear nothing."""
        if self._alone:
            return self._stop.ending
        if self._heard == self.LIMIT:
            return self._stop.ending or Ending("time limit of another process reached")
        return by_signal(self._heard) if self._heard else None


class Step:
    """The compiled training step."""

    def __init__(self, model: Model, optimizer: Optimizer, config: TrainConfig, state: TrainState,
                 shardings: TrainState, batch: Batch, wishes: Wishes):
        """`state` and `batch`, of this process: such as it will be called with."""
        step = make_train_step(
            model, optimizer, seed=config.seed, microbatches=config.microbatches,
            clip_norm=config.clip_norm, ema_decay=config.ema_decay, ema_warmup=config.ema_warmup)

        def with_wishes(state, batch, wish):
            return *step(state, batch), jnp.max(wish)

        self._devices, self._wishes = wishes.devices, wishes
        devices = self._devices
        placed = partitioning.put_local_batch(batch, devices)
        everywhere = NamedSharding(devices, PartitionSpec())
        traced = jax.jit(
            with_wishes, donate_argnums=0,
            in_shardings=(shardings, partitioning.batch_sharding(devices), wishes.sharding),
            out_shardings=(shardings, everywhere, everywhere),
        ).trace(state, placed, wishes.array())
        self._compiled = traced.lower().compile()
        flops = flops_by_dtype(traced.jaxpr)
        self.cost = step_cost(self._compiled, sum(flops.values()),
                              seconds_at_peak=seconds_at_peak(flops, list(devices.devices.flat)))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics, jax.Array]:
        """(state, metrics, greatest wish) after a step with this process's rows of a batch."""
        batch = partitioning.put_local_batch(batch, self._devices)
        return self._compiled(state, batch, self._wishes.array())


class Evaluator:
    """Means of `model.eval_fn` over the evaluation batches, with the same noise every time."""

    def __init__(self, model: Model, data: DataSource, config: TrainConfig, wishes: Wishes,
                 wait_for: Callable[[Callable[[], Any]], Any]):
        """`wait_for`: see `Stop.wait_for`."""
        self._data, self._config, self._devices = data, config, wishes.devices
        self._wishes, self._wait_for = wishes, wait_for
        step = make_eval_step(model)

        def with_wishes(params, batch, rng, wish):
            return step(params, batch, rng), jnp.max(wish)

        self._eval_fn = jax.jit(with_wishes)

    def __call__(self, state: TrainState) -> dict[str, float] | None:
        """None where a process had to stop first."""
        params = state.params if state.ema_params is None else state.ema_params
        sums: dict[str, float] = collections.defaultdict(float)
        total, key = 0, jax.random.key(self._config.seed)
        for i, batch in enumerate(self._data.eval_batches(self._config.batch_size)):
            size = len(next(iter(batch.values())))
            rng = jax.random.fold_in(key, i)
            try:
                metrics = self._metrics(params, batch, rng)
            except Stopped:
                return None
            total += size
            for name, value in metrics.items():
                sums[name] += size * float(value)
        return {name: value / total for name, value in sums.items()}

    def _metrics(self, params, batch, rng) -> dict[str, np.ndarray]:
        def compute():
            placed = partitioning.put_global_batch(batch, self._devices)
            return jax.device_get(self._eval_fn(params, placed, rng, self._wishes.array()))

        if jax.process_count() == 1:
            return self._wait_for(compute)[0]
        metrics, greatest = compute()  # no process leaves the others alone with what all compute
        self._wishes.hear(greatest)
        if self._wishes.ending is not None:
            raise Stopped
        return metrics
