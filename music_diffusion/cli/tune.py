"""`music-diffusion tune`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.paths import shown
from music_diffusion.workflows.requests import TuneRequest


@command("music-diffusion tune --gin_file recipes/tiny.gin -o study "
         "--search adafactor.learning_rate=log:1e-4:1e-2",
         gin_file=option("The recipe: a path, or a name below the gin folder.", "--gin-file", "--gin_file",
                         metavar="FILE"),
         output=option("Folder of the search; the same command goes on with it, also in several processes.",
                       "--output", "-o", metavar="DIR"),
         trials=option("Trials in all."), steps=option("Steps of training of a trial."),
         search=option("A range: NAME=log:LOW:HIGH, float:LOW:HIGH, int:LOW:HIGH or choice:A,B; "
                       "repeatable; the five of the paper if left out.", metavar="NAME=RANGE"),
         pruner=option("How bad trials end early: median, hyperband or none."),
         seed=option("Another seed draws other values."))
def tune(request: TuneRequest, json: bool = False) -> None:
    """Search for values of a recipe that lower the validation loss."""
    from music_diffusion.workflows.tune import tune as work

    done = work(request, terminal.TERMINAL)
    if json:
        terminal.print_json(done)
        return
    start = "" if done.start is None else f"; the recipe's own values {done.start:.4f}"
    best = "none was completed" if done.best is None else f"best loss {done.best:.4f}{start}"
    print(f"{shown(done.folder)}: {done.trials} trials, {done.pruned} pruned: {best}")
    for name, value in done.values.items():
        print(f"  {name} = {value!r}")
    if done.gin_file is not None:
        print("train with it: python -m music_diffusion.train "
              f"--gin_file={shown(done.gin_file)} --model_dir=DIR")
