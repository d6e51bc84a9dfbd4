"""Measures wall time, realtime factor, peak memory and start-up; the one place that does.

Everything that reports a speed (`synthesize`, `reconstruct`, `benchmark`, the
evaluation report) goes through `measure`. What it does not count:

* compilation: a caller compiles before it calls `measure`, or uses
  `measure_repeated`, whose first calls do not count;
* what is no part of the work, such as a picture: inside `Stopwatch.paused`.

Imports neither JAX nor NumPy, so that it costs nothing at start-up.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Clock = Callable[[], float]  # seconds from any origin
PROC = pathlib.Path("/proc/self")  # what Linux says of this process
MEGABYTE = 1e6  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """Speed at which some audio was made, or worked through. None: this system does not say."""

    audio_seconds: float  # length of the audio
    wall_seconds: float  # of the work, without compilation and pauses
    realtime_factor: float  # audio_seconds / wall_seconds
    peak_memory_mb: float | None  # of this process so far, 1e6 bytes; see `peak_memory_mb`
    start_up_seconds: float | None  # see `start_up_seconds`
    devices: str | None  # devices that JAX computes on; see `devices`

    def rounded(self) -> Speed:
        """Returns the speed with three decimals, memory with one, for people and JSON."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(Speed)}
        for name, value in values.items():
            if isinstance(value, float):
                values[name] = round(value, 1 if name == "peak_memory_mb" else 3)
        return Speed(**values)


class Stopwatch:
    """Adds up wall time while it runs."""

    def __init__(self, clock: Clock | None = None):
        """Takes a clock of seconds; None is the system's most precise one that never goes back."""
        self._clock = time.perf_counter if clock is None else clock
        self._began = 0.0
        self.seconds = 0.0  # until it was last stopped

    @contextlib.contextmanager
    def running(self) -> Iterator[Stopwatch]:
        """Counts the time of the `with` block."""
        self._began = self._clock()
        try:
            yield self
        finally:
            self.seconds += self._clock() - self._began

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time of a `with` block inside `running` out."""
        paused = self._clock()
        try:
            yield
        finally:
            self._began += self._clock() - paused


def measure(work: Callable[[], T], audio_seconds: float | Callable[[T], float], *,
            watch: Stopwatch | None = None) -> tuple[T, Speed]:
    """Does some work and measures how fast it was.

    Args:
      work: compiled already, and it waits for its results (JAX computes
        asynchronously; `np.asarray` of an array waits).
      audio_seconds: length of the audio that it makes or reads, or the function of
        the result that gives it.
      watch: a fresh one, with which the work pauses the measurement.

    Returns:
      What the work returned, and its speed. The first call in a process also settles
      the process' start-up time.

    Raises ValueError unless the length of the audio is a number from 0.
    """
    watch = Stopwatch() if watch is None else watch
    start_up = start_up_seconds()
    with watch.running():
        result = work()
    seconds = audio_seconds(result) if callable(audio_seconds) else audio_seconds
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"audio_seconds={seconds} should be a number from 0")
    return result, Speed(
        audio_seconds=float(seconds), wall_seconds=watch.seconds,
        realtime_factor=_factor(seconds, watch.seconds),
        peak_memory_mb=peak_memory_mb(), start_up_seconds=start_up, devices=devices())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
    """Speeds of the same work several times: their median, and how far they spread."""

    speeds: tuple[Speed, ...]  # of the runs that count, at least one
    run_seconds: tuple[float, ...]  # wall time of those runs with all that the speeds leave out
    warm_up_seconds: tuple[float, ...]  # the same of the runs before, which do not count

    @property
    def median(self) -> Speed:
        """Returns the median wall time with its realtime factor, and the largest peak of memory."""
        last = self.speeds[-1]
        wall = _median([s.wall_seconds for s in self.speeds])
        peaks = [s.peak_memory_mb for s in self.speeds if s.peak_memory_mb is not None]
        return dataclasses.replace(
            last, wall_seconds=wall, realtime_factor=_factor(last.audio_seconds, wall),
            peak_memory_mb=max(peaks, default=None))

    @property
    def compile_seconds(self) -> float | None:
        """Returns how much longer the very first run took than the median: compilation, mostly.

        None without a run to warm up.
        """
        if not self.warm_up_seconds:
            return None
        return max(0.0, self.warm_up_seconds[0] - _median(self.run_seconds))

    def facts(self) -> dict[str, Any]:
        """Returns for machines the median's fields, range of wall times, compile time and number."""
        walls = [s.wall_seconds for s in self.speeds]
        compiling = self.compile_seconds
        return dataclasses.asdict(self.median.rounded()) | {
            "wall_seconds_min": round(min(walls), 3), "wall_seconds_max": round(max(walls), 3),
            "compile_seconds": None if compiling is None else round(compiling, 3),
            "repeats": len(walls)}


def measure_repeated(run: Callable[[], Speed], *, repeats: int = 3, warm_up: int = 1,
                     clock: Clock | None = None) -> Repeated:
    """Measures the same work several times.

    Args:
      run: does the work and returns its speed: `lambda: measure(work, seconds)[1]`, or a
        function that has measured itself. The audio has the same length every time.
      repeats: runs that count, from 1.
      warm_up: runs before, in which things are compiled and caches fill.
      clock: of the whole runs; see `Stopwatch`.
    """
    if repeats < 1 or warm_up < 0:
        raise ValueError(f"{repeats=} must be from 1 and {warm_up=} from 0")
    speeds, seconds = [], []
    for _ in range(warm_up + repeats):
        with Stopwatch(clock).running() as watch:
            speeds.append(run())
        seconds.append(watch.seconds)
    return Repeated(speeds=tuple(speeds[warm_up:]), run_seconds=tuple(seconds[warm_up:]),
                    warm_up_seconds=tuple(seconds[:warm_up]))


def _factor(audio_seconds: float, wall_seconds: float) -> float:
    # Where clocks tick coarsely, next to nothing takes no time at all.
    return audio_seconds / max(wall_seconds, 1e-9)


def _median(values: Sequence[float]) -> float:
    # Not `statistics`: importing that takes longer than the rest of this file's imports.
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def peak_memory_mb() -> float | None:
    """Returns the most memory (resident set) that this process ever held, in 1e6 bytes; None on Windows."""
    status = PROC / "status"
    if status.is_file():
        # Not ru_maxrss there: Linux lets a new process inherit that of the one that started it.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MEGABYTE
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MEGABYTE


@functools.cache
def start_up_seconds() -> float | None:
    """Returns the time from this process' creation to its first measured work: imports, weights, compiling.

    All later calls return the same. None where the system is not Linux.
    """
    return process_age()


def process_age() -> float | None:
    """Returns seconds since this process was created, to 1/100 s; None where the system is not Linux."""
    stat = PROC / "stat"
    if not sys.platform.startswith("linux") or not stat.is_file():
        return None
    import os

    # proc_pid_stat(5): field 22 is the start in clock ticks after boot. Field 2, the name in
    # brackets, may hold anything; what follows it begins with field 3.
    ticks = int(stat.read_text().rpartition(")")[2].split()[22 - 3])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def devices() -> str | None:
    """Names the devices of JAX, such as 'cpu x 1 (jax 0.10.0)'; None if nothing has imported JAX."""
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    try:
        found = jax.devices()
    except RuntimeError as e:  # the work did without: a device is asked for that is not there
        return f"none ({' '.join(str(e).split())[:80]})"
    return f"{found[0].device_kind} x {len(found)} (jax {jax.__version__})"
