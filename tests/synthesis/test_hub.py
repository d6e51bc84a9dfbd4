import shutil

import jax
import numpy as np
import pytest
from reference.tiny_release import GIN, MODEL, tiny_params, write_release

from music_diffusion.errors import UserError
from music_diffusion.models.weights import save_safetensors
from music_diffusion.synthesis import hub


@pytest.fixture(scope="module")
def params():
    return tiny_params()


@pytest.fixture
def folder(tmp_path, params):
    return write_release(tmp_path / "tiny", params)


def test_a_saved_model_is_the_loaded_one(folder, params):
    synthesizer = hub.load(folder)
    assert synthesizer.name == "tiny" and synthesizer.model == MODEL
    assert jax.tree.structure(synthesizer.params) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, synthesizer.params, params)
    assert hub.load(str(folder)).model == MODEL


def test_models_of_the_package_are_found_by_name_and_listed(tmp_path, params, monkeypatch):
    write_release(tmp_path / "weights" / "one", params)
    write_release(tmp_path / "weights" / "two", params)
    (tmp_path / "weights" / "notes").mkdir()
    monkeypatch.setattr(hub, "weights_root", lambda: tmp_path / "weights")
    assert hub.available() == ["one", "two"]
    assert hub.find("two") == tmp_path / "weights" / "two"
    assert hub.load("one").name == "one"
    with pytest.raises(UserError, match="three: no such model.*one, two"):
        hub.load("three")


def test_weights_root_lies_in_the_package():
    import music_diffusion

    assert hub.weights_root() == type(hub.weights_root())(music_diffusion.__path__[0]) / "weights"


@pytest.mark.parametrize("file", ["weights.safetensors", "config.gin"])
def test_incomplete_folders_are_no_models(folder, file):
    (folder / file).unlink()
    with pytest.raises(UserError, match="no such model"):
        hub.load(folder)


def test_broken_weights_are_an_error(folder):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match="weights.safetensors: not a safetensors file"):
        hub.load(folder)


def test_weights_of_another_configuration_are_an_error(folder, params):
    (folder / "config.gin").write_text(GIN.replace("width = 8", "width = 4"))
    with pytest.raises(UserError, match=r"do not fit.*first timbre/gate_key/embedding: \(256, 8\)"):
        hub.load(folder)
    (folder / "config.gin").write_text(GIN)
    lacking = {"timbre": params["timbre"]}
    save_safetensors(folder / "weights.safetensors", lacking)
    with pytest.raises(UserError, match="unet.*None"):
        hub.load(folder)
    save_safetensors(folder / "weights.safetensors", params | {"more": np.zeros(2)})
    with pytest.raises(UserError, match="first more"):
        hub.load(folder)


def test_broken_configurations_and_other_models_are_errors(folder):
    (folder / "config.gin").write_text("released.model = @Nothing()")
    with pytest.raises(UserError, match="config.gin"):
        hub.load(folder)
    (folder / "config.gin").write_text("released.model = @NoteTimbreModel()")
    with pytest.raises(UserError, match="NoteTimbreModel cannot be rendered"):
        hub.load(folder)


def test_a_copy_elsewhere_is_the_same_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    a, b = hub.load(folder), hub.load(tmp_path / "copy")
    assert (a.name, b.name) == ("tiny", "copy") and a.model == b.model
