"""`music-diffusion`: the commands. Each module is imported only when its command runs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer

from music_diffusion import __version__
from music_diffusion.cli.output import one_line, prepare_streams
from music_diffusion.errors import StoppedError, UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
                  pretty_exceptions_enable=False,
                  help="Music diffusion models in JAX: MIDI in, music out.")
# Panels of options in the help.
SETS, RENDERING = "Options of data sets", "Options of soundfont and renders"
AUDIO = "Options of renders and audio_folder"
OWN_DATA, RECIPE = "Your own recordings", "A gin recipe"  # of `train`


def _version(show: bool) -> None:
    if show:
        print(f"music-diffusion {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                          help="Print the version.")] = False,
) -> None:
    """Music diffusion models in JAX: MIDI in, music out."""


@app.command(epilog="Example: music-diffusion synthesize song.mid -o song.wav --plot song.png")
def synthesize(
    midi: Annotated[str, typer.Argument(metavar="IN.mid", help="A MIDI file (format 0 or 1).")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.wav",
                                        help="Where to write: .wav, .flac or .mp3.")],
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    inverter: Annotated[str | None, typer.Option(
        help="Spectrogram to audio: griffin_lim, or what reconstruct takes; the best by default.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.", min=1)] = None,
    solver: Annotated[str | None, typer.Option(help="ddim, ddpm or dpm++2m.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance weight; 1 is none.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed is another take.")] = 0,
    performance: Annotated[str | None, typer.Option(metavar="TEXT", help=(
        "Of a model with performances (see `models show NAME --performances`): NAME, a mixture "
        "NAME:0.7+NAME:0.3, for each instrument violin=NAME,rest=NAME, or none."))] = None,
    performance_guidance: Annotated[float | None, typer.Option(
        "--performance-guidance", "--performance_guidance",
        help="Guidance weight of the performance; 1 is none.")] = None,
    joining: Annotated[str | None, typer.Option(help=(
        "How segments become a piece: overlap, or context where a model reads it."))] = None,
    overlap: Annotated[float | None, typer.Option(metavar="SECONDS", help=(
        "That neighbouring segments share, for overlap; rounded to what the model can do."))] = None,
    segment: Annotated[float | None, typer.Option(metavar="SECONDS", help=(
        "Length of a segment, where the model leaves it open."))] = None,
    plot: Annotated[str | None, typer.Option(metavar="OUT.png",
                                             help="Picture: piano roll over spectrogram.")] = None,
    normalize: Annotated[bool, typer.Option(help="To -14 LUFS, peak at most -1 dBTP.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Render a MIDI file as audio."""
    from music_diffusion.cli import synthesize as command

    command.run(midi=midi, output=output, model=model, inverter=inverter, steps=steps, solver=solver,
                guidance=guidance, seed=seed, performance=performance,
                performance_guidance=performance_guidance, joining=joining, overlap=overlap,
                segment=segment, plot=plot, normalize=normalize, json=json)


@app.command(epilog="Example: music-diffusion reconstruct song.wav -o again.wav --plot again.png")
def reconstruct(
    source: Annotated[str, typer.Argument(
        metavar="IN.wav", help="Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.wav",
                                        help="Where to write: .wav, .flac or .mp3.")],
    inverter: Annotated[str, typer.Option(help=(
        "griffin_lim, griffin_lim_hop, the name or folder of a trained one, soundstream[:URL or "
        "folder] or soundstream_onnx:FILE."))] = "inverter",
    plot: Annotated[str | None, typer.Option(
        metavar="OUT.png", help="Picture: the input's spectrogram over the output's.")] = None,
    mono: Annotated[bool, typer.Option("--mono", help=(
        "Mix the channels to one first; otherwise each is inverted alone."))] = False,
    json: Annotated[bool, typer.Option("--json", help=(
        "Print one JSON object, with distances between input and output."))] = False,
) -> None:
    """Turn audio into a spectrogram and back: what an inverter keeps of it."""
    from music_diffusion.cli import reconstruct as command

    command.run(source=source, output=output, inverter=inverter, plot=plot, mono=mono, json=json)


@app.command(epilog="Example: music-diffusion transcribe song.wav -o song.mid --plot song.png")
def transcribe(
    source: Annotated[str, typer.Argument(
        metavar="IN.wav", help="Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT.mid",
                                        help="Where to write the notes.")],
    transcriber: Annotated[str, typer.Option(
        help="Name or folder of a trained transcriber.")] = "transcriber",
    plot: Annotated[str | None, typer.Option(
        metavar="OUT.png", help="Picture: the notes over the recording's spectrogram.")] = None,
    onset: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=(
        "Least activation that begins a note; lower hears more notes."))] = None,
    frame: Annotated[float | None, typer.Option(min=0.0, max=1.0, help=(
        "Least activation that holds a note; lower makes notes longer."))] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write down the notes of a recording, with instruments and drums."""
    from music_diffusion.cli import transcribe as command

    command.run(source=source, output=output, transcriber=transcriber, plot=plot, onset=onset,
                frame=frame, json=json)


@app.command(epilog="Example: music-diffusion adapt --audio take.wav --midi take.mid --name mine "
                    "-o my_model")
def adapt(
    audio: Annotated[list[str], typer.Option(metavar="IN.wav", help=(
        "A recording of the performance, a minute or more; repeatable."))],
    midi: Annotated[list[str], typer.Option(metavar="IN.mid", help=(
        "Its notes, in time with it; as often as --audio, in the same order."))],
    name: Annotated[str, typer.Option(help="What the performance will be called.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="MODEL",
                                        help="Folder of the model that knows it, too.")],
    base: Annotated[str, typer.Option("--from", metavar="MODEL", help=(
        "Name or folder of a model with performances."))] = "performances",
    room: Annotated[str, typer.Option(help="What to note of the room and the microphone.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help=(
        "Training steps, of the notes and of the rest; by default 300 and 600."))] = None,
    binding: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="Changes recipes/fine_tune/adapt.gin; repeatable.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Of training.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Teach a model one more performance, from recordings with their notes; the others stay as they are."""
    from music_diffusion.cli import adapt as command

    command.run(command.Settings(audio=tuple(audio), midi=tuple(midi), name=name, output=output, base=base,
                                 room=room, steps=steps, bindings=tuple(binding or ()), workers=workers,
                                 seed=seed), json=json)


@app.command(epilog="Example: music-diffusion models show default")
def models(
    action: Annotated[str, typer.Argument(help="list or show")] = "list",
    name: Annotated[str, typer.Argument(help="Name or folder, for show.")] = "default",
    performances: Annotated[bool, typer.Option("--performances", help=(
        "Show the performances that the model knows instead."))] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that come with the package, or show a model's card or performances."""
    from music_diffusion.cli import models as command

    command.run(action=action, name=name, performances=performances, json=json)


@app.command(epilog="Example: music-diffusion benchmark --only synthesize --seconds 30 --json")
def benchmark(
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    inverter: Annotated[str | None, typer.Option(
        help="As for synthesize and reconstruct; the best by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the music.", min=1, max=36000)] = 60.0,
    repeats: Annotated[int, typer.Option(
        help="Runs that count, after one that does not.", min=1)] = 3,
    only: Annotated[list[str] | None, typer.Option(
        metavar="PART",
        help="start_up, synthesize, reconstruct, render, input or train_step; repeatable.")] = None,
    soundfont: Annotated[str | None, typer.Option(
        metavar="FILE.sf2", help="Measure rendering with it, too.")] = None,
    data: Annotated[str | None, typer.Option(
        metavar="FOLDER", help="Measure training input from it, too; what prepare wrote.")] = None,
    gin_file: Annotated[list[str] | None, typer.Option("--gin_file", "--gin-file", metavar="FILE", help=(
        "Measure a training step of this recipe, too, on made-up data; repeatable."))] = None,
    binding: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="Changes the recipe; repeatable.")] = None,
    batch: Annotated[int, typer.Option(help="Examples of a training step.", min=1)] = 2,
    largest_batch: Annotated[bool, typer.Option("--largest-batch", "--largest_batch", help=(
        "Find the largest batch that fits into a device's memory instead."))] = False,
    memory: Annotated[float | None, typer.Option(metavar="GB", min=0.1, help=(
        "The memory that it must fit into; a device's own by default."))] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure speed, memory and start-up on this machine."""
    from music_diffusion.cli import benchmark as command

    command.run(model=model, inverter=inverter, seconds=seconds, repeats=repeats, only=only or [],
                soundfont=soundfont, data=data, gin_file=gin_file, binding=binding or [], batch=batch,
                largest_batch=largest_batch, memory=memory, json=json)


@app.command(epilog="Example: music-diffusion evaluate --generated renders/ --reference recordings/ "
                    "--notes midi/ -o report/")
def evaluate(
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="REPORT", help=(
        "Folder for report.html, report.json and scores.csv; run again into it to go on."))] = None,
    reference: Annotated[str | None, typer.Option(
        metavar="DIR", help="Folder of recordings.")] = None,
    generated: Annotated[str | None, typer.Option(
        metavar="DIR", help="Folder of what a model made.")] = None,
    notes: Annotated[str | None, typer.Option(
        metavar="DIR", help="Folder of MIDI files: the notes that should be heard.")] = None,
    model: Annotated[str | None, typer.Option(help=(
        "Instead of --generated: name or folder of a model that renders the notes first."))] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps of --model.", min=1)] = None,
    groups: Annotated[str | None, typer.Option(
        metavar="CSV", help="Table of files and their groups, for Group-FAD.")] = None,
    group_column: Annotated[str, typer.Option(
        "--group-column", "--group_column", help="Its column of groups.")] = "group",
    embedding: Annotated[list[str] | None, typer.Option(help=(
        "tagger (default), vggish:FILE, vggish_hub or trill; repeatable."))] = None,
    transcriber: Annotated[str, typer.Option(
        help="Name or folder of a trained transcriber, or none.")] = "transcriber",
    inverter: Annotated[str | None, typer.Option(help=(
        "As for reconstruct. The recordings also go through it, as a ceiling."))] = None,
    max_minutes: Annotated[float, typer.Option(
        "--max-minutes", "--max_minutes", min=0.02,
        help="Of every file, its first minutes count.")] = 10.0,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Of resampling, and of --model.")] = 0,
    gin_file: Annotated[str | None, typer.Option("--gin_file", "--gin-file", metavar="FILE", help=(
        "Instead of all else: a recipe that fills a paper's table, such as "
        "recipes/evaluation/spectrogram_diffusion.gin."))] = None,
    binding: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="What the recipe leaves open; repeatable.")] = None,
    seams: Annotated[bool, typer.Option("--seams", help=(
        "Instead: does one hear where segments meet? --model renders the notes with overlaps and "
        "without; -o takes seams.json."))] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what a model made with recordings and notes, in a report to look at and listen to."""
    if seams:
        from music_diffusion.cli import evaluate_seams

        evaluate_seams.run(model=model or "default", notes=notes, steps=steps, max_minutes=max_minutes,
                           seed=seed, output=output, json=json)
        return
    if output is None:
        raise UserError("--output is missing: give a folder for the report")
    if gin_file is not None:
        from music_diffusion.cli import evaluate_table

        evaluate_table.run(gin_file=gin_file, bindings=binding or [], output=output, json=json)
        return
    if reference is None:
        raise UserError("--reference is missing: give the folder of recordings to compare with")
    from music_diffusion.cli import evaluate as command

    command.run(generated=generated, reference=reference, notes=notes, groups=groups,
                group_column=group_column, embeddings=embedding or ["tagger"], transcriber=transcriber,
                inverter=inverter, model=model, steps=steps, max_minutes=max_minutes, workers=workers,
                seed=seed, output=output, json=json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
             epilog="Example: music-diffusion train --data my_recordings/ --from default -o my_model")
def train(
    context: typer.Context,
    data: Annotated[str | None, typer.Option(metavar="FOLDER", rich_help_panel=OWN_DATA, help=(
        "Recordings with their notes: song.wav beside song.mid."))] = None,
    base: Annotated[str, typer.Option("--from", metavar="MODEL", rich_help_panel=OWN_DATA, help=(
        "Name or folder of the model to begin with, or none."))] = "default",
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="MODEL", rich_help_panel=OWN_DATA,
                                               help="Folder of the new model.")] = None,
    layout: Annotated[str, typer.Option(rich_help_panel=OWN_DATA, help=(
        "How the folder is read: see `music-diffusion prepare sets`."))] = "paired_folder",
    option: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", rich_help_panel=OWN_DATA, help="Of the layout; repeatable.")] = None,
    held_out: Annotated[list[str] | None, typer.Option(
        "--held_out", "--held-out", metavar="NAME", rich_help_panel=OWN_DATA, help=(
            "A recording that is not trained on; repeatable. Otherwise a tenth, by chance."))] = None,
    transpose: Annotated[int, typer.Option(min=0, max=12, rich_help_panel=OWN_DATA, help=(
        "Train also on copies up to so many semitones higher and lower."))] = 2,
    steps: Annotated[int | None, typer.Option(min=1, rich_help_panel=OWN_DATA,
                                              help="Training steps; 1500 by default.")] = None,
    batch: Annotated[int, typer.Option(min=1, rich_help_panel=OWN_DATA, help="Segments a step.")] = 8,
    examine: Annotated[bool, typer.Option(rich_help_panel=OWN_DATA, help=(
        "Leave out what --doctor finds unusable."))] = True,
    evaluate: Annotated[bool, typer.Option(rich_help_panel=OWN_DATA, help=(
        "Render and score what is held out."))] = True,
    workers: Annotated[int, typer.Option(rich_help_panel=OWN_DATA, help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(rich_help_panel=OWN_DATA, help="Of splits and training.")] = 0,
    json: Annotated[bool, typer.Option("--json", rich_help_panel=OWN_DATA,
                                       help="Print one JSON object.")] = False,
    gin_file: Annotated[list[str] | None, typer.Option(
        "--gin_file", "--gin-file", metavar="FILE", rich_help_panel=RECIPE,
        help="A recipe, such as recipes/tiny.gin; repeatable.")] = None,
    model_dir: Annotated[str | None, typer.Option(
        "--model_dir", "--model-dir", metavar="DIR", rich_help_panel=RECIPE,
        help="Checkpoints and metrics go here.")] = None,
    print_config: Annotated[bool, typer.Option(
        "--print_config", "--print-config", rich_help_panel=RECIPE,
        help="Show the configuration and where each value comes from; do not train.")] = False,
    distributed: Annotated[bool, typer.Option("--distributed", rich_help_panel=RECIPE, help=(
        "One of several processes, which JAX finds by itself (Slurm, TPU, Open MPI)."))] = False,
    coordinator: Annotated[str | None, typer.Option(metavar="HOST:PORT", rich_help_panel=RECIPE, help=(
        "Where JAX cannot: an address of process 0, for all of them."))] = None,
    processes: Annotated[int | None, typer.Option(min=1, rich_help_panel=RECIPE,
                                                  help="How many there are.")] = None,
    process: Annotated[int | None, typer.Option(min=0, rich_help_panel=RECIPE,
                                                help="Which one this is, from 0.")] = None,
) -> None:
    """Train on your own recordings (--data), or what a gin recipe describes (--gin_file).

    Overrides are written --gin.NAME=value, for both. The same command again goes on where it stopped.
    """
    if (data is None) == (gin_file is None):
        raise UserError("give --data FOLDER for your own recordings, or --gin_file FILE for a recipe")
    given = {"model_dir": model_dir, "coordinator": coordinator, "processes": processes,
             "process": process}
    switches = {"print_config": print_config, "distributed": distributed}
    if data is None:
        from music_diffusion import train as command
        from music_diffusion.training.stopping import end_process

        if model_dir is None and not print_config:
            raise UserError("--model_dir is missing: give a folder for checkpoints and metrics")
        end_process(command.main([
            *(f"--gin_file={file}" for file in gin_file or ()),
            *(f"--{name}={value}" for name, value in given.items() if value is not None),
            *(f"--{name}" for name, on in (switches | {"json": json}).items() if on),
            *context.args]))
    for name, value in (given | switches).items():
        if value is not None and value is not False:  # process 0 is one
            raise UserError(f"--{name} is for recipes: give it with --gin_file, or leave it out")
    if output is None:
        raise UserError("--output is missing: give a folder for the new model")
    from music_diffusion.cli import train_data

    train_data.run(train_data.Settings(
        data=data, base=base, output=output, layout=layout, options=_pairs("--option", option or ()),
        held_out=tuple(held_out or ()), transpose=transpose, steps=steps, batch=batch, examine=examine,
        evaluate=evaluate, bindings=_overrides(context.args), workers=workers, seed=seed),
        json=json)


def _pairs(flag: str, values: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE, taken apart."""
    pairs = []
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"{flag} {text}: write it as NAME=VALUE")
        pairs.append((name.strip(), value.strip()))
    return tuple(pairs)


def _overrides(arguments: Iterable[str]) -> tuple[str, ...]:
    """--gin.NAME=value as gin reads it."""
    for argument in arguments:
        if not argument.startswith("--gin.") or "=" not in argument:
            raise UserError(f"unknown argument {argument}; overrides are written --gin.NAME=value")
    return tuple(f"{n} = {v}" for n, v in _pairs("", (a.removeprefix("--gin.") for a in arguments)))


@app.command(epilog="Example: music-diffusion prepare maestro maestro-v3.0.0/ data/")
def prepare(
    kind: Annotated[str, typer.Argument(help="A data set (see `prepare sets`), or a kind from above.")],
    source: Annotated[str | None, typer.Argument(
        metavar="SRC", help="Folder of the data set, of scores, of audio, of data, or a run.")] = None,
    destination: Annotated[str | None, typer.Argument(metavar="DST", help="Folder to write.")] = None,
    doctor: Annotated[bool, typer.Option("--doctor", rich_help_panel=SETS, help=(
        "Examine the data set instead: what is wrong with it, and what to do."))] = False,
    option: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", rich_help_panel=SETS,
        help="Of the data set's reader, such as genre=classical; repeatable.")] = None,
    transpose: Annotated[int, typer.Option(rich_help_panel=SETS, min=0, max=12, help=(
        "Add copies of training items up to so many semitones higher and lower."))] = 0,
    codec: Annotated[str, typer.Option(rich_help_panel=SETS, help=(
        "Of the spectrograms: 16k, 24k, 44k, 48k or a gin file."))] = "16k",
    stems: Annotated[bool, typer.Option("--stems", rich_help_panel=SETS,
                                        help="Keep the spectrograms of stems, too.")] = False,
    container: Annotated[str, typer.Option("--format", rich_help_panel=SETS,
                                           help="array_record or tfrecord.")] = "array_record",
    shards: Annotated[int, typer.Option(rich_help_panel=SETS, min=1, help=(
        "Files of a split, at most: as many can be written at once."))] = 32,
    refuse: Annotated[bool, typer.Option("--refuse", rich_help_panel=SETS, help=(
        "End with the first item that cannot be used, rather than skip it."))] = False,
    runner: Annotated[str | None, typer.Option(rich_help_panel=SETS, help=(
        "Run on Apache Beam: DirectRunner, DataflowRunner …"))] = None,
    runner_option: Annotated[list[str] | None, typer.Option(
        "--runner_option", "--runner-option", metavar="--NAME=VALUE", rich_help_panel=SETS,
        help="For Beam; repeatable.")] = None,
    soundfont: Annotated[list[str] | None, typer.Option(
        metavar="FILE.sf2", rich_help_panel=RENDERING,
        help=".sf2 or .sf3; repeatable.")] = None,
    hours: Annotated[float, typer.Option(rich_help_panel=RENDERING, min=0.001,
                                         help="Hours of training excerpts.")] = 10.0,
    test: Annotated[bool, typer.Option("--test", rich_help_panel=RENDERING,
                                       help="Also a test split.")] = False,
    solo: Annotated[float, typer.Option(rich_help_panel=RENDERING, min=0, max=1, help=(
        "Share of excerpts with one instrument alone."))] = 0.0,
    midi: Annotated[bool, typer.Option("--midi", rich_help_panel=RENDERING, help=(
        "Write the notes of every render beside it, for renders."))] = False,
    notes_per_program: Annotated[int, typer.Option(min=1, help="Isolated notes, for note_rows.")] = 440,
    rate: Annotated[int, typer.Option(rich_help_panel=AUDIO, min=1000,
                                      help="Sample rate in Hz.")] = 16000,
    mono: Annotated[bool, typer.Option("--mono", rich_help_panel=AUDIO, help=(
        "Mix stereo files to one channel, for audio_folder."))] = False,
    weights: Annotated[str | None, typer.Option(
        help="Weights of a note timbre network or a model that has one, for note_maps.")] = None,
    binding: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="gin binding of the released model, for release; repeatable.")] = None,
    performances: Annotated[str | None, typer.Option(metavar="FILE.json", help=(
        "Names of the model's performances, for release and note_maps."))] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Another seed draws other excerpts and splits.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make training data, or a released model from a training run.

    \b
    DATASET       spectrograms with notes, of your recordings or a published data set
    sets          lists the data sets
    renders       scores to audio files, with several SoundFonts, rooms and levels
    audio_folder  any folder of audio to records, for the inverters
    note_rows     isolated notes of a SoundFont (SRC), for the note timbre network
    note_maps     adds a model's note maps to prepared data
    performances  names of the performances in prepared data (SRC), as a file (DST) for training
    references    audio and notes of a data set (--option dataset=NAME), to compare renderings with
    release       a training run to a model folder
    """
    from music_diffusion.cli import prepare as command

    command.run(command.Request(
        kind=kind, source=source, destination=destination, doctor=doctor,
        options=_pairs("--option", option or ()), transpose=transpose, codec=codec, stems=stems,
        container=container, shards=shards, refuse=refuse, runner=runner,
        runner_options=tuple(runner_option or ()),
        soundfonts=tuple(soundfont or ()), hours=hours, test=test, solo=solo, midi=midi, rate=rate,
        mono=mono, notes_per_program=notes_per_program, weights=weights, bindings=tuple(binding or ()),
        performances=performances, workers=workers, seed=seed, json=json))


@app.command(epilog="Example: music-diffusion dump paired_folder_frame_diffusion data/ -o shown/")
def dump(
    task: Annotated[str, typer.Argument(help=(
        "DATASET_MEMBER, such as maestro_spectrogram_diffusion or starnet_timbre_transfer."))],
    folder: Annotated[str, typer.Argument(metavar="DATA", help="Folder that prepare wrote.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help=(
        "Folder for pictures (.png), sounds (.wav) and notes (.mid)."))],
    count: Annotated[int, typer.Option(help="Examples.", min=1)] = 4,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    inverter: Annotated[str | None, typer.Option(help="As for synthesize; the best by default.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other examples.", min=0)] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a model learns from: examples of a task as pictures, sounds and notes."""
    from music_diffusion.cli import dump as command

    command.run(task=task, folder=folder, output=output, count=count, split=split, inverter=inverter,
                seed=seed, json=json)


def main() -> None:
    """Exit codes: 0; 2 for bad input, 3 for a picture that failed beside work that is done (one line
    on stderr); 128 + the number of a signal."""
    prepare_streams()
    try:
        app()
    except StoppedError as error:  # training may have left threads behind
        from music_diffusion.training.stopping import end_process

        print(f"error: {one_line(error)}", file=sys.stderr)
        end_process(error.exit_code)
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a name that the file system refuses
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {one_line(reason)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
