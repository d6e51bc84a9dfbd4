"""`music-diffusion benchmark`: what is handed on and what is printed. Speed is never asserted."""

import json

import pytest
from typer.testing import CliRunner

from music_diffusion.cli import main as module
from music_diffusion.errors import UserError
from music_diffusion.workflows.benchmark import benchmark
from music_diffusion.workflows.benchmark.parts import NEEDS, PARTS
from music_diffusion.workflows.requests import BenchmarkRequest

MEASURED = {"what", "audio_seconds", "wall_seconds", "realtime_factor", "peak_memory_mb",
            "start_up_seconds", "devices", "wall_seconds_min", "wall_seconds_max", "compile_seconds",
            "repeats"}
RECIPE = "recipes/tiny.gin"


@pytest.fixture
def cli(program):
    return lambda *arguments: program("benchmark", *arguments)


def row(**more):
    return {"what": "x", "audio_seconds": 62.0, "wall_seconds": 8.0, "wall_seconds_min": 7.0,
            "wall_seconds_max": 9.0, "realtime_factor": 7.75, "peak_memory_mb": 801.4,
            "start_up_seconds": 11.0, "compile_seconds": 6.0, "devices": "cpu x 1", "repeats": 3} | more


STEP = row(what="train_step tiny", flops=1.5e12, wall_seconds=2.0, batch=4, device_peak_bytes=3e9,
           parameters=1234567, core_seconds=3.0, steps_per_second=0.5, examples_per_second=2.0,
           flops_per_second=7.5e11, peak_fraction=0.5, peak="measured", device_bytes=2e9)


@pytest.fixture
def stub(monkeypatch):
    """Parts that answer at once; returns what they were asked. All fail with a broken inverter."""
    asked = []

    def run_part(name, request, progress):
        asked.append((name, request))
        progress(0.5)
        if request.inverter == "broken":
            raise UserError("it broke")
        return [STEP if name == "train_step" else row(what=f"{name} of {request.model}")]

    monkeypatch.setattr(benchmark, "run_part", run_part)
    monkeypatch.setattr(benchmark, "largest_batch", lambda *rest: run_part("train_step", *rest))
    return asked


@pytest.mark.slow
def test_in_true_processes_a_part_that_fails_does_not_stop_the_others(cli, tmp_path):
    code, out, err = cli("--model", tmp_path / "nothing", "--inverter", "griffin_lim_hop", "--seconds", "1",
                         "--repeats", "2", "--only", "reconstruct", "--only", "synthesize", "--json")
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: synthesize: ")
    report = json.loads(out, parse_constant=pytest.fail)
    assert (report["seconds"], report["repeats"]) == (1.0, 2)
    assert list(report["failed"]) == ["synthesize"] and "no such model" in report["failed"]["synthesize"]
    result, = report["results"]
    assert set(result) == MEASURED | {"part"} and result["part"] == "reconstruct"
    assert result["what"] == "reconstruct griffin_lim_hop"
    assert (result["audio_seconds"], result["repeats"]) == (1.0, 2)
    assert result["wall_seconds_min"] <= result["wall_seconds"] <= result["wall_seconds_max"]
    wall, half = result["wall_seconds"], 6e-4  # both are rounded to 1/1000
    assert 1 / (wall + half) - half <= result["realtime_factor"] <= 1 / max(wall - half, 1e-9) + half


def test_without_only_all_parts_are_measured_with_the_options(cli, stub):
    code, out, err = cli("--model", "mine", "--seconds", "5", "--json")
    assert (code, err) == (0, "")
    plain = [name for name in PARTS if name not in NEEDS]
    assert stub == [(name, BenchmarkRequest(model="mine", seconds=5.0)) for name in plain]
    report = json.loads(out)
    options = {"model": "mine", "inverter": None, "seconds": 5.0, "repeats": 3, "soundfont": None,
               "data": None, "gin_file": None, "binding": [], "batch": 2, "memory": None}
    assert report["failed"] == {} and {k: report[k] for k in options} == options
    assert [r["part"] for r in report["results"]] == plain
    assert {"version", "python", "jax", "system", "cores"} <= set(report) and report["cores"] >= 1


def test_parts_that_need_something_run_where_it_is_given(cli, stub):
    assert cli("--soundfont", "a.sf2", "--json")[0] == 0
    assert [name for name, _ in stub] == [name for name in PARTS if name not in ("input", "train_step")]
    assert stub[-1][1].soundfont == "a.sf2"
    code, out, err = cli("--only", "input")
    assert code == 2 and not out and err == "error: --only input: needs --data\n"
    assert cli("--only", "train_step")[2] == "error: --only train_step: needs --gin_file\n"


def test_people_get_a_table_that_fits_80_columns(cli, stub, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("--only", "synthesize")
    assert (code, err) == (0, "") and [name for name, _ in stub] == ["synthesize"]
    line, = [x.split() for x in out.splitlines() if "synthesize of" in x]
    # Music, median time, range / median, factor, compile, start-up, memory.
    assert line == ["synthesize", "of", "default", "62.0", "8.00", "25", "7.8", "6.0", "11.0", "801"]
    assert "cpu x 1" in out and max(map(len, out.splitlines())) <= 80


def test_people_get_lines_of_a_step_that_fit_80_columns(cli, stub, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("--only", "train_step", "--gin_file", RECIPE, "--gin-file", "b.gin",
                         "--binding", "A = 1", "--batch", "4")
    assert (code, err) == (0, "") and max(map(len, out.splitlines())) <= 80
    assert stub == [("train_step", BenchmarkRequest(
        only=("train_step",), gin_files=(RECIPE, "b.gin"), bindings=("A = 1",), batch=4))]
    words = ("train_step tiny, batch 4", "2 s (spread", "1.5 TFLOP, ", "50 % of a matrix product here",
             "3.00 GB at most", "1,234,567")
    assert all(word in out for word in words)
    assert "music / time" not in out  # there is no music


def test_the_largest_batch_is_an_option(cli, stub):
    code, out, err = cli("--only", "train_step", "--gin_file", RECIPE, "--largest-batch",
                         "--memory", "6.5", "--json")
    assert (code, err) == (0, "")
    (_, request), = stub
    assert request.largest_batch and request.memory == 6.5
    report = json.loads(out)
    assert report["results"][0]["part"] == "train_step" and report["gin_file"] == [RECIPE]


def test_every_failing_part_is_named_in_one_line_without_an_empty_table(cli, stub):
    code, out, err = cli("--inverter", "broken", "--only", "reconstruct", "--only", "synthesize")
    assert (code, out) == (2, "")
    assert err == "error: synthesize: it broke; reconstruct: it broke\n"


@pytest.mark.parametrize("arguments, word", [
    (["--only", "cooking"], "cooking: unknown; choose start_up, synthesize, reconstruct"),
    (["--seconds", "nan"], "equal to"), (["--seconds", "0"], "equal to 1"),
    (["--repeats", "0"], "equal to 1"), (["--gin_file", "a.gin", "--batch", "0"], "equal to 1"),
    (["--largest-batch"], "give it by --gin_file"), (["--binding", "A = 1"], "give it by --gin_file"),
    (["--gin_file", "a.gin", "--memory", "3"], "--largest-batch: give that, too")],
    ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_bad_options_are_found_before_the_work(cli, stub, arguments, word):
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and word in err and "Traceback" not in err and not stub


@pytest.mark.slow
def test_in_a_true_process_a_missing_recipe_is_one_line(cli):
    code, out, err = cli("--only", "train_step", "--gin_file", "none.gin", "--json")
    assert code == 2 and err.startswith("error: train_step: none.gin: no such gin file")
    assert err.count("\n") == 1 and json.loads(out)["results"] == []


def test_help_names_every_part():
    out = CliRunner().invoke(module.app, ["benchmark", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in out for name in PARTS)
