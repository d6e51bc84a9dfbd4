import json

import numpy as np
import pytest
from reference import tiny_performances
from reference.tiny_release import tiny_params, write_release

from music_diffusion.cli import models
from music_diffusion.errors import UserError
from music_diffusion.synthesis import hub


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    root = tmp_path / "weights"
    for name, size in (("default", 300_000), ("other", 1)):
        write_release(root / name, {"a": np.zeros(size, np.float32)})
    monkeypatch.setattr(hub, "weights_root", lambda: root)
    return root


def run(**arguments):
    models.run(**({"action": "list", "name": "default", "performances": False, "json": False} | arguments))


def test_list_has_a_line_per_model(capsys, root):
    run()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["default", "0.6", "MB"], ["other", "0.0", "MB"]]
    assert lines[0].endswith(str(root / "default"))


def test_json_is_one_object(capsys, root):
    run(json=True)
    assert json.loads(capsys.readouterr().out) == {"models": [
        {"name": "default", "megabytes": 0.6, "performances": 0, "folder": str(root / "default")},
        {"name": "other", "megabytes": 0.0, "performances": 0, "folder": str(root / "other")}]}
    run(action="show", name="other", json=True)
    assert json.loads(capsys.readouterr().out) == {"name": "other", "card": "# A tiny model\n"}


def test_show_prints_the_card_of_a_name_or_folder(capsys, root):
    run(action="show")
    assert capsys.readouterr().out == "# A tiny model\n\n"
    (root / "other" / "README.md").unlink()
    run(action="show", name=str(root / "other"))
    assert "no model card" in capsys.readouterr().out


def test_unknown_names_and_actions_are_errors():
    with pytest.raises(UserError, match="mine: no such model.*default, other"):
        run(action="show", name="mine")
    with pytest.raises(UserError, match="models remove: unknown; use list or show"):
        run(action="remove")


@pytest.fixture
def many(root):
    """A model with performances beside the others."""
    return tiny_performances.write_release(root / "many", tiny_performances.tiny_params())


def test_performances_are_counted_and_shown_as_a_table(capsys, many):
    run()
    lines = capsys.readouterr().out.splitlines()
    assert [" performances " in line for line in lines] == [False, True, False]
    assert "3 performances" in lines[1]
    run(action="show", name="many", performances=True)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["performance", "source", "instruments", "room", "minutes"]
    assert "Violin, Viola, Cello and 2 more" in rows[0] and "dry [close]" in rows[0] and "12.3" in rows[0]
    assert [row.split()[0] for row in rows] == ["studio", "church", "kim"]
    assert ["(default)" in row for row in rows] == [True, False, False]


def test_performances_as_json(capsys, many):
    run(action="show", name=str(many), performances=True, json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == str(many) and shown["default"] == "studio"
    assert [p["name"] for p in shown["performances"]] == ["studio", "church", "kim"]
    assert shown["performances"][0]["instruments"] == ["Violin", "Viola", "Cello", "Oboe", "Flute"]
    run(json=True)
    counts = {m["name"]: m["performances"] for m in json.loads(capsys.readouterr().out)["models"]}
    assert counts == {"default": 0, "many": 3, "other": 0}


def test_models_without_performances_have_none_to_show(root):
    write_release(root / "plain", tiny_params())
    with pytest.raises(UserError, match="plain: this model knows no performances"):
        run(action="show", name="plain", performances=True)
