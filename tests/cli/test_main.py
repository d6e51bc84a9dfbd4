"""The entry point: help, versions, exit codes."""

import dataclasses
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import music_diffusion
from music_diffusion.cli import main as module
from music_diffusion.errors import StoppedError, UserError
from music_diffusion.workflows import own_data as train_data

COMMANDS = ["synthesize", "reconstruct", "transcribe", "evaluate", "benchmark", "models", "prepare",
            "train", "dump"]


@pytest.fixture
def cli(monkeypatch, capfd):
    """Runs the command line in this process; returns (exit code, stdout, stderr)."""
    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", *arguments])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


def test_help_names_the_commands_and_each_has_an_example(cli):
    code, out, _ = cli("--help")
    assert code == 0 and all(command in out for command in COMMANDS)
    for command in COMMANDS:
        code, out, _ = cli(command, "--help")
        assert code == 0 and "example" in out.lower() and command in out.split("xample")[-1], command


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
    def fail(**_):
        raise error

    monkeypatch.setattr("music_diffusion.cli.models.run", fail)
    got, out, err = cli("models")
    assert got == code and out == "" and "Traceback" not in err
    assert text is None or err == text


def test_errors_of_the_program_itself_are_not_hidden(cli, monkeypatch):
    def fail(**_):
        raise ZeroDivisionError

    monkeypatch.setattr("music_diffusion.cli.models.run", fail)
    monkeypatch.setattr(sys, "argv", ["music-diffusion", "models"])
    with pytest.raises(ZeroDivisionError):
        module.main()


def test_train_passes_a_recipe_on_with_its_exit_code(cli, monkeypatch):
    seen = []
    monkeypatch.setattr("music_diffusion.train.main", lambda argv: seen.append(argv) or 2)
    arguments = ["--gin_file=recipes/tiny.gin", "--gin.TOTAL_STEPS=3", "--model_dir", "runs/x"]
    assert cli("train", *arguments)[0] == 2
    assert seen == [["--gin_file=recipes/tiny.gin", "--model_dir=runs/x", "--gin.TOTAL_STEPS=3"]]
    assert cli("train", "--gin_file=a.gin", "--gin_file=b.gin", "--print_config", "--json")[0] == 2
    assert cli("train", "--gin_file=a.gin", "--model_dir=m", "--distributed")[0] == 2
    assert cli("train", "--gin_file=a.gin", "--model_dir=m", "--coordinator=a:1", "--processes=2",
               "--process=0")[0] == 2
    assert seen[1:] == [
        ["--gin_file=a.gin", "--gin_file=b.gin", "--print_config", "--json"],
        ["--gin_file=a.gin", "--model_dir=m", "--distributed"],
        ["--gin_file=a.gin", "--model_dir=m", "--coordinator=a:1", "--processes=2", "--process=0"]]


def test_train_on_data_hands_on_every_option(cli, monkeypatch):
    seen = []
    monkeypatch.setattr(train_data, "run", lambda settings, json: seen.append((settings, json)))
    assert cli("train", "--data", "in", "-o", "out")[0] == 0
    changed = dict(base="none", layout="gtzan", options=(("genre", "jazz"),), held_out=("a", "b"),
                   transpose=0, steps=7, batch=3, examine=False, evaluate=False,
                   bindings=("adamw.b1 = 0.5",), workers=4, seed=5)
    assert cli("train", "--data", "in", "--from", "none", "--output", "out", "--layout", "gtzan",
               "--option", "genre=jazz", "--held_out", "a", "--held-out", "b", "--transpose", "0",
               "--steps", "7", "--batch", "3", "--no-examine", "--no-evaluate", "--gin.adamw.b1=0.5",
               "--workers", "4", "--seed", "5", "--json")[0] == 0
    Settings = train_data.Settings
    assert seen == [(Settings(data="in", base="default", output="out"), False),
                    (Settings(data="in", output="out", **changed), True)]
    assert changed.keys() == {f.name for f in dataclasses.fields(Settings)} - {"data", "output"}


@pytest.mark.parametrize("arguments, reason", [
    ([], "give --data FOLDER"), (["--data", "a", "--gin_file", "b"], "give --data FOLDER"),
    (["--data", "a"], "--output is missing"), (["--gin_file", "b"], "--model_dir is missing"),
    (["--data", "a", "-o", "b", "--print_config"], "--print_config is for recipes"),
    (["--data", "a", "-o", "b", "--process", "0"], "--process is for recipes"),
    (["--data", "a", "-o", "b", "--nothing"], "unknown argument --nothing")])
def test_train_says_what_is_missing(cli, arguments, reason):
    code, out, err = cli("train", *arguments)
    assert code == 2 and not out and err.startswith("error: ") and reason in err


def test_as_a_program(tmp_path):
    """One true process: exit code, one line, nothing written."""
    (tmp_path / "bad.mid").write_bytes(b"RIFF nothing")
    done = subprocess.run(
        [sys.executable, "-m", "music_diffusion.cli.main", "synthesize", str(tmp_path / "bad.mid"),
         "-o", str(tmp_path / "out.wav"), "--json"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "bad.mid: not a MIDI file" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["bad.mid"]
