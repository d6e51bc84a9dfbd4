"""Stopping before the end, on a signal or at a time limit, without losing anything.

Python runs a signal's handler between two instructions of the main thread, so
never while that thread compiles a program or waits for a device. What may take
minutes and leaves nothing to save is therefore done in a thread of its own
(`Stop.wait_for`), and left behind when a signal comes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn, TypeVar

from music_diffusion.training.metrics import format_seconds

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_WORKER = "music_diffusion.wait_for"  # name of the threads

T = TypeVar("T")


class Stopped(Exception):
    """Signal that has come while waiting: what was waited for is left behind."""


class Ending(NamedTuple):
    """End of a run."""

    reason: str  # 'finished', or why it stopped early
    signal: signal.Signals | None = None  # that stopped it


FINISHED = Ending("finished")


class Stop:
    """Reasons to stop before the end: a signal or the time limit of this run."""

    def __init__(self, time_limit_minutes: float | None = None):
        self._limit = time_limit_minutes
        self._began = time.monotonic()
        self._woken = threading.Event()
        self._catching = False
        self.signal: signal.Signals | None = None  # the one that came

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Catches SIGTERM and the first Ctrl-C; a second Ctrl-C acts at once, as before.

        Not so a second SIGTERM: schedulers send it to a program and to what started
        it, which passes it on. Does nothing outside the main thread, which alone can
        catch signals.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # None is a handler that Python did not install, such as JAX's preemption notifier's.
        before = {n: signal.getsignal(n) or signal.SIG_DFL for n in SIGNALS}

        def catch(number: int, _) -> None:
            self.signal = self.signal or signal.Signals(number)
            if number == signal.SIGINT:
                signal.signal(number, before[signal.SIGINT])
            self._woken.set()

        for number in SIGNALS:
            signal.signal(number, catch)
        self._catching = True
        try:
            yield
        finally:
            self._catching = False
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def ending(self) -> Ending | None:
        """Returns why this process wants to stop; None if it does not."""
        if self.signal is not None:
            return by_signal(self.signal)
        if self._limit is not None and time.monotonic() - self._began > 60 * self._limit:
            return Ending(f"time limit of {format_seconds(60 * self._limit)} reached")
        return None

    def wait_for(self, function: Callable[[], T]) -> T:
        """`function()`, unless a signal comes first.

        Raises Stopped for a signal; `function` then runs on in the background,
        and what it returns or raises is lost.
        """
        if not self._catching:
            return function()
        if self.signal is not None:
            raise Stopped
        outcome: list[T] = []
        failure: list[BaseException] = []

        def work() -> None:
            try:
                outcome.append(function())
            except BaseException as error:  # raised again below, in the thread that asked
                failure.append(error)
            finally:
                self._woken.set()

        self._woken.clear()
        worker = threading.Thread(target=work, name=_WORKER, daemon=True)
        worker.start()
        while not (outcome or failure or self.signal):
            self._woken.wait()
            self._woken.clear()
        if outcome or failure:
            worker.join()
        if failure:
            raise failure[0]
        if not outcome:
            raise Stopped
        return outcome[0]


def by_signal(number: int) -> Ending:
    """The ending that a signal brings."""
    return Ending(f"stopped by {signal.Signals(number).name}", signal.Signals(number))


def end_process(code: int) -> NoReturn:
    """Ends the process with an exit code, also where `wait_for` has left something behind.

    An orderly end would tear down JAX's backend under a thread that compiles with it.
    """
    if any(t.name == _WORKER and t.is_alive() for t in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
