"""`music-diffusion benchmark`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.errors import UserError
from music_diffusion.workflows.requests import BenchmarkRequest


@command("music-diffusion benchmark --only synthesize --seconds 30 --json",
         inverter=option("As for synthesize and reconstruct; the best by default."),
         seconds=option("Length of the music."),
         repeats=option("Runs that count, after one that does not."),
         only=option("start_up, synthesize, reconstruct, render, input or train_step; repeatable.",
                     metavar="PART"),
         soundfont=option("Measure rendering with it, or with a folder of recorded notes, too.",
                          metavar="FILE.sf2"),
         data=option("Measure training input from it, too; what prepare wrote.", metavar="FOLDER"),
         gin_files=option("Measure a training step of this recipe, too, on made-up data; repeatable.",
                          "--gin_file", "--gin-file", metavar="FILE"),
         batch=option("Examples of a training step."),
         largest_batch=option("Find the largest batch that fits into a device's memory instead."),
         memory=option("The memory that it must fit into; a device's own by default.", metavar="GB"))
def benchmark(request: BenchmarkRequest, json: bool = False) -> None:
    """Measure speed, memory and start-up on this machine."""
    from music_diffusion.cli.benchmark_show import show
    from music_diffusion.workflows.benchmark.benchmark import measure_parts

    report = measure_parts(request, terminal.TERMINAL)
    if json:
        terminal.print_json(report)
    elif report["results"]:
        show(report)
    if report["failed"]:
        raise UserError("; ".join(f"{name}: {reason}" for name, reason in report["failed"].items()))
