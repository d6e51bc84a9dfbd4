import os
import signal
import subprocess
import sys
import time

import pytest

from music_diffusion.data.parallel import run_tasks
from music_diffusion.errors import UserError


def run(task, items, workers):
    done = []
    return run_tasks(task, items, workers, lambda i, n: done.append((i, n))), done


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_are_counted(workers):
    results, done = run(abs, [-3, 1, -2, 0], workers)
    assert results == [3, 1, 2, 0] and done == [(i, 4) for i in (1, 2, 3, 4)]
    assert run(abs, [], workers) == ([], [])


def test_a_single_worker_is_this_process():
    assert run(lambda _: os.getpid(), [0, 0], 1)[0] == [os.getpid()] * 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_task_ends_the_run(workers):
    with pytest.raises(ValueError, match="'x'"):
        run(int, ["1", "x", "2"], workers)


def test_a_killed_process_is_a_one_line_error():
    with pytest.raises(UserError, match="killed.*--workers") as error:
        run(os._exit, [9, 9], 2)
    assert "\n" not in str(error.value)


def test_workers_end_when_their_parent_is_killed():
    """A pipe that workers inherit is at its end when the last of them has gone."""
    program = ("import os, sys\nfrom music_diffusion.data.parallel import run_tasks\n"
               "if __name__ == '__main__':\n"
               "    run_tasks(exec, ['import os, time; os.write(1, b\"x\"); time.sleep(60)'] * 2, 2,\n"
               "              lambda i, n: None)\n")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as process:
        assert process.stdout.read(1) == b"x"
        process.kill()
        assert process.wait(10) == -signal.SIGKILL
        begin = time.monotonic()
        process.stdout.read()
        assert time.monotonic() - begin < 20
