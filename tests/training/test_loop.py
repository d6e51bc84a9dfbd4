"""Whole runs of a toy model: convergence, resuming, stopping, devices, files."""

import csv
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from reference import needs
from reference.devices import cpu_devices
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.errors import UserError
from music_diffusion.training import steps
from music_diffusion.training.checkpoints import Checkpoints, read_params
from music_diffusion.training.loop import NonFiniteError, TrainConfig, train
from music_diffusion.training.optimizers import adafactor, adamw

ROOT = pathlib.Path(__file__).parents[2]


def go(model_dir, *, model=None, data=None, optimizer=None, on_first_step=lambda: None, **config):
    config = {"total_steps": 10, "batch_size": 8, "log_every": 1, "eval_every": 0,
              "checkpoint_every": 100} | config
    return train(model=model or ToyModel(), data=data or ToySource(),
                 optimizer=optimizer or adamw(learning_rate=0.03), config=TrainConfig(**config),
                 model_dir=str(model_dir), on_first_step=on_first_step)


def rows(path):
    with open(path, newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def losses(folder):
    return [r["loss"] for r in rows(folder / "train.csv")]


def start_process(code, devices=1, **options):
    environment = os.environ | cpu_devices(devices) | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], env=environment,
                            stdout=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_converges_and_leaves_its_files(tmp_path):
    result = go(tmp_path, total_steps=200, log_every=20, eval_every=100, ema_decay=0.9)
    assert (result.step, result.reason) == (200, "finished")
    evaluated = rows(tmp_path / "eval.csv")
    assert [r["step"] for r in evaluated] == [100, 200]
    assert result.metrics["loss"] == pytest.approx(evaluated[-1]["loss"], rel=1e-6) and (
        result.metrics["loss"] < 0.05)
    logged = rows(tmp_path / "train.csv")
    assert [r["step"] for r in logged] == list(range(20, 201, 20))
    assert set(logged[0]) >= {"loss", "abs_error", "grad_norm", "learning_rate", "steps_per_second"}
    assert logged[-1]["learning_rate"] == pytest.approx(0.03)
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_evaluation_is_the_mean_over_examples(tmp_path, ema_decay):
    """With the averaged parameters, where there are any; the others' loss is another one."""
    result = go(tmp_path, total_steps=4, eval_every=4, ema_decay=ema_decay)
    x, y = ToySource().table()

    def loss(params):
        error = x @ params["w"] @ params["u"] + params["bias"] - y
        return np.mean(np.concatenate([error[:8], error[:3]])**2)  # eval_batches: 8 examples, then 3

    raw, average = (params and loss(jax.device_get(params))
                    for params in (result.state.params, result.state.ema_params))
    assert result.metrics["loss"] == pytest.approx(average if ema_decay else raw, rel=1e-5)
    if ema_decay:
        assert abs(average / raw - 1) > 0.01


def test_resume_is_bit_identical(tmp_path):
    options = dict(model=ToyModel(noise=0.1), ema_decay=0.9, microbatches=2)
    whole = go(tmp_path / "whole", total_steps=10, **options)
    go(tmp_path / "halves", total_steps=5, **options)
    halves = go(tmp_path / "halves", total_steps=10, **options)
    assert jax.tree.structure(whole.state) == jax.tree.structure(halves.state)
    leaves = (jax.tree.leaves(run.state) for run in (whole, halves))
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert losses(tmp_path / "whole") == losses(tmp_path / "halves")
    assert len(set(losses(tmp_path / "whole"))) == 10


def test_a_finished_run_does_nothing_more(tmp_path):
    first = go(tmp_path)
    again = go(tmp_path)
    assert (again.step, again.reason) == (10, "finished")
    np.testing.assert_array_equal(again.state.params["w"], first.state.params["w"])


def test_keeps_the_newest_checkpoints(tmp_path):
    go(tmp_path, total_steps=7, checkpoint_every=2, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["6", "7"]
    assert read_params(tmp_path)[1] == 7 and read_params(tmp_path, 6)[1] == 6
    with pytest.raises(UserError, match="no checkpoint of step 3"):
        read_params(tmp_path, 3)
    with pytest.raises(UserError, match="no checkpoints/ there"):
        read_params(tmp_path / "elsewhere")


def test_another_model_in_the_folder_is_an_error(tmp_path):
    go(tmp_path, total_steps=1)
    with pytest.raises(UserError, match="does not fit") as caught:
        go(tmp_path, total_steps=2, optimizer=adafactor())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("checkpoint_every", [5, 8])
def test_stops_at_a_loss_that_is_not_finite(tmp_path, checkpoint_every):
    with pytest.raises(NonFiniteError, match="at step 7 "):
        go(tmp_path, total_steps=50, model=ToyModel(explode_over=1e3), data=ToySource(spike_at=6),
           log_every=40, checkpoint_every=checkpoint_every, optimizer=adamw(learning_rate=1e-3))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() == (5 if checkpoint_every == 5 else None)
    checkpoints.close()


def test_time_limit(tmp_path):
    result = go(tmp_path, total_steps=1000, time_limit_minutes=1e-6)
    assert result.step == 1 and "time limit" in result.reason
    assert go(tmp_path, total_steps=3).step == 3  # resumes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(tmp_path, number, capfd):
    before = signal.getsignal(number)
    result = go(tmp_path, total_steps=1000, on_first_step=lambda: os.kill(os.getpid(), number))
    assert result.step <= 2 and number.name in result.reason
    assert signal.getsignal(number) is before
    assert "run the same command to resume" in capfd.readouterr().err
    assert go(tmp_path, total_steps=result.step + 1).step == result.step + 1


@pytest.mark.slow
def test_survives_being_killed(tmp_path):
    code = f"""
        from reference.toy_regression import ToyModel, ToySource
        from music_diffusion.training.loop import TrainConfig, train
        from music_diffusion.training.optimizers import adamw
        train(model=ToyModel(noise=0.1), data=ToySource(), optimizer=adamw(learning_rate=0.03),
              config=TrainConfig(total_steps=10**6, batch_size=8, log_every=1, eval_every=0,
                                 checkpoint_every=2), model_dir={str(tmp_path / 'killed')!r})
        """
    process = start_process(code, stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed" / "checkpoints"
    while not any(p.name.isdigit() for p in folder.glob("*")) and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.1)  # into the writing of a later one
    process.kill()
    process.wait()
    checkpoints = Checkpoints(tmp_path / "killed")
    reached = checkpoints.latest_step()
    checkpoints.close()
    resumed = go(tmp_path / "killed", model=ToyModel(noise=0.1), total_steps=reached + 3)
    whole = go(tmp_path / "whole", model=ToyModel(noise=0.1), total_steps=reached + 3)
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])
    steps = [r["step"] for r in rows(tmp_path / "killed" / "train.csv")]
    assert steps == list(range(1, reached + 4))  # what was logged after the checkpoint is gone


@pytest.mark.slow
def test_eight_devices_have_the_losses_of_one(tmp_path):
    code = f"""
        import json
        from reference.toy_regression import ToyModel, ToySource
        from music_diffusion.training.loop import TrainConfig, train
        from music_diffusion.training.optimizers import adamw
        from music_diffusion.training.partitioning import MeshConfig
        shards = {{}}
        for name, mesh in dict(data=MeshConfig(), model=MeshConfig(data=4, model=2),
                               fsdp=MeshConfig(data=2, fsdp=2, model=2)).items():
            result = train(
                model=ToyModel(noise=0.1), data=ToySource(), optimizer=adamw(learning_rate=0.03),
                config=TrainConfig(total_steps=10, batch_size=16, log_every=1, eval_every=5,
                                   microbatches=2, checkpoint_every=100),
                model_dir={str(tmp_path)!r} + "/" + name, mesh=mesh)
            state = result.state
            shards[name] = [list(x.addressable_shards[0].data.shape) for x in (
                state.params["w"], state.ema_params["w"],
                state.opt_state.inner_states["trained"].inner_state[0].mu["w"])]
        print(json.dumps(shards))
        """
    process = start_process(code, devices=8)
    go(tmp_path / "one", model=ToyModel(noise=0.1), batch_size=16, microbatches=2, eval_every=5)
    output, _ = process.communicate()
    assert process.returncode == 0
    # w is [embed 8, mlp 16]; its statistics lie where it lies.
    assert json.loads(output.splitlines()[-1]) == {
        "data": [[8, 16]] * 3, "model": [[8, 8]] * 3, "fsdp": [[4, 8]] * 3}
    for name in ("data", "model", "fsdp"):
        # Only the order of sums differs; measured 3e-7.
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "one"), rtol=1e-5)
        evaluated, expected = ([r["loss"] for r in rows(tmp_path / run / "eval.csv")]
                               for run in (name, "one"))
        np.testing.assert_allclose(evaluated, expected, rtol=1e-5)


def start_processes(code, count):
    """Processes that JAX connects; `code` is what each runs then."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    head = """
        import jax
        jax.distributed.initialize("localhost:{port}", {count}, {rank})
        from reference.toy_regression import ToyModel, ToySource
        from music_diffusion.training.loop import TrainConfig, train
        from music_diffusion.training.optimizers import adamw
        """
    return [start_process(textwrap.dedent(head.format(port=port, count=count, rank=rank))
                          + textwrap.dedent(code)) for rank in range(count)]


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tmp_path):
    processes = start_processes(f"""
        for total_steps in (3, 6):
            train(model=ToyModel(noise=0.1), data=ToySource(), optimizer=adamw(learning_rate=0.03),
                  config=TrainConfig(total_steps=total_steps, batch_size=8, log_every=1,
                                     eval_every=2), model_dir={str(tmp_path / "two")!r})
        """, 2)
    for total_steps in (3, 6):
        go(tmp_path / "one", model=ToyModel(noise=0.1), total_steps=total_steps, eval_every=2)
    assert [process.wait() for process in processes] == [0, 0]
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5)
    evaluated = [[(r["step"], r["loss"]) for r in rows(tmp_path / name / "eval.csv")]
                 for name in ("one", "two")]
    np.testing.assert_allclose(*evaluated, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("eval_every", [0, 1])
def test_all_processes_stop_when_one_is_told_to(tmp_path, eval_every):
    processes = start_processes(f"""
        result = train(
            model=ToyModel(), data=ToySource(), optimizer=adamw(learning_rate=0.03),
            config=TrainConfig(total_steps=10**6, batch_size=8, log_every=1, eval_every={eval_every}),
            model_dir={str(tmp_path / "run")!r}, on_first_step=lambda: print("steps", flush=True))
        print(int(result.state.step), result.step, result.reason, result.signal)
        """, 2)
    for process in processes:  # JAX prints lines of its own
        assert "steps\n" in iter(process.stdout.readline, "")
    processes[1].send_signal(signal.SIGTERM)
    told = [p.communicate()[0].splitlines()[-1] for p in processes]
    assert told[0] == told[1] and [p.returncode for p in processes] == [0, 0]
    in_state, step, reason = told[0].split(" ", 2)
    assert in_state == step and reason == "stopped by SIGTERM 15"
    assert read_params(tmp_path / "run")[1] == int(step) == len(losses(tmp_path / "run"))


@pytest.mark.slow
def test_an_evaluation_that_a_signal_interrupts_is_made_up_for(tmp_path):
    def leave(batch_size):  # the signal comes while the first batch is read
        if interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
        yield from ToySource().eval_batches(batch_size)

    class Source(ToySource):
        eval_batches = staticmethod(leave)

    interrupt = True
    options = dict(model=ToyModel(noise=0.1), total_steps=7, eval_every=3)
    halves = go(tmp_path / "halves", data=Source(), **options)
    assert (halves.step, halves.signal, halves.metrics) == (3, signal.SIGTERM, {})
    assert not (tmp_path / "halves" / "eval.csv").exists()
    halves = go(tmp_path / "halves", data=Source(), **options)  # interrupted again, at the same step
    assert (halves.step, halves.signal) == (3, signal.SIGTERM)
    interrupt = False
    go(tmp_path / "halves", data=Source(), **options)
    go(tmp_path / "whole", **options)
    evaluated = [[(r["step"], r["loss"]) for r in rows(tmp_path / run / "eval.csv")]
                 for run in ("halves", "whole")]
    assert evaluated[0] == evaluated[1] and [step for step, _ in evaluated[0]] == [3, 6, 7]
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")


def test_rows_tell_what_a_step_costs(tmp_path, capfd):
    go(tmp_path, total_steps=3)
    # Forward and twice backward, but the inputs need no gradient: x W [8, 8, 16], h U [8, 16, 4].
    flops = 2 * (2 * 8 * 8 * 16 + 3 * 8 * 16 * 4)
    logged = rows(tmp_path / "train.csv")
    for row in logged:
        assert row["flops_per_second"] == pytest.approx(flops * row["steps_per_second"], rel=1e-6)
        assert row["memory_bytes"] > 1e6 and "peak_fraction" not in row  # a CPU's is not known
    assert "TFLOP" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(2, 3), (3, 99)])
def test_a_trace_on_request(tmp_path, steps):
    go(tmp_path, total_steps=4, profile_steps=steps)
    assert list((tmp_path / "profile").glob("**/*.xplane.pb"))
    assert not (go(tmp_path / "other", total_steps=2, profile_steps=(3, 4)) and
                (tmp_path / "other" / "profile").exists())


def test_too_little_memory_is_an_error_with_advice(tmp_path, monkeypatch):
    def fill(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(steps.Step, "__call__", fill)
    with pytest.raises(UserError, match="not enough device memory .*raise MICROBATCHES") as caught:
        go(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_loses_no_checkpoint(tmp_path):
    """On a file system of two megabytes, where only root may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    needs.programs("mount")
    needs.mounted(subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)],
                                 capture_output=True).returncode)
    try:
        go(small / "run", total_steps=3)
        (small / "ballast").write_bytes(b"0" * (os.statvfs(small).f_bavail
                                                * os.statvfs(small).f_frsize - 20_000))
        with pytest.raises(UserError, match="make room and run the same command again") as caught:
            go(small / "run", total_steps=6)
        assert "\n" not in str(caught.value) and "that of step 3 is good" in str(caught.value)
        (small / "ballast").unlink()
        resumed = go(small / "run", total_steps=6)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    whole = go(tmp_path / "whole", total_steps=6)
    np.testing.assert_array_equal(resumed.state.params["w"], whole.state.params["w"])


def test_a_bucket_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gs://b/run: give a folder"):
        go("gs://b/run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, message", [
    (dict(profile_steps=(3, 2)), r"profile_steps=\(3, 2\)"), (dict(profile_steps=(0, 2)), "counted from 1"),
    (dict(total_steps=0), "total_steps=0"), (dict(microbatches=3), "microbatches=3"),
    (dict(ema_decay=1.0), "ema_decay=1.0"), (dict(clip_norm=0.0), "clip_norm=0.0"),
    (dict(eval_every=-1), "eval_every=-1")])
def test_bad_configs(options, message):
    with pytest.raises(UserError, match=message):
        TrainConfig(**({"total_steps": 1, "batch_size": 8} | options))
