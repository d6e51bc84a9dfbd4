"""Stopping on signals: what is left behind, what is not, and who handles the second signal."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from music_diffusion.training.stopping import SIGNALS, Stop, Stopped

ROOT = pathlib.Path(__file__).parents[2]


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_waited_for_is_left_behind(number):
    before = signal.getsignal(number)
    release = threading.Event()
    threading.Timer(0.05, send, [number]).start()
    stop = Stop()
    with stop.on_signals():
        with pytest.raises(Stopped):  # the function itself would wait for ever
            stop.wait_for(release.wait)
        # A second Ctrl-C acts as before; a second SIGTERM does not, it is still caught.
        assert (signal.getsignal(number) is before) == (number == signal.SIGINT)
        send(signal.SIGTERM)
        assert stop.signal == number and stop.ending == (f"stopped by {number.name}", number)
        with pytest.raises(Stopped):  # nothing new is begun
            stop.wait_for(lambda: pytest.fail("was begun"))
    release.set()


def test_results_and_errors_come_back():
    stop = Stop()
    threads = []

    def work():
        threads.append(threading.current_thread())
        return 7

    def fail():
        raise KeyError("gone")

    assert stop.wait_for(work) == 7 and threads == [threading.main_thread()]  # none can come
    with stop.on_signals():
        assert stop.wait_for(work) == 7 and threads[-1] is not threading.main_thread()
        assert stop.wait_for(lambda: None) is None
        with pytest.raises(KeyError, match="gone"):
            stop.wait_for(fail)
    assert stop.ending is None and stop.signal is None


def test_handlers_are_put_back_whatever_happens():
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(ZeroDivisionError), Stop().on_signals():
        assert [signal.getsignal(n) for n in SIGNALS] != before
        raise ZeroDivisionError
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_other_threads_catch_nothing():
    before = [signal.getsignal(n) for n in SIGNALS]
    seen = []

    def work():
        stop = Stop()
        with stop.on_signals():
            seen.append([signal.getsignal(n) for n in SIGNALS])
            seen.append(stop.wait_for(lambda: "done"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before, "done"]


def test_time_limit():
    assert Stop(None).ending is None and Stop(60).ending is None
    stop = Stop(1e-9)
    time.sleep(0.001)
    assert "time limit" in stop.ending.reason and stop.ending.signal is None


@pytest.mark.slow
def test_a_process_ends_at_once_while_it_compiles():
    code = """
        import time
        import jax, jax.numpy as jnp
        from music_diffusion.training.stopping import Stop, Stopped, end_process

        def long_to_compile(x):
            for i in range(4000):
                x = jnp.sin(x) @ x + i
            return x

        stop = Stop()
        with stop.on_signals():
            lowered = jax.jit(long_to_compile).lower(jnp.ones((4, 4)))
            print("compiling", flush=True)
            try:
                stop.wait_for(lowered.compile)
                print("compiled", flush=True)
            except Stopped:
                end_process(128 + stop.signal)
        """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})
    assert process.stdout.readline() == "compiling\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    # Without the thread the handler would run when compilation is over, which takes many seconds.
    assert (output, process.returncode) == ("", 128 + signal.SIGTERM)
