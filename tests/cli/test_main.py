"""The entry point: help, versions, exit codes."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import music_diffusion
from music_diffusion.cli import main as module
from music_diffusion.errors import StoppedError, UserError

COMMANDS = ["synthesize", "reconstruct", "transcribe", "adapt", "train", "evaluate", "benchmark", "models",
            "prepare", "render", "dump"]
INNER = ["models list", "models show", "models release", "models note-rows", "models note-maps",
         "models statistics", "models performances", "prepare sets", "prepare maestro",
         "prepare audio_folder", "prepare references"]


@pytest.fixture
def cli(program):
    return program


def test_help_names_the_commands(cli):
    code, out, _ = cli("--help")
    assert code == 0 and all(f" {command} " in out for command in COMMANDS)
    for name in INNER:
        group, _, command = name.partition(" ")
        assert command == "maestro" or command in cli(group, "--help")[1]


@pytest.mark.parametrize("command", COMMANDS + INNER)
def test_each_command_has_an_example_of_itself(cli, command):
    code, out, _ = cli(*command.split(), "--help")
    assert code == 0 and f"music-diffusion {command}" in " ".join(out.split("xample")[-1].split())


def test_help_tells_of_every_option():
    out = CliRunner().invoke(module.app, ["synthesize", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--output", "--model", "--steps", "--solver", "--guidance", "--seed", "--plot",
                   "--no-normalize", "--json"):
        assert option in out


def test_without_a_command_there_is_the_help(cli):
    code, out, err = cli()
    assert "synthesize" in out + err and code in (0, 2)


def test_version(cli):
    assert cli("--version") == (0, f"music-diffusion {music_diffusion.__version__}\n", "")


@pytest.mark.parametrize("arguments", [
    ["nothing"], ["synthesize"], ["synthesize", "a.mid"], ["synthesize", "a.mid", "-o"],
    ["synthesize", "a.mid", "-o", "a.wav", "--steps", "0"],
    ["synthesize", "a.mid", "-o", "a.wav", "--steps", "many"],
    ["synthesize", "a.mid", "-o", "a.wav", "--nothing"], ["prepare", "soundfont"]], ids=" ".join)
def test_wrong_usage_is_code_2_without_a_traceback(cli, arguments):
    code, out, err = cli(*arguments)
    assert code == 2 and "Traceback" not in err and err and not out


@pytest.mark.parametrize("error, code, text", [
    (UserError("song.mid: two\nlines"), 2, "error: song.mid: two lines\n"),
    (StoppedError("stopped; run it again", 15), 143, "error: stopped; run it again\n"),
    (OSError(28, "No space left on device", "/tmp/x"), 2, "error: /tmp/x: No space left on device\n"),
    (OSError("disk"), 2, "error: disk\n"),
    (KeyboardInterrupt(), 130, None)], ids=lambda x: type(x).__name__)
def test_errors_are_one_line_and_an_exit_code(cli, monkeypatch, error, code, text):
    def fail():
        raise error

    monkeypatch.setattr("music_diffusion.workflows.models.released_models", fail)
    got, out, err = cli("models")
    assert got == code and out == "" and "Traceback" not in err
    assert text is None or err == text


def test_errors_of_the_program_itself_are_not_hidden(cli, monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr("music_diffusion.workflows.models.released_models", fail)
    monkeypatch.setattr(sys, "argv", ["music-diffusion", "models"])
    with pytest.raises(ZeroDivisionError):
        module.main()


def test_as_a_program(tmp_path):
    """One true process: exit code, one line, nothing written."""
    (tmp_path / "bad.mid").write_bytes(b"RIFF nothing")
    done = subprocess.run(
        [sys.executable, "-m", "music_diffusion.cli.main", "synthesize", str(tmp_path / "bad.mid"),
         "-o", str(tmp_path / "out.wav"), "--json"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "bad.mid: not a MIDI file" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.mid"]
