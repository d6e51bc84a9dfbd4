"""A run that is killed and stopped again and again loses nothing and ends as if it had not been.

Every life of the run is a process of its own. It tells when it compiles, steps,
evaluates and saves, so that signals come while it does so.
"""

import csv
import multiprocessing
import os
import pathlib
import random
import signal
import time

import jax
import numpy as np
import pytest
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.training import steps
from music_diffusion.training.checkpoints import Checkpoints, read_params
from music_diffusion.training.loop import TrainConfig, train
from music_diffusion.training.optimizers import adamw

PHASES = {"compile": 1, "step": 25, "eval": 3, "save": 3}  # the signal comes at one of so many
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["music_diffusion.training.loop", "orbax.checkpoint", "optax"])


def run(folder, total_steps):
    return train(
        model=ToyModel(noise=0.1), data=ToySource(), optimizer=adamw(learning_rate=0.03),
        config=TrainConfig(total_steps=total_steps, batch_size=8, microbatches=2, ema_decay=0.9,
                           log_every=1, eval_every=15, checkpoint_every=20),
        model_dir=str(folder))


def live(folder, total_steps, pipe):
    """One life; its exit code is that of `python -m music_diffusion.train`."""
    def telling(phase, function):
        def told(*args, **kwargs):
            pipe.send(phase)
            return function(*args, **kwargs)
        return told

    steps.Step.__init__ = telling("compile", steps.Step.__init__)
    steps.Step.__call__ = telling("step", steps.Step.__call__)
    steps.Evaluator._metrics = telling("eval", steps.Evaluator._metrics)
    Checkpoints.save = telling("save", Checkpoints.save)
    result = run(folder, total_steps)
    pipe.send("end")
    os._exit(0 if result.signal is None else 128 + result.signal)


def table(folder, name):
    """The metrics that do not tell the time or the memory."""
    with (folder / name).open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in (
            "seconds", "steps_per_second", "flops_per_second", "memory_bytes")}
            for row in csv.DictReader(file)]


def signalled(folder, total_steps, number, phase, draw):
    """Lives until the signal comes in `phase`; returns the exit code (0: the run was over before)."""
    receive, send = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=live, args=(folder, total_steps, send))
    process.start()
    send.close()
    left = draw.randint(1, PHASES[phase])
    while left and (said := receive.recv()) != "end":
        left -= said == phase
    if not left:
        time.sleep(draw.choice([0, draw.uniform(0, 0.02), draw.uniform(0, 0.2)]))
        os.kill(process.pid, number)
    process.join(600)
    assert process.exitcode is not None, f"{number} in {phase}: still alive"
    return process.exitcode


def check_lives(folder, *, kills, terms, seed):
    draw = random.Random(seed)
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    phases = [p for _, p in zip(signals, list(PHASES) * len(signals), strict=False)]
    draw.shuffle(phases)
    draw.shuffle(signals)
    total_steps, reached = 40 + 12 * len(signals), 0
    codes = []
    for number, phase in zip(signals, phases, strict=True):
        codes.append(signalled(folder / "broken", total_steps, number, phase, draw))
        checkpoints = Checkpoints(folder / "broken")
        latest = checkpoints.latest_step() or 0
        checkpoints.close()
        assert latest >= reached, f"{number} in {phase}: step {reached} was there, now {latest}"
        reached = latest
        if not latest:
            continue
        params, step, _ = read_params(folder / "broken")
        assert step == latest and all(np.isfinite(x).all() for x in jax.tree.leaves(params))
        if codes[-1] == 128 + signal.SIGTERM:  # nothing that had been done was lost
            assert [int(r["step"]) for r in table(folder / "broken", "train.csv")][-1] == latest
    assert codes.count(-signal.SIGKILL) + codes.count(0) >= kills
    assert codes.count(0) <= len(signals) // 4 and set(codes) <= {
        -signal.SIGKILL, 128 + signal.SIGTERM, 0}

    last, whole = run(folder / "broken", total_steps), run(folder / "whole", total_steps)
    assert (last.step, last.reason) == (total_steps, "finished")
    for a, b in zip(*(jax.tree.leaves(r.state) for r in (last, whole)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    for name in ("train.csv", "eval.csv"):
        assert table(folder / "broken", name) == table(folder / "whole", name)
    return codes


@pytest.mark.slow
def test_signals_in_every_phase(tmp_path):
    check_lives(tmp_path, kills=4, terms=4, seed=0)


@pytest.mark.slow
def test_a_hundred_kills_and_thirty_terms(tmp_path):
    codes = check_lives(pathlib.Path(tmp_path), kills=100, terms=30, seed=1)
    print({code: codes.count(code) for code in set(codes)})
