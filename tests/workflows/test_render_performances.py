"""A recipe renders every piece by drawn performances and without the condition, and fills its table."""

import csv
import json
import pathlib

import numpy as np
import pytest
import soundfile
from reference.toy_listeners import RATE, ToyLoader, play, sine_notes

from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.performances import Performance, Performances
from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows import evaluate as evaluate_module
from music_diffusion.workflows import render_performances as module
from music_diffusion.workflows.tables import fill_table

NAMES = ("bright", "dark", "hall", "mute horn")
CALLS = []


def colour(samples, name):
    """Each performance has a band of noise of its own."""
    if name == "none":
        return samples
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.normal(size=len(samples)))
    band = np.linspace(0, 4, len(spectrum)).astype(int) == NAMES.index(name)
    return samples + 0.2 * np.fft.irfft(spectrum * band, len(samples))


class ToySynthesizer:
    def synthesize(self, notes, *, steps=None, seed=0, performance=None):
        CALLS.append((performance, seed))
        return Waveform(colour(play(notes, 4.0), performance or "none").astype(np.float32), RATE)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """References of four performances, three test pieces and a model that plays as it is told."""
    (tmp_path / "train").mkdir()
    (tmp_path / "midi" / "sub").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    rows = []
    for i, name in enumerate(NAMES):
        for k in range(2):
            soundfile.write(tmp_path / "train" / f"{i}_{k}.wav",
                            colour(play(sine_notes(10 * i + k)), name), RATE)
            rows.append((f"train/{i}_{k}.wav", name))
    with open(tmp_path / "performances.csv", "w", newline="") as f:
        csv.writer(f).writerows([("file", "group"), *rows])
    for i, name in enumerate(("a", "b", "sub/a")):
        write_midi(sine_notes(100 + i), tmp_path / "midi" / f"{name}.mid")
    known = Performances(performances=tuple(Performance(name=n) for n in NAMES), default="bright")
    monkeypatch.setattr(module, "load_performances",
                        lambda model: None if model == "plain" else known)
    save_safetensors(tmp_path / "model" / WEIGHTS, {"a": np.zeros(1)})
    (tmp_path / "model" / CONFIG).write_text("")
    monkeypatch.setattr(module, "find", lambda model: pathlib.Path("model"))
    monkeypatch.setattr(module, "load", lambda model, inverter: ToySynthesizer())
    monkeypatch.setattr(evaluate_module.LoadTools, "__call__", lambda self: ToyLoader()())
    monkeypatch.chdir(tmp_path)
    module._model.cache_clear()
    CALLS.clear()
    return tmp_path


def plan(**more):
    return EvaluationPlan(**(dict(reference="train", notes="midi", groups="performances.csv", model="m",
                                  performances=2, seed=5, workers=1) | more))


def render(**more):
    return module.render_performances(plan(**more), "out/row/generated", lambda share: None)


def test_with_and_without_are_compared_with_the_same_performances(folder):
    done, problems = render()
    assert not problems and done.groups == "out/row/groups.csv" and done.generated == "out/row/generated"
    made = sorted(p.relative_to("out/row/generated").as_posix()
                  for p in pathlib.Path("out").rglob("*.flac"))
    assert len(made) == 6 and len(CALLS) == 6 and {seed for _, seed in CALLS} == {5, 6}
    told = [json.loads(p.with_suffix(".json").read_text()) for p in pathlib.Path("out").rglob("*.flac")]
    assert all(t["group"] == t["performance"] for t in told)
    CALLS.clear()
    render()
    assert CALLS == []  # what is there is kept
    pathlib.Path("out/row/generated", made[0]).unlink()
    render()
    assert len(CALLS) == 1
    CALLS.clear()
    render(condition=False)  # of the same names, so that all are made anew
    assert len(CALLS) == 6 and {performance for performance, _ in CALLS} == {"none"}
    again = [json.loads(p.with_suffix(".json").read_text()) for p in pathlib.Path("out").rglob("*.flac")]
    assert ([(t["midi"], t["group"], t["seed"]) for t in told]
            == [(t["midi"], t["group"], t["seed"]) for t in again])
    CALLS.clear()
    render(condition=False, model="plain", performances_of="m", performances=1)
    assert len(CALLS) == 3 and {performance for performance, _ in CALLS} == {None}
    assert len(list(pathlib.Path("out").rglob("*.flac"))) == 3  # others are removed


@pytest.mark.slow
def test_the_recipe_fills_its_table(folder):
    bindings = [f"{k} = {v!r}" for k, v in dict(
        UNET="m", NOTES="midi", REFERENCE="train", GROUPS="performances.csv", EMBEDDINGS=("toy",),
        PERFORMANCES=2).items()]
    facts = fill_table("recipes/evaluation/performance.gin", bindings, "out").facts()
    without, with_ = (next(v for k, v in facts["rows"].items() if k == f"U-Net, {name}")
                      for name in ("without", "with"))
    columns = {c.partition(",")[0] for c in with_}
    assert {"FAD", "Note F1", "Note-with-instrument F1", "Group-FAD", "Group-FAD of files",
            "Nearest group"} <= columns

    def value(row, start):
        return next(v for k, v in row.items() if k.startswith(start))

    # The model has the colour of the performance that it is asked for.
    assert value(with_, "Nearest group, top-1 of files by mean") == 1
    assert value(without, "Nearest group, top-1 of files by mean") < 1
    assert value(with_, "Group-FAD,") < value(without, "Group-FAD,")
    assert any(w.startswith("T5, with: left out") for w in facts["warnings"])
    assert with_["Note F1, toy ear (this project's own) ↑"] is not None
    assert (folder / "out" / "cache").is_dir() and not (folder / "out" / "u-net-with" / "cache").exists()


def test_what_cannot_be_played_is_said(folder, monkeypatch):
    with pytest.raises(UserError, match="knows no performances"):
        render(model="plain")
    (folder / "midi" / "bad.mid").write_text("no notes")
    assert [p.kind for p in render()[1]] == ["notes_unreadable"]
    stranger = Performances(performances=(Performance(name="x"),), default="x")
    monkeypatch.setattr(module, "load_performances", lambda model: stranger)
    with pytest.raises(UserError, match="reference audio of bright"):
        render()
    (folder / "midi" / "bad.mid").unlink()
    tuba = Performances(performances=(Performance(name="dark", instruments=("Tuba",)),), default="dark")
    monkeypatch.setattr(module, "load_performances", lambda model: tuba)
    with pytest.raises(UserError, match="no performance has all of its instruments"):
        render()
