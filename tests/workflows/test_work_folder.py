"""The folder beside a new model: claimed once, gone on with, never of another request."""

import pytest

from music_diffusion.errors import UserError
from music_diffusion.models.weights import WEIGHTS
from music_diffusion.workflows.work_folder import WorkFolder


def folder(tmp_path, **depends):
    return WorkFolder(output=f"{tmp_path}/model/", depends={"data": "in", "held_out": ("a", "b")} | depends)


def test_it_lies_beside_the_model(tmp_path):
    assert folder(tmp_path).path("run", "x") == str(tmp_path / "model.work" / "run" / "x")


def test_the_same_request_goes_on_and_another_does_not(tmp_path):
    folder(tmp_path).check()
    assert not list(tmp_path.iterdir())  # looking writes nothing
    folder(tmp_path).claim()
    folder(tmp_path).check()
    folder(tmp_path).claim()
    with pytest.raises(UserError, match=r"model.work: was begun with other data, seed; delete it"):
        folder(tmp_path, data="elsewhere", seed=1).claim()
    folder(tmp_path).check()


def test_what_it_would_overwrite(tmp_path):
    (tmp_path / "model").mkdir()
    folder(tmp_path).check()
    (tmp_path / "model" / "diary.txt").touch()
    with pytest.raises(UserError, match="holds other things"):
        folder(tmp_path).claim()
    assert not (tmp_path / "model.work").exists()
    (tmp_path / "model" / WEIGHTS).touch()  # a model, which is made anew
    folder(tmp_path).claim()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(UserError, match="is a file"):
        folder(tmp_path).check()
