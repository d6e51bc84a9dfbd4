"""Tables of `music-diffusion benchmark` for people, in 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from music_diffusion.workflows.benchmark.measuring import Row

if TYPE_CHECKING:
    from rich.table import Table

# Heading, key of a row, decimals.
COLUMNS = (("music\ns", "audio_seconds", 1), ("time\ns", "wall_seconds", 2), ("spread\n%", "spread", 0),
           ("speed\nx", "realtime_factor", 1), ("compile\ns", "compile_seconds", 1),
           ("start-up\ns", "start_up_seconds", 1), ("memory\nMB", "peak_memory_mb", 0))


def show(report: dict[str, Any]) -> None:
    """A table of the parts, and what a training step takes below it."""
    from rich.console import Console

    console = Console()
    steps = [row for row in report["results"] if row["part"] == "train_step"]
    others = [row for row in report["results"] if row["part"] != "train_step"]
    if others:
        console.print(_table(others))
    for row in steps:
        console.print(f"{row['what']}, batch {row['batch']}", highlight=False)
        console.print(_step(row))
    devices = sorted({row["devices"] for row in report["results"] if row.get("devices")})
    speed = "; speed is music / time" if others else ""
    console.print(f"Medians; runs: {report['repeats']} after one to warm up{speed}\n"
                  f"{', '.join([*devices, str(report['cores']) + ' CPU cores'])}",
                  highlight=False)


def _table(rows: Iterable[Row]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        row = row | {"spread": _spread(row)}
        table.add_row(row["what"], *("" if row.get(key) is None else f"{row[key]:.{digits}f}"
                                     for _, key, digits in COLUMNS))
    return table


def _spread(row: Row) -> float:
    """Per cent."""
    return 100 * (row["wall_seconds_max"] - row["wall_seconds_min"]) / max(row["wall_seconds"], 1e-3)


def _step(row: Row) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    peak = "the devices' peak" if row["peak"] == "published" else "a matrix product here"
    memory = [f"{row[key] / 1e9:.2f} GB {what}" for key, what in (
        ("device_peak_bytes", "at most"), ("device_bytes", "planned by XLA")) if row[key] is not None]
    lines = {
        "time": f"{row['wall_seconds']:.3g} s (spread {_spread(row):.0f} %), "
                f"{row['core_seconds']:.3g} core-seconds",
        "speed": f"{_number(row['steps_per_second'])} steps/s, "
                 f"{_number(row['examples_per_second'])} examples/s",
        "work": f"{_flop(row['flops'])}, {_flop(row['flops_per_second'])}/s: "
                f"{100 * row['peak_fraction']:.0f} % of {peak}",
        "memory": ", ".join(memory), "compilation": f"{row['compile_seconds']:.1f} s",
        "parameters": f"{row['parameters']:,}"}
    for name, line in lines.items():
        table.add_row(f"  {name}", line)
    return table


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _flop(count: float) -> str:
    """Such as '1.05 TFLOP'."""
    for letter, size in (("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {letter}FLOP"
    return f"{count / 1e6:.3g} MFLOP"
