"""`music-diffusion train`: what is handed on, to the trainer or to training on one's own data."""

import dataclasses
import json

import pytest

from music_diffusion.workflows import own_data
from music_diffusion.workflows.own_data import TrainedModel
from music_diffusion.workflows.own_data_card import verdict
from music_diffusion.workflows.requests import OwnDataRequest


@pytest.fixture
def cli(program):
    return program


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
    figures = {"before": {"onset_f1": 0.5}, "after": {"onset_f1": 0.75},
               "recordings": {"onset_f1": 0.625}, "ears": {}, "ear": "tagger",
               "labels": {"onset_f1": "Note F1"}}

    def train_on_recordings(request, monitor):
        seen.append(request)
        monitor.say("[1/1] work")
        return TrainedModel(model=request.output, step=3, validation_loss=0.5, figures=figures,
                            hours={"train": 1.0})

    monkeypatch.setattr(own_data, "train_on_recordings", train_on_recordings)
    code, out, err = cli("train", "--data", "in", "-o", "out")
    assert (code, out) == (0, "")
    assert err.splitlines() == [
        "[1/1] work", "held-out items  default  this model  the recordings",
        "Note F1  0.500  0.750  0.625", *verdict(figures, "default"),
        "done: music-diffusion synthesize song.mid -o song.wav --model out"]
    changed = dict(base="none", layout="gtzan", options=(("genre", "jazz"),), held_out=("a", "b"),
                   transpose=0, steps=7, batch=3, examine=False, evaluate=False,
                   bindings=("adamw.b1 = 0.5",), workers=4, seed=5)
    code, out, err = cli("train", "--data", "in", "--from", "none", "--output", "out", "--layout", "gtzan",
               "--option", "genre=jazz", "--held_out", "a", "--held-out", "b", "--transpose", "0",
               "--steps", "7", "--batch", "3", "--no-examine", "--no-evaluate", "--gin.adamw.b1=0.5",
               "--workers", "4", "--seed", "5", "--json")
    assert (code, err) == (0, "[1/1] work\n")
    assert json.loads(out) == {"model": "out", "step": 3, "validation_loss": 0.5, "figures": figures,
                               "hours": {"train": 1.0}}
    assert seen == [OwnDataRequest(data="in", base="default", output="out"),
                    OwnDataRequest(data="in", output="out", **changed)]
    assert changed.keys() == {f.name for f in dataclasses.fields(OwnDataRequest)} - {"data", "output"}


@pytest.mark.parametrize("arguments, reason", [
    ([], "give --data FOLDER"), (["--data", "a", "--gin_file", "b"], "give --data FOLDER"),
    (["--data", "a"], "--output is missing"), (["--gin_file", "b"], "--model_dir is missing"),
    (["--data", "a", "-o", "b", "--print_config"], "--print_config is for recipes"),
    (["--data", "a", "-o", "b", "--process", "0"], "--process is for recipes"),
    (["--data", "a", "-o", "b", "--nothing"], "unknown argument --nothing")])
def test_train_says_what_is_missing(cli, arguments, reason):
    code, out, err = cli("train", *arguments)
    assert code == 2 and not out and err.startswith("error: ") and reason in err
