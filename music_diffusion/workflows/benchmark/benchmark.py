"""Speed, memory and start-up of this machine, part by part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import music_diffusion
from music_diffusion.errors import UserError
from music_diffusion.workflows.benchmark.largest import largest_batch
from music_diffusion.workflows.benchmark.measuring import Row
from music_diffusion.workflows.benchmark.parts import NEEDS, PARTS
from music_diffusion.workflows.benchmark.processes import run_part
from music_diffusion.workflows.monitor import SILENT, Monitor, part_of
from music_diffusion.workflows.requests import BenchmarkRequest

# Fields of the request that stand in the report, and their names there.
REPORTED = {name: name for name in ("model", "inverter", "seconds", "repeats", "soundfont", "data")} | {
    "gin_files": "gin_file", "bindings": "binding", "batch": "batch", "memory": "memory"}


def measure_parts(request: BenchmarkRequest, monitor: Monitor = SILENT) -> dict[str, Any]:
    """Measures the parts that are asked for, each in a process of its own.

    Returns what the figures depend on, `results` (rows of the parts, see `measuring.Row`) and `failed`
    (part → reason): a part that fails does not end the others.

    Raises UserError for an unknown part, and for options that do not go together.
    """
    chosen = chosen_parts(request)
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with monitor.bar("measuring") as bar:
        for i, name in enumerate(chosen):
            progress = part_of(bar, i, len(chosen))
            try:
                if name == "train_step" and request.largest_batch:
                    made = largest_batch(request, progress)
                else:
                    made = run_part(name, request, progress)
                rows += [{"part": name} | row for row in made]
            except UserError as e:  # the others are measured all the same
                failed[name] = str(e)
    asked = {key: getattr(request, field) for field, key in REPORTED.items()}
    asked |= {"gin_file": asked["gin_file"] or None}
    return machine() | asked | {"results": rows, "failed": failed}


def chosen_parts(request: BenchmarkRequest) -> list[str]:
    """Returns the parts that are asked for, or all for which there is what they need. Raises UserError."""
    for name in request.only:
        if name not in PARTS:
            raise UserError(f"--only {name}: unknown; choose {', '.join(PARTS)}")
    lacking = [name for name, field in NEEDS.items() if not getattr(request, field)]
    for name in request.only:
        if name in lacking:
            raise UserError(f"--only {name}: needs --{NEEDS[name].removesuffix('s')}")
    if "train_step" in lacking and (request.bindings or request.largest_batch
                                    or request.memory is not None):
        raise UserError("--binding, --largest-batch and --memory are for a recipe: give it by --gin_file")
    if request.memory is not None and not request.largest_batch:
        raise UserError("--memory is the limit of --largest-batch: give that, too, or leave it out")
    return [name for name in PARTS if name in request.only or not (request.only or name in lacking)]


def machine() -> dict[str, Any]:
    """Returns what the figures depend on."""
    # Those that this process may use, which may be fewer than there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"version": music_diffusion.__version__, "python": platform.python_version(),
            "jax": importlib.metadata.version("jax"), "system": platform.platform(), "cores": cores}
