"""`music-diffusion`: gathers the commands, and turns errors into exit codes.

Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from music_diffusion import __version__
from music_diffusion.cli import models as models_commands
from music_diffusion.cli import prepare as prepare_commands
from music_diffusion.cli.adapt import adapt
from music_diffusion.cli.benchmark import benchmark
from music_diffusion.cli.dump import dump
from music_diffusion.cli.evaluate import evaluate
from music_diffusion.cli.generate import generate
from music_diffusion.cli.options import Command
from music_diffusion.cli.reconstruct import reconstruct
from music_diffusion.cli.render import render
from music_diffusion.cli.restyle import restyle
from music_diffusion.cli.synthesize import synthesize
from music_diffusion.cli.terminal import one_line, prepare_streams, say
from music_diffusion.cli.train import train
from music_diffusion.cli.transcribe import transcribe
from music_diffusion.cli.transfer import transfer
from music_diffusion.cli.tune import tune
from music_diffusion.errors import StoppedError, UserError

TYPER: dict[str, Any] = dict(add_completion=False, rich_markup_mode="rich",
                             pretty_exceptions_enable=False)
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # as overrides of gin


def _version(show: bool) -> None:
    if show:
        print(f"music-diffusion {__version__}")
        raise typer.Exit()


def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                          help="Print the version.")] = False,
) -> None:
    """Music diffusion models in JAX: MIDI in, music out."""


def _add(group: typer.Typer, name: str, function: Command, **more: Any) -> None:
    group.command(name, epilog=_epilog(function), **more)(function)


def _epilog(function: Command) -> str:
    return f"Example: {function.example}"  # type: ignore[attr-defined]


def make_app() -> typer.Typer:
    """Returns the program with all its commands."""
    app = typer.Typer(no_args_is_help=True, **TYPER)
    app.callback()(options)
    for function in (synthesize, transfer, restyle, generate, reconstruct, transcribe, adapt):
        _add(app, function.__name__, function)
    _add(app, "train", train, context_settings=PASSED_ON)
    for function in (tune, evaluate, benchmark):
        _add(app, function.__name__, function)

    models = typer.Typer(**TYPER)
    models.callback(invoke_without_command=True)(models_commands.models)
    for name, function in (("list", models_commands.list_models), ("show", models_commands.show),
                           ("release", models_commands.release),
                           ("compare", models_commands.compare), ("note-maps", models_commands.note_maps),
                           ("statistics", models_commands.statistics),
                           ("note-rows", models_commands.note_rows),
                           ("performances", models_commands.performances)):
        _add(models, name, function)
    app.add_typer(models, name="models", epilog=_epilog(models_commands.models))

    prepare = typer.Typer(no_args_is_help=True, cls=prepare_commands.DataSets, **TYPER)
    prepare.callback()(prepare_commands.prepare)
    for name, function in ((prepare_commands.ANY, prepare_commands.data_set),
                           ("sets", prepare_commands.sets),
                           ("audio_folder", prepare_commands.audio_folder),
                           ("references", prepare_commands.references),
                           ("conversions", prepare_commands.conversions),
                           ("excerpts", prepare_commands.excerpts),
                           ("pictures", prepare_commands.pictures)):
        _add(prepare, name, function)
    app.add_typer(prepare, name="prepare", epilog=_epilog(prepare_commands.prepare))

    for function in (render, dump):
        _add(app, function.__name__, function)
    return app


app = make_app()


def main() -> None:
    """Exit codes: 0; 2 for bad input, 3 for a picture that failed beside work that is done (one line
    on stderr); 128 + the number of a signal."""
    prepare_streams()
    try:
        app()
    except StoppedError as error:  # training may have left threads behind
        from music_diffusion.training.stopping import end_process

        _report(str(error))
        end_process(error.exit_code)
    except UserError as error:
        _report(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a name that the file system refuses
        _report(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)


def _report(reason: str) -> None:
    """Prints the one line that a person gets."""
    say(f"error: {one_line(reason)}")


if __name__ == "__main__":
    main()
