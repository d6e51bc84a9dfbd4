"""The training loop: one function from a model and data to checkpoints and metrics."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from music_diffusion.errors import UserError
from music_diffusion.models.base import Model
from music_diffusion.training import partitioning
from music_diffusion.training.checkpoints import Checkpoints
from music_diffusion.training.metrics import MetricWriter, Progress, format_seconds
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.partitioning import MeshConfig
from music_diffusion.training.state import (
    TrainState,
    init_state,
    make_eval_step,
    make_train_step,
)
from music_diffusion.training.warm_start import stored_params, warm_start
from music_diffusion.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how much at once, how often."""

    total_steps: int  # updates, counted from the very first run, >= 1
    batch_size: int  # examples an update, over all devices and processes, >= 1
    microbatches: int = 1  # parts of a batch that are computed one after the other, to save memory
    seed: int = 0  # of initial parameters, data order and every step's randomness
    clip_norm: float | None = 1.0  # global norm above which gradients are scaled down; None: never
    ema_decay: float = 0.999  # of the parameters' moving average, 0..1; 0: no average
    ema_warmup: bool = True  # decay from 0.1 upwards at first: min(ema_decay, (1+t)/(10+t))
    log_every: int = 50  # updates; metrics are means over them, and non-finite losses are noticed
    eval_every: int = 1000  # updates; 0: never
    checkpoint_every: int = 1000  # updates; also at the end of every run
    keep: int = 2  # newest checkpoints that stay on disk
    time_limit_minutes: float | None = None  # of this run; then checkpoint and stop; None: no limit

    def __post_init__(self):
        for name in ("total_steps", "batch_size", "microbatches", "log_every", "checkpoint_every",
                     "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"TrainConfig.{name}={getattr(self, name)} must be at least 1")
        if self.batch_size % self.microbatches:
            raise UserError(f"TrainConfig.batch_size={self.batch_size} must be a multiple of "
                            f"microbatches={self.microbatches}")
        if self.eval_every < 0:
            raise UserError(f"TrainConfig.eval_every={self.eval_every} must be at least 0")
        for name in ("clip_norm", "time_limit_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"TrainConfig.{name}={value} must be positive or None")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"TrainConfig.ema_decay={self.ema_decay} must be in 0..1, below 1")


class DataSource(Protocol):
    """What the trainer sees of a data set. Batches are dicts of NumPy arrays [B, ...]."""

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> Any:
        """Endless batches of `batch_size` examples of one shard; has get_state and set_state."""
        ...

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """The same batches on every call and in every process."""
        ...


class NonFiniteError(UserError):
    """Loss, gradient or update was NaN or infinite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    state: TrainState
    step: int  # completed updates
    reason: str  # 'finished', or why it stopped early
    metrics: dict[str, float]  # of the last evaluation


def train(
    *, model: Model, data: DataSource, optimizer: Optimizer, config: TrainConfig,
    model_dir: str, mesh: MeshConfig = MeshConfig(),
    init_from: str | None = None, init_parts: Sequence[str] = (),
    on_first_step: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Trains `model` until `config.total_steps`, from the newest checkpoint in `model_dir`.

    On a CPU a resumed run is bit-identical with an uninterrupted one. Stops early,
    after a checkpoint, at SIGTERM, Ctrl-C and the time limit. `on_first_step` is
    called once, when a step has been compiled.

    A run without a checkpoint begins with fresh parameters, or with those in
    `init_from`: a safetensors file or the folder of another run. `init_parts` are
    the top-level names to take from there, all if empty; other parameters are fresh.

    Raises:
      NonFiniteError: naming the first step whose loss or gradient was not finite;
        no checkpoint is written from then on.
      UserError: the checkpoint in `model_dir` or `init_from` is of another model;
        the batch does not divide over devices or processes.
    """
    folder = pathlib.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stop = _Stop(config)
    devices = mesh.make_mesh()
    _check_batch(config, devices)
    iterator = data.train_iterator(
        config.batch_size // jax.process_count(), config.seed,
        shard_index=jax.process_index(), shard_count=jax.process_count())
    batch = next(iterator)
    checkpoints = Checkpoints(folder, config.keep)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.enter_context(partitioning.on_mesh(devices, mesh.rules))
        state, shardings = _start(
            model, optimizer, config, mesh, devices, batch, checkpoints, iterator)
        if init_from is not None and checkpoints.latest_step() is None:
            state = _warm(state, init_from, init_parts)
        step = start = int(state.step)
        first_batch = batch if step == 0 else None
        report = stack.enter_context(_Report(folder, config, step))
        report.say(_summary(state, step, config, folder, devices))
        run_step = _compiled_step(model, optimizer, config, devices, shardings)
        evaluate = _Evaluator(model, data, config, devices)
        stack.enter_context(stop.on_signals())

        metrics: dict[str, float] = {}
        reason = None if step < config.total_steps else "finished"
        while reason is None:
            # Read while the devices still work on the step before.
            batch = next(iterator) if first_batch is None else first_batch
            first_batch = None
            state, step_metrics = run_step(state, partitioning.put_local_batch(batch, devices))
            step += 1
            if step == start + 1:
                on_first_step()
            reason = "finished" if step == config.total_steps else stop.reason(step)
            if report.add(step, step_metrics, last=reason is not None):
                _check_finite(state, checkpoints)
            if _due(step, config.eval_every, reason == "finished"):
                metrics = evaluate(state)
                report.write_eval(step, metrics)
            if _due(step, config.checkpoint_every, reason is not None):
                _check_finite(state, checkpoints)
                checkpoints.save(step, state, iterator, _write_config(folder))
        report.say(f"{reason} at step {step}; checkpoint in {checkpoints.folder}"
                   + ("" if reason == "finished" else "; run the same command to resume"))
    return TrainResult(state=state, step=step, reason=reason, metrics=metrics)


def _start(model, optimizer, config, mesh, devices, batch, checkpoints, iterator):
    """The initial or restored state, spread over the devices, and its shardings."""
    shapes = {k: (config.batch_size, *np.shape(v)[1:]) for k, v in batch.items()}

    def init():
        return init_state(model, optimizer, shapes, seed=config.seed, ema=config.ema_decay > 0)

    abstract, params_axes = jax.eval_shape(init)
    shardings = partitioning.state_shardings(abstract, params_axes, devices, mesh.rules)
    if checkpoints.latest_step() is None:
        return jax.jit(lambda: init()[0], out_shardings=shardings)(), shardings
    abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                            abstract, shardings)
    return checkpoints.restore(abstract, iterator), shardings  # also moves the iterator


def _warm(state: TrainState, init_from: str, init_parts: Sequence[str]) -> TrainState:
    """A fresh state whose parameters, and their average, begin with stored ones."""
    params = warm_start(state.params, stored_params(init_from), init_parts, init_from)
    # A copy, as in `init_state`.
    ema_params = None if state.ema_params is None else jax.tree.map(jax.numpy.copy, params)
    return dataclasses.replace(state, params=params, ema_params=ema_params)


def _compiled_step(model, optimizer, config, devices, shardings):
    step = make_train_step(
        model, optimizer, seed=config.seed, microbatches=config.microbatches,
        clip_norm=config.clip_norm, ema_decay=config.ema_decay, ema_warmup=config.ema_warmup)
    everywhere = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec())
    return jax.jit(step, donate_argnums=0,
                   in_shardings=(shardings, partitioning.batch_sharding(devices)),
                   out_shardings=(shardings, everywhere))


class _Evaluator:
    """Means of `model.eval_fn` over the evaluation batches, with the same noise every time."""

    def __init__(self, model: Model, data: DataSource, config: TrainConfig, devices: Mesh):
        self._data, self._config, self._devices = data, config, devices
        self._eval_fn = jax.jit(make_eval_step(model))

    def __call__(self, state: TrainState) -> dict[str, float]:
        params = state.params if state.ema_params is None else state.ema_params
        sums: dict[str, float] = collections.defaultdict(float)
        total, key = 0, jax.random.key(self._config.seed)
        for i, batch in enumerate(self._data.eval_batches(self._config.batch_size)):
            size = len(next(iter(batch.values())))
            batch = partitioning.put_global_batch(batch, self._devices)
            metrics = jax.device_get(self._eval_fn(params, batch, jax.random.fold_in(key, i)))
            total += size
            for name, value in metrics.items():
                sums[name] += size * float(value)
        return {name: value / total for name, value in sums.items()}


class _Report:
    """Gathers the metrics of `log_every` steps; writes and shows their means."""

    def __init__(self, folder: pathlib.Path, config: TrainConfig, step: int):
        self._config = config
        self._pending: list = []
        self._began = self._logged = time.monotonic()
        main = jax.process_index() == 0
        self._writer = MetricWriter(folder, step) if main else None
        self._progress = Progress(config.total_steps, step) if main else None

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_) -> None:
        if self._writer and self._progress:
            self._writer.close()
            self._progress.close()

    def say(self, line: str) -> None:
        if self._progress:
            self._progress.say(line)

    def add(self, step: int, metrics, last: bool) -> bool:
        """Takes one step's metrics (still on the devices); True if it waited and wrote."""
        self._pending.append(metrics)
        if step % self._config.log_every and not last:
            if len(self._pending) > 2:  # else the host would run ahead without bound
                jax.block_until_ready(self._pending[-3])
            if self._progress:
                self._progress.update(step)
            return False
        values = jax.device_get(self._pending)
        now = time.monotonic()
        means = {k: float(np.mean([v[k] for v in values])) for k in sorted(values[0])}
        means["steps_per_second"] = len(values) / max(now - self._logged, 1e-9)
        means["seconds"] = now - self._began
        self._pending, self._logged = [], now
        if self._writer and self._progress:
            self._writer.write("train", step, means)
            self._progress.update(step, means["loss"])
        return True

    def write_eval(self, step: int, metrics: dict[str, float]) -> None:
        if self._writer and metrics:
            self._writer.write("eval", step, metrics)
            values = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
            self.say(f"step {step}  eval  {values}")
        if not self._pending:  # evaluation is no part of the training speed
            self._logged = time.monotonic()


class _Stop:
    """Why to stop before the end: a signal or the time limit."""

    def __init__(self, config: TrainConfig):
        self._config = config
        self._began = time.monotonic()
        self._signal: str | None = None

    @contextlib.contextmanager
    def on_signals(self):
        """Catches SIGTERM and the first Ctrl-C (a second one interrupts at once)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def catch(number, _):
            self._signal = signal.Signals(number).name
            signal.signal(number, before[number])

        before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, catch)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def reason(self, step: int) -> str | None:
        limit = self._config.time_limit_minutes
        reason = f"stopped by {self._signal}" if self._signal else None
        if reason is None and limit is not None and time.monotonic() - self._began > 60 * limit:
            reason = f"time limit of {format_seconds(60 * limit)} reached"
        if jax.process_count() == 1:
            return reason
        return self._agreed(reason) if step % self._config.log_every == 0 else None

    @staticmethod
    def _agreed(reason: str | None) -> str | None:
        """All processes stop at the same step, if one of them has to."""
        from jax.experimental import multihost_utils

        stopping = multihost_utils.process_allgather(np.int32(reason is not None))
        return (reason or "stopped by another process") if np.any(stopping) else None


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _check_batch(config: TrainConfig, devices: Mesh) -> None:
    parts = config.microbatches * int(np.prod([devices.shape[a] for a in partitioning.BATCH_AXES]))
    if config.batch_size % parts or config.batch_size % jax.process_count():
        raise UserError(f"TrainConfig.batch_size={config.batch_size} must be a multiple of {parts} "
                        "(data devices x microbatches) and of the number of processes")


def _check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
    bad = int(state.bad_step)
    if bad:
        latest = checkpoints.latest_step()
        kept = "no checkpoint yet" if latest is None else f"the checkpoint of step {latest} is good"
        raise NonFiniteError(f"loss, gradient or update was not finite at step {bad} ({kept}); "
                             "lower the learning rate or clip_norm, or look at that step's data")


def _summary(state, step, config, folder, devices) -> str:
    count = sum(p.size for p in jax.tree.leaves(state.params))
    start = f"resuming at step {step}" if step else "starting"
    shape = " x ".join(f"{n} {a}" for a, n in devices.shape.items())
    return (f"{start}: {count:,} parameters, batch {config.batch_size}, "
            f"{config.total_steps} steps, {devices.devices.flat[0].platform} ({shape}), {folder}")


def _write_config(folder: pathlib.Path) -> str:
    """What gin bound in this run ('' outside gin); also put into `config.gin`."""
    import gin

    text = gin.operative_config_str()
    if jax.process_index() == 0:
        (folder / "config.gin").write_text(text)
    return text
