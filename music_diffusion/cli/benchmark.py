"""`music-diffusion benchmark`."""

from __future__ import annotations

import importlib.metadata
import json as json_module
import os
import platform
from typing import Any

import music_diffusion
from music_diffusion.cli.benchmark_parts import NEEDS, PARTS, Row, run_part
from music_diffusion.cli.progress import progress_bar
from music_diffusion.errors import UserError


def run(*, model: str, inverter: str | None, seconds: float, repeats: int, only: list[str],
        soundfont: str | None, data: str | None, json: bool) -> None:
    """See `cli.main.benchmark`."""
    for name in only:
        if name not in PARTS:
            raise UserError(f"--only {name}: unknown; choose {', '.join(PARTS)}")
    options = {"model": model, "inverter": inverter, "seconds": seconds, "repeats": repeats,
               "soundfont": soundfont, "data": data}
    lacking = [name for name, option in NEEDS.items() if options[option] is None]
    for name in only:
        if name in lacking:
            raise UserError(f"--only {name}: needs --{NEEDS[name]}")
    chosen = [name for name in PARTS if name in only or not (only or name in lacking)]
    rows: list[Row] = []
    failed: dict[str, str] = {}
    with progress_bar("measuring") as progress:
        for i, name in enumerate(chosen):
            def told(share: float, before: int = i) -> None:
                progress((before + share) / len(chosen))

            try:
                rows += [{"part": name} | row for row in run_part(name, options, told)]
            except UserError as e:  # the others are measured all the same
                failed[name] = str(e)
    report = _machine() | options | {"results": rows, "failed": failed}
    if json:
        print(json_module.dumps(report))
    elif rows:
        _show(report)
    if failed:
        raise UserError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))


def _machine() -> dict[str, Any]:
    """What the figures depend on."""
    # Those that this process may use, which may be fewer than there are.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"version": music_diffusion.__version__, "python": platform.python_version(),
            "jax": importlib.metadata.version("jax"), "system": platform.platform(), "cores": cores}


# Heading, key of a row, decimals.
COLUMNS = (("music\ns", "audio_seconds", 1), ("time\ns", "wall_seconds", 2), ("spread\n%", "spread", 0),
           ("speed\nx", "realtime_factor", 1), ("compile\ns", "compile_seconds", 1),
           ("start-up\ns", "start_up_seconds", 1), ("memory\nMB", "peak_memory_mb", 0))


def _show(report: dict[str, Any]) -> None:
    """The table for people, for a terminal of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["results"]:
        row = row | {"spread": 100 * (row["wall_seconds_max"] - row["wall_seconds_min"])
                     / max(row["wall_seconds"], 1e-3)}
        table.add_row(row["what"], *("" if row.get(key) is None else f"{row[key]:.{digits}f}"
                                     for _, key, digits in COLUMNS))
    console = Console()
    console.print(table)
    devices = sorted({row["devices"] for row in report["results"] if row.get("devices")})
    console.print(f"Medians; runs: {report['repeats']} after one to warm up; speed is music / time\n"
                  f"{', '.join([*devices, str(report['cores']) + ' CPU cores'])}",
                  highlight=False)
