"""Lines and bars on stderr, which people see while a command works; stdout is for results."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from music_diffusion.errors import PictureError
from music_diffusion.paths import make_lenient, shown
from music_diffusion.workflows.monitor import Monitor

if TYPE_CHECKING:
    from music_diffusion.types import Progress


def prepare_streams() -> None:
    """Prints warnings in one line each; no name that a terminal cannot show ends the work."""
    make_lenient()
    warnings.showwarning = lambda message, *_: say(f"warning: {one_line(message)}")


def one_line(text: object) -> str:
    """Returns an error or a warning, with whatever names of files are in it, as one line."""
    return shown(" ".join(str(text).split()))


def say(line: str) -> None:
    """Prints a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def check_picture(error: str | None, output: str) -> None:
    """Raises PictureError, for the exit code, where the picture beside an output failed."""
    if error is not None:
        raise PictureError(f"{error}; {shown(output)} is complete")


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Gives a function that takes the share done, 0..1; silent when stderr is no terminal."""
    from rich import progress as rich_progress
    from rich.console import Console

    with rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False), rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(), rich_progress.TimeRemainingColumn(),
            console=Console(file=sys.stderr), transient=True,
            disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(shown(title), total=1.0)
        yield lambda share: bars.update(task, completed=share)


TERMINAL = Monitor(say=say, bar=progress_bar)


def print_json(facts: Any) -> None:
    """Prints a dict, a dataclass or a list of them as one line.

    Raises ValueError for numbers that JSON does not have.
    """
    print(json.dumps(facts, allow_nan=False, default=dataclasses.asdict))


def print_made(path: str, facts: dict[str, Any], *, json: bool) -> None:
    """Prints where something was made, and its `summary` for people."""
    folder = shown(pathlib.Path(path).resolve())
    if json:
        print_json({"folder": str(folder)} | facts)
    else:
        print(f"{folder}: {facts.get('summary', 'done')}")
