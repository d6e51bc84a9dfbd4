import json

import numpy as np
import pytest
from reference.tiny_release import write_release

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
    models.run(**({"action": "list", "name": "default", "json": False} | arguments))


def test_list_has_a_line_per_model(capsys, root):
    run()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [["default", "0.6", "MB"], ["other", "0.0", "MB"]]
    assert lines[0].endswith(str(root / "default"))


def test_json_is_one_object(capsys, root):
    run(json=True)
    assert json.loads(capsys.readouterr().out) == {"models": [
        {"name": "default", "megabytes": 0.6, "folder": str(root / "default")},
        {"name": "other", "megabytes": 0.0, "folder": str(root / "other")}]}
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
