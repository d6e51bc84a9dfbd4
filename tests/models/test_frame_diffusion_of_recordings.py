"""Frame diffusion with a recording beside its notes: evidence, references, strength; and how it begins."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from reference import compiled
from reference.compiled import eval_fn, loss_fn

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.heard import HeardFrames
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS

B, T, F, E, D = 3, 8, 8, 11, 5
PLAIN = FrameDiffusionModel(num_steps=4, config=ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)),
    unet=UNet1DConfig(widths=(16, 16), blocks=1, time_features=4, heads=1, head_dim=8, output=F)))
PERFORMED = dataclasses.replace(PLAIN, config=dataclasses.replace(
    PLAIN.config, performances=PerformanceConfig(count=2, features=3), tails=(0.3, 2.0)))


def transferring(model):
    return dataclasses.replace(model, config=dataclasses.replace(
        model.config, evidence=E, reference=D, reference_features=6))


BASES = {"plain": PLAIN, "performed": PERFORMED}
MODEL = transferring(PERFORMED)
RNG = jax.random.key(3)


def draw(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def batch():
    return {"targets": draw(0, B, T, F), "maps": draw(1, B, T, 2, F), "tails": draw(2, B, T, 2, F),
            "roll": draw(3, B, T, ROLL_CHANNELS), "performance": np.array([0, 1, 0], np.int32),
            "evidence": draw(4, B, T, E), "reference": draw(5, B, D)}


def random_params(model, seed=1):
    """Random where a fresh network has zeros."""
    rng = np.random.default_rng(seed)
    flat = flatten_dict(jax.tree.map(np.asarray, dict(compiled.init(model)["params"])), sep="/")
    return unflatten_dict({k: (v + 0.1 * rng.normal(size=v.shape)).astype(np.float32)
                           if not k.startswith("timbre") else v for k, v in flat.items()}, sep="/")


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_it_begins_as_the_model_without_recordings(batch, base):
    """Whatever the evidence and the reference are."""
    model = BASES[base]
    stored = random_params(model)
    # With a fresh FiLM the tone of a reference, too, is nothing yet.
    larger = transferring(model)
    params = larger.adopt(compiled.init(larger)["params"], stored)
    want = eval_fn(model, stored, batch, RNG)[0]
    np.testing.assert_allclose(eval_fn(larger, params, batch, RNG)[0], want, rtol=1e-5)
    other = batch | {"evidence": 9 * batch["evidence"]}
    np.testing.assert_allclose(eval_fn(larger, params, other, RNG)[0], want, rtol=1e-5)


@pytest.mark.parametrize("name", ["evidence", "reference"])
def test_it_sees_recordings_and_references(params, batch, name):
    other = batch | {name: draw(9, *batch[name].shape)}
    assert abs(eval_fn(MODEL, params, batch, RNG)[0] - eval_fn(MODEL, params, other, RNG)[0]) > 1e-5
    louder = batch | {"reference": 3 * batch["reference"]}  # its direction counts
    np.testing.assert_allclose(eval_fn(MODEL, params, louder, RNG)[0],
                               eval_fn(MODEL, params, batch, RNG)[0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dropout, names", [
    ("evidence_dropout", ["evidence"]), ("performance_dropout", ["reference", "performance"]),
    ("condition_dropout", ["maps", "roll"])])
def test_each_is_dropped_by_itself(params, batch, dropout, names):
    always, never = (dataclasses.replace(MODEL, **dict.fromkeys(
        ("evidence_dropout", "performance_dropout", "condition_dropout"), 0.0) | {dropout: share})
        for share in (1.0, 0.0))
    for name in ("evidence", "reference", "maps"):
        other = batch | {name: draw(9, *batch[name].shape)}
        if name == "maps":
            other["roll"] = draw(8, *batch["roll"].shape)
        for model, dropped in ((always, name in names), (never, False)):
            losses = [float(loss_fn(model, params, x, RNG)[0]) for x in (batch, other)]
            assert (losses[0] == losses[1]) == dropped, (name, dropout)


@pytest.mark.slow
def test_guidance_of_the_evidence_is_away_from_what_is_made_without(params, batch):
    z, logsnr = jnp.asarray(draw(6, B, T, F)), jnp.asarray([0.0, 1.0, -2.0])
    full = MODEL.denoiser(params, batch)(z, logsnr)
    without = MODEL.denoiser(params, batch | {"evidence": 0 * batch["evidence"]})(z, logsnr)
    guided = dataclasses.replace(MODEL, evidence_guidance=2.5).denoiser(params, batch)(z, logsnr)
    assert np.abs(full - without).max() > 1e-3
    np.testing.assert_allclose(guided, full + 1.5 * (full - without), atol=1e-4)
    none = MODEL.denoiser(params, batch | {"reference": 0 * batch["reference"],
                                           "performance": np.zeros((B, 2), np.float32)})(z, logsnr)
    guided = dataclasses.replace(MODEL, performance_guidance=2.5).denoiser(params, batch)(z, logsnr)
    np.testing.assert_allclose(guided, full + 1.5 * (full - none), atol=1e-4)


def test_little_strength_leaves_the_recording(params, batch):
    batch = batch | {"evidence": 0.5 * batch["evidence"]}
    noise = jnp.asarray(draw(7, B, T, F))
    little = MODEL.sampled_by(Sampling(strength=0.01)).sample(params, batch, noise, RNG)
    np.testing.assert_allclose(little, batch["evidence"][..., :F], atol=0.05)
    whole = MODEL.sample(params, batch, noise, RNG)
    assert np.abs(whole - batch["evidence"][..., :F]).max() > 0.3
    np.testing.assert_array_equal(
        whole, MODEL.sampled_by(Sampling(strength=1.0)).sample(params, batch, noise, RNG))


def test_abilities():
    assert MODEL.hears and not PLAIN.hears
    assert isinstance(MODEL.conditions, HeardFrames) and type(PLAIN.conditions) is NoteFrames
    assert MODEL.sampling.strength == 1.0 and PLAIN.sampling.strength is None
    with pytest.raises(UserError, match="--strength"):
        PLAIN.sampled_by(Sampling(strength=0.5))
    with pytest.raises(UserError, match="strength"):
        dataclasses.replace(PLAIN, strength=0.5)
    with pytest.raises(UserError, match="strength"):
        dataclasses.replace(MODEL, strength=0.0)


@pytest.mark.parametrize("name", ["evidence", "reference"])
def test_missing_features_and_wrong_sizes_are_named(params, batch, name):
    with pytest.raises(UserError, match=name):
        MODEL.loss_fn(params, {k: v for k, v in batch.items() if k != name}, RNG)
    with pytest.raises(UserError, match=f"{name} = "):
        MODEL.loss_fn(params, batch | {name: batch[name][..., 1:]}, RNG)
