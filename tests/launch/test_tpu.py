"""launch/tpu.sh and launch/tpu_worker.sh, on workers that are folders of this machine."""

import os
import pathlib
import shutil
import subprocess
import time

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
# Runs what is sent to a worker in that worker's folder, and copies what is copied there.
GCLOUD = """
shift 2 # compute tpus
command= worker= name=
for argument in "$@"; do
  case $argument in --command=*) command=${argument#*=} ;; --worker=*) worker=${argument#*=} ;; esac
done
[[ $worker == all ]] && worker="0 1"
case "$1 $2" in
  "tpu-vm ssh") rm "$FOLDER/cut" 2>/dev/null && exit 255
    for w in $worker; do
      mkdir -p "$FOLDER/worker$w" && cd "$FOLDER/worker$w" && HOME=$PWD WORKER=$w bash -c "$command" || exit
    done ;;
  "tpu-vm scp") for w in $worker; do mkdir -p "$FOLDER/worker$w" && cp "$3" "$FOLDER/worker$w/"; done ;;
  "queued-resources describe")
    # The next state of a list, until the last one.
    IFS= read -r state <"$FOLDER/states"
    (($(grep -c '' "$FOLDER/states") > 1)) && tail -n +2 "$FOLDER/states" >"$FOLDER/rest" \\
      && cp "$FOLDER/rest" "$FOLDER/states"
    case $state in
      NONE) echo "ERROR: (gcloud) NOT_FOUND: no such resource" >&2; exit 1 ;;
      CUT) : >"$FOLDER/cut"; echo ACTIVE ;;
      LAST) rm -f "$FOLDER/go_on"; echo ACTIVE ;;
      OFFLINE) echo "ERROR: (gcloud) no connection" >&2; exit 1 ;;
      *) echo "$state" ;;
    esac ;;
  "queued-resources delete") rm -rf "$FOLDER"/worker* ;;
esac
"""
# Makes the environment's Python: it tells where it runs, and ends with the next code of a list.
UV = """
[[ $1 == venv ]] || exit 0
mkdir -p .venv/bin
cat >.venv/bin/python <<'END'
#!/bin/bash
printf '%s\\0' trainer "$WORKER" "$@" $'\\036' >>"$CALLS"
echo "hello from $WORKER"
read -r status </proc/$$/stat
echo "${status##*) }" | { read -r state parent group session rest; echo "$session" >>"$FOLDER/sessions"; }
trap 'exit 143' TERM
for ((i = 0; i < 6000; i++)); do [[ -f $FOLDER/go_on ]] && sleep 0.1; done
read -r code <"$FOLDER/codes$WORKER" || code=0
tail -n +2 "$FOLDER/codes$WORKER" >"$FOLDER/rest$WORKER" && cp "$FOLDER/rest$WORKER" "$FOLDER/codes$WORKER"
exit "$code"
END
chmod +x .venv/bin/python
"""
ZONE = "--zone=us-central2-b"


@pytest.fixture
def cloud(shell):
    """A cloud of one TPU with two workers, and a checkout with a folder that git ignores."""
    checkout = shell.folder / "checkout"
    shutil.copytree(LAUNCH, checkout / "launch")
    (checkout / "recipe with spaces.gin").write_text("# new, unknown to git\n")
    (checkout / ".gitignore").write_text("/data/\n")
    (checkout / "data").mkdir()
    (checkout / "data" / "big").write_text("ignored")
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    (shell.folder / "states").write_text("NONE\n")
    for worker in "01":
        (shell.folder / f"codes{worker}").write_text("")
    for name in ("python3", "curl", "sudo"):
        shell.stub(name)
    shell.stub("gcsfuse", ': >"${@: -1}/mounted"')
    shell.stub("mountpoint", '[[ -f ${@: -1}/mounted ]]')
    shell.stub("gcloud", GCLOUD)
    shell.stub("uv", UV)
    shell.tpu = lambda *a, **e: shell.run(checkout / "launch" / "tpu.sh", *a, **e)
    return shell


def eventually(check):
    deadline = time.monotonic() + 600  # for what hangs; a loaded machine is slow
    while time.monotonic() < deadline and not check():
        time.sleep(0.05)
    assert check()


def asked(cloud, *words):
    """Calls of gcloud that begin so, without the beginning."""
    begin = ["compute", "tpus", *words]
    return [call[len(begin):] for call in cloud.calls("gcloud") if call[:len(begin)] == begin]


def file(cloud, worker, name):
    path = cloud.folder / f"worker{worker}" / "music_diffusion" / name
    return path.read_text() if path.exists() else None


@pytest.mark.parametrize("accelerator, version", [
    ("v4-32", "tpu-ubuntu2204-base"), ("v3-8", "tpu-ubuntu2204-base"),
    ("v5litepod-8", "v2-alpha-tpuv5-lite"), ("v5p-8", "v2-alpha-tpuv5"), ("v6e-8", "v2-alpha-tpuv6e")])
def test_create_and_queue(cloud, accelerator, version):
    options = [ZONE, "--project=p", f"--accelerator-type={accelerator}", "--spot"]
    assert cloud.tpu("create", "t", *options).returncode == 0
    assert cloud.tpu("queue", "t", *options).returncode == 0
    rest = [f"--accelerator-type={accelerator}", f"--version={version}", ZONE, "--project=p"]
    assert asked(cloud, "tpu-vm", "create") == [["t", "--spot", *rest]]
    rest[1] = f"--runtime-version={version}"
    assert asked(cloud, "queued-resources", "create") == [["t", "--node-id=t", "--spot", *rest]]


def test_a_version_can_be_chosen_and_must_be_for_unknown_ones(cloud, fails):
    cloud.tpu("create", "t", "--accelerator-type=v4-8", "--version=mine")
    assert asked(cloud, "tpu-vm", "create") == [["t", "--accelerator-type=v4-8", "--version=mine"]]
    fails(cloud.tpu("create", "t", "--accelerator-type=v9-8"), "v9-8", "--version")
    fails(cloud.tpu("queue", "t"), "--accelerator-type")
    assert len(asked(cloud, "tpu-vm", "create")) == 1


def test_install_brings_the_checkout_to_every_worker(cloud):
    result = cloud.tpu("install", "t", ZONE, "--bucket", "gs://my-bucket")
    assert result.returncode == 0, result.stderr
    for worker in range(2):
        assert file(cloud, worker, "recipe with spaces.gin") == "# new, unknown to git\n"
        assert file(cloud, worker, "launch/tpu_worker.sh") is not None
        assert file(cloud, worker, "data/big") is None
    assert cloud.calls("uv") == [
        ["venv", "--quiet", "--seed", "--python", "3.12", ".venv"],
        ["pip", "install", "--quiet", "--python", ".venv/bin/python", "-e", ".[train,data]", "jax[tpu]"],
    ] * 2
    mounts = cloud.calls("gcsfuse")
    assert [call[-2:] for call in mounts] == [["my-bucket", "bucket"]] * 2
    assert all("--metadata-cache-ttl-secs=0" in call for call in mounts)
    assert cloud.calls("python3") == cloud.calls("curl") == []  # what is there is not installed
    assert all(ZONE in call for call in cloud.calls("gcloud"))
    assert cloud.tpu("install", "t", ZONE, "--bucket", "gs://my-bucket").returncode == 0
    assert len(cloud.calls("gcsfuse")) == 2 and len(cloud.calls("uv")) == 6  # not mounted twice


def test_what_the_workers_lack_is_installed(cloud):
    for name in ("uv", "gcsfuse"):
        (cloud.programs / name).unlink()
    cloud.stub("python3", 'mkdir -p "$HOME/.local/bin"; cp "$FOLDER/uv" "$HOME/.local/bin/"')
    cloud.stub("uv", UV, cloud.folder / "uv")
    cloud.stub("sudo", 'cp "$FOLDER/gcsfuse" "$HOME/.local/bin/"')
    cloud.stub("gcsfuse", path=cloud.folder / "gcsfuse")
    result = cloud.tpu("install", "t", "--bucket=b")
    assert result.returncode == 0, result.stderr
    assert cloud.calls("python3") == [["-m", "pip", "install", "--quiet", "--user", "uv"]] * 2
    assert [call[:2] for call in cloud.calls("sudo")] == [["apt-get", "install"]] * 2
    assert len(cloud.calls("curl")) == len(cloud.calls("gcsfuse")) == 2


def test_a_failed_step_of_install_ends_it(cloud):
    cloud.stub("uv", "exit 3")
    assert cloud.tpu("install", "t", "--bucket=b").returncode == 3
    assert cloud.calls("gcsfuse") == []


def test_train_runs_on_every_worker(cloud, awkward):
    (cloud.folder / "codes1").write_text("7\n")
    assert cloud.tpu("install", "t").returncode == 0
    assert cloud.tpu("status", "t").stdout.split() == ["new", "new"]
    assert cloud.tpu("train", "t", ZONE, "--", *awkward).returncode == 0
    eventually(lambda: cloud.tpu("status", "t").stdout.splitlines() == ["ended with 0", "ended with 7"])
    assert sorted(cloud.calls("trainer")) == [
        [str(w), "-m", "music_diffusion.train", *awkward, "--distributed"] for w in range(2)]
    assert [file(cloud, w, "training.log") for w in range(2)] == ["hello from 0\n", "hello from 1\n"]
    # Not in the session of the connection, whose end would end it too.
    sessions = (cloud.folder / "sessions").read_text().split()
    assert len(sessions) == 2 and str(os.getsid(0)) not in sessions


@pytest.mark.parametrize("program", ["train", "eval"])
def test_t5x_runs_on_every_worker(cloud, program):
    assert cloud.tpu("install", "t").returncode == 0
    assert cloud.tpu("t5x", "t", "--", program, "--gin_file=a b.gin").returncode == 0
    eventually(lambda: cloud.tpu("status", "t").stdout.splitlines() == ["ended with 0"] * 2)
    last = ["--multiprocess_gpu"] if program == "train" else []
    assert sorted(call for call in cloud.calls("trainer") if call[1] == "-m") == [
        [str(w), "-m", f"t5x.{program}", "--gin_search_paths=hello from " + str(w),
         f"--gin_file=runs/t5x_{program}.gin", "--gin_file=a b.gin", *last] for w in range(2)]


def test_stop_and_start_again(cloud, fails):
    (cloud.folder / "go_on").touch()
    assert cloud.tpu("install", "t").returncode == 0
    assert cloud.tpu("train", "t", "--", "--model_dir=x").returncode == 0
    assert cloud.tpu("status", "t").stdout.split() == ["running"] * 2
    again = cloud.tpu("train", "t", "--", "--model_dir=x")
    assert again.returncode == 2 and "running already" in again.stderr
    eventually(lambda: len(cloud.calls("trainer")) == 2 and file(cloud, 1, "training.log"))
    assert cloud.tpu("stop", "t").returncode == 0
    eventually(lambda: cloud.tpu("status", "t").stdout.splitlines() == ["ended with 143"] * 2)
    assert cloud.tpu("stop", "t").returncode == 2
    assert cloud.tpu("train", "t", "--", "--model_dir=x").returncode == 0
    assert file(cloud, 0, "training.code") is None  # of the run before
    (cloud.folder / "go_on").unlink()
    eventually(lambda: cloud.tpu("status", "t").stdout.splitlines() == ["ended with 0"] * 2)


def test_a_worker_that_was_restarted_says_so(cloud):
    assert cloud.tpu("install", "t").returncode == 0
    for worker in range(2):  # a number that is another's program now
        (cloud.folder / f"worker{worker}" / "music_diffusion" / "training.pid").write_text("1\n")
    assert cloud.tpu("status", "t").stdout.split() == ["interrupted"] * 2


def test_a_worker_whose_end_is_not_written_down_yet_is_running(cloud):
    """The trainer has ended; the shell that waits for it, this test's stand-in, has still to say how."""
    assert cloud.tpu("install", "t").returncode == 0
    folder = cloud.folder / "worker0" / "music_diffusion"
    (folder / "training.pid").write_text("1\n")
    shell = subprocess.Popen(["bash", "-c", "read -r line", "music_diffusion"], stdin=subprocess.PIPE)
    (folder / "training.shell").write_text(f"{shell.pid}\n")
    (folder / "training.code").touch()
    assert cloud.tpu("status", "t").stdout.split() == ["running", "new"]
    (folder / "training.code").write_text("0\n")
    assert cloud.tpu("status", "t").stdout.splitlines() == ["ended with 0", "new"]
    (folder / "training.code").unlink()
    shell.communicate(b"\n")
    assert cloud.tpu("status", "t").stdout.split() == ["interrupted", "new"]


def test_run_anything(cloud, fails):
    assert cloud.tpu("install", "t").returncode == 0
    result = cloud.tpu("run", "t", "--", "cat", "recipe with spaces.gin")
    assert result.stdout == "# new, unknown to git\n" * 2
    fails(cloud.tpu("run", "t"), "COMMAND")


def test_fetch_log_state_and_delete(cloud, fails):
    cloud.tpu("fetch", "t", ZONE, "--", "runs/tiny", "my runs/")
    assert asked(cloud, "tpu-vm", "scp") == [
        ["--recurse", "t:music_diffusion/runs/tiny", "my runs/", "--worker=0", ZONE]]
    fails(cloud.tpu("fetch", "t", "--", "runs/tiny"), "FROM TO")
    cloud.tpu("delete", "t")
    assert asked(cloud, "tpu-vm", "delete") == [["t", "--quiet"]]
    (cloud.folder / "states").write_text("ACTIVE\n")
    assert cloud.tpu("state", "t").stdout == "ACTIVE\n"
    cloud.tpu("delete", "t")
    assert asked(cloud, "queued-resources", "delete") == [["t", "--force", "--quiet"]]
    (cloud.folder / "states").write_text("OFFLINE\n")
    result = cloud.tpu("delete", "t")
    assert result.returncode == 1 and "no connection" in result.stderr
    assert len(asked(cloud, "tpu-vm", "delete")) == len(asked(cloud, "queued-resources", "delete")) == 1


def keep(cloud, states, codes):
    (cloud.folder / "states").write_text("".join(f"{state}\n" for state in states))
    (cloud.folder / "codes0").write_text("".join(f"{code}\n" for code in codes))
    return cloud.tpu("keep", "t", "--accelerator-type=v4-16", "--spot", "--bucket=b", "--",
                     "--model_dir=bucket/runs/x", TPU_POLL="0.3")


@pytest.mark.slow
def test_keep_goes_on_after_preemption(cloud):
    result = keep(cloud, ["NONE", "WAITING_FOR_RESOURCES", "OFFLINE", "ACTIVE", "SUSPENDED", "NONE",
                          "ACTIVE"], [143, 0])
    assert result.returncode == 0, result.stderr
    assert asked(cloud, "queued-resources", "create") == [
        ["t", "--node-id=t", "--spot", "--accelerator-type=v4-16",
         "--runtime-version=tpu-ubuntu2204-base"]] * 2
    assert asked(cloud, "queued-resources", "delete") == [["t", "--force", "--quiet"]]
    assert len(asked(cloud, "tpu-vm", "scp")) == len(cloud.calls("gcsfuse")) / 2 == 2
    assert [call for call in cloud.calls("trainer") if call[0] == "0"] == [
        ["0", "-m", "music_diffusion.train", "--model_dir=bucket/runs/x", "--distributed"]] * 2
    assert "ended with 0" in result.stderr and "delete t" in result.stderr


@pytest.mark.slow
def test_keep_starts_again_after_a_signal_and_hands_on_a_refusal(cloud):
    assert keep(cloud, ["ACTIVE"], [143] * 4 + [2]).returncode == 2
    assert len([call for call in cloud.calls("trainer") if call[0] == "0"]) == 5
    assert asked(cloud, "queued-resources", "create") == []


def test_keep_waits_while_it_gets_no_answer(cloud):
    (cloud.folder / "go_on").touch()
    assert keep(cloud, ["ACTIVE", "CUT", "OFFLINE", "CUT", "LAST"], [0]).returncode == 0
    assert len(asked(cloud, "tpu-vm", "scp")) == 1 and len(cloud.calls("trainer")) == 2


def test_keep_gives_up_on_what_always_crashes(cloud):
    assert keep(cloud, ["ACTIVE"], [1] * 9).returncode == 1
    assert len([call for call in cloud.calls("trainer") if call[0] == "0"]) == 4


def test_keep_goes_on_while_a_worker_still_ends(cloud):
    """Worker 1 hangs for a while after worker 0 has crashed."""
    (cloud.folder / "go_on").touch()
    assert cloud.tpu("install", "t").returncode == 0
    assert cloud.tpu("train", "t", "--", "--model_dir=x").returncode == 0
    eventually(lambda: len(cloud.calls("trainer")) == 2)
    (cloud.folder / "worker0" / "music_diffusion" / "training.pid").write_text("1\n")
    (cloud.folder / "worker0" / "music_diffusion" / "training.code").write_text("134\n")
    result = keep(cloud, ["ACTIVE", "ACTIVE", "LAST"], [0, 0])
    assert result.returncode == 0 and "not every worker" in result.stderr, result.stderr


def test_keep_stops_where_the_request_fails(cloud, fails):
    fails(keep(cloud, ["FAILED"], []), "failed", "describe t")


def test_what_is_missing_is_named(cloud, fails):
    fails(cloud.tpu(), "which command")
    fails(cloud.tpu("trian", "t"), "trian")
    fails(cloud.tpu("train"), "NAME")
    fails(cloud.tpu("train", "--zone=z"), "NAME")
    fails(cloud.tpu("train", "t"), "--gin_file")
    fails(cloud.tpu("keep", "t", "--accelerator-type=v4-8"), "--gin_file")
    fails(cloud.tpu("keep", "t", "--", "--model_dir=x"), "--accelerator-type")
    fails(cloud.tpu("train", "t", "--zone", "z"), "--option=value")
    fails(cloud.tpu("install", "t", "--bucket"), "--bucket")
    assert cloud.calls("gcloud") == []
    (cloud.programs / "gcloud").unlink()
    fails(cloud.tpu("status", "t"), "gcloud is not there", "https://")
