"""Reports of a training run: tables, TensorBoard and the terminal."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping

import jax
import numpy as np

from music_diffusion.training.cost import StepCost, device_peak_bytes
from music_diffusion.training.metrics import MetricWriter, Progress


class Report:
    """Gathers the metrics of some steps; writes and shows their means, in the first process."""

    def __init__(self, folder: pathlib.Path, total_steps: int, step: int):
        self._pending: list[Mapping[str, jax.Array]] = []
        self._began = self._logged = time.monotonic()
        self._cost: StepCost | None = None
        main = jax.process_index() == 0
        self._writer = MetricWriter(folder, step) if main else None
        self._progress = Progress(total_steps, step) if main else None

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_) -> None:
        if self._writer and self._progress:
            self._writer.close()
            self._progress.close()

    def say(self, line: str) -> None:
        """Prints a line."""
        if self._progress:
            self._progress.say(line)

    def costs(self, cost: StepCost) -> None:
        """Reports what a step costs, and starts the clock: compilation is over."""
        self._cost = cost
        self._logged = time.monotonic()
        self.say(f"compiled: {cost.summary()}")

    def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Takes one step's metrics, still on the devices.

        Waits for the step before, so that the host reads the next batch while the
        devices work, but does not run further ahead: a signal would have to wait
        for all that is under way.
        """
        self._pending.append(metrics)
        if self._progress:
            self._progress.update(step)
        if len(self._pending) > 1:
            jax.block_until_ready(self._pending[-2])

    def write(self, step: int) -> None:
        """Writes the means since the last call, once these steps are done."""
        values = jax.device_get(self._pending)
        now = time.monotonic()
        means = {k: float(np.mean([v[k] for v in values])) for k in sorted(values[0])}
        speed = means["steps_per_second"] = len(values) / max(now - self._logged, 1e-9)
        means["seconds"] = now - self._began
        if self._cost is not None:
            means |= self._cost.rates(speed)
        memory = device_peak_bytes(jax.local_devices())
        if memory is not None:
            means["memory_bytes"] = memory
        self._pending, self._logged = [], now
        if self._writer and self._progress:
            self._writer.write("train", step, means)
            self._progress.update(step, means["loss"])

    def write_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes and shows an evaluation."""
        if self._writer and metrics:
            self._writer.write("eval", step, metrics)
            values = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
            self.say(f"step {step}  eval  {values}")
        if not self._pending:  # evaluation is no part of the training speed
            self._logged = time.monotonic()
