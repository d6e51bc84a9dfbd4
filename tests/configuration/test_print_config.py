"""`train --print_config`: every value with its origin, and the same run when pasted."""

import json
import os
import subprocess
import sys

import pytest

import gin
from music_diffusion import gin_setup
from music_diffusion.configuration import print_config
from music_diffusion.configuration.print_config import GIVEN, effective
from music_diffusion.configuration.reads import build, reads
from music_diffusion.errors import UserError
from music_diffusion.train import main

RECIPES = sorted(p.relative_to(gin_setup.gin_root()).as_posix()
                 for p in (gin_setup.gin_root() / "recipes").glob("*.gin"))
SMALL = """\
include 'recipes/tiny.gin'

T5Config.frames = 16
TrainConfig.keep = 3
UNet1DConfig.blocks = 1
"""


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


@pytest.fixture
def small(tmp_path, monkeypatch):
    (tmp_path / "small.gin").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return "small.gin"


def lines_of(text: str) -> dict[str, str]:
    """Of 'NAME = value  # comment': name and the rest, blanks once."""
    return {line.split(" = ")[0]: " ".join(line.split(" = ", 1)[1].split())
            for line in text.splitlines() if " = " in line and not line.startswith("#")}


def place(file: str, start: str) -> str:
    """Where a line that begins so stands in a file of the project."""
    lines = (gin_setup.gin_root() / file).read_text().splitlines()
    number, = [i for i, line in enumerate(lines, 1) if line.startswith(start)]
    return f"{file}:{number}"


def test_values_and_where_they_come_from(small, capsys):
    print_config.run([small], ["TOTAL_STEPS = 20", "T5Config.frames = 8"])
    out = capsys.readouterr().out
    lines = lines_of(out)
    assert out.startswith("# small.gin --gin.TOTAL_STEPS=20 --gin.T5Config.frames=8\n")
    steps, frames = place("recipes/tiny.gin", "TOTAL_STEPS"), place("recipes/tiny.gin", "T5Config.frames")
    assert lines["TOTAL_STEPS"] == f"20 # --gin.TOTAL_STEPS; instead of 100 ({steps})"
    assert lines["TrainConfig.total_steps"] == (
        f"%TOTAL_STEPS # {place('runs/train.gin', 'TrainConfig.total_steps')} (included); "
        "TOTAL_STEPS = 20 (--gin.TOTAL_STEPS)")
    assert lines["T5Config.frames"] == (
        f"8 # --gin.T5Config.frames; instead of 16 (small.gin:3), %FRAMES ({frames})")
    assert lines["TrainConfig.keep"] == "3 # small.gin:4"
    assert lines["TrainConfig.clip_norm"] == "1.0 # default"
    assert lines["T5Config.embed_dim"] == f"32 # {place('sizes/t5_tiny.gin', 'T5Config.embed')} (included)"
    assert "# SpectrogramDiffusionModel.distance: l1  (default)" in out.splitlines()
    assert "T5Config.frames" not in out.partition("# Nothing in this run reads:")[2]
    unread = out.partition("# Nothing in this run reads:\n")[2].splitlines()
    assert unread[0] == "# UNet1DConfig.blocks = 1  (small.gin:5)"
    # 1536 ids, 128 bins; tables of 64 and 8 positions; one encoder and two decoder layers.
    attention, gated, film = 4 * 32 * 32, 3 * 32 * 64, 2 * 128 * 64
    count = (1536 * 32 + 64 * 32 + 2 * 32 + attention + gated + 32 + 32 * 128 + 128 * 128
             + 128 * 32 + 8 * 32 + 2 * (3 * 32 + 2 * attention + film + gated) + 32 + 32 * 128)
    assert out.splitlines()[-1] == f"# SpectrogramDiffusionModel: {count:,} parameters"


def configuration() -> tuple[dict, list]:
    """What would be read, by name: values and defaults that gin can write; and what is built."""
    found = reads("train", GIVEN)
    values = {str(k): repr(v) for k, v in {**found.defaults, **found.bound}.items()}
    parts = build("train", GIVEN)
    shown = {name: repr(parts[name]) for name in ("model", "data", "config", "mesh")}
    return values, [shown, float(parts["optimizer"].learning_rate(7)), parts["optimizer"].frozen]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_output_pasted_is_the_same_configuration(recipe, tmp_path, capsys):
    overrides = ["TOTAL_STEPS = 12345", "TrainConfig.keep = 9"]
    gin_setup.parse([recipe], overrides)
    values, built = configuration()
    print_config.run([recipe], overrides)
    pasted = tmp_path / "pasted.gin"
    pasted.write_text(capsys.readouterr().out)
    gin_setup.parse([str(pasted)])
    again, built_again = configuration()
    assert again == values and built_again == built
    # And it stands: all of it is read.
    assert not effective([str(pasted)], []).unread


def test_json_holds_the_same(small, capsys):
    print_config.run([small], ["TOTAL_STEPS = 20"])
    text = capsys.readouterr().out
    print_config.run([small], ["TOTAL_STEPS = 20"], json=True)
    content = json.loads(capsys.readouterr().out)
    lines = {line["name"]: line for group in content["groups"].values() for line in group}
    assert lines_of(text).keys() == {name for name, line in lines.items() if line["is_gin"]}
    assert lines["TOTAL_STEPS"] == {
        "name": "TOTAL_STEPS", "value": "20", "is_gin": True, "origin": "--gin.TOTAL_STEPS",
        "included": False, "macros": [],
        "instead_of": [["100", place("recipes/tiny.gin", "TOTAL_STEPS")]]}
    assert [line["name"] for line in content["unread"]] == ["UNet1DConfig.blocks"]
    assert content["model"] == "SpectrogramDiffusionModel"
    assert f"{content['parameters']:,} parameters" in text


@pytest.mark.parametrize("files, overrides, message", [
    (["absent.gin"], [], "absent.gin: no such gin file"),
    (["runs/train.gin"], [], "no gin file binds train.model"),
    (["recipes/tiny.gin"], ["BATCH_SIZE = 0"], "TrainConfig.batch_size=0"),
    (["runs/phase_vocoder.gin"], [], "no gin file binds"),
    (["recipes/tiny.gin"], ["TOTAL_STEPZ = 1"], "did you mean TOTAL_STEPS")])
def test_errors_are_one_line(files, overrides, message, capsys):
    with pytest.raises(UserError) as caught:
        print_config.run(files, overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["--gin_file=recipes/tiny.gin", "--gin.TOTAL_STEPS=3", "--print_config"]) == 0
    assert "TOTAL_STEPS = 3 " in capsys.readouterr().out
    assert main(["--gin_file=recipes/tiny.gin", "--gin.BATCH_SIZE=0", "--print_config"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_no_parameters_are_made():
    # 412 million of them would take 1.6 GB.
    code = ("import resource; from music_diffusion.configuration import print_config;"
            "print_config.run(['recipes/tiny.gin'], []);"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
            "print_config.run(['recipes/spectrogram_diffusion_base_context.gin'], []);"
            "assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert result.returncode == 0, result.stderr
    assert "411,665,664 parameters" in result.stdout
