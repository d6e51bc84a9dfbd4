"""Measuring: arithmetic with a clock that the test moves; memory and start-up of true processes."""

import dataclasses
import json
import re
import subprocess
import sys
import time

import pytest
from reference import needs

from music_diffusion import speed as module
from music_diffusion.speed import (
    Repeated,
    Speed,
    Stopwatch,
    measure,
    measure_repeated,
    peak_memory_mb,
    process_age,
    start_up_seconds,
)


class Clock:
    """Stands still until `pass_`."""

    def __init__(self):
        self.now = 7.0

    def __call__(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def python(code):
    """What a new interpreter prints as JSON."""
    done = subprocess.run([sys.executable, "-c", f"import json, sys, time\n{code}"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_realtime_factor_is_audio_over_wall(clock):
    result, speed = measure(lambda: clock.pass_(4) or "song", 10.0, watch=Stopwatch(clock))
    assert result == "song"
    assert (speed.audio_seconds, speed.wall_seconds, speed.realtime_factor) == (10.0, 4.0, 2.5)


def test_the_length_may_come_from_the_result(clock):
    def work():
        clock.pass_(0.5)
        return [0.0] * 8000

    samples, speed = measure(work, lambda made: len(made) / 16000, watch=Stopwatch(clock))
    assert len(samples) == 8000 and (speed.audio_seconds, speed.realtime_factor) == (0.5, 1.0)


def test_pauses_do_not_count_even_if_they_fail(clock):
    watch = Stopwatch(clock)

    def work():
        clock.pass_(1)
        with watch.paused():
            clock.pass_(100)
        clock.pass_(2)
        with pytest.raises(KeyError), watch.paused():
            clock.pass_(1000)
            raise KeyError
        clock.pass_(3)

    assert measure(work, 12.0, watch=watch)[1].realtime_factor == 2.0
    assert watch.seconds == 6.0


def test_a_stopwatch_adds_up_and_survives_errors(clock):
    watch = Stopwatch(clock)
    with watch.running():
        clock.pass_(2)
    clock.pass_(50)
    with pytest.raises(KeyError), watch.running():
        clock.pass_(3)
        raise KeyError
    assert watch.seconds == 5.0


def test_what_the_work_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0, 1.0)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_a_length_that_is_none_is_an_error(seconds):
    for length in (seconds, lambda _: seconds):
        with pytest.raises(ValueError, match="audio_seconds"):
            measure(lambda: None, length)


def test_work_that_takes_no_time_has_a_finite_factor(clock):
    speed = measure(lambda: None, 1.0, watch=Stopwatch(clock))[1]
    assert speed.wall_seconds == 0.0 and 0 < speed.realtime_factor < float("inf")


def test_the_clock_is_the_systems_and_close_to_another_one():
    began = time.monotonic()
    _, speed = measure(lambda: time.sleep(0.05), 1.0)
    # Bounds that hold however busy the machine is; 1 ms for the clocks' own steps.
    assert 0.049 <= speed.wall_seconds <= time.monotonic() - began + 0.001


def of(audio, wall, memory=100.0):
    return Speed(audio_seconds=audio, wall_seconds=wall, realtime_factor=audio / wall,
                 peak_memory_mb=memory, start_up_seconds=3.0, devices="cpu x 1")


def test_rounded_is_for_json():
    speed = dataclasses.replace(of(1.23456, 2.0), peak_memory_mb=123.456, start_up_seconds=None)
    assert dataclasses.asdict(speed.rounded()) == {
        "audio_seconds": 1.235, "wall_seconds": 2.0, "realtime_factor": 0.617,
        "peak_memory_mb": 123.5, "start_up_seconds": None, "devices": "cpu x 1"}


def runs(clock, inside, outside):
    """A work that measures `inside` seconds of the `outside` seconds that a run takes."""
    steps = iter(zip(inside, outside, strict=True))

    def run():
        wall, whole = next(steps)
        clock.pass_(whole - wall)
        return measure(lambda: clock.pass_(wall), 60.0, watch=Stopwatch(clock))[1]

    return run


def test_repeated_tells_compiling_from_running(clock):
    run = runs(clock, inside=[9, 5, 2, 6, 3], outside=[40, 7, 3, 8, 4])
    repeated = measure_repeated(run, repeats=3, warm_up=2, clock=clock)
    assert [s.wall_seconds for s in repeated.speeds] == [2, 6, 3]
    assert (repeated.warm_up_seconds, repeated.run_seconds) == ((40, 7), (3, 8, 4))
    assert repeated.median.wall_seconds == 3 and repeated.median.realtime_factor == 20
    assert repeated.compile_seconds == 40 - 4


def test_of_an_even_number_the_median_lies_between_and_the_factor_follows(clock):
    repeated = measure_repeated(runs(clock, [2, 10, 4, 3], [2, 10, 4, 3]), repeats=4, warm_up=0)
    assert repeated.median.wall_seconds == 3.5
    assert repeated.median.realtime_factor == pytest.approx(60 / 3.5)
    assert repeated.compile_seconds is None


def test_a_slow_run_after_a_quick_first_one_is_no_negative_compile_time(clock):
    assert measure_repeated(runs(clock, [1, 5], [1, 5]), repeats=1, clock=clock).compile_seconds == 0


def test_the_facts_of_repeated_runs():
    repeated = Repeated(speeds=(of(60, 4, 900.0), of(60, 2, 1000.04), of(60, 3, None)),
                        run_seconds=(5.0, 3.0, 4.0), warm_up_seconds=(30.0,))
    assert repeated.facts() == {
        "audio_seconds": 60, "wall_seconds": 3.0, "realtime_factor": 20.0, "peak_memory_mb": 1000.0,
        "start_up_seconds": 3.0, "devices": "cpu x 1", "wall_seconds_min": 2, "wall_seconds_max": 4,
        "compile_seconds": 26.0, "repeats": 3}
    json.dumps(repeated.facts(), allow_nan=False)


@pytest.mark.parametrize("repeats, warm_up", [(0, 1), (1, -1)])
def test_too_few_runs_are_an_error(repeats, warm_up):
    with pytest.raises(ValueError, match="repeats"):
        measure_repeated(lambda: None, repeats=repeats, warm_up=warm_up)


TOUCH = """
from music_diffusion.speed import peak_memory_mb
before = peak_memory_mb()
block = bytearray(b"x") * 200_000_000
held = peak_memory_mb()
del block
print(json.dumps([before, held, peak_memory_mb()]))
"""


def test_peak_memory_rises_by_what_is_held_and_stays():
    before, held, after = python(TOUCH)
    # Linux counts pages per core and sums up now and then: some 0.3 MB were seen.
    assert held - before == pytest.approx(200, abs=4) and after == pytest.approx(held, abs=4)
    assert 1 < before < 100


@needs.proc
def test_peak_memory_is_not_that_of_the_process_that_started_this_one():
    block = bytearray(b"x") * 300_000_000
    small = python("from music_diffusion.speed import peak_memory_mb\nprint(peak_memory_mb())")
    assert len(block) and small < 100 and peak_memory_mb() > 300


@pytest.mark.parametrize("platform, unit", [("darwin", 1), ("freebsd14", 1024)])
def test_without_proc_the_peak_is_getrusages_in_the_systems_unit(monkeypatch, tmp_path, platform, unit):
    resource = needs.module("resource")
    usage = type("Usage", (), {"ru_maxrss": 5_000_000})
    monkeypatch.setattr(module, "PROC", tmp_path)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    assert peak_memory_mb() == 5.0 * unit


def test_where_nothing_tells_there_is_none_and_the_work_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PROC", tmp_path)
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: importing it fails
    monkeypatch.setattr(module, "start_up_seconds", start_up_seconds.__wrapped__)
    speed = measure(lambda: None, 1.0)[1]
    assert speed.peak_memory_mb is None and speed.start_up_seconds is None


@needs.proc
def test_the_age_of_a_process_is_between_what_its_parent_sees():
    began = time.monotonic()
    age = python("time.sleep(0.2)\nfrom music_diffusion.speed import process_age\nprint(process_age())")
    # The kernel counts starts in ticks of 10 ms.
    assert 0.2 - 0.011 <= age <= time.monotonic() - began + 0.011


def test_a_name_with_brackets_does_not_mislead(monkeypatch, tmp_path):
    # proc_pid_stat(5): the name is field 2, the start field 22; all others are their own number.
    fields = ["1", "(a) b (c)", *map(str, range(3, 22)), "12345", *map(str, range(23, 53))]
    (tmp_path / "stat").write_text(" ".join(fields))
    monkeypatch.setattr(module, "PROC", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_CLK_TCK": 100}[name])
    monkeypatch.setattr("time.CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr("time.clock_gettime", lambda clock: {7: 200.0}[clock], raising=False)
    assert process_age() == pytest.approx(200 - 123.45)


def test_start_up_ends_with_the_first_measured_work():
    first, second, age = python("""
from music_diffusion.speed import measure, process_age
time.sleep(0.1)
first = measure(lambda: time.sleep(0.3), 1.0)[1].start_up_seconds
second = measure(lambda: None, 1.0)[1].start_up_seconds
print(json.dumps([first, second, process_age()]))
""")
    if first is None:
        assert second is None and age is None
    else:
        assert first == second and 0.089 <= first <= age - 0.3 + 0.011


def test_measuring_imports_neither_jax_nor_numpy():
    loaded, devices = python("""
from music_diffusion.speed import measure
speed = measure(lambda: None, 1.0)[1]
print(json.dumps([[m for m in ("jax", "numpy") if m in sys.modules], speed.devices]))
""")
    assert loaded == [] and devices is None


def test_devices_are_named_when_jax_is_there():
    import jax

    devices = measure(lambda: None, 1.0)[1].devices
    assert re.fullmatch(rf"cpu x {jax.device_count()} \(jax {re.escape(jax.__version__)}\)", devices)


def test_a_device_that_is_not_there_does_not_spoil_the_work(monkeypatch):
    import jax

    def fail():
        raise RuntimeError("Unable to initialize\nbackend 'cuda'")

    monkeypatch.setattr(jax, "devices", fail)
    assert measure(lambda: 5, 1.0)[0] == 5
    assert measure(lambda: 5, 1.0)[1].devices == "none (Unable to initialize backend 'cuda')"
