"""Frame diffusion over patches, with a network that says nothing: statistics of what the map misses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import compiled
from reference.compiled import loss_fn, predict

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS
from music_diffusion.training.optimizers import frozen_mask

B, T, F, P = 256, 8, 4, 2
MODEL = FrameDiffusionModel(num_steps=100, config=ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)), patch=P, frame_features=6,
    unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4, output=P * F)))
AXES, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(P * F, P * F)))
STD = np.geomspace(0.3, 0.02, P * F)
STATISTICS = {"mean": np.linspace(-0.05, 0.05, P * F), "axes": AXES, "std": STD}
RNG = jax.random.key(2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("statistics") / "statistics.safetensors"
    save_safetensors(file, {"statistics": STATISTICS}, dtype="float32")
    return dataclasses.replace(MODEL, statistics=str(file))


@pytest.fixture(scope="module")
def params(model):
    return model.init(RNG, {})["params"]


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(1)
    maps = rng.uniform(-0.3, 0.3, (B, T, 2, F)).astype(np.float32)
    missed = STATISTICS["mean"] + rng.normal(size=(B, T // P, P * F)) * STD @ AXES.T
    return {"maps": maps, "roll": np.zeros((B, T, ROLL_CHANNELS), np.float32),
            "targets": (maps[:, :, 0] + missed.reshape(B, T, F)).astype(np.float32)}


def test_a_silent_network_costs_one_with_the_notes_and_without(model, params, batch):
    kept, dropped = (dataclasses.replace(model, condition_dropout=share) for share in (0.0, 1.0))
    assert loss_fn(kept, params, batch, RNG)[0] == pytest.approx(1.0, abs=0.05)
    c = model.config
    free = batch | {"targets": np.random.default_rng(4).normal(
        c.data_mean, c.data_std, (B, T, F)).astype(np.float32)}
    assert loss_fn(dropped, params, free, RNG)[0] == pytest.approx(1.0, abs=0.05)


def test_samples_of_a_silent_network_have_the_statistics(model, params, batch):
    model = dataclasses.replace(model, moves=False)  # it does not know how patches go together
    made = np.asarray(predict(model, params, batch, RNG)) - batch["maps"][:, :, 0]
    along = (made.reshape(-1, P * F) - STATISTICS["mean"]) @ AXES
    np.testing.assert_allclose(along.std(0), STD, rtol=0.1)
    correlation = np.corrcoef(along.T) - np.eye(P * F)
    assert np.abs(correlation).max() < 0.15


def test_statistics_are_begun_with_and_left_alone(model, params):
    for name, value in STATISTICS.items():
        np.testing.assert_allclose(params["statistics"][name], value, rtol=1e-6)
    frozen = frozen_mask(params, model.frozen, strict=True)
    assert all(jax.tree.leaves([frozen["statistics"], frozen["timbre"]]))
    assert not any(jax.tree.leaves([frozen["unet"], frozen["frame"]]))
    assert model.segment.multiple == 2 * P
    with pytest.raises(UserError, match="not the statistics of patches of 4 frames"):
        dataclasses.replace(model, config=dataclasses.replace(
            model.config, patch=4, unet=dataclasses.replace(model.config.unet, output=4 * F))).init(RNG, {})


def test_other_data_bring_their_deviations_to_stored_weights(model, params):
    stored = params | {"statistics": params["statistics"] | {"std": jnp.full(P * F, 0.7)}}
    grown = model.adopt(params, stored)
    np.testing.assert_array_equal(grown["statistics"]["std"], params["statistics"]["std"])
    kept = MODEL.adopt(params, stored)  # without a file those of the weights stay
    np.testing.assert_array_equal(kept["statistics"]["std"], stored["statistics"]["std"])
    turned = stored | {"statistics": params["statistics"] | {"axes": jnp.asarray(AXES[:, ::-1])}}
    with pytest.raises(UserError, match="its axes are not those of INIT_FROM.*--axes"):
        model.adopt(params, turned)


def test_training_does_not_begin_around_no_statistics(model):
    model.require_start()
    unet = dataclasses.replace(MODEL.config.unet, output=F)
    frames = dataclasses.replace(MODEL.config, patch=0, unet=unet)
    dataclasses.replace(MODEL, config=frames).require_start()
    with pytest.raises(UserError, match=r"FrameDiffusionModel.statistics is None.*--patch 2"):
        MODEL.require_start()


def test_a_recording_beside_the_notes_changes_nothing_before_it_is_learned(params, batch):
    rng = np.random.default_rng(6)
    stored = params | {"unet": jax.tree.map(
        lambda v: v + jnp.asarray(0.1 * rng.normal(size=v.shape), jnp.float32), params["unet"])}
    larger = dataclasses.replace(MODEL, config=dataclasses.replace(MODEL.config, evidence=5))
    grown = larger.adopt(compiled.init(larger)["params"], stored)
    some = {k: v[:3] for k, v in batch.items()}
    seen = some | {"evidence": rng.normal(size=(3, T, 5)).astype(np.float32)}
    np.testing.assert_allclose(predict(larger, grown, seen, RNG), predict(MODEL, stored, some, RNG),
                               atol=1e-5)
