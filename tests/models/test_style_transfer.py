"""Style transfer against what is known: statistics, what each term trains, what is seen."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from reference import compiled
from reference.compiled import loss_fn, predict

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.sampling import UniformLogSNR
from music_diffusion.diffusion.schedules import CosineSchedule
from music_diffusion.diffusion.solvers import DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.feature_loss import FeatureLoss
from music_diffusion.models.style_loss import StyleTerms
from music_diffusion.models.style_transfer import StyleTransferModel
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.autoencoder import FrameAutoencoderConfig, PictureAutoencoderConfig
from music_diffusion.networks.style import FrameStyleConfig, PictureStyleConfig
from music_diffusion.networks.style_denoiser import PictureStyleDenoiserConfig, StyleDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.networks.vggish import VGGishConfig
from music_diffusion.notes.heard import CHANNELS
from music_diffusion.training.optimizers import frozen_mask

F, T, S, E = 8, 8, 8, 5
CODEC = MelCodec(mels=F)
RNG = jax.random.key(2)


def network(output: int) -> StyleDenoiserConfig:
    return StyleDenoiserConfig(
        unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4, output=output,
                          memories=2),
        style=FrameStyleConfig(patch=2, width=8, blocks=1, maps=2, vector=4), step=2, content=E,
        codec=None, frame_features=4)


SHORT = CosineSchedule(logsnr_min=-12.0, logsnr_max=12.0)
MEL = StyleTransferModel(config=network(2 * F), codec=CODEC, frames=T, style_frames=S, schedule=SHORT,
                         solver=DPMSolverPP2M(), times=UniformLogSNR(logsnr_start=-12.0, logsnr_end=12.0),
                         num_steps=40)
LATENT = StyleTransferModel(
    config=network(6), codec=CODEC, frames=T, style_frames=S, num_steps=40, schedule=SHORT,
    solver=DPMSolverPP2M(), times=MEL.times,
    autoencoder=FrameAutoencoderConfig(mels=F, patch=2, width=8, blocks=1, latent=6))
EARS = FeatureLoss(network=VGGishConfig(channels=((4,), (4,)), hidden=(8,), embedding=4))
# VGGish hears patches of 0.96 s.
PAPER = StyleTransferModel(
    config=PictureStyleDenoiserConfig(latent=3, features=(4, 6, 8), heads=2, time_features=4, step=8,
                                      style=PictureStyleConfig(features=(4, 4, 6, 8), maps=2)),
    codec=MelCodec(mels=32), frames=64, style_frames=64, predicts="noise", schedule=SHORT, num_steps=4,
    autoencoder=PictureAutoencoderConfig(mels=32, features=(4, 6), latent=3), terms=StyleTerms(ears=EARS))


def statistics(d: int):
    rng = np.random.default_rng(d)
    axes, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return {"mean": np.linspace(-0.1, 0.2, d), "axes": axes, "std": np.geomspace(0.3, 0.03, d)}


def params_of(model, awake: float = 0.0):
    """Fresh parameters with statistics; `awake` is added to them, as noise of this deviation."""
    rng = np.random.default_rng(5)
    params = dict(compiled.init(model)["params"])
    params = {name: jax.tree.map(lambda v: v + awake * rng.normal(size=v.shape).astype(np.float32), part)
              for name, part in params.items()}
    if "statistics" in params:
        params["statistics"] = jax.tree.map(np.float32, statistics(model.config.unet.output))
    return params


def batch_of(size=4, frames=T, mels=F, seed=0):
    rng = np.random.default_rng(seed)
    return {"targets": rng.uniform(-0.8, 0.8, (size, frames, mels)).astype(np.float32),
            "source": rng.uniform(-0.8, 0.8, (size, frames, mels)).astype(np.float32),
            "style": rng.uniform(-0.8, 0.8, (size, frames, mels)).astype(np.float32),
            "content": rng.uniform(0, 1, (size, frames, E)).astype(np.float32)}


def largest(tree) -> float:
    return float(jnp.abs(ravel_pytree(tree)[0]).max())


@pytest.mark.parametrize("model", [MEL, LATENT], ids=["mel", "latent"])
def test_samples_of_a_silent_network_have_the_statistics(model):
    """Where its patches stay: it does not know how they go together."""
    params, own = params_of(model), statistics(model.config.unet.output)
    model = dataclasses.replace(model, moves=False)
    made = np.asarray(predict(model, params, batch_of(400), RNG)).reshape(-1, len(own["std"]))
    along = (made - own["mean"]) @ own["axes"]
    np.testing.assert_allclose(along.std(axis=0), own["std"], rtol=0.12)
    np.testing.assert_allclose(along.mean(axis=0), 0, atol=0.04)


def test_without_temperature_samples_are_the_mean():
    params, own = params_of(MEL), statistics(2 * F)
    still = dataclasses.replace(MEL, moves=False, temperature=0.0)
    made = np.asarray(predict(still, params, batch_of(4), RNG)).reshape(-1, 2 * F)
    np.testing.assert_allclose(made, np.broadcast_to(own["mean"], made.shape), atol=1e-3)


def test_a_silent_network_costs_one():
    params, own = params_of(MEL), statistics(2 * F)
    rng = np.random.default_rng(1)
    made = own["mean"] + rng.normal(size=(400, T // 2, 2 * F)) * own["std"] @ own["axes"].T
    batch = batch_of(400) | {"targets": made.reshape(400, T, F).astype(np.float32)}
    assert loss_fn(MEL, params, batch, RNG)[0] == pytest.approx(1.0, abs=0.05)


def test_strength_begins_with_the_content():
    """Samples a silent network: with little strength the content comes back, with all of it nothing."""
    params, batch = params_of(MEL), batch_of(64)
    share = []
    for strength in (0.02, 0.3, 1.0):
        model = MEL.sampled_by(Sampling(strength=strength, steps=20))
        made = np.asarray(predict(model, params, batch, RNG))
        share.append(np.corrcoef(made.ravel(), batch["source"].ravel())[0, 1])
    assert share[0] > 0.97 and share[0] > share[1] > share[2] and abs(share[2]) < 0.15


def test_the_paper_s_network_begins_with_the_content_at_any_strength():
    """Its schedule leaves some of it; without a content there is noise alone."""
    params, batch, other = params_of(PAPER, 0.1), batch_of(2, 64, 32), batch_of(2, 64, 32, seed=9)
    made = predict(PAPER, params, batch, RNG)
    assert PAPER.strength == 1 and np.abs(
        made - predict(PAPER, params, batch | {"source": other["source"]}, RNG)).max() > 1e-4
    free = predict(PAPER, params, {"style": batch["style"]}, RNG)
    assert free.shape == made.shape and np.isfinite(free).all()


@pytest.mark.parametrize("model", [MEL, LATENT], ids=["mel", "latent"])
def test_content_and_style_are_seen_where_they_are_kept(model):
    params, batch, other = params_of(model, 0.2), batch_of(), batch_of(seed=9)
    model = dataclasses.replace(model, num_steps=4)
    made = predict(model, params, batch, RNG)
    for name in ("content", "style"):
        assert np.abs(made - predict(model, params, batch | {name: other[name]}, RNG)).max() > 1e-3
        left = {k: v for k, v in batch.items() if k != name}
        assert np.abs(made - predict(model, params, left, RNG)).max() > 1e-3
    # The targets are not needed, and not seen.
    np.testing.assert_array_equal(made, predict(model, params, batch | {"targets": other["targets"]}, RNG))


def test_guidance_moves_away_from_what_is_without():
    """By equation 2 of `diffusion.guidance`, of style and content each; without one it is not guided by."""
    params, batch = params_of(MEL, 0.2), batch_of()
    z, logsnr = jnp.asarray(batch["source"]), jnp.linspace(-3, 3, 4)

    def output(model, given):
        return np.asarray(jax.jit(lambda: model.denoiser(params, given, 4, T)(z, logsnr))())

    without_style, without_content = ({k: v for k, v in batch.items() if k != name}
                                      for name in ("style", "content"))
    full = output(MEL, batch)
    guided = dataclasses.replace(MEL, guidance_weight=3.0, content_guidance=1.5)
    wanted = full + 2.0 * (full - output(MEL, without_style)) + 0.5 * (full - output(MEL, without_content))
    np.testing.assert_allclose(output(guided, batch), wanted, atol=2e-4)
    np.testing.assert_allclose(output(guided, without_style),
                               output(dataclasses.replace(MEL, content_guidance=1.5), without_style),
                               atol=1e-6)
    assert guided.sampling.guidance == 3.0 and guided.sampling.content_guidance == 1.5
    assert MEL.sampled_by(Sampling(content_guidance=1.5)).content_guidance == 1.5


def gradients(model, params, batch):
    return jax.jit(jax.grad(lambda p: model.loss_fn(p, batch, RNG)[0]))(params)


def test_each_term_trains_what_it_should():
    """The paper's style loss never moved: its network listened without a gradient."""
    params, batch = params_of(PAPER, 0.1), batch_of(2, 64, 32)

    def of(**weights):
        terms = dataclasses.replace(PAPER.terms, **({"diffusion": 0.0, "reconstruction": 0.0, "style": 0.0}
                                                    | weights))
        model = dataclasses.replace(PAPER, terms=terms, style_dropout=0.0)
        return gradients(model, params, batch)

    style, diffusion, reconstruction = of(style=1.0), of(diffusion=1.0), of(reconstruction=1.0)
    for part in ("style", "down_0", "output"):
        assert largest(style[part]) > 0 and largest(diffusion[part]) > 0
        assert largest(reconstruction[part]) == 0
    assert largest(reconstruction["autoencoder"]["decoder"]) > 0 == largest(
        diffusion["autoencoder"]["decoder"])
    for tree in (style, diffusion, reconstruction):
        assert largest(tree["autoencoder"]["encoder"]) == 0 == largest(tree["ears"])
    frozen = frozen_mask(params, PAPER.frozen, strict=True)
    assert all(jax.tree.leaves([frozen["autoencoder"]["encoder"], frozen["ears"]]))
    assert not any(jax.tree.leaves([frozen["autoencoder"]["decoder"], frozen["style"], frozen["down_0"]]))
    assert "ears" not in PAPER.released_params(params)


def test_what_is_drawn_learns_what_the_targets_are_like():
    """The map of the content in the style has an error of its own, beside that of diffusion."""
    drawing = dataclasses.replace(MEL, content_dropout=0.0, config=dataclasses.replace(
        MEL.config, content=CHANNELS + 1, codec=CODEC))
    params, batch = params_of(drawing), batch_of()
    rng = np.random.default_rng(3)
    batch["content"] = rng.uniform(0, 1, (4, T, CHANNELS + 1)).astype(np.float32)
    cond = compiled_condition(drawing, params, batch)
    error = np.abs(cond["map"] - batch["targets"]).mean()
    unweighted, weighted = (dataclasses.replace(drawing, map_weight=w) for w in (0.0, 2.0))
    (plain, _), (both, metrics) = (loss_fn(m, params, batch, RNG) for m in (unweighted, weighted))
    assert both - plain == pytest.approx(2 * error, rel=1e-3)
    assert metrics["map_l1"] == pytest.approx(error * (CODEC.log_max - CODEC.log_min) / 2, rel=1e-3)
    # A silent network hands no gradient to what it sees.
    assert largest(gradients(unweighted, params, batch)["colours"]) == 0
    for part in ("colours", "style"):
        assert largest(gradients(weighted, params, batch)[part]) > 0
    other = dataclasses.replace(drawing.config, codec=MelCodec(mels=F, fmax=7000.0))
    with pytest.raises(UserError, match="codecs differ"):
        dataclasses.replace(drawing, config=other)
    with pytest.raises(ValueError, match="should be 177"):
        dataclasses.replace(drawing.config, content=E)


def compiled_condition(model, params, batch):
    ones = jnp.ones(len(batch["targets"]))
    given = (batch["content"], batch["style"], ones, ones)
    return jax.jit(lambda: model.network.apply({"params": params}, *given, method="condition"))()


def test_a_latent_s_autoencoder_is_given(tmp_path):
    params, batch = params_of(LATENT, 0.1), batch_of()
    assert largest(gradients(LATENT, params, batch)["autoencoder"]) == 0
    frozen = frozen_mask(params, LATENT.frozen, strict=True)
    assert all(jax.tree.leaves([frozen["autoencoder"], frozen["statistics"]]))
    assert not any(jax.tree.leaves([frozen["unet"], frozen["style"], frozen["frame"]]))
    file = tmp_path / "autoencoder.safetensors"
    save_safetensors(file, {"autoencoder": params["autoencoder"]}, dtype="float32")
    begun = dataclasses.replace(LATENT, autoencoder_weights=str(file)).init(RNG, {})["params"]
    both = [jax.tree.leaves(tree["autoencoder"]) for tree in (begun, params)]
    for leaf, given in zip(*both, strict=True):
        np.testing.assert_array_equal(leaf, given)
    with pytest.raises(UserError, match="not the weights of"):
        other = dataclasses.replace(LATENT.autoencoder, width=10)
        dataclasses.replace(LATENT, autoencoder=other, autoencoder_weights=str(file)).init(RNG, {})


def test_space_and_segment_are_of_the_latent():
    assert (MEL.space.step, MEL.space.channels, MEL.segment.frames, MEL.segment.multiple) == (1, F, 8, 4)
    assert (LATENT.space.step, LATENT.space.channels, LATENT.segment.frames, LATENT.segment.multiple) == (
        2, 6, 4, 2)
    params, batch = params_of(LATENT, 0.1), batch_of(1)
    seen = LATENT.space.of_mel(params, CODEC.unscale(batch["targets"][0]))
    np.testing.assert_allclose(seen, LATENT._latent(params, batch["targets"])[0], atol=1e-4)


def test_training_begins_with_what_is_needed():
    for model, message in ((MEL, "StyleTransferModel.statistics is None"),
                           (dataclasses.replace(LATENT, statistics="some"), "autoencoder_weights is None"),
                           (PAPER, "autoencoder_weights is None")):
        with pytest.raises(UserError, match=message):
            model.require_start()
    dataclasses.replace(MEL, statistics="some").require_start()


@pytest.mark.parametrize("changes, message", [
    ({"predicts": "x0"}, "predicts = 'x0'"), ({"strength": 0.0}, "strength=0.0"),
    ({"frames": 6}, "frames = 6"), ({"style_frames": 6}, "style_frames = 6"),
    ({"content_dropout": 2.0}, "content_dropout = 2.0"),
    ({"map_weight": -1.0}, "map_weight=-1"), ({"temperature": -0.1}, "temperature=-0.1"),
    ({"num_steps": 0}, "num_steps=0"),
    ({"terms": StyleTerms(ears=EARS)}, "autoencoder is None"),
    ({"config": network(6)}, "output = 6 must be"),
    ({"autoencoder": FrameAutoencoderConfig(mels=F, patch=4)}, "an autoencoder of 4 frames"),
])
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(MEL, **changes)


def test_terms_that_cannot_be():
    with pytest.raises(UserError, match="StyleTerms.style = -1"):
        StyleTerms(style=-1)
    with pytest.raises(ValueError, match="as long as targets"):
        loss_fn(PAPER, params_of(PAPER), batch_of(2, 64, 32) | {"style": np.zeros((2, 32, 32))}, RNG)
