"""Measuring as all parts of a benchmark do it: the request, its progress, and repeated runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from music_diffusion.speed import Repeated, Speed, measure_repeated
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import unseen
from music_diffusion.workflows.requests import BenchmarkRequest

Row = dict[str, Any]  # `what`, and `Repeated.facts()` or those keys of it that have a meaning there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Request and progress of a part, which measure it."""

    request: BenchmarkRequest
    # Whether `train_step` is to find out if its batch fits into the memory.
    fits: bool = False
    progress: Progress = unseen  # takes the share of the part that is done

    def repeated(self, run: Callable[[], Speed], row: int = 0, rows: int = 1) -> Repeated:
        """Measures what becomes row `row` of `rows`."""
        repeats, done = self.request.repeats, 0

        def counted() -> Speed:
            nonlocal done
            speed = run()
            done += 1
            self.progress((row + done / (1 + repeats)) / rows)
            return speed

        return measure_repeated(counted, repeats=repeats, warm_up=1)
