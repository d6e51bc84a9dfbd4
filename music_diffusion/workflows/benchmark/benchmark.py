"""`music-diffusion benchmark`."""

from __future__ import annotations

import importlib.metadata
import json as json_module
import os
import platform
from typing import Any

import music_diffusion
from music_diffusion.cli.benchmark_show import show
from music_diffusion.cli.progress import progress_bar
from music_diffusion.errors import UserError
from music_diffusion.workflows.benchmark.largest import largest_batch as find_largest_batch
from music_diffusion.workflows.benchmark.parts import NEEDS, PARTS, Row, run_part


def run(*, model: str, inverter: str | None, seconds: float, repeats: int, only: list[str],
        soundfont: str | None, data: str | None, gin_file: list[str] | None, binding: list[str],
        batch: int, largest_batch: bool, memory: float | None, json: bool) -> None:
    """See `cli.main.benchmark`."""
    for name in only:
        if name not in PARTS:
            raise UserError(f"--only {name}: unknown; choose {', '.join(PARTS)}")
    options = {"model": model, "inverter": inverter, "seconds": seconds, "repeats": repeats,
               "soundfont": soundfont, "data": data, "gin_file": gin_file, "binding": binding,
               "batch": batch, "memory": memory}
    lacking = [name for name, option in NEEDS.items() if options[option] is None]
    for name in only:
        if name in lacking:
            raise UserError(f"--only {name}: needs --{NEEDS[name]}")
    if "train_step" in lacking and (binding or largest_batch or memory is not None):
        raise UserError("--binding, --largest-batch and --memory are for a recipe: give it by --gin_file")
    if memory is not None and not largest_batch:
        raise UserError("--memory is the limit of --largest-batch: give that, too, or leave it out")
    chosen = [name for name in PARTS if name in only or not (only or name in lacking)]
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with progress_bar("measuring") as progress:
        for i, name in enumerate(chosen):
            def told(share: float, before: int = i) -> None:
                progress((before + share) / len(chosen))

            try:
                if name == "train_step" and largest_batch:
                    made = find_largest_batch(options, told)
                else:
                    made = run_part(name, options, told)
                rows += [{"part": name} | row for row in made]
            except UserError as e:  # the others are measured all the same
                failed[name] = str(e)
    report = _machine() | options | {"results": rows, "failed": failed}
    if json:
        print(json_module.dumps(report))
    elif rows:
        show(report)
    if failed:
        raise UserError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))


def _machine() -> dict[str, Any]:
    """What the figures depend on."""
    # Those that this process may use, which may be fewer than there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"version": music_diffusion.__version__, "python": platform.python_version(),
            "jax": importlib.metadata.version("jax"), "system": platform.platform(), "cores": cores}
