"""Copies of released models: other storage, other settings, and the same sound."""

import numpy as np
import pytest
from reference import tiny_performances
from reference.tiny_release import (
    MODEL,
    tiny_params,
    write_release,
    write_release_with_performances,
)
from safetensors import safe_open

from music_diffusion.conditions.performances import FILE, read_performances, write_performances
from music_diffusion.errors import UserError
from music_diffusion.models.weights import (
    CONFIG,
    WEIGHTS,
    load_safetensors,
    read_facts,
    save_safetensors,
)
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.release import released_model
from music_diffusion.synthesis.released_copy import CARD, is_released, release_copy, without_storage


@pytest.fixture
def model(tmp_path):
    folder = write_release(tmp_path / "model", tiny_params())
    save_safetensors(folder / WEIGHTS, tiny_params(), facts={"step": 7})
    return folder


def dtypes(folder):
    with safe_open(folder / WEIGHTS, "numpy") as f:
        return {str(f.get_tensor(name).dtype) for name in f.keys()}


def test_a_copy_in_eight_bits_is_the_same_model(model, tmp_path):
    out = tmp_path / "copy"
    release_copy(model, out, dtype="int8")
    assert dtypes(out) == {"int8", "float16", "float32"}
    assert (out / WEIGHTS).stat().st_size < 0.8 * (model / WEIGHTS).stat().st_size
    assert (out / CONFIG).read_text() == (model / CONFIG).read_text()
    assert read_facts(out / WEIGHTS) == {"step": 7}
    _, same, params = hub.load_trained(out, object, "model")
    assert same == MODEL
    for a, b in zip(leaves(params), leaves(tiny_params()), strict=True):
        assert np.abs(a - b).max() <= np.abs(b).max() / 254 * 1.01


def leaves(params):
    import jax

    return jax.tree.leaves(params)


def test_a_copy_in_half_precision_is_the_same_file(model, tmp_path):
    release_copy(model, tmp_path / "copy")
    assert (tmp_path / "copy" / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    release_copy(model, tmp_path / "small", dtype="int8")
    release_copy(tmp_path / "small", tmp_path / "large", dtype="float32")  # as read, to the last bit
    for a, b in zip(leaves(load_safetensors(tmp_path / "large" / WEIGHTS, None)),
                    leaves(load_safetensors(tmp_path / "small" / WEIGHTS)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_card_says_how_the_weights_are_stored_once(model, tmp_path):
    (model / CARD).write_text("# A tiny model\n\n## Licence\n\nNone.\n")
    release_copy(model, tmp_path / "a", dtype="int8")
    card = (tmp_path / "a" / CARD).read_text()
    assert card.startswith("# A tiny model\n\n> These weights are a copy: large matrices in 8 bits with a ")
    assert "MB" in card and card.endswith("## Licence\n\nNone.\n")
    release_copy(tmp_path / "a", tmp_path / "b")
    again = (tmp_path / "b" / CARD).read_text()
    assert again.count("are a copy") == 1 and "float16" in again and "8 bits" not in again
    assert without_storage(again) == (model / CARD).read_text()
    (model / CARD).unlink()
    release_copy(model, tmp_path / "c")
    assert not (tmp_path / "c" / CARD).exists()


def test_names_of_performances_stay_those_of_the_table(tmp_path):
    folder = write_release_with_performances(tmp_path / "model")
    release_copy(folder, tmp_path / "copy", dtype="int8")
    assert (tmp_path / "copy" / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert hub.load_performances(tmp_path / "copy") == read_performances(folder / FILE)


def test_names_of_another_checkpoint_are_not_copied(tmp_path):
    folder = tiny_performances.write_release(tmp_path / "model", tiny_performances.tiny_params())
    other = tiny_performances.tiny_params()
    other["performances"]["embedding"] = other["performances"]["embedding"] + 1
    write_performances(folder / FILE, tiny_performances.PERFORMANCES.with_table(other))
    with pytest.raises(UserError, match="is of another checkpoint"):
        release_copy(folder, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_files_that_are_not_a_models_are_left_alone(model, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "README.md").write_text("MY NOTES")
    with pytest.raises(UserError, match="holds other files than a model's; give a new or empty folder"):
        release_copy(model, own)
    assert [p.name for p in own.iterdir()] == ["README.md"]
    assert (own / "README.md").read_text() == "MY NOTES"
    with pytest.raises(UserError, match="is a file"):
        release_copy(model, own / "README.md")


def test_a_model_takes_the_place_of_another_and_nothing_of_that_is_left(model, tmp_path):
    out = tmp_path / "copy"
    write_release_with_performances(out)
    save_safetensors(out / WEIGHTS, load_safetensors(out / WEIGHTS, None), most_bytes=2000)
    assert (out / FILE).is_file() and len(list(out.glob("weights*"))) > 2
    release_copy(model, out)
    assert sorted(p.name for p in out.iterdir() if p.name != CARD) == [CONFIG, WEIGHTS]
    assert hub.load_trained(out, object, "model")[1] == MODEL
    release_copy(write_release_with_performances(tmp_path / "other"), out)  # and names stay with theirs
    assert hub.load_performances(out) is not None


def test_a_copy_can_render_otherwise(model, tmp_path):
    release_copy(model, tmp_path / "copy", bindings=["FrameDiffusionModel.num_steps = 5"])
    assert released_model(tmp_path / "copy" / CONFIG).num_steps == 5


@pytest.mark.parametrize(("more", "reason"), [
    ({"dtype": "int4"}, "int4: unknown"), ({"bindings": ["FrameDiffusionModel.no_such = 1"]}, "no_such")])
def test_bad_requests_write_nothing(model, tmp_path, more, reason):
    with pytest.raises(UserError, match=reason) as error:
        release_copy(model, tmp_path / "copy", **more)
    assert "\n" not in str(error.value) and not (tmp_path / "copy").exists()


def test_broken_or_missing_models_and_the_models_own_folder(model, tmp_path):
    with pytest.raises(UserError, match="is the model itself"):
        release_copy(model, model, dtype="int8")
    with pytest.raises(UserError, match="nowhere: no such model"):
        release_copy(tmp_path / "nowhere", tmp_path / "copy")
    save_safetensors(model / WEIGHTS, {"a": np.zeros(3)})
    with pytest.raises(UserError, match="do not fit"):
        release_copy(model, tmp_path / "copy")
    assert dtypes(model) == {"float16"} and not (tmp_path / "copy").exists()


def test_what_is_a_released_model(model, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "weights_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path.parent)
    assert is_released(model) and is_released("model") and not is_released("other")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert not is_released(tmp_path / "run") and not is_released(tmp_path)
