"""Every command that the documentation and the scripts' own help show: it would work."""

import pathlib
import re
import shlex
import subprocess

import pytest
import typer
from reference import needs

import gin
from music_diffusion import gin_setup
from music_diffusion.cli.main import app
from music_diffusion.train import parse_arguments

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
PAGES = [ROOT / "docs" / "training.md", LAUNCH / "README.md"]
PROGRAMS = re.compile(r"(launch/\w+\.sh|-m music_diffusion\.train|^music-diffusion |docker run)")


def shown(file: pathlib.Path) -> list[str]:
    """The command lines in a page, or in the comment at the top of a script."""
    text = file.read_text()
    if file.suffix == ".md":
        # Blocks of code, and the last cells of tables.
        parts = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
        parts += re.findall(r"`([^`\n]+)` \|$", text, re.M)
    else:
        head = text.partition("\n\n")[0]
        parts = re.findall(r"^#   +(.*)$", head, re.M)
    lines = re.sub(r"\\\n\s*", " ", "\n".join(parts)).splitlines()
    return [line for line in lines if PROGRAMS.search(line) and not re.search(r"ARGS|…|\.\.\.|\|", line)]


COMMANDS = sorted({line for file in [*PAGES, *SCRIPTS, LAUNCH / "Containerfile"] for line in shown(file)})
TRAINING = [c for c in COMMANDS if "--gin_file" in c and "t5x" not in c]


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


@pytest.fixture
def everything(shell):
    """All programs that the scripts call: they do nothing, successfully."""
    shell.stub("python", '[[ $1 != -c ]] || echo "1 gpu H100"')
    shell.stub("nvidia-smi", "printf '0\\n1\\n2\\n3\\n'")
    shell.stub("srun")
    shell.stub("sbatch", 'while [[ $1 != launch/* ]]; do shift; done; SLURM_JOB_ID=1 exec "$ROOT/$@"')
    shell.stub("gcloud", 'case "$*" in *describe*) echo ACTIVE ;; *status*) echo "ended with 0" ;; esac')
    (shell.programs / "tar").unlink()
    shell.stub("tar")
    shell.stub("docker")
    shell.environment["ROOT"] = str(ROOT)
    return shell


def words(command: str) -> tuple[dict[str, str], list[str]]:
    """Its environment, and the words."""
    environment, rest = {}, shlex.split(command, comments=True)
    while re.match(r"[A-Z_]+=", rest[0]):
        name, _, environment[name] = rest.pop(0).partition("=")
    return environment, rest


def test_there_are_commands():
    assert len(COMMANDS) > 25 and len(TRAINING) > 12
    for script in ("local", "gpus", "slurm", "tpu", "t5x"):
        assert any(f"launch/{script}.sh" in c for c in COMMANDS), script
    assert any("docker run" in c for c in COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if "launch/" in c and "docker" not in c])
def test_the_script_takes_it(everything, command):
    environment, (program, *arguments) = words(command)
    if program == "sbatch":
        result = subprocess.run([everything.programs / "sbatch", *arguments], text=True,
                                env=everything.environment, capture_output=True)
    else:
        result = everything.run(program.removeprefix("launch/"), *arguments, **environment)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", TRAINING)
def test_the_trainer_takes_it(command):
    _, rest = words(command)
    # What the launcher keeps for itself ends with its name, and with `--` where there is one.
    for name in ("music_diffusion.train", "train", "launch/slurm.sh", "music-diffusion"):
        if name in rest and "tpu.sh" not in command:
            rest = rest[rest.index(name) + 1:]
    if "--" in rest:
        rest = rest[rest.index("--") + 1:]
    elif rest[0].startswith("launch/"):
        rest = rest[rest.index(next(word for word in rest if word.startswith("--gin_file"))):]
    if "&&" in rest:
        rest = rest[:rest.index("&&")]
    arguments = parse_arguments(rest)
    gin_setup.parse(arguments.gin_file, arguments.bindings)
    gin_setup.require("train.model", "train.data", "train.optimizer", "train.config")


@pytest.mark.parametrize("command", [c for c in COMMANDS if "launch/t5x.sh" in c])
def test_t5x_takes_it(command):
    _, (_, program, *arguments) = words(command)
    files = [f"runs/t5x_{program}.gin"]
    for argument in arguments:
        option, _, value = argument.partition("=")
        assert option == "--gin_file" or option.startswith("--gin."), argument
        files += [value] if option == "--gin_file" else []
    texts = [(gin_setup.gin_root() / file).read_text() for file in files]
    for argument in arguments:
        if argument.startswith("--gin."):
            macro = argument.removeprefix("--gin.").partition("=")[0]
            assert any(f"%{macro}" in text or f"\n{macro} =" in text for text in
                       [*texts, (gin_setup.gin_root() / "runs" / "t5x.gin").read_text()]), macro


@pytest.mark.parametrize("file", [*PAGES, *SCRIPTS, LAUNCH / "Containerfile"], ids=lambda f: f.name)
def test_every_gin_file_and_link_exists(file):
    text = file.read_text()
    names = re.findall(r"--gin_file[= ]([\w/]+\.gin)", text)
    for name in names + re.findall(r"`((?:runs|recipes)/\w+\.gin)`", text):
        assert (gin_setup.gin_root() / name).is_file(), name
    if file.suffix == ".md":
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (file.parent / target).exists(), target
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                   for title in re.findall(r"^#+ (.*)$", text, re.M)}
        assert anchors.issuperset(re.findall(r"\]\(#([^)]+)\)", text))


def test_the_settings_in_tables_are_those_of_a_recipe():
    bindings = re.findall(r"`--gin\.(\w+)=([^`]+)`", PAGES[0].read_text())
    assert {name for name, _ in bindings} >= {"MICROBATCHES", "DTYPE", "FSDP"}
    gin_setup.parse(["recipes/spectrogram_diffusion_base_context.gin"],
                    [f"{name} = {shlex.split(value)[0]}" for name, value in bindings])


@pytest.mark.parametrize("page", PAGES, ids=lambda f: f.name)
def test_the_commands_of_the_package_exist(page):
    commands = typer.main.get_command(app).commands
    for text in re.findall(r"music-diffusion (\w[^`\n|]*)", page.read_text()):
        name, *rest = shlex.split(text.rstrip("\\"))
        if name in ("Containerfile", ".") or f"docker {text}" in page.read_text():
            continue
        assert name in commands, text
        command = commands[name]
        if hasattr(command, "commands") and rest:
            command = command.get_command(None, rest[0])
        known = {option for parameter in command.params for option in parameter.opts}
        for option in (word.partition("=")[0] for word in rest if word.startswith("--")):
            assert option in known or option.startswith("--gin.") or name == "train", text


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda f: f.name)
def test_scripts_are_sound(script):
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    if script.name == "common.sh":
        return
    assert script.stat().st_mode & 0o111 and text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text and re.search(r"^# Needs: ", text, re.M)


def test_shellcheck_finds_nothing():
    needs.programs("shellcheck")
    assert subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s.name not in ("common.sh", "tpu_worker.sh")],
                         ids=lambda f: f.name)
def test_help_is_the_comment_at_the_top(shell, script):
    result = shell.run(script.name, "--help")
    assert result.returncode == 0 and f"launch/{script.name} " in result.stdout
    assert "Needs: " in result.stdout and "set -euo" not in result.stdout and "SBATCH" not in result.stdout


def test_no_hyper_parameters_in_scripts():
    for script in SCRIPTS:
        code = re.sub(r"^\s*#.*$", "", script.read_text(), flags=re.M)
        assert not re.findall(r"--gin\.(?!MODEL_DIR)", code), script
