"""`music-diffusion prepare`: what is handed on, and what is refused."""

import numpy as np
import pytest

from music_diffusion.cli import prepare
from music_diffusion.errors import UserError


@pytest.fixture
def run(tmp_path):
    (tmp_path / "source").mkdir()

    def run(kind, **arguments):
        defaults = dict(source=str(tmp_path / "source"), destination=str(tmp_path / "out"),
                        soundfont=None, hours=10.0, notes_per_program=440, weights=None,
                        bindings=[], workers=2, seed=0)
        prepare.run(kind=kind, **(defaults | arguments))

    return run


def test_soundfont_renders_by_plan(run, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(prepare, "render", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 2))
    (tmp_path / "f.sf2").touch()
    run("soundfont", soundfont=str(tmp_path / "f.sf2"), hours=0.5, notes_per_program=3, workers=1,
        seed=9)
    plan, folder = seen[0]
    assert (plan.scores, plan.soundfont, plan.train_hours, plan.notes_per_program, plan.workers,
            plan.seed) == (str(tmp_path / "source"), str(tmp_path / "f.sf2"), 0.5, 3, 1, 9)
    assert folder == str(tmp_path / "out")
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: done\n"


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
    ("soundfont", {}, "--soundfont FILE.sf2"),
    ("soundfont", {"soundfont": "nowhere.sf2"}, "nowhere.sf2"),
    ("soundfont", {"soundfont": __file__}, "manifest.csv"),
    ("note_maps", {}, "--weights"),
    ("note_maps", {"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ("release", {}, "source"),
    ("everything", {}, "prepare everything: unknown; choose soundfont, note_maps or release")])
def test_bad_arguments_are_one_line_errors_before_anything_is_written(
        run, tmp_path, kind, arguments, reason, monkeypatch):
    with pytest.raises(UserError, match=reason) as error:
        run(kind, **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
