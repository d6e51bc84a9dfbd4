"""The training loop: one function from a model and data to checkpoints and metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from music_diffusion.errors import UserError
from music_diffusion.files import write_text
from music_diffusion.models.base import Model
from music_diffusion.training import partitioning
from music_diffusion.training.checkpoints import Checkpoints
from music_diffusion.training.config import DataSource, TrainConfig
from music_diffusion.training.optimizers import Optimizer
from music_diffusion.training.partitioning import MeshConfig
from music_diffusion.training.profiling import Profiler
from music_diffusion.training.report import Report
from music_diffusion.training.state import TrainState, init_state
from music_diffusion.training.steps import Evaluator, Step, Wishes
from music_diffusion.training.stopping import FINISHED, Stop, Stopped
from music_diffusion.training.warm_start import stored_params, warm_start


class NonFiniteError(UserError):
    """Loss, gradient or update was NaN or infinite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """End of a run."""

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
    on_evaluation: Callable[[int, Mapping[str, float]], None] = lambda step, metrics: None,
) -> TrainResult:
    """Trains `model` until `config.total_steps`, from the newest checkpoint in `model_dir`.

    On a CPU a resumed run is bit-identical with an uninterrupted one. Stops early,
    after a checkpoint, at SIGTERM, Ctrl-C and the time limit: at once while it
    reads, compiles or evaluates, after the step that is under way otherwise, and
    with all processes at the same step. `on_first_step` is called once, when a
    step has been compiled; `on_evaluation` with the step and the metrics of every
    evaluation, and what it raises ends the run.

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
            """Waits for work that has nothing to save; a signal ends the wait. Meshes are set by thread."""
            return stop.wait_for(lambda: _on_mesh(devices, mesh, function))

        report = None
        try:
            start = wait_for(lambda: _Start(model, data, optimizer, config, mesh, devices,
                                            checkpoints, init_from, init_parts))
            report = stack.enter_context(Report(folder, config.total_steps, start.step))
            report.say(_summary(start, config, folder, devices))
            wishes = Wishes(stop, devices)
            finished = start.step >= config.total_steps
            advance = None if finished else wait_for(
                lambda: Step(model, optimizer, config, start.state, start.shardings, start.batch, wishes))
        except Stopped:
            step, ending = checkpoints.latest_step() or 0, stop.ending or FINISHED
            if report is not None:
                report.say(f"{ending.reason} before step {step + 1}; run the same command to go on")
            return TrainResult(state=None, step=step, reason=ending.reason, metrics={},
                               signal=ending.signal)
        evaluate = Evaluator(model, data, config, wishes, wait_for)
        run = _Run(start, config, folder, checkpoints, evaluate, wishes, report, on_evaluation)
        if advance is not None:
            report.costs(advance.cost)
            profiler = stack.enter_context(Profiler(config.profile_steps, folder))
            run.go(advance, start, profiler, on_first_step)
        return run.result()


class _Run:
    """Steps, evaluations and checkpoints, until all is done or something ends it."""

    def __init__(self, start: _Start, config: TrainConfig, folder: pathlib.Path,
                 checkpoints: Checkpoints, evaluate: Evaluator, wishes: Wishes, report: Report,
                 on_evaluation: Callable[[int, Mapping[str, float]], None]):
        self._on_evaluation = on_evaluation
        self._config, self._folder, self._checkpoints = config, folder, checkpoints
        self._evaluator, self._wishes, self._report = evaluate, wishes, report
        self._state, self._step, self._evaluated = start.state, start.step, start.evaluated
        self._metrics: dict[str, float] = {}
        self._ending = FINISHED if start.step >= config.total_steps else None
        if self._step and not self._evaluated:  # a signal came before that
            self._evaluate_if_due()

    def go(self, advance: Step, start: _Start, profiler: Profiler,
           on_first_step: Callable[[], None]) -> None:
        """Goes on from `start` to the end."""
        batch, wish = start.batch, None
        while self._ending is None:
            profiler.before(self._step + 1)
            before = wish
            self._state, metrics, wish = advance(self._state, batch)
            self._step += 1
            self._evaluated = False
            if self._step == start.step + 1:
                on_first_step()
            self._report.add(self._step, metrics)  # the step before is done
            profiler.after(self._step, metrics)
            if before is not None:
                self._wishes.hear(before)
            last = self._step == self._config.total_steps
            self._ending = FINISHED if last else self._wishes.ending
            self._look_after(start.iterator)
            if self._ending is None:  # read while the devices still work on the step
                batch = next(start.iterator)

    def _look_after(self, iterator: Any) -> None:
        """Writes, evaluates and saves, where one of them is due."""
        c = self._config
        if _due(self._step, c.log_every, self._ending is not None):
            self._report.write(self._step)
            _check_finite(self._state, self._checkpoints)
        self._evaluate_if_due()
        if _due(self._step, c.checkpoint_every, self._ending is not None):
            _check_finite(self._state, self._checkpoints)
            self._checkpoints.save(self._step, self._state, iterator, _write_config(self._folder),
                                   self._evaluated)
            self._ending = self._ending or self._wishes.ending

    def _evaluate_if_due(self) -> None:
        if _due(self._step, self._config.eval_every, self._ending is FINISHED):
            metrics = self._evaluator(self._state)
            self._evaluated = metrics is not None
            if metrics is None:
                self._ending = self._wishes.ending
            else:
                self._metrics = metrics
                self._report.write_eval(self._step, metrics)
                self._on_evaluation(self._step, metrics)

    def result(self) -> TrainResult:
        """Says how it ended."""
        assert self._ending is not None
        self._report.say(f"{self._ending.reason} at step {self._step}; checkpoint in "
                         f"{self._checkpoints.folder}"
                         + ("" if self._ending is FINISHED else "; run the same command to resume"))
        return TrainResult(state=self._state, step=self._step, reason=self._ending.reason,
                           metrics=self._metrics, signal=self._ending.signal)


def _on_mesh(devices: Mesh, mesh: MeshConfig, function: Callable[[], Any]) -> Any:
    with partitioning.on_mesh(devices, mesh.rules):
        return function()


class _Start:
    """The beginning of a run: its data, and the initial or restored state on the devices."""

    def __init__(self, model: Model, data: DataSource, optimizer: Optimizer, config: TrainConfig,
                 mesh: MeshConfig, devices: Mesh, checkpoints: Checkpoints,
                 init_from: str | None, init_parts: Sequence[str]):
        index, count = partitioning.batch_shard(devices)
        self.iterator = data.train_iterator(
            config.batch_size // count, config.seed, shard_index=index, shard_count=count)
        self.batch = next(self.iterator)
        if checkpoints.latest_step() is None and init_from is None:
            model.require_start()
        shapes = {k: (config.batch_size, *np.shape(v)[1:]) for k, v in self.batch.items()}

        def init():
            return init_state(model, optimizer, shapes, seed=config.seed, ema=config.ema_decay > 0)

        abstract, params_axes = jax.eval_shape(init)
        self.shardings = partitioning.state_shardings(abstract, params_axes, devices, mesh.rules)
        self.evaluated = False  # whether the step that it begins with has been evaluated
        if checkpoints.latest_step() is None:
            state = jax.jit(lambda: init()[0], out_shardings=self.shardings)()
            self.state = state if init_from is None else _warm(state, model, init_from, init_parts)
        else:
            abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
                                    abstract, self.shardings)
            self.state, self.evaluated = checkpoints.restore(abstract, self.iterator)
            self.batch = next(self.iterator)
        self.step = int(self.state.step)


def _warm(state: TrainState, model: Model, init_from: str, init_parts: Sequence[str]) -> TrainState:
    """A fresh state whose parameters, and their average, begin with stored ones."""
    stored = model.adopt(state.params, stored_params(init_from))
    params = warm_start(state.params, stored, init_parts, init_from)
    # A copy, as in `init_state`.
    ema_params = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    return dataclasses.replace(state, params=params, ema_params=ema_params)


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
    """Returns what gin bound in this run ('' outside gin), after writing it to `config.gin`."""
    import gin

    text = gin.operative_config_str()
    if jax.process_index() == 0:
        write_text(folder / "config.gin", text)
    return text
