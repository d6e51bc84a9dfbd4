"""Reports of a workflow at work: lines on its stages, and the share that is done."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line's help imports this, and no JAX
    from music_diffusion.types import Progress, StepProgress


def unseen(share: float) -> None:
    """Takes the progress of a work that nobody watches."""


@contextlib.contextmanager
def _unseen_bar(title: str) -> Iterator[Progress]:
    yield unseen


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monitor:
    """Takes the reports of a workflow, such as a terminal; by default nobody listens."""

    say: Callable[[str], None] = lambda line: None  # takes a line on a stage, or on what was left out
    # Opens a bar with a title; the block inside gives it the share that is done.
    bar: Callable[[str], AbstractContextManager[Progress]] = _unseen_bar


SILENT = Monitor()


class Stages:
    """Numbered lines, such as '[2/5] training'."""

    def __init__(self, count: int, monitor: Monitor):
        self._count, self._at, self._say = count, 0, monitor.say

    def next(self, what: str) -> None:
        """Reports that the next stage begins."""
        self._at += 1
        self._say(f"[{self._at}/{self._count}] {what}")


def in_steps(progress: Progress) -> StepProgress:
    """Returns a callback that takes finished and all parts and passes the share on."""
    return lambda done, of: progress(done / of)


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Returns a callback that takes the share of part `number` (from 0) of `count` equal parts."""
    return lambda share: progress((number + share) / count)
