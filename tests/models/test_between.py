"""Weights between those that training began with and those that it ended with."""

import dataclasses

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from models.test_frame_diffusion_of_recordings import MODEL, PERFORMED, random_params

from music_diffusion.errors import UserError
from music_diffusion.models.between import weights_between
from music_diffusion.models.weights import save_safetensors


def flat(params):
    return {k: np.asarray(v) for k, v in flatten_dict(dict(params), sep="/").items()}


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def saved(params, path):
    save_safetensors(path, params, dtype="float32")
    return str(path)


def test_a_mean_of_both(params, tmp_path):
    other = random_params(MODEL, seed=2)
    path = saved(other, tmp_path / "start.safetensors")
    mixed = flat(weights_between(MODEL, params, path, 0.25))
    for name, value in flat(params).items():
        np.testing.assert_allclose(mixed[name], 0.75 * value + 0.25 * flat(other)[name], atol=1e-6)


def test_what_the_first_weights_did_not_have_stays(params, tmp_path):
    """Entries of a smaller network are mixed; new ones, and new rows, are the trained ones."""
    stored = random_params(PERFORMED, seed=2)
    path = saved(stored, tmp_path / "start.safetensors")
    at, own, mixed = flat(stored), flat(params), flat(weights_between(MODEL, params, path, 1.0))
    assert mixed.keys() == own.keys()
    new = {name for name in own if name not in at}
    assert any("likeness" in name for name in new)
    for name in new:
        np.testing.assert_array_equal(mixed[name], own[name])
    wider = [name for name in at if at[name].shape != own[name].shape]
    assert wider
    for name in set(at) - set(wider):
        np.testing.assert_allclose(mixed[name], at[name], atol=1e-6)
    name = "unet/down_0_0/film/DenseGeneral_0/kernel"
    rows = len(at[name])
    np.testing.assert_allclose(mixed[name][:rows], at[name], atol=1e-6)
    np.testing.assert_array_equal(mixed[name][rows:], own[name][rows:])


def test_wrong_weights_and_shares(params, tmp_path):
    path = saved(random_params(PERFORMED), tmp_path / "start.safetensors")
    with pytest.raises(UserError, match="--start-share 1.5"):
        weights_between(MODEL, params, path, 1.5)
    wider = dataclasses.replace(PERFORMED, config=dataclasses.replace(
        PERFORMED.config, unet=dataclasses.replace(PERFORMED.config.unet, widths=(24, 24))))
    path = saved(random_params(wider), tmp_path / "wider.safetensors")
    with pytest.raises(UserError, match="not weights that"):
        weights_between(MODEL, params, path, 0.5)
    with pytest.raises(UserError, match="missing"):
        weights_between(MODEL, params, str(tmp_path / "missing.safetensors"), 0.5)
