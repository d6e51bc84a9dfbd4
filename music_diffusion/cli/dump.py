"""`music-diffusion dump`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.workflows.requests import DumpRequest

if TYPE_CHECKING:
    from music_diffusion.workflows.dump import DumpedExamples


@command("music-diffusion dump paired_folder_frame_diffusion data/ -o shown/",
         task=argument("DATASET_MEMBER, such as maestro_spectrogram_diffusion or starnet_timbre_transfer."),
         folder=argument("Folder that prepare wrote.", "DATA"),
         output=option("Folder for pictures (.png), sounds (.wav) and notes (.mid).", "--output", "-o",
                       metavar="DIR"),
         count=option("Examples."),
         split=option("train, validation or test."),
         inverter=option("As for synthesize; the best by default."),
         seed=option("Another seed draws other examples."))
def dump(request: DumpRequest, json: bool = False) -> None:
    """Show what a model learns from: examples of a task as pictures, sounds and notes."""
    from music_diffusion.workflows.dump import dump_examples

    done = dump_examples(request, terminal.TERMINAL)
    if json:
        terminal.print_json(done.facts)
        return
    _print_table(done)
    print(f"{done.facts['output']}: {request.count} examples as .png and .wav"
          + (", their notes as .mid" if "notes" in done.facts["examples"][0] else ""))


def _print_table(done: DumpedExamples) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(Column("feature", no_wrap=True), "shape", "type", "range", "", box=None)
    for name, its in done.facts["features"].items():
        shape = " × ".join(map(str, its["shape"])) or "one"
        low, high = (v if isinstance(v, int) else f"{v:.3g}" for v in (its["min"], its["max"]))
        table.add_row(name, shape, its["dtype"], f"{low} to {high}", done.remarks[name])
    Console().print(table)
