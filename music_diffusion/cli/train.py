"""`music-diffusion train`: on your own recordings, or what a gin recipe describes."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import typer

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.errors import UserError
from music_diffusion.workflows.requests import OwnDataRequest

OWN, RECIPE = "Your own recordings", "A gin recipe"  # panels of the help


@command("music-diffusion train --data my_recordings/ --from default -o my_model",
         data=option("Recordings with their notes: song.wav beside song.mid.", metavar="FOLDER", panel=OWN,
                     optional=True),
         base=option("Name or folder of the model to begin with, or none.", "--from", metavar="MODEL",
                     panel=OWN),
         output=option("Folder of the new model.", "--output", "-o", metavar="MODEL", panel=OWN,
                       optional=True),
         layout=option("How the folder is read: see `music-diffusion prepare sets`.", panel=OWN),
         options=option("Of the layout; repeatable.", "--option", metavar="NAME=VALUE", panel=OWN),
         held_out=option("A recording that is not trained on; repeatable. Otherwise a tenth, by chance.",
                         metavar="NAME", panel=OWN),
         transpose=option("Train also on copies up to so many semitones higher and lower.", panel=OWN),
         steps=option("Training steps; 1500 by default.", panel=OWN),
         batch=option("Segments a step.", panel=OWN),
         examine=option("Leave out what `prepare --doctor` finds unusable.", panel=OWN),
         evaluate=option("Render and score what is held out.", panel=OWN),
         bindings=None,
         workers=option("Processes.", panel=OWN),
         seed=option("Of splits and training.", panel=OWN),
         gin_file=option("A recipe, such as recipes/tiny.gin; repeatable.", "--gin_file", "--gin-file",
                         metavar="FILE", panel=RECIPE),
         model_dir=option("Checkpoints and metrics go here.", metavar="DIR", panel=RECIPE),
         print_config=option("Show the configuration and where each value comes from; do not train.",
                             panel=RECIPE),
         distributed=option("One of several processes, which JAX finds by itself (Slurm, TPU, Open MPI).",
                            panel=RECIPE),
         coordinator=option("Where JAX cannot: an address of process 0, for all of them.",
                            metavar="HOST:PORT", panel=RECIPE),
         processes=option("How many there are.", panel=RECIPE),
         process=option("Which one this is, from 0.", panel=RECIPE))
def train(context: typer.Context, request: functools.partial[OwnDataRequest],
          gin_file: tuple[str, ...] = (), model_dir: str | None = None, print_config: bool = False,
          distributed: bool = False, coordinator: str | None = None, processes: int | None = None,
          process: int | None = None, json: bool = False) -> None:
    """Train on your own recordings (--data), or what a gin recipe describes (--gin_file).

    Overrides are written --gin.NAME=value, for both. The same command again goes on where it stopped.
    """
    own = request.keywords
    if (own["data"] is None) == (not gin_file):
        raise UserError("give --data FOLDER for your own recordings, or --gin_file FILE for a recipe")
    given = {"model_dir": model_dir, "coordinator": coordinator, "processes": processes,
             "process": process}
    switches = {"print_config": print_config, "distributed": distributed}
    if gin_file:
        if model_dir is None and not print_config:
            raise UserError("--model_dir is missing: give a folder for checkpoints and metrics")
        _run_recipe([*(f"--gin_file={file}" for file in gin_file),
                     *(f"--{name}={value}" for name, value in given.items() if value is not None),
                     *(f"--{name}" for name, on in (switches | {"json": json}).items() if on),
                     *context.args])
    for name, value in (given | switches).items():
        if value is not None and value is not False:  # process 0 is one
            raise UserError(f"--{name} is for recipes: give it with --gin_file, or leave it out")
    if own["output"] is None:
        raise UserError("--output is missing: give a folder for the new model")
    _train_on_recordings(request(bindings=_overrides(context.args)), json)


def _run_recipe(arguments: list[str]) -> None:
    """Ends the process, because training may have left threads behind."""
    from music_diffusion import train as trainer
    from music_diffusion.training.stopping import end_process

    end_process(trainer.main(arguments))


def _train_on_recordings(request: OwnDataRequest, json: bool) -> None:
    from music_diffusion.workflows.own_data import train_on_recordings

    trained = train_on_recordings(request, terminal.TERMINAL)
    if json:
        terminal.print_json(trained)
        return
    from music_diffusion.workflows.own_data_card import figure_rows, verdict

    for row in figure_rows(trained.figures, request.base):
        terminal.say("  ".join(row))
    for line in verdict(trained.figures, request.base):
        terminal.say(line)
    terminal.say(f"done: music-diffusion synthesize song.mid -o song.wav --model {request.output}")


def _overrides(arguments: Iterable[str]) -> tuple[str, ...]:
    """Returns --gin.NAME=value as gin reads it."""
    for argument in arguments:
        if not argument.startswith("--gin.") or "=" not in argument:
            raise UserError(f"unknown argument {argument}; overrides are written --gin.NAME=value")
    parts = (argument.removeprefix("--gin.").partition("=") for argument in arguments)
    return tuple(f"{name.strip()} = {value.strip()}" for name, _, value in parts)
