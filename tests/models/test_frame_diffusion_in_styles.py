"""Frame diffusion of recordings that attends to a stretch of a style's recording."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from models.test_frame_diffusion_of_recordings import draw, random_params
from reference import compiled
from reference.compiled import eval_fn, loss_fn

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.pitch_colours import PITCHES
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.style import FrameStyleConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS

B, T, F, D, S = 3, 8, 8, 5, 8
E = F + 2 * PITCHES
HEARING = FrameDiffusionModel(num_steps=4, config=ScoreDenoiserConfig(
    evidence=E, reference=D, reference_features=6,
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)),
    unet=UNet1DConfig(widths=(16, 16), blocks=1, time_features=4, heads=1, head_dim=8, output=F)))
MODEL = dataclasses.replace(HEARING, style_frames=S, config=dataclasses.replace(
    HEARING.config, unet=dataclasses.replace(HEARING.config.unet, memories=2),
    style=FrameStyleConfig(patch=2, width=8, blocks=1, maps=2, vector=4)))
RNG = jax.random.key(3)


@pytest.fixture(scope="module")
def batch():
    seen = np.concatenate([draw(4, B, T, F), np.abs(draw(5, B, T, 2 * PITCHES))], axis=-1)
    return {"targets": draw(0, B, T, F), "maps": draw(1, B, T, 2, F), "roll": draw(3, B, T, ROLL_CHANNELS),
            "evidence": seen, "reference": draw(6, B, D), "style": draw(7, B, S, F)}


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def test_it_begins_as_the_model_without_styles(batch):
    """But for the error of what it draws, whatever the style is."""
    stored = random_params(HEARING)
    params = MODEL.adopt(compiled.init(MODEL)["params"], stored)
    silent = dataclasses.replace(MODEL, map_weight=0.0)
    want = eval_fn(HEARING, stored, batch, RNG)[0]
    for style in (batch["style"], 3 * batch["style"]):
        loss, _ = eval_fn(silent, params, batch | {"style": style}, RNG)
        np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_the_loss_has_the_error_of_the_evidence_drawn_in_the_style(params, batch):
    ones = jnp.ones(B)
    drawn = MODEL.condition(params, batch, ones)["drawn"]
    error = float(np.abs(drawn - batch["targets"]).mean())
    codec, losses = MODEL.codec, []
    for weight in (0.0, 1.0, 2.0):
        loss, metrics = eval_fn(dataclasses.replace(MODEL, map_weight=weight), params, batch, RNG)
        losses.append(float(loss))
        assert losses[-1] == pytest.approx(losses[0] + weight * error, rel=1e-5)
        assert float(metrics["loss"]) == pytest.approx(losses[-1], rel=1e-6)
        nat = 0.5 * (codec.log_max - codec.log_min) * error
        assert float(metrics["drawn_l1"]) == pytest.approx(nat, rel=1e-5)


@pytest.mark.parametrize("map_weight, begin", [(0.0, ("style", "unet/down_1_memory", "likeness")),
                                               (1.0, ("colours", "style"))])
def test_each_term_trains_what_hears_the_style(params, batch, map_weight, begin):
    model = dataclasses.replace(MODEL, map_weight=map_weight)
    other = {} if map_weight == 0 else jax.grad(
        lambda p: dataclasses.replace(MODEL, map_weight=0.0).eval_fn(p, batch, RNG)[0])(params)
    grads = jax.grad(lambda p: model.eval_fn(p, batch, RNG)[0])(params)
    if other:
        grads = jax.tree.map(lambda a, b: a - b, grads, other)
    flat = flatten_dict(grads, sep="/")
    for name in begin:
        parts = {k: float(jnp.abs(v).max()) for k, v in flat.items() if k.startswith(name)}
        assert parts and max(parts.values()) > 1e-5, name


def test_the_style_goes_with_the_reference_and_what_is_drawn_with_the_evidence(params, batch):
    never = dict.fromkeys(("evidence_dropout", "performance_dropout", "condition_dropout"), 0.0)
    other = batch | {"style": draw(9, B, S, F), "reference": draw(10, B, D)}
    for share, same in ((1.0, True), (0.0, False)):
        model = dataclasses.replace(MODEL, **never | {"performance_dropout": share})
        losses = [float(loss_fn(model, params, x, RNG)[0]) for x in (batch, other)]
        assert (losses[0] == losses[1]) == same
    deaf = dataclasses.replace(MODEL, **never | {"evidence_dropout": 1.0})
    assert float(loss_fn(deaf, params, batch, RNG)[1]["drawn_l1"]) == 0.0


def test_guidance_is_the_styles_and_of_the_content(params, batch):
    z, logsnr = jnp.asarray(draw(6, B, T, F)), jnp.asarray([0.0, 1.0, -2.0])
    full = MODEL.denoiser(params, batch)(z, logsnr)
    ones, zeros = jnp.ones(B), jnp.zeros(B)
    without = MODEL._denoise(params, z, logsnr, MODEL.condition(params, batch, ones, zeros))
    guided = MODEL.sampled_by(Sampling(guidance=2.5))
    made = guided.denoiser(params, batch)(z, logsnr)
    np.testing.assert_allclose(made, full + 1.5 * (full - without), atol=1e-4)
    assert np.abs(full - without).max() > 1e-3
    without = MODEL._denoise(params, z, logsnr, MODEL.condition(params, batch, ones, None, zeros))
    guided = MODEL.sampled_by(Sampling(content_guidance=0.0))
    np.testing.assert_allclose(guided.denoiser(params, batch)(z, logsnr), without, atol=1e-4)
    assert MODEL.sampling.guidance == MODEL.sampling.content_guidance == 1.0
    # Without a style guidance is that of the notes.
    other = HEARING.sampled_by(Sampling(guidance=2.0, content_guidance=3.0))
    assert (other.guidance_weight, other.evidence_guidance, other.performance_guidance) == (2.0, 3.0, 1.0)
    deaf = dataclasses.replace(HEARING, config=dataclasses.replace(HEARING.config, evidence=0))
    with pytest.raises(UserError, match="--content-guidance"):
        deaf.sampled_by(Sampling(content_guidance=2.0))


def test_abilities():
    assert MODEL.restyles and MODEL.hears and not HEARING.restyles and HEARING.likes
    assert MODEL.conditions.style_frames == S and HEARING.conditions.style_frames == 0
    with pytest.raises(UserError, match="style_frames"):
        dataclasses.replace(MODEL, style_frames=S - 1)
    with pytest.raises(ValueError, match="memories"):
        dataclasses.replace(MODEL.config, unet=HEARING.config.unet)
    with pytest.raises(ValueError, match="activations"):
        dataclasses.replace(MODEL.config, evidence=F + 2 * PITCHES - 1)


def test_a_missing_style_is_named(params, batch):
    with pytest.raises(UserError, match="style"):
        MODEL.loss_fn(params, {k: v for k, v in batch.items() if k != "style"}, RNG)
    with pytest.raises(UserError, match="takes no style"):
        HEARING.network.apply(
            {"params": params}, batch["maps"], batch["roll"], jnp.ones(B), evidence=batch["evidence"],
            reference=batch["reference"], style=batch["style"], method="condition")
