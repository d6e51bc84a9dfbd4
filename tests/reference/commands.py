"""Commands that pages and gin files show: parsed as the programs parse them, but not run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import typer

import gin
from music_diffusion import gin_setup, train
from music_diffusion.cli.main import app
from music_diffusion.configuration.print_config import GIVEN
from music_diffusion.configuration.reads import build, check, reads
from music_diffusion.workflows.tables import table_of

TRAIN = ["python", "-m", "music_diffusion.train"]
PROGRAM = "music-diffusion"


def commands(lines: list[str]) -> Iterator[list[str]]:
    """The words of every command of this project; a backslash continues a line."""
    text = "\n".join(line.strip() for line in lines).replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith((" ".join(TRAIN) + " ", f"{PROGRAM} ")):
            yield shlex.split(line, comments=True)


def header(gin_text: str) -> list[str]:
    """The comment at the top of a gin file, without its marks."""
    lines = []
    for line in gin_text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:])
    return lines


def parsed(words: list[str]) -> typer.Context:
    """Parses the words of a command, of groups too. Raises an error for what the program does not take."""
    command, path, rest = typer.main.get_command(app), PROGRAM, list(words)
    # Resilient, as a group without arguments would show its help instead.
    context = command.make_context(path, [], resilient_parsing=True)
    while hasattr(command, "commands"):
        path, *rest = rest
        command = command.get_command(context, path)
        assert command is not None, words
        group = hasattr(command, "commands")
        context = command.make_context(path, [] if group else list(rest), resilient_parsing=group)
    return context


class Checker:
    """Takes commands in their order; later ones may name the runs of earlier ones.

    Fails for unknown flags and names, and for overrides that nothing reads.
    """

    def __init__(self):
        self.runs: dict[str, str] = {}  # folder of a training run -> its gin text
        self.trained: dict[str, dict] = {}  # the same -> what `train` would be called with
        self.released: dict[str, object] = {}  # folder of a released model -> the model

    def check(self, words: list[str]) -> None:
        if words[:3] == TRAIN:
            self._train(words[3:])
            return
        name, rest = words[1], words[2:]
        context = parsed(words[1:])
        if name == "train" and context.params["gin_file"]:
            self._train(rest)
        elif words[1:3] == ["models", "release"]:
            self._release(context.params)
        elif name == "evaluate" and context.params["gin_file"]:
            bindings = context.params["bindings"] or []
            table_of(context.params["gin_file"], bindings)
            check(reads("evaluated"), bindings)

    def _train(self, rest: list[str]) -> None:
        arguments = train.parse_arguments(rest)
        gin_setup.parse(arguments.gin_file, arguments.bindings)
        check(reads("train", GIVEN), arguments.bindings)
        parts = build("train", GIVEN)
        if arguments.model_dir is not None:
            self.trained[arguments.model_dir] = parts
            self.runs[arguments.model_dir] = gin.config_str()

    def _release(self, params: dict) -> None:
        text = self.runs[params["run"]]
        with gin_setup.private_gin() as private:
            gin_setup.register_configurables()
            private.parse_config(text)
            private.parse_config(f"released.model = {private.query_parameter('train.model')}")
            bindings = params["bindings"] or []
            private.parse_config(bindings)
            check(reads("released"), bindings)
            self.released[params["output"]] = build("released")["model"]
