import dataclasses

import jax
import numpy as np
import pytest
from reference.tiny_release import PERFORMANCES, tiny_params, with_performances

from music_diffusion.errors import UserError
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.models.stored_timbre import stored_timbre
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("config", [
    NoteTimbreConfig(width=8, layers=1), NoteTimbreConfig(width=4, layers=2, performances=PERFORMANCES)])
def test_a_network_of_its_own_says_what_it_is(config, tmp_path):
    params = dict(NoteTimbreModel(config=config).init(jax.random.key(0), {})["params"])
    save_safetensors(tmp_path / "timbre", params, dtype="float32")
    found, stored = stored_timbre(tmp_path / "timbre")
    assert found == config
    same(stored, jax.tree.map(np.asarray, params))


@pytest.mark.slow
def test_that_of_a_frame_diffusion_model_is_found_in_its_weights(tmp_path):
    model = with_performances()
    params = tiny_params(model)
    save_safetensors(tmp_path / "whole", params, dtype="float32")
    found, stored = stored_timbre(tmp_path / "whole")
    assert found == model.config.timbre
    same(stored, params["timbre"])


@pytest.mark.slow
def test_other_weights_are_refused(tmp_path):
    params = tiny_params()
    save_safetensors(tmp_path / "unet", params["unet"])
    other = dataclasses.replace(NoteTimbreConfig(width=8, layers=1), layers=2)
    broken = dict(NoteTimbreModel(config=other).init(jax.random.key(0), {})["params"])
    broken.pop("output")
    save_safetensors(tmp_path / "broken", broken)
    for name in ("unet", "broken"):
        with pytest.raises(UserError, match=f"{name}: not the weights of"):
            stored_timbre(tmp_path / name)
    with pytest.raises(UserError, match="nowhere"):
        stored_timbre(tmp_path / "nowhere")
