"""The largest batch with which a training step fits into a device's memory.

Every try is a process of its own, so that one which runs out of memory ends nothing
else. What XLA plans to reserve must fit into the limit, and a step must run.
"""

from __future__ import annotations

import dataclasses

from music_diffusion.errors import UserError
from music_diffusion.types import Progress
from music_diffusion.workflows.benchmark.measuring import Row
from music_diffusion.workflows.benchmark.processes import EndedBySignalError, run_part
from music_diffusion.workflows.requests import BenchmarkRequest

FINENESS = 16  # the answer is at most a 16th too small
MOST = 2**16  # smallest batches; beyond, a step does not depend on the batch


def largest_batch(request: BenchmarkRequest, progress: Progress) -> list[Row]:
    """Returns the row of `train_step` at the largest batch.

    Doubles the smallest possible batch until it does not fit, then halves the range.
    Raises UserError where not even the smallest one fits.
    """
    tries = 0

    def attempt(batch: int | None) -> Row | None:
        nonlocal tries
        tries += 1
        progress(1 - 0.8**tries)  # how many there will be is not known
        try:
            row, = run_part("train_step", dataclasses.replace(request, batch=batch, repeats=1), fits=True)
        except EndedBySignalError:
            return None
        return row if row["fits"] else None

    smallest = attempt(None)
    if smallest is None:
        raise UserError("--largest-batch: not even the smallest batch fits into the memory; split the "
                        "model over more devices (MeshConfig.fsdp), or compute more of it again "
                        "(such as T5Config.remat)")
    unit = smallest["batch"]
    fits, too_large = 1, 2
    while attempt(unit * too_large) is not None:
        fits, too_large = too_large, 2 * too_large
        if too_large > MOST:
            break
    while fits < MOST and too_large - fits > max(1, fits // FINENESS):
        middle = (fits + too_large) // 2
        if attempt(unit * middle) is None:
            too_large = middle
        else:
            fits = middle
    return run_part("train_step", dataclasses.replace(request, batch=unit * fits))
