"""`python -m music_diffusion.train`, through its main function and as a process."""

import csv
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from reference.devices import cpu_devices

import gin
from music_diffusion.train import main, parse_arguments

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


def test_overrides_become_bindings():
    arguments = parse_arguments(["--gin_file=a.gin", "--gin_file", "b.gin", "--model_dir=m",
                                 "--gin.adamw.b1=0.8", "--gin.X=('a=b',)"])
    assert arguments.gin_file == ["a.gin", "b.gin"]
    assert arguments.bindings == ["adamw.b1 = 0.8", "X = ('a=b',)"]


@pytest.mark.parametrize("flags", [["--gni.X=1"], ["--gin.X", "1"], ["extra"]])
def test_unknown_arguments_exit_with_2(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--gin_file=recipes/tiny.gin", "--model_dir=m", *flags])
    assert caught.value.code == 2 and flags[0].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("flags, message", [
    (["--processes=2", "--process=0"], "together"), (["--coordinator=a:1"], "together"),
    (["--coordinator=a:1", "--processes=2", "--process=2"], "--process 2 must be"), ([], "--model_dir")])
def test_flags_that_do_not_fit_together(flags, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--gin_file=recipes/tiny.gin", *(["--model_dir=m"] if flags else []), *flags])
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_is_told_by_the_exit_code(tmp_path):
    command = [sys.executable, "-m", "music_diffusion.train", "--gin_file=recipes/tiny.gin",
               f"--model_dir={tmp_path / 'run'}", "--gin.TOTAL_STEPS=1000000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert process.stderr.readline().startswith("starting: ")  # it compiles now
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 143
    assert error == "stopped by SIGTERM before step 1; run the same command to go on\n"


@pytest.mark.parametrize("flags, message", [
    (["--gin_file=absent.gin"], "absent.gin: no such gin file"),
    (["--gin_file=recipes/tiny.gin", "--gin.BATCH_SIZ=3"], "did you mean BATCH_SIZE"),
    (["--gin_file=recipes/tiny.gin", "--gin.TrainConfig.sed=3"], "named 'sed'"),
    (["--gin_file=recipes/tiny.gin", "--gin.BATCH_SIZE=0"], "TrainConfig.batch_size=0"),
    (["--gin_file=recipes/tiny.gin", "--gin.MeshConfig.model=-2"], "model=-2"),
    (["--gin_file=runs/train.gin"], "no gin file binds train.model")])
def test_bad_input_is_one_line_and_2(flags, message, capsys, tmp_path):
    assert main([*flags, f"--model_dir={tmp_path / 'run'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_tiny_recipe_has_the_same_losses_on_eight_devices(tmp_path):
    def start(devices, *flags):
        environment = os.environ | cpu_devices(devices) | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, "-m", "music_diffusion.train", "--gin_file=recipes/tiny.gin",
             "--gin.TOTAL_STEPS=4", "--gin.T5Config.decoder_layers=1",
             "--gin.TrainConfig.log_every=1", "--gin.TrainConfig.eval_every=0",
             f"--model_dir={tmp_path / str(devices)}", *flags],
            env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path)

    def losses(devices):
        with (tmp_path / str(devices) / "train.csv").open(newline="") as file:
            return [float(row["loss"]) for row in csv.DictReader(file)]

    for process in [start(1), start(8)]:
        _, error = process.communicate()
        assert process.returncode == 0, error
    assert len(losses(1)) == 4 and len(set(losses(1))) == 4
    np.testing.assert_allclose(losses(8), losses(1), rtol=1e-4)
    assert "@SpectrogramDiffusionModel" in (tmp_path / "1" / "config.gin").read_text()


def test_an_override_that_nothing_reads_is_an_error(tmp_path):
    file = tmp_path / "toy.gin"
    file.write_text("""
include 'runs/train.gin'
train.model = @ToyModel()
train.data = @ToySource()
train.optimizer = @adamw()
TOTAL_STEPS = 3
BATCH_SIZE = 8
""")
    import reference.toy_regression as toy

    for name in ("ToyModel", "ToySource"):
        if not gin.config._REGISTRY.matching_selectors(name):
            gin.external_configurable(getattr(toy, name), name=name, module="toy")
    command = [f"--gin_file={file}", f"--model_dir={tmp_path / 'run'}"]
    assert main([*command, "--gin.adafactor.decay_exponent=0.5"]) == 2
    assert not (tmp_path / "run" / "checkpoints").exists() or not any(
        (tmp_path / "run" / "checkpoints").iterdir())
    assert main([*command, "--gin.adamw.b1=0.5"]) == 0
    assert "adamw.b1 = 0.5" in (tmp_path / "run" / "config.gin").read_text()
