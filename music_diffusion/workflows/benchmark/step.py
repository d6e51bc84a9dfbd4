"""Cost of one training step of a recipe: time, work and memory, on made-up batches."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion import gin_setup
from music_diffusion.configuration import reads
from music_diffusion.errors import UserError
from music_diffusion.models.base import Model
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.training import partitioning
from music_diffusion.training.config import DataSource, TrainConfig
from music_diffusion.training.cost import (
    Flops,
    device_peak_bytes,
    flops_by_dtype,
    peak_flops,
    step_cost,
)
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.partitioning import MeshConfig
from music_diffusion.training.state import TrainState, init_state, make_train_step
from music_diffusion.workflows.benchmark.batches import made_up_batch
from music_diffusion.workflows.benchmark.measuring import Measurement, Row

GIVEN = ("model_dir", "on_first_step")  # what the caller of `train` gives beside the recipe
GIGABYTE = 1e9  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepSetup:
    """Arguments of `train` that gin binds, as far as a step depends on them."""

    model: Model
    data: DataSource
    optimizer: Optimizer
    config: TrainConfig
    mesh: MeshConfig

    @classmethod
    def read(cls, gin_files: Sequence[str], bindings: Sequence[str]) -> StepSetup:
        """Raises UserError, one line, for what does not fit, and for a binding that nothing reads."""
        gin_setup.parse(gin_files, bindings)
        parts = reads.build("train", GIVEN)
        reads.check(reads.reads("train", GIVEN), bindings)
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{"mesh": MeshConfig()} | {k: v for k, v in parts.items() if k in names})


class CompiledStep:
    """A recipe's training step, compiled for batches of one size."""

    def __init__(self, setup: StepSetup, batch_size: int | None):
        """batch_size: over all devices; None: the smallest.

        Raises UserError for a size that does not divide over devices and microbatches.
        """
        self.mesh = setup.mesh.make_mesh()
        self._setup = setup
        shards = math.prod(self.mesh.shape[axis] for axis in partitioning.BATCH_AXES)
        smallest = setup.config.microbatches * shards
        self.batch_size = smallest if batch_size is None else batch_size
        if self.batch_size % smallest:
            raise UserError(f"--batch {self.batch_size}: must be a multiple of {smallest} "
                            "(data devices x microbatches)")
        batch = made_up_batch(setup.data, self.batch_size)
        self._shapes = {k: np.shape(v) for k, v in batch.items()}
        with partitioning.on_mesh(self.mesh, setup.mesh.rules):
            self._batch = partitioning.put_local_batch(batch, self.mesh)
            with Stopwatch().running() as watch:
                traced = self._traced()
                self._compiled = traced.lower().compile()
        self.compile_seconds = watch.seconds  # tracing too
        self.flops = flops_by_dtype(traced.jaxpr)
        self.cost = step_cost(self._compiled, sum(self.flops.values()))
        self._state: TrainState | None = None

    def _initial(self) -> tuple[TrainState, Any]:
        config = self._setup.config
        return init_state(self._setup.model, self._setup.optimizer, self._shapes, seed=config.seed,
                          ema=config.ema_decay > 0)

    def _traced(self) -> jax.stages.Traced:
        setup, config = self._setup, self._setup.config
        state, axes = jax.eval_shape(self._initial)
        self._shardings = partitioning.state_shardings(state, axes, self.mesh, setup.mesh.rules)
        self.parameters = sum(p.size for p in jax.tree.leaves(state.params))
        step = make_train_step(
            setup.model, setup.optimizer, seed=config.seed, microbatches=config.microbatches,
            clip_norm=config.clip_norm, ema_decay=config.ema_decay, ema_warmup=config.ema_warmup)
        everywhere = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        return jax.jit(
            step, donate_argnums=0,
            in_shardings=(self._shardings, partitioning.batch_sharding(self.mesh)),
            out_shardings=(self._shardings, everywhere)).trace(state, self._batch)

    def __call__(self) -> float:
        """One step, with its end; returns the loss. The first call makes the state."""
        if self._state is None:
            with partitioning.on_mesh(self.mesh, self._setup.mesh.rules):
                self._state = jax.jit(lambda: self._initial()[0], out_shardings=self._shardings)()
        self._state, metrics = self._compiled(self._state, self._batch)
        jax.block_until_ready(self._state)
        return float(metrics["loss"])


def train_step(by: Measurement) -> list[Row]:
    """One training step of the request's recipe, on made-up batches.

    With `by.fits` the row says no more than `fits` where the step does not fit into
    the memory: that of a device, or the request's `memory` on a CPU.
    """
    request = by.request
    setup = StepSetup.read(request.gin_files, request.bindings)
    try:
        step = CompiledStep(setup, request.batch)
        limit = _limit(step, request.memory) if by.fits else math.inf
        if (step.cost.device_bytes or 0) > limit:
            return [_does_not_fit(step.batch_size)]
        row = _measured(step, by)
        if (row["device_peak_bytes"] or 0) > limit:
            return [_does_not_fit(step.batch_size)]
    except jax.errors.JaxRuntimeError as error:
        if not (by.fits and "RESOURCE_EXHAUSTED" in str(error)):
            raise
        return [_does_not_fit(request.batch)]
    name = ", ".join([*(pathlib.Path(file).stem for file in request.gin_files), *request.bindings])
    return [{"what": f"train_step {name}"} | ({"fits": True} if by.fits else {}) | row]


def _does_not_fit(batch: int | None) -> Row:
    return {"what": "train_step", "fits": False, "batch": batch}


def _limit(step: CompiledStep, memory: float | None) -> float:
    """Bytes that one device has for the step. Raises UserError where nothing says so."""
    if memory is not None:
        return memory * GIGABYTE
    stats = step.mesh.local_devices[0].memory_stats() or {}
    if "bytes_limit" not in stats:
        raise UserError("--largest-batch: this device does not report how much memory it has; "
                        "give --memory GB")
    return stats["bytes_limit"]


def _measured(step: CompiledStep, by: Measurement) -> Row:
    cores: list[float] = []

    def run() -> Speed:
        began = time.process_time()  # of all threads
        _, speed = measure(lambda: _finite(step()), audio_seconds=0.0)
        cores.append(time.process_time() - began)
        return speed

    runs = by.repeated(run)
    facts = runs.facts()
    del facts["audio_seconds"], facts["realtime_factor"]
    wall = max(runs.median.wall_seconds, 1e-9)
    memory = device_peak_bytes(step.mesh.local_devices)  # before anything else is measured
    at_peak, source = _seconds_at_peak(step.flops, step.mesh.devices.ravel().tolist())
    return facts | {
        "compile_seconds": round(step.compile_seconds, 3), "batch": step.batch_size,
        "parameters": step.parameters, "core_seconds": float(np.median(cores[1:])),
        "core_seconds_min": min(cores[1:]), "steps_per_second": 1 / wall,
        "examples_per_second": step.batch_size / wall, "flops": step.cost.flops,
        "flops_per_second": step.cost.flops / wall, "peak_fraction": at_peak / wall, "peak": source,
        "device_bytes": step.cost.device_bytes, "device_peak_bytes": memory}


def _finite(loss: float) -> None:
    if not math.isfinite(loss):
        raise UserError(f"the loss of a made-up batch is {loss}; give bindings with which it trains")


def _seconds_at_peak(flops: Flops, devices: Sequence[jax.Device]) -> tuple[float, str]:
    """(the least time that the step's work takes, where the devices' peak is from)."""
    peaks = {dtype: peak_flops(devices[0], dtype) for dtype in flops}
    source = "published" if all(peaks.values()) else "measured"
    seconds = 0.0
    for dtype, count in flops.items():
        peak = peaks[dtype] if source == "published" else _matrix_product_speed(dtype, devices[0])
        seconds += count / (peak or math.inf) / len(devices)
    return seconds, source


def _matrix_product_speed(dtype: str, device: jax.Device) -> float:
    """Floating-point operations a second of a large matrix product, the best of several."""
    side = 1024 if device.platform == "cpu" else 8192
    x = jax.device_put(jnp.ones((side, side), dtype), device)
    product: Callable[[jax.Array], jax.Array] = jax.jit(lambda x: x @ x).lower(x).compile()
    seconds = []
    for _ in range(6):
        with Stopwatch().running() as watch:
            product(x).block_until_ready()
        seconds.append(watch.seconds)
    return 2 * side**3 / min(seconds)
