"""Tasks over processes."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from music_diffusion.errors import UserError
from music_diffusion.types import StepProgress

Item = TypeVar("Item")
Result = TypeVar("Result")
# (task, items, workers, progress) → the results in order, as `run_tasks`.
Runner = Callable[[Callable[[Any], Any], Sequence[Any], int, StepProgress], list[Any]]
WATCH = 0.5  # seconds between two looks of a worker after the process that started it


def run_tasks(task: Callable[[Item], Result], items: Sequence[Item], workers: int,
              progress: StepProgress) -> list[Result]:
    """Returns `task` of every item, in order; one worker is this process.

    An exception of a task ends the run; tasks that have not begun are dropped. Workers end within
    WATCH seconds of this process, even where it is killed.

    Raises:
      UserError: a process was killed (out of memory, as a rule).
    """
    results: list[Result] = []

    def collect(arriving):
        for result in arriving:
            results.append(result)
            progress(len(results), len(items))
        return results

    if workers == 1 or len(items) < 2:
        return collect(map(task, items))
    # spawn: FluidSynth's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    try:
        with concurrent.futures.ProcessPoolExecutor(
                min(workers, len(items)), mp_context=context, initializer=_end_with,
                initargs=(os.getpid(), WATCH)) as pool:
            return collect(pool.map(task, items))
    except BrokenProcessPool as e:
        raise UserError("a worker process was killed, perhaps for lack of memory; run the command "
                        "again with fewer --workers (finished parts are kept)") from e


def _end_with(parent: int, every: float) -> None:
    """Ends this process when its parent has: a worker would otherwise finish its task, or wait forever."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every)
        os._exit(1)  # nobody is left to read an exception

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
