"""The training loop: one function from a model and data to checkpoints and metrics."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics, Model
from music_diffusion.training import partitioning
from music_diffusion.training.checkpoints import Checkpoints
from music_diffusion.training.cost import flops_by_dtype, seconds_at_peak, step_cost
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.partitioning import MeshConfig
from music_diffusion.training.report import Report
from music_diffusion.training.state import (
    TrainState,
    init_state,
    make_eval_step,
    make_train_step,
)
from music_diffusion.training.stopping import FINISHED, Ending, Stop, Stopped, by_signal
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
    # First and last update of a profiler trace, which goes to model_dir/profile; None: no trace.
    profile_steps: tuple[int, int] | None = None

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
        if self.profile_steps is not None and not (
                len(self.profile_steps) == 2 and 1 <= self.profile_steps[0] <= self.profile_steps[1]):
            raise UserError(f"TrainConfig.profile_steps={self.profile_steps} must be (first, last), "
                            "counted from 1, or None")


class DataSource(Protocol):
    """What the trainer sees of a data set. Batches are dicts of NumPy arrays [B, ...]."""

    def train_iterator(self, batch_size: int, seed: int, *, shard_index: int = 0,
                       shard_count: int = 1) -> Any:
        """Endless batches of `batch_size` examples; has get_state and set_state.

        The k-th batches of all shards, one after the other, are the k-th batch of
        `batch_size * shard_count` examples that a single shard would be. The state
        is the same in all shards: a run may go on with another number of them.
        """
        ...

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """The same batches on every call and in every process."""
        ...


class NonFiniteError(UserError):
    """Loss, gradient or update was NaN or infinite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    state: TrainState | None  # None where a signal came before there was one
    step: int  # completed updates
    reason: str  # 'finished', or why it stopped early
    metrics: dict[str, float]  # of the last evaluation
    signal: signal.Signals | None = None  # that stopped it


def train(
    *, model: Model, data: DataSource, optimizer: Optimizer, config: TrainConfig,
    model_dir: str, mesh: MeshConfig = MeshConfig(),
    init_from: str | None = None, init_parts: Sequence[str] = (),
    on_first_step: Callable[[], None] = lambda: None,
) -> TrainResult:
    """Trains `model` until `config.total_steps`, from the newest checkpoint in `model_dir`.

    On a CPU a resumed run is bit-identical with an uninterrupted one. Stops early,
    after a checkpoint, at SIGTERM, Ctrl-C and the time limit: at once while it
    reads, compiles or evaluates, after the step that is under way otherwise, and
    with all processes at the same step. `on_first_step` is called once, when a
    step has been compiled.

    A run without a checkpoint begins with fresh parameters, or with those in
    `init_from`: a safetensors file or the folder of another run. `init_parts` are
    the top-level names to take from there, all if empty; other parameters are fresh.

    Raises:
      NonFiniteError: naming the first step whose loss or gradient was not finite;
        no checkpoint is written from then on.
      UserError: the checkpoint in `model_dir` or `init_from` is of another model;
        the batch does not divide over devices or processes; memory or disk is full.
    """
    if "://" in model_dir:
        raise UserError(f"{model_dir}: give a folder of the file system; mount the bucket, such as with "
                        "gcsfuse")
    folder = pathlib.Path(model_dir)
    folder.mkdir(parents=True, exist_ok=True)
    stop = Stop(config.time_limit_minutes)
    devices = mesh.make_mesh()
    _check_batch(config, devices)
    checkpoints = Checkpoints(folder, config.keep)
    with contextlib.ExitStack() as stack:
        stack.callback(checkpoints.close)
        stack.enter_context(stop.on_signals())
        stack.enter_context(_memory_errors())

        def wait_for(function):
            """What leaves nothing to save is left behind at a signal. Meshes are set by thread."""
            return stop.wait_for(lambda: _on_mesh(devices, mesh, function))

        report = None
        try:
            start = wait_for(lambda: _Start(model, data, optimizer, config, mesh, devices,
                                            checkpoints, init_from, init_parts))
            report = stack.enter_context(Report(folder, config.total_steps, start.step))
            report.say(_summary(start, config, folder, devices))
            wishes = _Wishes(stop, devices)
            finished = start.step >= config.total_steps
            advance = None if finished else wait_for(
                lambda: _Step(model, optimizer, config, start, devices, wishes))
        except Stopped:
            step, ending = checkpoints.latest_step() or 0, stop.ending or FINISHED
            if report is not None:
                report.say(f"{ending.reason} before step {step + 1}; run the same command to go on")
            return TrainResult(state=None, step=step, reason=ending.reason, metrics={},
                               signal=ending.signal)
        if advance is not None:
            report.costs(advance.cost)
        state, step, iterator, batch = start.state, start.step, start.iterator, start.batch
        evaluate = _Evaluator(model, data, config, devices, wishes, wait_for)
        profiler = stack.enter_context(_Profiler(config.profile_steps, folder))

        metrics: dict[str, float] | None = {}
        wish: jax.Array | None = None
        evaluated = start.evaluated
        ending = FINISHED if advance is None else None
        if step and _due(step, config.eval_every, ending is not None) and not evaluated:
            metrics = evaluate(state)  # a signal came before this was done
            evaluated = report.write_eval(step, metrics)
            ending = ending if evaluated else wishes.ending
        while advance is not None and ending is None:
            profiler.before(step + 1)
            before = wish
            state, step_metrics, wish = advance(state, batch)
            step += 1
            evaluated = False
            if step == start.step + 1:
                on_first_step()
            report.add(step, step_metrics)  # the step before is done
            profiler.after(step, step_metrics)
            if before is not None:
                wishes.hear(before)
            ending = FINISHED if step == config.total_steps else wishes.ending
            if _due(step, config.log_every, ending is not None):
                report.write(step)
                _check_finite(state, checkpoints)
            if _due(step, config.eval_every, ending is FINISHED):
                metrics = evaluate(state)
                evaluated = report.write_eval(step, metrics)
                ending = ending if evaluated else wishes.ending
            if _due(step, config.checkpoint_every, ending is not None):
                _check_finite(state, checkpoints)
                checkpoints.save(step, state, iterator, _write_config(folder), evaluated)
                ending = ending or wishes.ending
            if ending is None:  # read while the devices still work on the step
                batch = next(iterator)
        assert ending is not None
        report.say(f"{ending.reason} at step {step}; checkpoint in {checkpoints.folder}"
                   + ("" if ending is FINISHED else "; run the same command to resume"))
    return TrainResult(state=state, step=step, reason=ending.reason, metrics=metrics or {},
                       signal=ending.signal)


def _on_mesh(devices: Mesh, mesh: MeshConfig, function: Callable[[], Any]) -> Any:
    with partitioning.on_mesh(devices, mesh.rules):
        return function()


class _Start:
    """What a run begins with: its data, and the initial or restored state on the devices."""

    def __init__(self, model: Model, data: DataSource, optimizer: Optimizer, config: TrainConfig,
                 mesh: MeshConfig, devices: Mesh, checkpoints: Checkpoints,
                 init_from: str | None, init_parts: Sequence[str]):
        index, count = partitioning.batch_shard(devices)
        self.iterator = data.train_iterator(
            config.batch_size // count, config.seed, shard_index=index, shard_count=count)
        self.batch = next(self.iterator)
        shapes = {k: (config.batch_size, *np.shape(v)[1:]) for k, v in self.batch.items()}

        def init():
            return init_state(model, optimizer, shapes, seed=config.seed, ema=config.ema_decay > 0)

        abstract, params_axes = jax.eval_shape(init)
        self.shardings = partitioning.state_shardings(abstract, params_axes, devices, mesh.rules)
        self.evaluated = False  # whether the step that it begins with has been evaluated
        if checkpoints.latest_step() is None:
            state = jax.jit(lambda: init()[0], out_shardings=self.shardings)()
            self.state = state if init_from is None else _warm(state, init_from, init_parts)
        else:
            abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                                    abstract, self.shardings)
            self.state, self.evaluated = checkpoints.restore(abstract, self.iterator)
            self.batch = next(self.iterator)
        self.step = int(self.state.step)


def _warm(state: TrainState, init_from: str, init_parts: Sequence[str]) -> TrainState:
    """A fresh state whose parameters, and their average, begin with stored ones."""
    params = warm_start(state.params, stored_params(init_from), init_parts, init_from)
    # A copy, as in `init_state`.
    ema_params = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, ema_params=ema_params)


class _Wishes:
    """All processes stop at the same step, if one of them has to.

    Every step and evaluation takes one number a device, in which its process says
    whether it wants to stop, and gives the greatest: so all know, at no cost.
    """

    LIMIT = 1  # at the time limit; the greater numbers are those of signals

    def __init__(self, stop: Stop, devices: Mesh):
        self._stop = stop
        self._alone = jax.process_count() == 1
        self._shape = (devices.size,)
        self._heard = 0
        self.sharding = NamedSharding(devices, PartitionSpec(devices.axis_names))

    def array(self) -> jax.Array:
        """Of this process: int32 [devices]."""
        ending = self._stop.ending
        number = 0 if ending is None else int(ending.signal or self.LIMIT)
        wish = np.full(self._shape, number, np.int32)
        return jax.make_array_from_callback(self._shape, self.sharding, lambda index: wish[index])

    def hear(self, greatest: jax.Array) -> None:
        """Takes the greatest number of a step or evaluation that is done."""
        self._heard = max(self._heard, int(greatest))

    @property
    def ending(self) -> Ending | None:
        """Why all processes stop, by what has been heard; a single one needs to hear nothing."""
        if self._alone:
            return self._stop.ending
        if self._heard == self.LIMIT:
            return self._stop.ending or Ending("time limit of another process reached")
        return by_signal(self._heard) if self._heard else None


class _Step:
    """The compiled training step."""

    def __init__(self, model: Model, optimizer: Optimizer, config: TrainConfig, start: _Start,
                 devices: Mesh, wishes: _Wishes):
        step = make_train_step(
            model, optimizer, seed=config.seed, microbatches=config.microbatches,
            clip_norm=config.clip_norm, ema_decay=config.ema_decay, ema_warmup=config.ema_warmup)

        def with_wishes(state, batch, wish):
            return *step(state, batch), jnp.max(wish)

        self._devices, self._wishes = devices, wishes
        batch = partitioning.put_local_batch(start.batch, devices)
        everywhere = NamedSharding(devices, PartitionSpec())
        traced = jax.jit(
            with_wishes, donate_argnums=0,
            in_shardings=(start.shardings, partitioning.batch_sharding(devices), wishes.sharding),
            out_shardings=(start.shardings, everywhere, everywhere),
        ).trace(start.state, batch, wishes.array())
        self._compiled = traced.lower().compile()
        flops = flops_by_dtype(traced.jaxpr)
        self.cost = step_cost(self._compiled, sum(flops.values()),
                              seconds_at_peak=seconds_at_peak(flops, list(devices.devices.flat)))

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics, jax.Array]:
        """(state, metrics, greatest wish) after a step with this process's rows of a batch."""
        batch = partitioning.put_local_batch(batch, self._devices)
        return self._compiled(state, batch, self._wishes.array())


class _Evaluator:
    """Means of `model.eval_fn` over the evaluation batches, with the same noise every time."""

    def __init__(self, model: Model, data: DataSource, config: TrainConfig, devices: Mesh,
                 wishes: _Wishes, wait_for: Callable):
        self._data, self._config, self._devices = data, config, devices
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


class _Profiler:
    """Traces some steps for TensorBoard and Perfetto."""

    def __init__(self, steps: tuple[int, int] | None, folder: pathlib.Path):
        self._first, self._last = steps or (0, 0)
        self._folder = folder / "profile"
        self._tracing = False

    def __enter__(self) -> _Profiler:
        return self

    def __exit__(self, *_) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        if not self._tracing and self._first <= step <= self._last:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True

    def after(self, step: int, metrics: Metrics) -> None:
        if self._tracing and step >= self._last:
            jax.block_until_ready(metrics)
            jax.profiler.stop_trace()
            self._tracing = False


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"not enough device memory ({str(error).splitlines()[0][:160]}); lower BATCH_SIZE, raise "
            "MICROBATCHES, rematerialise (T5Config.remat), or shard over more devices "
            "(MeshConfig.fsdp)") from error


def _due(step: int, every: int, last: bool) -> bool:
    return every > 0 and (last or step % every == 0)


def _check_batch(config: TrainConfig, devices: Mesh) -> None:
    parts = config.microbatches * int(np.prod([devices.shape[a] for a in partitioning.BATCH_AXES]))
    if config.batch_size % parts:
        raise UserError(f"TrainConfig.batch_size={config.batch_size} must be a multiple of {parts} "
                        "(data devices x microbatches)")


def _check_finite(state: TrainState, checkpoints: Checkpoints) -> None:
    bad = int(state.bad_step)
    if bad:
        latest = checkpoints.latest_step()
        kept = "no checkpoint yet" if latest is None else f"the checkpoint of step {latest} is good"
        raise NonFiniteError(f"loss, gradient or update was not finite at step {bad} ({kept}); "
                             "lower the learning rate or clip_norm, or look at that step's data")


def _summary(start: _Start, config: TrainConfig, folder: pathlib.Path, devices: Mesh) -> str:
    count = sum(p.size for p in jax.tree.leaves(start.state.params))
    how = f"resuming at step {start.step}" if start.step else "starting"
    shape = " x ".join(f"{n} {a}" for a, n in devices.shape.items())
    return (f"{how}: {count:,} parameters, batch {config.batch_size}, "
            f"{config.total_steps} steps, {devices.devices.flat[0].platform} ({shape}), {folder}")


def _write_config(folder: pathlib.Path) -> str:
    """What gin bound in this run ('' outside gin); also put into `config.gin`."""
    import gin

    text = gin.operative_config_str()
    if jax.process_index() == 0:
        part = folder / "config.gin.part"
        part.write_text(text)
        os.replace(part, folder / "config.gin")
    return text
