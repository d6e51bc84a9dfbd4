"""Exported weights are the averaged parameters of the run."""

import numpy as np
import pytest
from reference.toy_regression import ToyModel, ToySource

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors, save_safetensors
from music_diffusion.training.export import export
from music_diffusion.training.loop import TrainConfig, train
from music_diffusion.training.optimizers import adamw


@pytest.mark.slow
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_export_of_a_run(tmp_path, ema_decay):
    result = train(model=ToyModel(), data=ToySource(), optimizer=adamw(learning_rate=0.03),
                   config=TrainConfig(total_steps=5, batch_size=8, ema_decay=ema_decay,
                                      eval_every=0),
                   model_dir=str(tmp_path / "run"))
    expected = result.state.ema_params if ema_decay else result.state.params
    half = load_safetensors(export(tmp_path / "run", tmp_path / "half"))
    full = load_safetensors(export(tmp_path / "run", tmp_path / "full", dtype="float32"))
    assert set(full) == {"w", "u", "bias"} and (tmp_path / "half" / "config.gin").is_file()
    for name, value in full.items():
        np.testing.assert_array_equal(value, expected[name])
        assert half[name].dtype == np.float32
        np.testing.assert_array_equal(half[name], np.asarray(expected[name]).astype(np.float16))


def test_nested_names_and_integers_round_trip(tmp_path):
    params = {"a": {"b": {"kernel": np.ones((2, 3), np.float32)}}, "count": np.array([3], np.int32)}
    save_safetensors(tmp_path / "w", params)
    loaded = load_safetensors(tmp_path / "w", dtype=None)
    assert loaded["a"]["b"]["kernel"].dtype == np.float16 and loaded["count"].dtype == np.int32
    np.testing.assert_array_equal(loaded["a"]["b"]["kernel"], params["a"]["b"]["kernel"])


def test_bad_files_and_values(tmp_path):
    with pytest.raises(UserError, match="float16 cannot hold"):
        save_safetensors(tmp_path / "w", {"w": np.array([1e6], np.float32)})
    (tmp_path / "junk").write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(UserError, match="not a safetensors file"):
        load_safetensors(tmp_path / "junk")
    with pytest.raises(UserError, match="no such file"):
        load_safetensors(tmp_path / "absent")
    with pytest.raises(UserError, match="dtype int4: unknown"):
        export(tmp_path, tmp_path, dtype="int4")
