"""`python -m music_diffusion.train`: trains what a gin file describes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from music_diffusion.errors import UserError

EXAMPLE = """example:
  python -m music_diffusion.train --gin_file=recipes/tiny.gin --gin.TOTAL_STEPS=20 \\
      --model_dir=runs/tiny

Running the same command again resumes from the last checkpoint. SIGTERM or
Ctrl-C saves a checkpoint and stops, with exit code 143 or 130."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Flags; `--gin.NAME=value` ends up in `bindings` as 'NAME = value'."""
    parser = argparse.ArgumentParser(
        prog="python -m music_diffusion.train", description="Trains what a gin file describes.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--gin_file", action="append", default=[], required=True, metavar="FILE",
                        help="a path, or a name below the gin folder; may be repeated")
    parser.add_argument("--gin.NAME", action="append", default=[], metavar="VALUE", dest="gin_help",
                        help="overrides a macro (TOTAL_STEPS) or a parameter (adamw.b1)")
    parser.add_argument("--model_dir", metavar="DIR", help="checkpoints and metrics go here")
    parser.add_argument("--print_config", action="store_true",
                        help="show the configuration and where each value comes from; do not train")
    parser.add_argument("--json", action="store_true", help="the configuration as one JSON object")
    processes = parser.add_argument_group("several processes")
    processes.add_argument("--distributed", action="store_true",
                           help="one of several, which JAX finds by itself (TPU, Slurm, Open MPI)")
    processes.add_argument("--coordinator", metavar="HOST:PORT",
                           help="where JAX cannot: an address of process 0, for all of them")
    processes.add_argument("--processes", type=int, metavar="N", help="how many there are")
    processes.add_argument("--process", type=int, metavar="I", help="which one this is, from 0")
    arguments, rest = parser.parse_known_args(list(argv))
    if arguments.model_dir is None and not arguments.print_config:
        parser.error("--model_dir is missing: give a folder for checkpoints and metrics")
    explicit = (arguments.coordinator, arguments.processes, arguments.process)
    if any(x is not None for x in explicit) and any(x is None for x in explicit):
        parser.error("give --coordinator, --processes and --process together")
    if arguments.processes is not None and not 0 <= arguments.process < arguments.processes:
        parser.error(f"--process {arguments.process} must be from 0, below --processes "
                     f"{arguments.processes}")
    arguments.bindings = []
    for argument in rest:
        if not argument.startswith("--gin.") or "=" not in argument:
            parser.error(f"unknown argument {argument}; overrides are written --gin.NAME=value")
        name, _, value = argument.removeprefix("--gin.").partition("=")
        arguments.bindings.append(f"{name} = {value}")
    return arguments


def check_bindings(overrides: Sequence[str]) -> None:
    """Raises UserError for what the run lacks and overrides it does not read; names other unread ones."""
    from music_diffusion.configuration.print_config import GIVEN
    from music_diffusion.configuration.reads import build, check, reads

    unread = check(reads("train", GIVEN), overrides)
    build("train", GIVEN)
    if unread:
        print(f"note: nothing in this run reads {', '.join(map(str, unread))}", file=sys.stderr)


def join_processes(arguments: argparse.Namespace) -> None:
    """Connects with the other processes, if there are any. Must come before JAX is used.

    Raises UserError where JAX finds no cluster, or process 0 does not answer.
    """
    if not arguments.distributed and arguments.coordinator is None:
        return
    import jax

    try:
        jax.distributed.initialize(arguments.coordinator, arguments.processes, arguments.process)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot join the other processes ({str(error).strip().splitlines()[0]}); without "
                        "Slurm, TPU or Open MPI give --coordinator HOST:PORT --processes N --process I"
                        ) from error


def run(arguments: argparse.Namespace) -> int:
    """Parses the gin files and trains, or shows the configuration; returns the exit code."""
    if arguments.print_config:
        from music_diffusion.configuration import print_config

        print_config.run(arguments.gin_file, arguments.bindings, json=arguments.json)
        return 0
    import gin
    from music_diffusion import gin_setup

    gin_setup.parse(arguments.gin_file, arguments.bindings)
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")
    join_processes(arguments)
    check_bindings(arguments.bindings)
    result = gin.get_configurable("train")(model_dir=arguments.model_dir)
    return 0 if result.signal is None else 128 + result.signal


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0; 2 with a one-line reason on stderr; 128 + that of a signal."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        return run(arguments)
    except UserError as error:
        # The first line is ours; gin adds where in the configuration it was raised.
        print(f"error: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    from music_diffusion.training.stopping import end_process

    end_process(main())
