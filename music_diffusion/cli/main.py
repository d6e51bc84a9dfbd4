"""`music-diffusion`: the commands. Each module is imported only when its command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from music_diffusion import __version__
from music_diffusion.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
                  pretty_exceptions_enable=False,
                  help="Music diffusion models in JAX: MIDI in, music out.")
# Panels of options in the help of `prepare`.
RENDERING, AUDIO = "Options of soundfont and renders", "Options of renders and audio_folder"


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
    plot: Annotated[str | None, typer.Option(metavar="OUT.png",
                                             help="Picture: piano roll over spectrogram.")] = None,
    normalize: Annotated[bool, typer.Option(help="To -14 LUFS, peak at most -1 dBTP.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Render a MIDI file as audio."""
    from music_diffusion.cli import synthesize as command

    command.run(midi=midi, output=output, model=model, inverter=inverter, steps=steps, solver=solver,
                guidance=guidance, seed=seed, plot=plot, normalize=normalize, json=json)


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


@app.command(epilog="Example: music-diffusion models show default")
def models(
    action: Annotated[str, typer.Argument(help="list or show")] = "list",
    name: Annotated[str, typer.Argument(help="Name or folder, for show.")] = "default",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that come with the package, or show a model's card."""
    from music_diffusion.cli import models as command

    command.run(action=action, name=name, json=json)


@app.command(epilog="Example: music-diffusion benchmark --only synthesize --seconds 30 --json")
def benchmark(
    model: Annotated[str, typer.Option(help="Name or folder of a model.")] = "default",
    inverter: Annotated[str | None, typer.Option(
        help="As for synthesize and reconstruct; the best by default.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of the music.", min=1, max=36000)] = 60.0,
    repeats: Annotated[int, typer.Option(
        help="Runs that count, after one that does not.", min=1)] = 3,
    only: Annotated[list[str] | None, typer.Option(
        metavar="PART", help="start_up, synthesize or reconstruct; repeatable.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure speed, memory and start-up on this machine."""
    from music_diffusion.cli import benchmark as command

    command.run(model=model, inverter=inverter, seconds=seconds, repeats=repeats, only=only or [],
                json=json)


@app.command(epilog="Example: music-diffusion evaluate --generated renders/ --reference recordings/ "
                    "--notes midi/ -o report/")
def evaluate(
    output: Annotated[str, typer.Option("--output", "-o", metavar="REPORT", help=(
        "Folder for report.html, report.json and scores.csv; run again into it to go on."))],
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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare what a model made with recordings and notes, in a report to look at and listen to."""
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True,
                               "help_option_names": []},
             epilog="Example: music-diffusion train --gin_file=recipes/tiny.gin --model_dir=runs/tiny")
def train(context: typer.Context) -> None:
    """Train what a gin file describes (python -m music_diffusion.train)."""
    from music_diffusion import train as command

    raise typer.Exit(command.main(context.args))


@app.command(epilog="Example: music-diffusion prepare audio_folder recordings/ data/ --rate 16000")
def prepare(
    kind: Annotated[str, typer.Argument(
        help="soundfont, renders, audio_folder, note_maps or release: see above.")],
    source: Annotated[str, typer.Argument(
        metavar="SRC", help="Folder of scores, of audio, of data, or a run.")],
    destination: Annotated[str, typer.Argument(metavar="DST", help="Folder to write.")],
    soundfont: Annotated[list[str] | None, typer.Option(
        metavar="FILE.sf2", rich_help_panel=RENDERING,
        help=".sf2 or .sf3; for renders repeatable.")] = None,
    hours: Annotated[float, typer.Option(rich_help_panel=RENDERING, min=0.001,
                                         help="Hours of training excerpts.")] = 10.0,
    test: Annotated[bool, typer.Option("--test", rich_help_panel=RENDERING,
                                       help="Also a test split, for renders.")] = False,
    solo: Annotated[float, typer.Option(rich_help_panel=RENDERING, min=0, max=1, help=(
        "Share of renders with one instrument alone."))] = 0.0,
    midi: Annotated[bool, typer.Option("--midi", rich_help_panel=RENDERING, help=(
        "Write the notes of every render beside it."))] = False,
    notes_per_program: Annotated[int, typer.Option(rich_help_panel=RENDERING, min=1,
                                                   help="Isolated notes, for soundfont.")] = 440,
    rate: Annotated[int, typer.Option(rich_help_panel=AUDIO, min=1000,
                                      help="Sample rate in Hz.")] = 16000,
    mono: Annotated[bool, typer.Option("--mono", rich_help_panel=AUDIO, help=(
        "Mix stereo files to one channel, for audio_folder."))] = False,
    weights: Annotated[str | None, typer.Option(
        help="note_timbre.safetensors, for note_maps.")] = None,
    binding: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE", help="gin binding of the released model, for release; repeatable.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Another seed draws other excerpts.")] = 0,
) -> None:
    """Make training data, or a released model from a training run.

    \b
    soundfont     scores to spectrograms with their notes, for the diffusion models
    renders       scores to audio files, with several SoundFonts, rooms and levels
    audio_folder  any folder of audio to records, for the inverters
    note_maps     adds the default model's maps to the data of soundfont
    release       a training run to a model folder
    """
    from music_diffusion.cli import prepare as command

    command.run(kind=kind, source=source, destination=destination, soundfonts=soundfont or [],
                hours=hours, test=test, solo=solo, midi=midi, rate=rate, mono=mono,
                notes_per_program=notes_per_program, weights=weights, bindings=binding or [],
                workers=workers, seed=seed)


def main() -> None:
    """Exit codes: 0, 2 for bad input (one line on stderr), 130 for Ctrl-C (by typer)."""
    try:
        app()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a name that the file system refuses
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {' '.join(reason.split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
