import json
import pathlib

import numpy as np
import pytest
from reference import tiny_performances
from reference.commands import commands, parsed
from reference.tiny_release import tiny_params, write_release

from music_diffusion.synthesis import hub
from music_diffusion.workflows import compare_models, models
from music_diffusion.workflows.compare_models import Compared, Figure
from music_diffusion.workflows.requests import (
    CompareRequest,
    NoteMapsRequest,
    NoteRowsRequest,
    PerformanceListRequest,
    ReleaseRequest,
    StatisticsRequest,
)


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    root = tmp_path / "weights"
    for name, size in (("default", 300_000), ("other", 1)):
        write_release(root / name, {"a": np.zeros(size, np.float32)})
    monkeypatch.setattr(hub, "weights_root", lambda: root)
    return root


@pytest.fixture
def run(program):
    """Runs `models`; returns its text, or its error."""
    def run(*arguments):
        code, out, err = program("models", *arguments)
        assert (code == 0 and not err) or (code == 2 and not out and err.count("\n") == 1)
        return out or err

    return run


def test_list_has_a_line_per_model(run, root):
    lines = run("list").splitlines()
    assert [line.split()[:3] for line in lines] == [["default", "0.6", "MB"], ["other", "0.0", "MB"]]
    assert lines[0].endswith(str(root / "default"))
    assert run().splitlines() == lines  # without an action, too


def test_json_is_one_object(run, root):
    listed = {"models": [
        {"name": "default", "megabytes": 0.6, "performances": 0, "folder": str(root / "default")},
        {"name": "other", "megabytes": 0.0, "performances": 0, "folder": str(root / "other")}]}
    assert json.loads(run("list", "--json")) == json.loads(run("--json")) == listed
    assert json.loads(run("show", "other", "--json")) == {"name": "other", "card": "# A tiny model\n"}


def test_show_prints_the_card_of_a_name_or_folder(run, root):
    assert run("show") == "# A tiny model\n\n"
    (root / "other" / "README.md").unlink()
    assert "no model card" in run("show", root / "other")


def test_unknown_names_and_actions_are_errors(run, program):
    assert "mine: no such model" in run("show", "mine") and "default, other" in run("show", "mine")
    code, out, err = program("models", "remove")
    assert code == 2 and not out and "remove" in err


@pytest.fixture
def many(root):
    """A model with performances beside the others."""
    return tiny_performances.write_release(root / "many", tiny_performances.tiny_params())


def test_performances_are_counted_and_shown_as_a_table(run, many):
    lines = run().splitlines()
    assert [" performances " in line for line in lines] == [False, True, False]
    assert "3 performances" in lines[1]
    head, *rows = run("show", "many", "--performances").splitlines()
    assert head.split() == ["performance", "source", "instruments", "room", "minutes"]
    assert "Violin, Viola, Cello and 2 more" in rows[0] and "dry [close]" in rows[0] and "12.3" in rows[0]
    assert [row.split()[0] for row in rows] == ["studio", "church", "kim"]
    assert ["(default)" in row for row in rows] == [True, False, False]


def test_performances_as_json(run, many):
    shown = json.loads(run("show", many, "--performances", "--json"))
    assert shown["name"] == str(many) and shown["default"] == "studio"
    assert [p["name"] for p in shown["performances"]] == ["studio", "church", "kim"]
    assert shown["performances"][0]["instruments"] == ["Violin", "Viola", "Cello", "Oboe", "Flute"]
    counts = {m["name"]: m["performances"] for m in json.loads(run("--json"))["models"]}
    assert counts == {"default": 0, "many": 3, "other": 0}


def test_models_without_performances_have_none_to_show(run, root):
    write_release(root / "plain", tiny_params())
    assert "plain: this model knows no performances" in run("show", "plain", "--performances")


@pytest.mark.parametrize("arguments, workflow, want", [
    (["release", "run", "out", "--binding", "A.b = 1", "--binding", "C = 2", "--performances", "p.json",
      "--dtype", "int8"],
     "release_run", ReleaseRequest(run="run", output="out", bindings=("A.b = 1", "C = 2"),
                                   performances="p.json", dtype="int8")),
    (["note-rows", "a.sf2", "out", "--notes-per-program", "7", "--workers", "3", "--seed", "4"],
     "render_note_rows", NoteRowsRequest(soundfont="a.sf2", output="out", notes_per_program=7, workers=3,
                                         seed=4)),
    (["note-maps", "data", "out", "--weights", "w", "--performances", "p.json"], "draw_maps",
     NoteMapsRequest(data="data", output="out", weights="w", performances="p.json")),
    (["statistics", "data", "out", "--patch", "8", "--around-maps", "--axes", "w"], "estimate_statistics",
     StatisticsRequest(data="data", output="out", patch=8, around_maps=True, axes="w"))],
    ids=lambda x: x if isinstance(x, str) else "")
def test_what_makes_models_is_handed_on(run, tmp_path, monkeypatch, arguments, workflow, want):
    seen = []
    monkeypatch.setattr(models, workflow, lambda request, *_: seen.append(request))
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == f"{tmp_path / 'out'}: done\n"
    assert json.loads(run(*arguments, "--json")) == {"folder": str(tmp_path / "out")}
    assert seen == [want, want]


def test_performances_are_listed_into_a_file(run, tmp_path, monkeypatch):
    seen = []
    known = tiny_performances.PERFORMANCES
    monkeypatch.setattr(models, "list_performances", lambda request: seen.append(request) or known)
    monkeypatch.chdir(tmp_path)
    arguments = ("performances", "data", "list.json", "--table", "t.csv", "--default", "kim")
    assert run(*arguments) == f"{tmp_path / 'list.json'}: 3 performances: studio, church, kim\n"
    assert json.loads(run(*arguments, "--json"))["performances"] == ["studio", "church", "kim"]
    assert seen[0] == PerformanceListRequest(data="data", output="list.json", table="t.csv", default="kim")


@pytest.mark.parametrize("moved", [False, True])
def test_copies_are_compared(run, monkeypatch, moved):
    seen = []
    figures = (Figure(name="size (MB)", difference=1.0, values=(2.0, 1.0)),
               Figure(name="log-mel", difference=0.5 if moved else 0.1, error=0.25))
    compared = Compared(model="default", other="small", pieces=1, figures=figures)
    monkeypatch.setattr(compare_models, "compare_models",
                        lambda request, _: seen.append(request) or compared)
    arguments = ("compare", "default", "small", "--notes", "midi", "--seconds", "5", "--seed", "3")
    lines = run(*arguments).splitlines()
    assert lines[0] == "size (MB): 2 and 1, difference 1"
    assert lines[1] == f"log-mel: difference {figures[1].difference}, its error 0.25"
    assert lines[2] == ("beyond their error: log-mel" if moved else "no figure moves beyond its error")
    said = json.loads(run(*arguments, "--json"))
    assert said["same"] is not moved and said["figures"][0] == {
        "name": "size (MB)", "moved": False, "difference": 1.0, "error": None, "model": 2.0, "copy": 1.0}
    assert seen == 2 * [CompareRequest(model="default", other="small", notes="midi", seconds=5.0, seed=3)]


def test_the_page_on_weights_shows_commands_that_there_are():
    page = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
    shown = list(commands(page.read_text().splitlines()))
    assert {words[2] for words in shown} == {"release", "compare"}
    for words in shown:
        parsed(words[1:])
