"""launch/slurm.sh: what it asks of srun, and when the job returns to the queue."""

import pathlib
import re
import shutil
import signal
import time

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "launch" / "slurm.sh"
NOTE = 'echo "${JAX_LOCAL_DEVICE_IDS-none} ${SRUN_CPUS_PER_TASK-none}" >>$FOLDER/environment\n'


@pytest.fixture
def cluster(shell):
    """A job on a cluster: srun ends with $CODE, the job is in the state $STATE."""
    shell.stub("python")
    shell.stub("srun", NOTE + 'exit "${CODE:-0}"')
    shell.stub("squeue", 'echo "${STATE:-RUNNING}"')
    shell.stub("scontrol")
    shell.environment["SLURM_JOB_ID"] = "77"
    return shell


def test_every_task_runs_the_trainer(cluster, awkward):
    assert cluster.run("slurm.sh", *awkward).returncode == 0
    assert cluster.calls("srun") == [["--kill-on-bad-exit=1", "python", "-m", "music_diffusion.train",
                                      *awkward, "--distributed"]]


def test_slurm_runs_a_copy_from_elsewhere(cluster):
    copy = shutil.copy(SCRIPT, cluster.folder / "slurm_script")
    assert cluster.run(copy, "--model_dir=x", PYTHON="python").returncode == 0
    assert cluster.calls("srun")[0][-2:] == ["--model_dir=x", "--distributed"]


@pytest.mark.parametrize("code, state, requeued", [
    (143, "RUNNING", True), (0, "RUNNING", False), (1, "RUNNING", False), (2, "RUNNING", False),
    (130, "RUNNING", False), (137, "RUNNING", False),
    (143, "COMPLETING", False), (143, "CANCELLED", False), (143, "PENDING", False)])
def test_only_a_stopped_job_that_still_runs_returns_to_the_queue(cluster, code, state, requeued):
    result = cluster.run("slurm.sh", "--model_dir=x", CODE=str(code), STATE=state)
    assert result.returncode == code
    assert cluster.calls("scontrol") == ([["requeue", "77"]] if requeued else [])


def test_a_signal_for_the_shell_leaves_time_to_save(cluster):
    cluster.stub("srun", ": >$FOLDER/ready; sleep 1; : >$FOLDER/saved; exit 143")
    process = cluster.start("slurm.sh", "--model_dir=x")
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (cluster.folder / "ready").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    assert process.returncode == 143 and (cluster.folder / "saved").exists()
    assert cluster.calls("scontrol") == [["requeue", "77"]]


@pytest.mark.parametrize("job, devices", [
    # One process for each GPU, all visible to all: JAX's own rule is right.
    ({"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "8", "SLURM_GPUS_ON_NODE": "4"}, "none"),
    ({"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS_PER_NODE": "4", "SLURM_GPUS_ON_NODE": "4"}, "none"),
    # One process for each node.
    ({"SLURM_JOB_NUM_NODES": "2", "SLURM_NTASKS": "2", "SLURM_GPUS_ON_NODE": "4"}, "0,1,2,3"),
    ({"SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}, "0,1,2,3"),
    ({"SLURM_GPUS_ON_NODE": "1"}, "0"),
    # Slurm hides the others' GPUs.
    ({"SLURM_NTASKS": "4", "SLURM_GPUS_PER_TASK": "1", "SLURM_GPUS_ON_NODE": "4"}, "0"),
    ({"SLURM_NTASKS": "2", "SLURM_GPUS_PER_TASK": "a100:2", "SLURM_GPUS_ON_NODE": "4"}, "0,1"),
    # No GPU, and a user who knows better.
    ({"SLURM_NTASKS": "1"}, "none"),
    ({"SLURM_GPUS_ON_NODE": "4", "JAX_LOCAL_DEVICE_IDS": "3"}, "3")])
def test_which_gpus_a_process_gets(cluster, job, devices):
    assert cluster.run("slurm.sh", "--model_dir=x", **job).returncode == 0
    assert (cluster.folder / "environment").read_text().split() == [devices, "none"]


def test_cpus_are_passed_on(cluster):
    assert cluster.run("slurm.sh", "--model_dir=x", SLURM_CPUS_PER_TASK="8").returncode == 0
    assert (cluster.folder / "environment").read_text().split()[1] == "8"


def test_what_is_missing_is_named(shell, fails):
    fails(shell.run("slurm.sh"), "--gin_file")
    fails(shell.run("slurm.sh", "--model_dir=x"), "sbatch")
    fails(shell.run("slurm.sh", "--model_dir=x", SLURM_JOB_ID="1"), "srun is not there")
    shell.stub("srun")
    fails(shell.run("slurm.sh", "--model_dir=x", SLURM_JOB_ID="1"), "python is not there", "PYTHON")
    assert shell.calls("srun") == []


def test_sbatch_reads_its_options():
    """sbatch stops reading at the first line that is neither a comment nor empty."""
    options = []
    for line in SCRIPT.read_text().splitlines():
        if line and not line.startswith("#"):
            break
        options += re.findall(r"^#SBATCH (.+)$", line)
    assert "--requeue" in options  # else scontrol requeue is refused
    assert any(re.fullmatch(r"--signal=TERM@\d+", option) for option in options)  # not B:, the shell's
    assert "--open-mode=append" in options  # a job that returns goes on in the same log
    assert len(options) == SCRIPT.read_text().count("#SBATCH")
