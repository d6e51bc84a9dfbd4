"""Profiler traces of some training steps."""

from __future__ import annotations

import pathlib

import jax

from music_diffusion.models.base import Metrics


class Profiler:
    """Traces some steps for TensorBoard and Perfetto."""

    def __init__(self, steps: tuple[int, int] | None, folder: pathlib.Path):
        self._first, self._last = steps or (0, 0)
        self._folder = folder / "profile"
        self._tracing = False

    def __enter__(self) -> Profiler:
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
