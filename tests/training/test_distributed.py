"""Runs of two processes with four devices each have the losses of one process and of one device.

What differs is the order of sums alone; measured at most 1e-6.
"""

import contextlib
import csv
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from reference import tiny_zoo
from reference.devices import cpu_devices

from music_diffusion.training.checkpoints import read_params

ROOT = pathlib.Path(__file__).parents[2]
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "model": (1, 1, 8), "data_fsdp": (2, 4, 1),
          "data_model": (4, 1, 2), "fsdp_model": (1, 2, 4), "all": (2, 2, 2)}
# Half of the compiler's time; what it rounds otherwise is far below the tolerance.
UNOPTIMIZED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@contextlib.contextmanager
def processes(folder, name, jobs, count, devices):
    """Connected processes do the same training runs in turn, beside the body; waits for them."""
    (folder / f"{name}.jobs").write_text(json.dumps(jobs, default=str))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | UNOPTIMIZED | cpu_devices(devices) | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    running, logs = [], [folder / f"{name}-{i}.log" for i in range(count)]
    try:
        for i, log in enumerate(logs):
            connection = [address, str(count), str(i)] if count > 1 else []
            with log.open("w") as file:
                running.append(subprocess.Popen(
                    [sys.executable, "-m", "reference.tiny_zoo", folder / f"{name}.jobs", *connection],
                    env=environment, stdout=file, stderr=file))
        yield
        # Where one fails, the others would wait for it forever.
        while None in (codes := [p.poll() for p in running]) and not any(codes):
            time.sleep(0.1)
        assert not any(codes), "".join(log.read_text()[-3000:] for log in logs)
    finally:
        for process in running:
            process.kill()
            process.wait()


def table(folder, name):
    with open(folder / name, newline="") as file:
        return list(csv.DictReader(file))


def assert_same(folder, other, name="train.csv", columns=("step", "loss", "grad_norm")):
    found, expected = ([[float(row[c]) for c in columns] for row in table(f, name)]
                       for f in (folder, other))
    assert len({row[1] for row in found}) == len(found) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def assert_same_evaluation(folder, other):
    assert_same(folder, other, "eval.csv", ("step", "loss"))


def job(member, model_dir, mesh=(-1, 1, 1), **config):
    return {"member": member, "model_dir": str(model_dir), "mesh": mesh} | config


def told(folder, name):
    """What the two processes of a run have asked of its data source."""
    return [json.loads((folder / f"{name}.{i}.json").read_text()) for i in range(2)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs: of one device, and of two processes with four each."""
    folder = tmp_path_factory.mktemp("runs")
    toy = {"total_steps": 6, "eval_every": 3, "microbatches": 2}
    member = {"member": "spectrogram_diffusion", "total_steps": 3}
    tiny_zoo.run(**job("toy", folder / "begun_by_one", **toy | {"total_steps": 3}))
    pair = [job("toy", folder / "data", MESHES["data"], **toy),
            job("toy", folder / "model", MESHES["model"], **toy),
            job("toy", folder / "begun_by_one", MESHES["fsdp"], **toy),
            job("toy", folder / "begun_by_two", MESHES["all"], **toy | {"total_steps": 3}),
            job(model_dir=folder / "member", mesh=MESHES["all"], **member)]
    one = [job(model_dir=folder / "member_one", **member)]
    with processes(folder, "pair", pair, 2, 4), processes(folder, "single", one, 1, 1):
        tiny_zoo.run(**job("toy", folder / "one", **toy))
    shutil.copytree(folder / "begun_by_two", folder / "ended_by_one")
    tiny_zoo.run(**job("toy", folder / "ended_by_one", **toy))
    return folder


@pytest.mark.slow  # test_loop.py has a shorter one
@pytest.mark.parametrize("run", ["data", "model", "begun_by_one", "ended_by_one"])
def test_two_processes_have_the_losses_of_one_device(runs, run):
    """From the first step on, or from the third one, or up to it."""
    assert_same(runs / run, runs / "one")
    assert_same_evaluation(runs / run, runs / "one")
    assert read_params(runs / run)[1] == 6


@pytest.mark.slow
@pytest.mark.parametrize("run", ["data", "model", "begun_by_one", "begun_by_two"])
def test_a_process_reads_the_rows_of_its_devices(runs, run):
    shards = [found["shard"] for found in told(runs, run)]
    assert shards == ([[16, 0, 1]] * 2 if run == "model" else [[8, 0, 2], [8, 1, 2]])


@pytest.mark.slow
def test_a_zoo_member_has_the_losses_of_one_device(runs):
    """Spectrogram diffusion with context and dropout."""
    assert_same(runs / "member", runs / "member_one")


@pytest.mark.slow
def test_no_segment_is_made_by_both_processes(runs):
    first, second = (found["made"] for found in told(runs, "member"))
    assert not set(first) & set(second)
    assert len(first) == len(set(first)) and len(second) == len(set(second))
    assert min(len(first), len(second)) >= 3 * 8


@pytest.mark.slow
@pytest.mark.parametrize("member", ["spectrogram_diffusion", "frame_diffusion"])
def test_zoo_members_have_the_losses_of_one_device_on_all_meshes(tmp_path, member):
    """Two processes and one, on all meshes; and each goes on with what the other has begun."""
    whole, half = ({"member": member, "total_steps": n, "eval_every": 2} for n in (4, 2))

    def all_meshes(name):
        return [job(model_dir=tmp_path / f"{name}_{m}", mesh=axes, **whole)
                for m, axes in MESHES.items()]

    one = [job(model_dir=tmp_path / "one", **whole), job(model_dir=tmp_path / "begun_by_one", **half)]
    two = [*all_meshes("two"), job(model_dir=tmp_path / "begun_by_two", mesh=MESHES["fsdp"], **half),
           job(model_dir=tmp_path / "begun_by_one", mesh=MESHES["all"], **whole)]
    eight = [*all_meshes("eight"),
             job(model_dir=tmp_path / "begun_by_two", mesh=MESHES["data_model"], **whole)]
    for name, jobs, count, devices in (("single", one, 1, 1), ("pair", two, 2, 4),
                                       ("eight", eight, 1, 8)):
        with processes(tmp_path, name, jobs, count, devices):
            pass
    for run in sorted(p.parent.name for p in tmp_path.glob("*/train.csv")):
        assert_same(tmp_path / run, tmp_path / "one")
        assert_same_evaluation(tmp_path / run, tmp_path / "one")
