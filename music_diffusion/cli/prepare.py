"""`music-diffusion prepare`: a command for every data set, and some beside them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from music_diffusion.cli import terminal
from music_diffusion.cli.options import SHARED, argument, command, option
from music_diffusion.errors import UserError
from music_diffusion.workflows.requests import (
    AudioFolderRequest,
    ConversionsRequest,
    DataSetRequest,
    ExcerptsRequest,
    PicturesRequest,
    ReferencesRequest,
)

if TYPE_CHECKING:
    from music_diffusion.data.doctor import Diagnosis
    from music_diffusion.types import Progress

ANY = "DATASET"  # stands for the name of any data set
FOUND = 1  # exit code where the doctor finds something
# Commands that were kinds of `prepare` in version 0.1.
MOVED = {"renders": "render SCORES OUT --soundfont FILE.sf2", "release": "models release RUN OUT",
         "note_rows": "models note-rows SOUNDFONT OUT", "note_maps": "models note-maps DATA OUT",
         "performances": "models performances DATA FILE.json"}
RENDERS = "Options of the data set soundfont"
SEED = option("Another seed draws other excerpts and splits.")


class DataSets(TyperGroup):
    """Takes the name of every data set for a command."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command. Raises UserError for an unknown name, or that of an older version."""
        found = super().get_command(ctx, cmd_name)
        if found is not None or cmd_name.startswith("-"):
            return found
        if cmd_name in MOVED:
            raise UserError(f"prepare {cmd_name}: is now music-diffusion {MOVED[cmd_name]}")
        from music_diffusion.data.sets.catalogue import CATALOGUE

        if cmd_name not in CATALOGUE:
            raise UserError(f"prepare {cmd_name}: unknown; choose a data set of `music-diffusion prepare "
                            "sets`, audio_folder or references")
        return super().get_command(ctx, ANY)


@command("music-diffusion prepare maestro maestro-v3.0.0/ data/")
def prepare() -> None:
    """Make training data of your recordings or a published data set (see `prepare sets`)."""


@command("music-diffusion prepare sets")
def sets(json: bool = False) -> None:
    """List the data sets."""
    from music_diffusion.data.sets.catalogue import CATALOGUE

    if json:
        terminal.print_json({name: entry._asdict() for name, entry in CATALOGUE.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("DATASET", "what", "SRC", box=None)
    for name, entry in CATALOGUE.items():
        table.add_row(name, entry.about, entry.source)
    Console().print(table)


@command("music-diffusion prepare maestro maestro-v3.0.0/ data/",
         kind=None, seed=SEED,
         source=argument("Folder of the data set.", "SRC"),
         destination=argument("Folder to write.", "DST"),
         doctor=option("Examine the data set instead: what is wrong with it, and what to do."),
         transpose=option("Add copies of training items up to so many semitones higher and lower."),
         codec=option("Of the spectrograms: 16k, 24k, 44k, 48k or a gin file."),
         stems=option("Keep the spectrograms of stems, too."),
         items=option("Use so many items, the first by name."),
         level=option("Bring every item to one level, as `generate` and `transfer` bring recordings."),
         heard=option("Listen to the second timbre of pairs, and to recordings without one; what is heard "
                      "are the records' notes."),
         container=option("array_record or tfrecord.", "--format"),
         shards=option("Files of a split, at most: as many can be written at once."),
         refuse=option("End with the first item that cannot be used, rather than skip it."),
         runner=option("Run on Apache Beam: DirectRunner, DataflowRunner …"),
         runner_options=option("For Beam; repeatable.", "--runner-option", "--runner_option",
                               metavar="--NAME=VALUE"),
         **{name: dataclasses.replace(SHARED[name], panel=RENDERS)
            for name in ("soundfonts", "samplers", "fallback", "hours", "test", "solo")})
def data_set(context: typer.Context, request: functools.partial[DataSetRequest], doctor: bool = False,
             json: bool = False) -> None:
    """Make spectrograms with notes of a data set (a name of `prepare sets`), or examine it."""
    asked = request(kind=context.info_name)
    if doctor:
        _examine(asked, json)
        return
    from music_diffusion.workflows.prepare import contents, prepare_data_set

    with terminal.progress_bar(f"{asked.kind} {asked.destination}") as progress:
        manifest = prepare_data_set(asked, progress)
    terminal.print_made(asked.destination or "", manifest if json else {"summary": contents(manifest)},
                        json=json)
    for name, reason in [] if json else manifest["skipped"][:10]:
        terminal.say(f"  skipped {name}: {reason}")


@command("music-diffusion prepare audio_folder recordings/ data/",
         source=argument("Folder of audio files.", "SRC"), seed=SEED,
         destination=argument("Folder to write.", "DST"))
def audio_folder(request: AudioFolderRequest, json: bool = False) -> None:
    """Cut any folder of audio into records, for the inverters."""
    from music_diffusion.workflows.prepare import audio_contents, prepare_audio

    with terminal.progress_bar(f"audio_folder {request.destination}") as progress:
        manifest = prepare_audio(request, progress)
    terminal.print_made(request.destination, manifest | {"summary": audio_contents(manifest)}, json=json)


@command("music-diffusion prepare references maestro-v3.0.0/ references/ --dataset maestro",
         source=argument("Folder of the data set.", "SRC"), seed=SEED,
         destination=argument("Folder to write.", "DST"),
         dataset=option("A name of `prepare sets`.", metavar="NAME"),
         splits=option("Those to write, with commas between."),
         minutes=option("Of each performance in each split, at most."))
def references(request: ReferencesRequest, json: bool = False) -> None:
    """Write audio and notes of a data set as files, to compare renderings with."""
    from music_diffusion.data.references import TABLE
    from music_diffusion.workflows.prepare import prepare_references

    with terminal.progress_bar(f"references {request.destination}") as progress:
        counts = prepare_references(request, progress)
    summary = ", ".join(f"{n} file{'s' * (n != 1)} for {split}" for split, n in counts.items())
    terminal.print_made(request.destination, {"files": counts, "summary": f"{summary}; {TABLE}"}, json=json)


@command("music-diffusion prepare conversions scores/ pairs/ --soundfont A.sf2 --conversion harp=piano",
         source=argument("Folder of MIDI files.", "SRC"),
         destination=argument("Folder to write.", "DST"),
         soundfont=option(".sf2 or .sf3, or a folder of recorded notes.", metavar="FONT"),
         conversions=option("SOURCE=TARGET, for a mixture several with commas between; repeatable. "
                            "Without it: the six of DiffTransfer.", "--conversion", metavar="TEXT"),
         pieces=option("Of each conversion."),
         seconds=option("Of a piece."),
         split=option("Of the scores, by their manifest.csv."),
         seed=option("Another seed draws other excerpts."))
def conversions(request: ConversionsRequest, json: bool = False) -> None:
    """Play scores in two timbres each, to judge timbre transfer by."""
    from music_diffusion.workflows.prepare import prepare_conversions

    _write("conversions", "for", prepare_conversions, request, json)


@command("music-diffusion prepare excerpts recordings/ excerpts/ --count 200",
         source=argument("Folder of recordings, or of a folder of them for each class.", "SRC"),
         destination=argument("Folder to write.", "DST"),
         seconds=option("Of an excerpt."), count=option("In all, as many of each folder."),
         noise=option("Write noise like them instead: `phases` has each excerpt's own spectrum, "
                      "`spectrum` the mean of all.", metavar="TEXT"),
         seed=option("Another seed draws other excerpts."))
def excerpts(request: ExcerptsRequest, json: bool = False) -> None:
    """Cut excerpts of recordings, or make noise like them, to compare samples of a generator with."""
    from music_diffusion.workflows.prepare import prepare_excerpts

    _write("excerpts", "of", prepare_excerpts, request, json)


@command("music-diffusion prepare pictures recordings/ pictures/",
         source=argument("Folder with a folder of recordings for each instrument.", "SRC"),
         destination=argument("Folder to write.", "DST"),
         seconds=option("Of a piece."), minutes=option("Of a recording, at most."),
         pairs=option("Pairs of content and style that are drawn."),
         seed=option("Another seed draws other pairs."))
def pictures(request: PicturesRequest, json: bool = False) -> None:
    """Write spectrograms of recordings as 8-bit pictures, and pairs of them, for style transfer."""
    from music_diffusion.workflows.prepare import prepare_pictures

    _write("pictures", "of", prepare_pictures, request, json)


def _write(what: str, word: str, work: Callable[[Any, Progress], dict[str, int]], request: Any,
           json: bool) -> None:
    """Lets `work` write the files of a request, and says how many of each kind."""
    with terminal.progress_bar(f"{what} {request.destination}") as progress:
        counts = work(request, progress)
    summary = ", ".join(f"{n} {word} {kind}" for kind, n in counts.items())
    terminal.print_made(request.destination, {"files": counts, "summary": summary}, json=json)


def _examine(request: DataSetRequest, json: bool) -> None:
    """Prints what the doctor finds; ends with FOUND where there is something."""
    from music_diffusion.workflows.doctor import examine_source

    diagnosis = examine_source(request, terminal.TERMINAL)
    if diagnosis is None and json:
        terminal.print_json({"folder": request.source, "changed": []})
    elif diagnosis is None:
        print(f"{request.source}: prepared, every shard is as it was written")
    elif json:
        terminal.print_json(diagnosis.to_dict())
    else:
        _show(diagnosis)
    if diagnosis is not None and diagnosis.findings:
        sys.exit(FOUND)


def _show(diagnosis: Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    from music_diffusion.data.doctor import COLUMNS

    if diagnosis.findings:
        table = Table(*COLUMNS)
        for row in diagnosis.rows():
            table.add_row(*row)
        Console(markup=False).print(table)  # brackets are part of names
    print(diagnosis.summary())
