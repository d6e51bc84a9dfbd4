"""`music-diffusion evaluate`: figures for people and machines, rendering first, every kind of bad input."""

import json
import os
import pathlib
import types

import numpy as np
import pytest
import soundfile
from reference.tiny_inverter import write_inverter
from reference.tiny_release import tiny_params, write_release
from reference.tiny_transcriber import write_transcriber
from reference.toy_listeners import (
    CALLS,
    RATE,
    ToyEmbedder,
    ToyLoader,
    ToyTranscriber,
    play,
    sine_notes,
)

from music_diffusion.data.parallel import run_tasks
from music_diffusion.evaluation.evaluate import evaluate
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.tools import tools_of
from music_diffusion.models.weights import CONFIG
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.synthesis import hub
from music_diffusion.workflows import evaluate as command
from music_diffusion.workflows import render_notes, seams
from music_diffusion.workflows.requests import SeamsRequest


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    root = tmp_path_factory.mktemp("weights")
    write_release(root / "tiny", tiny_params())
    write_inverter(root / "vocoder")
    listener = write_transcriber(root / "listener")
    with open(listener / CONFIG, "a") as f:  # untrained, it would hear thousands of notes
        f.write("TranscriberModel.decode = @DecodeConfig()\n" + "".join(
            f"DecodeConfig.{name}_threshold = 0.999\n" for name in ("onset", "frame", "drum")))
    return root


@pytest.fixture
def cli(tmp_path, weights, monkeypatch, program):
    """Runs the command in a folder with gen, ref and mid; returns (exit code, stdout, stderr)."""
    for folder in ("gen", "ref", "mid"):
        (tmp_path / folder).mkdir()
    for i, name in enumerate("abc"):
        notes = sine_notes(i, 2.0)
        write_midi(notes, tmp_path / "mid" / f"{name}.mid")
        soundfile.write(tmp_path / "ref" / f"{name}.wav", play(notes, 2.0), RATE)
        soundfile.write(tmp_path / "gen" / f"{name}.wav", play(notes[i:], 2.0), RATE)
    real = command.load_embedder
    monkeypatch.setattr(command, "load_embedder",
                        lambda spec: ToyEmbedder() if spec == "toy" else real(spec))
    real_transcriber = command.load_transcriber
    monkeypatch.setattr(command, "load_transcriber",
                        lambda name: ToyTranscriber() if name == "ear" else real_transcriber(name))
    monkeypatch.setattr(hub, "weights_root", lambda: weights)
    monkeypatch.chdir(tmp_path)
    tools_of.cache_clear()
    CALLS.clear()

    return lambda *arguments: program("evaluate", *arguments)


TOYS = ["--embedding", "toy", "--transcriber", "ear", "--workers", "1"]
FOLDERS = ["--generated", "gen", "--reference", "ref"]


def test_people_get_a_line_a_figure_and_where_the_report_is(cli):
    code, out, err = cli(*FOLDERS, "--notes", "mid", *TOYS, "-o", "out")
    assert code == 0 and sorted(os.listdir("out")) == ["cache", "report.html", "report.json", "scores.csv"]
    lines = out.splitlines()
    assert lines[0].startswith("FAD, toy (this project's own): ") and "…" in lines[0]
    assert any(line.startswith("Note F1, ear (this project's own): ") for line in lines)
    assert lines[-1] == "out/report.html: 3 files, 0 problems"
    assert err.count("warning: Only 0.1 minutes of ") == 2 and "Traceback" not in err


@pytest.mark.slow
def test_json_is_one_object_and_a_second_run_goes_on(cli, tmp_path):
    arguments = [*FOLDERS, "--notes", "mid", *TOYS, "-o", "new/out", "--json", "--inverter", "vocoder"]
    code, out, err = cli(*arguments)
    assert (code, err) == (0, "") and out.count("\n") == 1
    facts = json.loads(out)
    assert "files" not in facts and facts["settings"]["inverter"] == "vocoder"
    figures = {f["key"]: f for f in facts["figures"]}
    assert {b["of"] for b in figures["onset_f1"]["ceilings"]} == {
        "reference as it is", "reference through vocoder"}
    # Through an untrained inverter nothing stays as it is.
    assert figures["log_mel_distance"]["ceilings"][0]["value"] > 0.1
    assert CALLS.count("embed") == 8  # a is the same on both sides
    CALLS.clear()
    soundfile.write(tmp_path / "gen" / "a.wav", play(sine_notes(7, 2.0), 2.0), RATE)
    assert cli(*arguments)[0] == 0 and CALLS.count("embed") == 1


def test_no_transcriber(cli):
    code, out, _ = cli(*FOLDERS, "--embedding", "toy", "--transcriber", "none", "--workers", "1",
                       "-o", "out", "--json")
    assert code == 0 and "transcribe" not in CALLS
    assert json.loads(out)["tools"]["transcriber"] is None


@pytest.mark.parametrize("arguments, word", [
    (["--generated", "gen", "-o", "out"], "--reference"),
    (["--reference", "ref", "-o", "out"], "nothing to evaluate"),
    ([*FOLDERS, "--model", "tiny", "-o", "out"], "exclude each other"),
    (["--reference", "ref", "--model", "tiny", "-o", "out"], "folder of MIDI"),
    (["--reference", "ref", "--model", "tinny", "--notes", "mid", "-o", "out"], "tinny: no such model"),
    (["--generated", "none", "--reference", "ref", "-o", "out"], "none: no such folder"),
    ([*FOLDERS, "--notes", "ref", *TOYS, "-o", "out"], "no MIDI files"),
    ([*FOLDERS, "--groups", "none.csv", *TOYS, "-o", "out"], "none.csv"),
    ([*FOLDERS, "--embedding", "taggger", "-o", "out"], "taggger: no such embedding"),
    ([*FOLDERS, *TOYS[:2], "--transcriber", "nobody", "-o", "out"], "nobody"),
    ([*FOLDERS, *TOYS, "--inverter", "vocodr", "-o", "out"], "vocodr: no such inverter"),
    ([*FOLDERS, *TOYS, "-o", "gen/a.wav"], "is a file"),
    ([*FOLDERS, *TOYS, "-o", "out", "--max_minutes", "1e9", "--seed", "x"], "--seed"),
], ids=lambda x: x if isinstance(x, str) else "")
def test_bad_input_is_a_short_reason_and_nothing_is_written(cli, tmp_path, arguments, word):
    before = sorted(tmp_path.rglob("*"))
    code, out, err = cli(*arguments)
    assert code == 2 and out == "" and word in err and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_files_are_named_and_the_rest_is_scored(cli, tmp_path):
    (tmp_path / "gen" / "a.wav").write_text("no audio")
    soundfile.write(tmp_path / "gen" / "lonely.wav", 0.1 * np.ones((RATE, 2)), 44100)
    (tmp_path / "mid" / "b.mid").write_text("no notes")
    code, out, _ = cli(*FOLDERS, "--notes", "mid", *TOYS, "-o", "out", "--json")
    facts = json.loads(out)
    assert code == 0 and {p["kind"] for p in facts["problems"]} == {
        "unreadable", "missing_pair", "stereo", "too_short", "notes_missing", "notes_unreadable"}
    assert {f["key"]: f["files"] for f in facts["figures"]}["onset_f1"] == 1


@pytest.mark.slow
def test_processes_find_what_one_finds(cli, tmp_path):
    """True processes: everything that travels can be pickled."""
    plan = EvaluationPlan(generated="gen", reference="ref", notes="mid", draws=5, examples=0, workers=2)
    several = evaluate(plan, "two", loader=ToyLoader(), run_tasks=run_tasks)
    assert CALLS == ["transcribe"]  # the tools were told apart; the rest was done elsewhere
    single = evaluate(plan, "one", loader=ToyLoader())
    assert [f["scores"] for f in several["files"]] == [f["scores"] for f in single["files"]]
    assert several["figures"] == single["figures"]
    assert command.LoadTools(embeddings=("a",), transcriber=None, inverter=None) == command.LoadTools(
        embeddings=("a",), transcriber=None, inverter=None)  # so that a process loads once


@pytest.fixture
def renders(monkeypatch):
    """Instead of the model sines play the notes: (file, seconds, steps) of each."""
    done = []

    def sines(synthesizer, midi, output, *, settings, progress):
        notes = read_midi(midi)
        done.append((pathlib.Path(output).name, round(notes.duration, 1), settings.steps))
        soundfile.write(output, play(notes, notes.duration), RATE)
        progress(1.0)
        return types.SimpleNamespace(audio_seconds=notes.duration, wall_seconds=0.5, peak_memory_mb=None,
                                     start_up_seconds=None, devices=None)

    monkeypatch.setattr(render_notes, "render_file", sines)
    return done


@pytest.mark.slow
def test_a_model_plays_the_notes_first(cli, tmp_path):
    (tmp_path / "mid" / "bad.mid").write_text("no notes")
    code, out, err = cli("--model", "tiny", "--reference", "ref", "--notes", "mid", "--embedding", "toy",
                         "--transcriber", "listener", "--workers", "1", "-o", "out", "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert sorted(p.name for p in (tmp_path / "out" / "generated").iterdir()) == [
        "a.flac", "b.flac", "c.flac", "renders.json"]
    speed = facts["speed"]
    assert speed["files"] == 3 and speed["realtime_factor"] == pytest.approx(
        speed["audio_seconds"] / speed["wall_seconds"], rel=0.01)
    bad = next(p for p in facts["problems"] if p["file"].endswith("bad.mid"))
    assert bad["what"].startswith("not a MIDI file")
    figures = {f["key"]: f for f in facts["figures"]}
    assert figures["realtime_factor"]["value"] == speed["realtime_factor"]
    assert "listener (this project's own)" in figures["onset_f1"]["label"]
    assert facts["settings"]["model"] == "tiny" and facts["amounts"]["generated"]["files"] == 3


@pytest.mark.slow
def test_only_what_is_missing_or_changed_is_rendered_again(cli, tmp_path, renders):
    arguments = ["--model", "tiny", "--reference", "ref", "--notes", "mid", *TOYS, "-o", "out"]
    assert cli(*arguments)[0] == 0
    made = tmp_path / "out" / "generated"
    first = json.loads((made / "renders.json").read_text())
    assert len(renders) == 3
    assert cli(*arguments)[0] == 0 and len(renders) == 3
    renders.clear()
    (made / "b.flac").unlink()
    write_midi(sine_notes(9, 2.0), tmp_path / "mid" / "c.mid")
    assert cli(*arguments)[0] == 0
    assert renders == [("b.flac", 1.9, None), ("c.flac", 1.9, None)]
    assert json.loads((made / "renders.json").read_text())["a"] == first["a"]
    renders.clear()
    (tmp_path / "mid" / "a.mid").unlink()  # its render must not be scored any more
    (made / "renders.json").write_text("{")
    assert cli(*arguments, "--steps", "5")[0] == 0
    assert renders == [("b.flac", 1.9, 5), ("c.flac", 1.9, 5)]
    assert not (made / "a.flac").exists()


def test_notes_are_played_as_far_as_they_count(cli, renders):
    code, out, _ = cli("--model", "tiny", "--reference", "ref", "--notes", "mid", *TOYS, "-o", "out",
                       "--json", "--max_minutes", "0.02")
    assert code == 0 and [seconds for _, seconds, _ in renders] == [1.2] * 3
    facts = json.loads(out)
    assert facts["amounts"]["generated"]["minutes"] == pytest.approx(3 * 0.02, rel=0.01)
    assert facts["speed"]["realtime_factor"] == pytest.approx(1.2 / 0.5, rel=0.01)


def test_no_notes_that_can_be_played(cli, tmp_path):
    for path in (tmp_path / "mid").iterdir():
        path.write_text("no notes")
    code, _, err = cli("--model", "tiny", "--reference", "ref", "--notes", "mid", *TOYS, "-o", "out")
    assert code == 2 and "none of 3 MIDI files could be rendered" in err


def test_the_inverter_of_the_ceiling_is_that_of_reconstruct(cli):
    tool = command.resynthesis("vocoder")
    samples = (0.1 * np.random.default_rng(0).normal(size=100_001)).astype(np.float32)
    made = tool.run(samples)
    assert tool.sample_rate == 8000 and made.shape == samples.shape and np.isfinite(made).all()
    assert np.abs(made).max() > 0
    short = tool.run(samples[:500])
    assert short.shape == (500,) and len(tool.run(samples[:0])) == 0


def test_seams_print_a_table_or_json(cli, monkeypatch):
    test = {"at_joins": 1.5, "elsewhere": 1.0, "low": 0.5, "high": 1.25, "percentile": 99.0, "p": 0.01}
    facts = {"model": "tiny", "joins": 3, "pieces": 2, "rows": {
        "independent": {"change": test, "level": test | {"p": 0.5}}}}
    seen = []
    monkeypatch.setattr(seams, "measure_seams", lambda *given: seen.append(given[:2]) or facts)
    code, out, _ = cli("--seams", "--notes", "mid", "--model", "tiny", "--steps", "3", "--max-minutes", "2",
                       "--seed", "4", "-o", "out", "--json")
    assert code == 0 and json.loads(out) == facts
    code, out, _ = cli("--seams", "--notes", "mid")
    assert code == 0 and out.startswith("# Seams of tiny: 3 joins in 2 pieces\n")
    change, level = [line for line in out.splitlines() if line.startswith("| independent |")]
    assert "1.500 nat | 1.000 (0.500 … 1.250) | 99.0 | 0.01 | seam |" in change
    assert level.endswith("| 0.5 | none found |")
    assert seen == [(SeamsRequest(notes="mid", model="tiny", steps=3, max_minutes=2.0, seed=4), "out"),
                    (SeamsRequest(notes="mid"), None)]
    code, _, err = cli("--seams")
    assert code == 2 and "--notes is missing" in err
