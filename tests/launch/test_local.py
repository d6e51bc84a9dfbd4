"""launch/local.sh and launch/gpus.sh: one machine."""

import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# Answers the question for devices (-c), and ends like the trainer.
PYTHON = """
if [[ $1 == -c ]]; then
  [[ $2 == *socket* ]] && echo 4321 || echo "${DEVICES:-1 cpu cpu}"
  exit "${BROKEN:-0}"
fi
exit "${CODE:-0}"
"""
NOTE_GPUS = 'echo "$CUDA_VISIBLE_DEVICES ${@: -1}" >>$FOLDER/gpus\nexit "${CODE'
NVIDIA = """
if [[ $1 == -L ]]; then echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"; else printf '0\\n1\\n2\\n3\\n'; fi
"""
TRAIN = ["-m", "music_diffusion.train"]


def trained(shell):
    return [call[2:] for call in shell.calls("python") if call[:2] == TRAIN]


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_arguments_reach_the_trainer_as_they_are(shell, awkward, separator):
    shell.stub("python", PYTHON)
    result = shell.run("local.sh", *separator, *awkward)
    assert result.returncode == 0 and "1 cpu cpu" in result.stderr
    assert trained(shell) == [awkward]


@pytest.mark.parametrize("code", [0, 1, 2, 130, 143])
def test_the_exit_code_is_the_trainers(shell, code):
    shell.stub("python", PYTHON)
    assert shell.run("local.sh", "--model_dir=x", CODE=str(code)).returncode == code


def test_another_python(shell):
    shell.stub("python3.12", PYTHON)
    assert shell.run("local.sh", "--model_dir=x", PYTHON="python3.12").returncode == 0
    assert shell.calls("python3.12")[-1] == [*TRAIN, "--model_dir=x"]


def test_a_gpu_that_jax_does_not_see_stops_it(shell, fails):
    shell.stub("python", PYTHON)
    shell.stub("nvidia-smi", NVIDIA)
    fails(shell.run("local.sh", "--model_dir=x"), "jax[cuda13]", "JAX_PLATFORMS=cpu")
    assert trained(shell) == []
    assert shell.run("local.sh", "--model_dir=x", JAX_PLATFORMS="cpu").returncode == 0
    assert shell.run("local.sh", "--model_dir=x", DEVICES="1 gpu NVIDIA H100").returncode == 0
    shell.stub("nvidia-smi", "echo 'No devices were found'")
    assert shell.run("local.sh", "--model_dir=x").returncode == 0


@pytest.mark.parametrize("script", ["local.sh", "gpus.sh"])
def test_what_is_missing_is_named(shell, fails, script):
    shell.stub("nvidia-smi", NVIDIA)
    fails(shell.run(script), "--gin_file")
    fails(shell.run(script, "--model_dir=x"), "python is not there", "PYTHON")
    shell.stub("python", PYTHON)
    result = shell.run(script, "--model_dir=x", BROKEN="1")
    assert result.returncode == 2 and "pip install" in result.stderr and trained(shell) == []


def test_a_python_without_jax_is_named(shell):
    shell.stub("python", f'exec {sys.executable} -S "$@"')  # -S: without site-packages
    result = shell.run("local.sh", "--model_dir=x")
    assert result.returncode == 2 and "has no jax" in result.stderr


def test_help_of_the_trainer(shell):
    shell.stub("python", PYTHON)
    assert shell.run("local.sh", "--", "--help").returncode == 0
    assert trained(shell) == [["--help"]]


def test_one_process_with_all_gpus(shell, awkward):
    shell.stub("nvidia-smi", NVIDIA)
    shell.stub("python", PYTHON.replace('exit "${CODE', NOTE_GPUS))
    for arguments, environment in [([], {}), (["--gpus", "1,3"], {}), (["--gpus=0", "--"], {}),
                                   ([], {"CUDA_VISIBLE_DEVICES": "2"})]:
        assert shell.run("gpus.sh", *arguments, *awkward, DEVICES="4 gpu H100", CODE="7",
                         **environment).returncode == 7
    assert trained(shell) == [awkward] * 4
    lines = (shell.folder / "gpus").read_text().splitlines()
    assert [line.strip() for line in lines] == ["0,1,2,3", "1,3", "0", "2"]


def test_no_gpu_is_named(shell, fails):
    shell.stub("python", PYTHON)
    fails(shell.run("gpus.sh", "--model_dir=x"), "nvidia-smi is not there", "local.sh")
    shell.stub("nvidia-smi")
    fails(shell.run("gpus.sh", "--model_dir=x"), "no GPU", "local.sh")
    fails(shell.run("gpus.sh", "--gpus"), "--gpus")


def test_a_process_for_each_gpu(shell, awkward):
    shell.stub("nvidia-smi", NVIDIA)
    shell.stub("python", PYTHON.replace('exit "${CODE', NOTE_GPUS))
    assert shell.run("gpus.sh", "--process_per_gpu", "--gpus=3,5", "--", *awkward).returncode == 0
    for i, call in enumerate(sorted(trained(shell), key=lambda call: call[-1])):
        assert call == [*awkward, "--coordinator", "127.0.0.1:4321", "--processes", "2",
                        "--process", str(i)]
    assert sorted((shell.folder / "gpus").read_text().splitlines()) == ["3 0", "5 1"]


def test_one_process_that_fails_ends_the_others(shell):
    shell.stub("nvidia-smi", NVIDIA)
    shell.stub("python", PYTHON.replace('exit "${CODE:-0}"', """
[[ ${@: -1} == 2 ]] && exit 5
trap 'echo ended >>$FOLDER/ended; exit 143' TERM
sleep 20 >/dev/null 2>&1 & wait $!"""))
    assert shell.run("gpus.sh", "--process_per_gpu", "--model_dir=x").returncode == 5
    assert (shell.folder / "ended").read_text().split() == ["ended"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_every_process_once(shell, number, code):
    shell.stub("nvidia-smi", NVIDIA)
    shell.stub("python", PYTHON.replace('exit "${CODE:-0}"', """
for name in TERM INT; do trap "echo $name >>$FOLDER/signals; got=\\$((got + 1))" $name; done
got=0
: >$FOLDER/ready${@: -1}
for ((i = 0; i < 12000 && !got; i++)); do sleep 0.05; done
sleep ${@: -1}.5  # as if it saved, one longer than the other; a second signal would be written down
exit $1""".replace("$1", str(code))))
    process = shell.start("gpus.sh", "--process_per_gpu", "--gpus=0,1", "--model_dir=x")
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not all(
            (shell.folder / f"ready{i}").exists() for i in range(2)):
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=600)
    assert process.returncode == code
    assert (shell.folder / "signals").read_text().split() == [number.name[3:]] * 2


@pytest.mark.slow
def test_it_really_trains(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable}
    command = ["bash", str(ROOT / "launch" / "local.sh"), "--gin_file=recipes/tiny.gin",
               "--gin.TOTAL_STEPS=2", "--gin.T5Config.decoder_layers=1",
               "--gin.TrainConfig.log_every=1", "--gin.TrainConfig.eval_every=0", "--model_dir=my run"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    with (tmp_path / "my run" / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2"]
    # What the documentation says about the table.
    section = (ROOT / "docs" / "training.md").read_text().partition("## What the log says")[2]
    told = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section.partition("\n## ")[0], re.M)))
    assert len(told) == 5 and set(told) - {"peak_fraction"} <= set(rows[0])  # CPUs have no known peak
