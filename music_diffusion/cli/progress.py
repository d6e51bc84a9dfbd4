"""A progress bar with the time left, on stderr and only for people."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from music_diffusion.paths import shown


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float], None]]:
    """Gives a function that takes the share done, 0..1; silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
                  TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True,
                  disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(shown(title), total=1.0)
        yield lambda share: progress.update(task, completed=share)
