"""`music-diffusion models`: what there is, and what makes one of a training run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import typer

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.workflows.requests import (
    CompareRequest,
    NoteMapsRequest,
    NoteRowsRequest,
    PerformanceListRequest,
    ReleaseRequest,
    StatisticsRequest,
)

if TYPE_CHECKING:
    from music_diffusion.conditions.performances import Performances

SHOWN = 3  # instruments of a performance that a table names


@command("music-diffusion models show default")
def models(context: typer.Context, json: bool = False) -> None:
    """List models, show one, release a training run, and make what their training needs."""
    if context.invoked_subcommand is None:
        list_models(json=json)


@command("music-diffusion models list")
def list_models(json: bool = False) -> None:
    """List the models that come with the package."""
    from music_diffusion.workflows.models import released_models

    found = released_models()
    if json:
        terminal.print_json({"models": found})
    for fact in [] if json else found:
        known = f"{fact['performances']} performances" if fact["performances"] else ""
        print(f"{fact['name']:20s} {fact['megabytes']:6.1f} MB  {known:16s}  {fact['folder']}")


@command("music-diffusion models show performances --performances",
         name=argument("Name or folder.", "NAME"),
         performances=option("Show the performances that the model knows instead."))
def show(name: str = "default", performances: bool = False, json: bool = False) -> None:
    """Show a model's card, or its performances."""
    from music_diffusion.workflows.models import known_performances, model_card

    if performances:
        known = known_performances(name)
        if json:
            terminal.print_json({"name": name, "default": known.default, "performances": [
                dataclasses.asdict(p) for p in known.performances]})
        else:
            _print_table(known)
        return
    text = model_card(name)
    if json:
        terminal.print_json({"name": name, "card": text})
    else:
        print(text)


@command("music-diffusion models release runs/mine my_model",
         run=argument("Folder of a training run; or a released model (name or folder), to copy it.", "RUN"),
         output=argument("Folder of the model.", "OUT"),
         bindings=option("Changes how the model is rendered, such as FrameDiffusionModel.num_steps=8; "
                         "repeatable.", "--binding", metavar="NAME=VALUE"),
         performances=option("Names of the model's performances.", metavar="FILE.json"),
         step=option("Number of a checkpoint, or best: the one with the least validation loss; the newest "
                     "by default."),
         dtype=option("Weights as float16, int8 (half of the size; see models compare) or float32.",
                      metavar="DTYPE"),
         start=option("Weights that training began with: a mean of both is released, which keeps more of "
                      "what they could.", metavar="FILE.safetensors"),
         start_share=option("Of them, in the mean."))
def release(request: ReleaseRequest, json: bool = False) -> None:
    """Make a model folder of a training run, or of a released model with other storage or settings."""
    from music_diffusion.workflows.models import release_run

    release_run(request)
    terminal.print_made(request.output, {}, json=json)


@command("music-diffusion models compare default my_small_default --notes examples/",
         model=argument("Released model: name or folder.", "MODEL"),
         other=argument("Copy of it, such as one with int8 weights.", "COPY"),
         notes=option("MIDI files (folder or file) to compare with; a made-up piece by default.",
                      metavar="DIR"),
         seconds=option("Of every piece, its first seconds count."),
         seed=option("Of the renderings."))
def compare(request: CompareRequest, json: bool = False) -> None:
    """Compare what two copies of one model make of the same notes: does any figure move?"""
    from music_diffusion.workflows.compare_models import compare_models

    compared = compare_models(request, terminal.TERMINAL)
    if json:
        terminal.print_json(compared.facts())
        return
    for figure in compared.figures:
        print(figure.line())
    print("no figure moves beyond its error" if compared.same else "beyond their error: "
          + ", ".join(figure.name for figure in compared.figures if figure.moved))


@command("music-diffusion models note-rows FluidR3_GM.sf2 rows/",
         soundfont=argument(".sf2 or .sf3, or recorded notes as `prepare soundfont --sampler` takes them.",
                            "SOUNDFONT"), output=argument("Folder to write.", "OUT"),
         notes_per_program=option("Isolated notes."), seed=option("Another seed draws other notes."))
def note_rows(request: NoteRowsRequest, json: bool = False) -> None:
    """Render isolated notes of a SoundFont or recorded ones, from which the note timbre network learns."""
    from music_diffusion.workflows.models import render_note_rows

    with terminal.progress_bar(f"note rows {request.output}") as bar:
        render_note_rows(request, bar)
    terminal.print_made(request.output, {}, json=json)


@command("music-diffusion models note-maps data/ mapped/ --weights note_timbre/weights.safetensors",
         data=argument("Folder that prepare wrote.", "DATA"), output=argument("Folder to write.", "OUT"),
         weights=option("Weights of a note timbre network, or of a model that has one.", metavar="FILE"),
         performances=option("Names of its performances, if it knows some.", metavar="FILE.json"))
def note_maps(request: NoteMapsRequest, json: bool = False) -> None:
    """Add to prepared data the note maps that a model draws."""
    from music_diffusion.workflows.models import draw_maps

    with terminal.progress_bar(f"note maps {request.output}") as bar:
        draw_maps(request, bar)
    terminal.print_made(request.output, {}, json=json)


@command("music-diffusion models statistics data/ statistics.safetensors --patch 4",
         data=argument("Folder that prepare wrote.", "DATA"),
         output=argument("File to write.", "FILE.safetensors"),
         patch=option("Frames of a patch, as the recipe has it (UnconditionalConfig.patch).", metavar="N"),
         around_maps=option("Of what the records' note maps miss, for models of notes."),
         axes=option("Along the axes of these weights, so that training can begin with them.",
                     metavar="FILE.safetensors"),
         autoencoder=option("Of its latents, for models that sample them: a released one.", metavar="NAME"))
def statistics(request: StatisticsRequest, json: bool = False) -> None:
    """Estimate mean and principal axes of prepared data, around which the generator predicts patches."""
    from music_diffusion.workflows.models import estimate_statistics

    with terminal.progress_bar(f"statistics {request.output}") as bar:
        estimate_statistics(request, bar)
    terminal.print_made(request.output, {}, json=json)


@command("music-diffusion models performances data/ performances.json --table recordings.csv",
         data=argument("Folder that prepare wrote.", "DATA"),
         output=argument("The list; what is in it keeps its numbers.", "FILE.json"),
         table=option("What is known of them: columns name, source, room.", metavar="CSV"),
         default=option("The one that plays where none is asked for.", metavar="NAME"))
def performances(request: PerformanceListRequest, json: bool = False) -> None:
    """List the performances in prepared data, as a file for training."""
    from music_diffusion.workflows.models import list_performances

    names = list(list_performances(request).names)
    terminal.print_made(request.output, {
        "performances": names, "summary": f"{len(names)} performances: {', '.join(names)}"}, json=json)


def _print_table(known: Performances) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("performance", no_wrap=True), "source", "instruments", "room",
                  Column("minutes", justify="right"), box=None, pad_edge=False)
    for p in known.performances:
        shown, more = ", ".join(p.instruments[:SHOWN]), len(p.instruments) - SHOWN
        if more > 0:
            shown += f" and {more} more"
        name = p.name + (" (default)" if p.name == known.default else "")
        # Text: brackets are markup in plain strings.
        table.add_row(*map(Text, (name, p.source, shown, p.room, f"{p.minutes:.1f}")))
    Console().print(table)
