"""`python -m music_diffusion.train`: trains what a gin file describes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from music_diffusion.errors import UserError

EXAMPLE = """example:
  python -m music_diffusion.train --gin_file=recipes/tiny.gin --gin.TOTAL_STEPS=20 \\
      --model_dir=runs/tiny

Running the same command again resumes from the last checkpoint. Ctrl-C or
SIGTERM saves a checkpoint and stops."""


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Flags; `--gin.NAME=value` ends up in `bindings` as 'NAME = value'."""
    parser = argparse.ArgumentParser(
        prog="python -m music_diffusion.train", description="Trains what a gin file describes.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--gin_file", action="append", default=[], required=True, metavar="FILE",
                        help="a path, or a name below the gin folder; may be repeated")
    parser.add_argument("--gin.NAME", action="append", default=[], metavar="VALUE", dest="gin_help",
                        help="overrides a macro (TOTAL_STEPS) or a parameter (adamw.b1)")
    parser.add_argument("--model_dir", required=True, metavar="DIR",
                        help="checkpoints and metrics go here")
    parser.add_argument("--distributed", action="store_true",
                        help="one of several processes, which JAX finds by itself (TPU, Slurm)")
    arguments, rest = parser.parse_known_args(list(argv))
    arguments.bindings = []
    for argument in rest:
        if not argument.startswith("--gin.") or "=" not in argument:
            parser.error(f"unknown argument {argument}; overrides are written --gin.NAME=value")
        name, _, value = argument.removeprefix("--gin.").partition("=")
        arguments.bindings.append(f"{name} = {value}")
    return arguments


def check_overrides(bindings: Sequence[str]) -> None:
    """Raises UserError for an override that nothing has read; mentions unread file bindings."""
    from music_diffusion import gin_setup

    unused = gin_setup.unused_bindings()
    for binding in bindings:
        name = binding.partition("=")[0].strip()
        if any(f".{u}".endswith(f".{name}") for u in unused):
            raise UserError(f"--gin.{name}: nothing in this run reads it")
    if unused:
        print(f"note: nothing in this run reads {', '.join(unused)}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> None:
    """Parses the gin files and trains."""
    import gin
    from music_diffusion import gin_setup

    gin_setup.parse(arguments.gin_file, arguments.bindings)
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")
    if arguments.distributed:
        import jax

        jax.distributed.initialize()
    gin.get_configurable("train")(
        model_dir=arguments.model_dir,
        on_first_step=lambda: check_overrides(arguments.bindings))


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 with a one-line reason on stderr."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        run(arguments)
    except UserError as error:
        # The first line is ours; gin adds where in the configuration it was raised.
        print(f"error: {str(error).strip().splitlines()[0]}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
