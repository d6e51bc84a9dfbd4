"""`music-diffusion prepare`: what is handed on, and what is refused."""

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from music_diffusion.cli import main, prepare
from music_diffusion.data.audio_records import read_audio_manifest
from music_diffusion.data.audio_renders import AudioRenderPlan
from music_diffusion.errors import UserError


@pytest.fixture
def run(tmp_path):
    (tmp_path / "source").mkdir()

    def run(kind, **arguments):
        defaults = dict(source=str(tmp_path / "source"), destination=str(tmp_path / "out"),
                        soundfonts=[], hours=10.0, test=False, solo=0.0, midi=False, rate=16000,
                        mono=False, notes_per_program=440, weights=None, bindings=[], workers=2, seed=0)
        prepare.run(kind=kind, **(defaults | arguments))

    return run


def test_soundfont_renders_by_plan(run, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(prepare, "render", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 2))
    (tmp_path / "f.sf2").touch()
    run("soundfont", soundfonts=[str(tmp_path / "f.sf2")], hours=0.5, notes_per_program=3,
        workers=1, seed=9)
    plan, folder = seen[0]
    assert (plan.scores, plan.soundfont, plan.train_hours, plan.notes_per_program, plan.workers,
            plan.seed) == (str(tmp_path / "source"), str(tmp_path / "f.sf2"), 0.5, 3, 1, 9)
    assert folder == str(tmp_path / "out")
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: done\n"


def test_renders_take_several_soundfonts_and_hold_a_share_out(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "render_audio", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 2))
    run("renders", soundfonts=["a.sf2", "b.sf3"], hours=2.0, rate=44100, workers=1, seed=9)
    run("renders", soundfonts=["a.sf2"], hours=2.0, test=True)
    run("renders", soundfonts=["a.sf2"], solo=0.25, midi=True)
    (plan, folder), (tested, _), (alone, _) = seen
    assert plan == AudioRenderPlan(
        scores=str(tmp_path / "source"), soundfonts=("a.sf2", "b.sf3"), train_hours=2.0,
        validation_hours=0.1, test_hours=0.0, sample_rate=44100, workers=1, seed=9)
    assert folder == str(tmp_path / "out") and tested.test_hours == 0.1
    assert (plan.solo, plan.midi, alone.solo, alone.midi) == (0.0, False, 0.25, True)


def test_audio_folder_tells_what_it_gave_and_what_it_skipped(run, tmp_path, capsys):
    tone = np.sin(np.arange(32000) / 5)
    for name in ("train/a", "validation/b"):
        (tmp_path / "source" / name).parent.mkdir()
        soundfile.write(tmp_path / "source" / f"{name}.wav", np.stack([tone, -tone / 2], 1), 8000)
    (tmp_path / "source" / "c.mp3").touch()
    run("audio_folder", rate=4000, mono=True, workers=1)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'out'}: 0.00 h for train, 0.00 h for validation; skipped 1, e.g. c.mp3: "
        "the file is empty (see manifest.json)\n")
    options = read_audio_manifest(tmp_path / "out", 4000)["options"]
    assert options["mono"] and options["seed"] == 0
    (tmp_path / "source" / "c.mp3").unlink()
    run("audio_folder", rate=4000, mono=True, workers=1)
    assert capsys.readouterr().out.endswith(": 0.00 h for train, 0.00 h for validation\n")


def test_note_maps_use_the_given_weights(run, monkeypatch):
    seen = []

    class Model:
        def __init__(self, timbre_weights):
            self.timbre_weights = timbre_weights

        def init(self, rng, shapes):
            return {"params": {"timbre": np.ones(1)}}

    monkeypatch.setattr(prepare, "FrameDiffusionModel", Model)
    monkeypatch.setattr(prepare, "add_note_maps", lambda *args, progress: seen.append(args))
    run("note_maps", weights="timbre.safetensors")
    (source, out, model, params), = seen
    assert source.endswith("source") and out.endswith("out")
    assert model.timbre_weights == "timbre.safetensors" and set(params) == {"timbre"}


def test_release_hands_on_its_bindings(run, monkeypatch):
    seen = []
    monkeypatch.setattr("music_diffusion.synthesis.release.release",
                        lambda *args, **more: seen.append((args, more)))
    run("release", bindings=["FrameDiffusionModel.num_steps = 8"])
    (source, out), more = seen[0]
    assert source.endswith("source") and out.endswith("out")
    assert more == {"bindings": ["FrameDiffusionModel.num_steps = 8"]}


@pytest.mark.parametrize("kind, arguments, reason", [
    ("soundfont", {"source": "/no/such/folder"}, "/no/such/folder: no such folder"),
    ("soundfont", {}, "one --soundfont FILE.sf2"),
    ("soundfont", {"soundfonts": ["a.sf2", "b.sf2"]}, "one --soundfont FILE.sf2"),
    ("soundfont", {"soundfonts": ["nowhere.sf2"]}, "nowhere.sf2"),
    ("soundfont", {"soundfonts": [__file__]}, "manifest.csv"),
    ("renders", {}, "--soundfont FILE.sf2, once or several times"),
    ("renders", {"soundfonts": [__file__]}, "manifest.csv"),
    ("audio_folder", {}, "source: no audio files there"),
    ("note_maps", {}, "--weights"),
    ("note_maps", {"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ("release", {}, "source"),
    ("everything", {}, "prepare everything: unknown; choose soundfont, renders, audio_folder, "
     "note_maps or release")])
def test_bad_arguments_are_one_line_errors_before_anything_is_written(
        run, tmp_path, kind, arguments, reason, monkeypatch):
    with pytest.raises(UserError, match=reason) as error:
        run(kind, **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_hands_on_every_option(monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "run", lambda **arguments: seen.append(arguments))
    runner = CliRunner()
    assert runner.invoke(main.app, ["prepare", "renders", "in", "out"]).exit_code == 0
    assert runner.invoke(main.app, [
        "prepare", "renders", "in", "out", "--soundfont", "a.sf2", "--soundfont", "b.sf2",
        "--hours", "5", "--rate", "44100", "--test", "--solo", "0.3", "--midi", "--mono",
        "--notes-per-program", "7",
        "--weights", "w", "--binding", "a=1", "--binding", "b=2", "--workers", "3",
        "--seed", "4"]).exit_code == 0
    names = dict(kind="renders", source="in", destination="out")
    assert seen == [
        names | dict(soundfonts=[], hours=10.0, test=False, solo=0.0, midi=False, rate=16000,
                     mono=False, notes_per_program=440, weights=None, bindings=[], workers=2, seed=0),
        names | dict(soundfonts=["a.sf2", "b.sf2"], hours=5.0, test=True, solo=0.3, midi=True,
                     rate=44100, mono=True, notes_per_program=7, weights="w",
                     bindings=["a=1", "b=2"], workers=3, seed=4)]


@pytest.mark.parametrize("share", ["1.5", "-0.1", "some"])
def test_a_share_of_solos_is_between_none_and_all(share, monkeypatch):
    monkeypatch.setattr(prepare, "run", lambda **arguments: pytest.fail("was run"))
    result = CliRunner().invoke(main.app, ["prepare", "renders", "in", "out", "--solo", share])
    assert result.exit_code == 2 and "--solo" in result.output
