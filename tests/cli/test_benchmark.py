"""`music-diffusion benchmark`: structure and failures. How fast it all is, is never asserted."""

import json
import os
import sys

import jax
import numpy as np
import pytest
from flax.core import unfreeze
from reference import needs, tiny_inverter, tiny_release
from reference.soundfont_file import soundfont
from reference.tiny_inverter import write_inverter
from reference.tiny_release import write_release
from typer.testing import CliRunner

from music_diffusion import speed
from music_diffusion.audio.codec import MelCodec
from music_diffusion.cli import benchmark, benchmark_parts
from music_diffusion.cli import main as module
from music_diffusion.cli.benchmark_parts import (
    NEEDS,
    PARTS,
    START_UPS,
    Request,
    interpreter,
    run_part,
)
from music_diffusion.cli.benchmark_piece import LOOP, loop_samples, piece
from music_diffusion.data import records
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.speed import Speed

MEASURED = {"what", "audio_seconds", "wall_seconds", "realtime_factor", "peak_memory_mb",
            "start_up_seconds", "devices", "wall_seconds_min", "wall_seconds_max", "compile_seconds",
            "repeats"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_release(root / "tiny", any_params(tiny_release.MODEL))
    write_inverter(root / "tiny_inverter", any_params(tiny_inverter.MODEL))
    return root


def any_params(model):
    """Small random numbers of the right shapes; initialising truly would have to be compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), model.feature_shapes))["params"]
    return jax.tree.map(lambda s: 0.02 * rng.normal(size=s.shape).astype(np.float32), unfreeze(shapes))


@pytest.fixture
def cli(monkeypatch, capfd):
    """Runs the command in this process; returns (exit code, stdout, stderr)."""
    def cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["music-diffusion", "benchmark", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            module.main()
        out, err = capfd.readouterr()
        return stop.value.code or 0, out, err

    return cli


def row(**more):
    return {"what": "x", "audio_seconds": 62.0, "wall_seconds": 8.0, "wall_seconds_min": 7.0,
            "wall_seconds_max": 9.0, "realtime_factor": 7.75, "peak_memory_mb": 801.4,
            "start_up_seconds": 11.0, "compile_seconds": 6.0, "devices": "cpu x 1", "repeats": 3} | more


@pytest.fixture
def stub(monkeypatch):
    """Parts that answer at once; returns what they were asked. 'reconstruct' fails if told so."""
    asked = []

    def run_part(name, options, told):
        asked.append((name, options))
        told(0.5)
        if options["inverter"] == "broken":
            raise UserError("it broke")
        return [row(what=f"{name} of {options['model']}")]

    monkeypatch.setattr(benchmark, "run_part", run_part)
    return asked


def test_in_true_processes_a_part_that_fails_does_not_stop_the_others(cli, weights):
    code, out, err = cli("--model", weights / "nothing", "--inverter", weights / "tiny_inverter",
                         "--seconds", "1", "--repeats", "2", "--only", "reconstruct", "--only",
                         "synthesize", "--json")
    assert code == 2 and err.count("\n") == 1 and err.startswith("error: synthesize: ")
    report = json.loads(out, parse_constant=pytest.fail)
    assert (report["seconds"], report["repeats"]) == (1.0, 2)
    assert list(report["failed"]) == ["synthesize"] and "no such model" in report["failed"]["synthesize"]
    result, = report["results"]
    assert set(result) == MEASURED | {"part"} and result["part"] == "reconstruct"
    assert result["what"] == f"reconstruct {weights / 'tiny_inverter'}"
    assert (result["audio_seconds"], result["repeats"]) == (1.0, 2)
    assert result["wall_seconds_min"] <= result["wall_seconds"] <= result["wall_seconds_max"]
    wall, half = result["wall_seconds"], 6e-4  # both are rounded to 1/1000
    assert 1 / (wall + half) - half <= result["realtime_factor"] <= 1 / max(wall - half, 1e-9) + half


def test_synthesize_measures_render_file(weights):
    """In this process; every run makes the whole piece and its tail of 2 s."""
    shares = []
    made, = PARTS["synthesize"](Request(model=str(weights / "tiny"), inverter="griffin_lim", seconds=1.5,
                                        repeats=1, told=shares.append))
    assert set(made) == MEASURED and made["what"] == f"synthesize {weights / 'tiny'}, griffin_lim"
    assert made["audio_seconds"] == pytest.approx(3.5, abs=0.021) and made["repeats"] == 1
    assert shares == [0.5, 1.0] and made["devices"].startswith("cpu x ")
    assert made["peak_memory_mb"] == pytest.approx(speed.peak_memory_mb(), rel=0.05)


def test_reconstruct_reads_a_file_of_the_length_asked_for(weights, monkeypatch):
    seen = []

    def reconstruct_file(inverter, source, output):
        import soundfile

        seen.append(soundfile.read(source))
        return Speed(**{k: row()[k] for k in Speed.__dataclass_fields__})

    monkeypatch.setattr("music_diffusion.synthesis.reconstruct.reconstruct_file", reconstruct_file)
    made, = PARTS["reconstruct"](Request(model="none such", inverter=str(weights / "tiny_inverter"),
                                         seconds=20.25, repeats=3))
    assert len(seen) == 1 + 3 and made["realtime_factor"] == 7.75
    samples, rate = seen[0]
    assert rate == 8000 and len(samples) == 162000
    loop = round(LOOP * rate)
    np.testing.assert_allclose(samples[:loop], loop_samples(rate), atol=2 / 32768)
    np.testing.assert_array_equal(samples[loop:2 * loop], samples[:loop])
    assert np.abs(samples).reshape(81, -1).max(axis=1).min() > 0.01  # never silent


def test_start_up_runs_the_command_line_in_new_processes(monkeypatch):
    started, shares = [], []
    true = benchmark_parts._python
    monkeypatch.setattr(benchmark_parts, "_python", lambda code: started.append(code) or true(code))
    rows = PARTS["start_up"](Request(model="", inverter=None, seconds=1, repeats=1, told=shares.append))
    assert [r["what"] for r in rows] == list(START_UPS)
    assert len(started) == 3 * (1 + 2)  # each once for its memory
    assert "synthesize" in true(START_UPS["music-diffusion --help"])
    assert all(set(r) == {"what", "wall_seconds", "wall_seconds_min", "wall_seconds_max",
                          "peak_memory_mb", "repeats"} for r in rows)
    # Each does more than the one before, and memory counts the pages of that process alone.
    python, package, command = (r["peak_memory_mb"] for r in rows)
    assert 1 < python < command < 150 and package < command
    np.testing.assert_allclose(shares, np.arange(1, 7) / 6)


def test_a_start_up_that_fails_is_an_error(monkeypatch):
    monkeypatch.setitem(START_UPS, "python", "import a_module_that_is_not_there")
    with pytest.raises(UserError, match="^ModuleNotFoundError: .*a_module_that_is_not_there"):
        PARTS["start_up"](Request(model="", inverter=None, seconds=1, repeats=1))


def in_a_new_process(monkeypatch, code):
    """`run_part`, with other code in its process."""
    monkeypatch.setattr(benchmark_parts, "interpreter", lambda _: interpreter(code))
    shares = []
    return run_part("start_up", {}, shares.append), shares


def test_rows_come_back_and_what_else_is_printed_does_not_disturb(monkeypatch):
    rows, shares = in_a_new_process(monkeypatch, """
import os
from music_diffusion.cli import benchmark_parts as parts
def part(request):
    print("a library talks")
    os.system("echo and its child")
    request.told(0.25)
    return [{"what": request.model, "repeats": request.repeats}]
parts.PARTS["mine"] = part
parts.work("mine", {"model": "a", "inverter": None, "seconds": 1.0, "repeats": 7})
""")
    assert rows == [{"what": "a", "repeats": 7}] and shares == [0.25, 1.0]


@pytest.mark.parametrize("code, reason", [
    ("raise ZeroDivisionError('at home')", "ZeroDivisionError: at home"),
    ("import os; os.kill(os.getpid(), 9)", r"signal 9 \(out of memory\?\)"),
    ("sys.exit(3)", "code 3"),
    ("from music_diffusion.cli import benchmark_parts as parts\n"
     "from music_diffusion.errors import UserError\n"
     "def part(request): raise UserError('two\\nlines')\n"
     "parts.PARTS['mine'] = part\n"
     "parts.work('mine', dict(model='', inverter=None, seconds=1, repeats=1))", "two lines"),
    ("pass", "told nothing")], ids=["traceback", "killed", "exit", "user_error", "silent"])
def test_a_process_that_fails_is_one_line(monkeypatch, code, reason):
    with pytest.raises(UserError, match=reason) as caught:
        in_a_new_process(monkeypatch, code)
    assert "\n" not in str(caught.value)


def test_stopping_stops_the_process_too(monkeypatch, tmp_path):
    def stop(share):
        raise KeyboardInterrupt

    code = f"""
import os, time
open({str(tmp_path / 'pid')!r}, "w").write(str(os.getpid()))
print('{{"share": 0.5}}', flush=True)
time.sleep(600)
"""
    monkeypatch.setattr(benchmark_parts, "interpreter", lambda _: interpreter(code))
    with pytest.raises(KeyboardInterrupt):
        run_part("start_up", {}, stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_new_process_imports_from_the_same_folders():
    import subprocess

    done = subprocess.run(interpreter("print(sys.path)"), capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == str(sys.path)


def test_without_only_all_parts_are_measured_with_the_options(cli, stub):
    code, out, err = cli("--model", "mine", "--seconds", "5", "--json")
    assert (code, err) == (0, "")
    options = {"model": "mine", "inverter": None, "seconds": 5.0, "repeats": 3, "soundfont": None,
               "data": None, "gin_file": None, "binding": [], "batch": 2, "memory": None}
    plain = [name for name in PARTS if name not in NEEDS]
    assert stub == [(name, options) for name in plain]
    report = json.loads(out)
    assert report["failed"] == {} and {k: report[k] for k in options} == options
    assert [r["part"] for r in report["results"]] == plain
    assert {"version", "python", "jax", "system", "cores"} <= set(report) and report["cores"] >= 1


def test_parts_that_need_something_run_where_it_is_given(cli, stub):
    assert cli("--soundfont", "a.sf2", "--json")[0] == 0
    assert [name for name, _ in stub] == [name for name in PARTS if name not in ("input", "train_step")]
    assert stub[-1][1]["soundfont"] == "a.sf2"
    code, out, err = cli("--only", "input")
    assert code == 2 and not out and err == "error: --only input: needs --data\n"
    assert cli("--only", "train_step")[2] == "error: --only train_step: needs --gin_file\n"


def test_the_input_pipeline_is_measured_by_its_examples(tmp_path):
    rng = np.random.default_rng(0)
    notes = Notes([0.1, 2.0], [0.5, 3.0], [60, 64], [90, 80], [0, 40], [False, False])
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record", [records.Record(
            mel=rng.normal(size=(600, 128)), notes=notes).to_bytes()])
    records.write_manifest(tmp_path, codec=MelCodec().to_dict())
    rows = PARTS["input"](Request(model="", inverter=None, seconds=1, repeats=1, data=str(tmp_path)))
    assert [r["what"] for r in rows] == ["input, frames", "input, tokens, context"]
    for made in rows:
        assert made["examples_per_second"] > 0
        assert made["audio_seconds"] == 20 * 8 * 256 * 0.02  # batches, examples, frames


def test_rendering_is_measured_in_rooms(tmp_path):
    needs.module("fluidsynth")
    (tmp_path / "sine.sf2").write_bytes(soundfont())
    made, = PARTS["render"](Request(model="", inverter=None, seconds=3, repeats=1,
                                    soundfont=str(tmp_path / "sine.sf2")))
    assert made["what"] == "render sine.sf2 in rooms" and made["audio_seconds"] > 0


def test_people_get_a_table_that_fits_80_columns(cli, stub, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cli("--only", "synthesize")
    assert (code, err) == (0, "") and [name for name, _ in stub] == ["synthesize"]
    line, = [x.split() for x in out.splitlines() if "synthesize of" in x]
    # Music, median time, range / median, factor, compile, start-up, memory.
    assert line == ["synthesize", "of", "default", "62.0", "8.00", "25", "7.8", "6.0", "11.0", "801"]
    assert "cpu x 1" in out and max(map(len, out.splitlines())) <= 80


def test_every_failing_part_is_named_in_one_line_without_an_empty_table(cli, stub):
    code, out, err = cli("--inverter", "broken", "--only", "reconstruct", "--only", "synthesize")
    assert (code, out) == (2, "")
    assert err == "error: synthesize: it broke; reconstruct: it broke\n"


@pytest.mark.parametrize("arguments, word", [
    (["--only", "cooking"], "cooking: unknown; choose start_up, synthesize, reconstruct"),
    (["--seconds", "nan"], "equal to"), (["--seconds", "0"], "equal to 1"),
    (["--repeats", "0"], "equal to 1")], ids=lambda x: x if isinstance(x, str) else " ".join(x))
def test_bad_options_are_found_before_the_work(cli, stub, arguments, word):
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and word in err and "Traceback" not in err and not stub


def test_help_names_every_part_and_has_an_example():
    out = CliRunner().invoke(module.app, ["benchmark", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in out for name in PARTS) and "Example: music-diffusion benchmark" in out
    assert all(option in out for option in ("--model", "--inverter", "--seconds", "--repeats",
                                            "--only", "--json"))


@pytest.mark.parametrize("seconds", [1.0, 2.25, 8.0, 61.3])
def test_the_piece_sounds_from_start_to_end_with_all_its_instruments(seconds):
    notes = piece(seconds)
    assert notes.start.min() == 0 and notes.duration == seconds
    assert (notes.end > notes.start).all()
    grid = np.arange(0, seconds, 0.05)
    assert all(len(notes.between(t, t + 0.01)) for t in grid)
    assert {(p, d) for p, d in zip(notes.program.tolist(), notes.is_drum.tolist(), strict=True)} == {
        (0, False), (32, False), (48, False), (73, False), (0, True)}
    longer = piece(seconds + 8)
    np.testing.assert_array_equal(longer[longer.start < seconds].pitch, notes.pitch)


def test_the_sound_is_full_but_not_over_full_scale():
    for rate in (8000, 44100):
        samples = loop_samples(rate)
        assert samples.shape == (8 * rate,) and samples.dtype == np.float32
        assert np.abs(samples).max() == pytest.approx(0.5)
        np.testing.assert_array_equal(samples, loop_samples(rate))
