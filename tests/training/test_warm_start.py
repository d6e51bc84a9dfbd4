"""Beginning a run with stored parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors, save_safetensors
from music_diffusion.training.checkpoints import read_params
from music_diffusion.training.loop import TrainConfig, train
from music_diffusion.training.optimizers import adamw
from music_diffusion.training.warm_start import warm_start

FRESH = {"g": {"a": jnp.zeros((2, 3)), "b": {"c": jnp.zeros(4)}}, "d": {"a": jnp.zeros(5)}}
STORED = {"g": {"a": np.ones((2, 3)), "b": {"c": np.full(4, 2.0)}}}


def test_a_part_that_is_there_is_taken_and_the_others_stay_fresh():
    warm = warm_start(FRESH, STORED, (), "file")
    jax.tree.map(np.testing.assert_array_equal, warm, {**STORED, "d": {"a": np.zeros(5)}})
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(warm))


def test_parts_can_be_chosen():
    other = {**STORED, "d": {"a": np.ones(7)}}  # of another size
    warm = warm_start(FRESH, other, ("g",), "file")
    jax.tree.map(np.testing.assert_array_equal, warm, {**STORED, "d": {"a": np.zeros(5)}})
    with pytest.raises(UserError, match=r"file: .* first at d/a: \(7,\) there, \(5,\) in the model"):
        warm_start(FRESH, other, (), "file")
    with pytest.raises(UserError, match="file: has no part 'e', only d, g"):
        warm_start(FRESH, other, ("e",), "file")


@pytest.mark.parametrize("stored, message", [
    ({"g": {"a": np.ones((3, 2)), "b": {"c": np.ones(4)}}}, r"g/a: \(3, 2\) there, \(2, 3\) in"),
    ({"g": {"a": np.ones((2, 3))}}, r"g/b/c: none there, \(4,\) in the model"),
    ({"g": {**STORED["g"], "new": np.ones(1)}}, r"g/new: \(1,\) there, none in the model"),
    ({"other": {"a": np.ones(1)}}, r"other/a: \(1,\) there, none in the model"),
    ({"g": np.ones(1)}, r"g: \(1,\) there, none in the model")])
def test_the_first_mismatch_is_named(stored, message):
    with pytest.raises(UserError, match=message) as caught:
        warm_start(FRESH, stored, (), "file")
    assert "\n" not in str(caught.value)


def go(folder, steps, **options):
    return train(model=ToyModel(), data=ToySource(), optimizer=adamw(learning_rate=1e-9),
                 config=TrainConfig(total_steps=steps, batch_size=8, log_every=1, eval_every=0),
                 model_dir=str(folder), **options).state


def test_a_run_begins_with_stored_parameters_unless_it_has_a_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    fresh = go(tmp_path / "first", 1).params
    stored = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), dict(fresh))
    save_safetensors(tmp_path / "w.safetensors", stored, dtype="float32")
    state = go(tmp_path / "second", 1, init_from=str(tmp_path / "w.safetensors"))
    for params in (state.params, state.ema_params):  # one step of 1e-9 later
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), dict(params), stored)
    # From a run's folder: its averaged parameters.
    third = go(tmp_path / "third", 1, init_from=str(tmp_path / "second"), init_parts=("w",))
    average = read_params(tmp_path / "second")[0]
    np.testing.assert_allclose(third.params["w"], average["w"], atol=1e-7)
    np.testing.assert_allclose(third.params["u"], fresh["u"], atol=1e-7)
    # A checkpoint wins; what init_from names is not even looked for.
    again = go(tmp_path / "second", 2, init_from=str(tmp_path / "gone"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), dict(again.params), stored)
    assert int(again.step) == 2


def test_sources_that_are_none(tmp_path):
    with pytest.raises(UserError, match="gone.safetensors: no such file"):
        go(tmp_path / "run", 1, init_from=str(tmp_path / "gone.safetensors"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkpoints/ there"):
        go(tmp_path / "run", 1, init_from=str(tmp_path / "empty"))
    save_safetensors(tmp_path / "other", {"w": np.ones((3, 3))})
    assert load_safetensors(tmp_path / "other")["w"].shape == (3, 3)
    with pytest.raises(UserError, match="other: does not fit this model, first at w"):
        go(tmp_path / "run", 1, init_from=str(tmp_path / "other"))
