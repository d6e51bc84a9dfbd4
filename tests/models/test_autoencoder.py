"""Autoencoders: what their latents are, and that every term trains what it should."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from reference import compiled

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.losses import squared
from music_diffusion.errors import UserError
from music_diffusion.models.autoencoder import AutoencoderModel, divergence, moments
from music_diffusion.models.feature_loss import FeatureLoss
from music_diffusion.models.spaces import LatentSpace
from music_diffusion.networks.autoencoder import (
    FrameAutoencoderConfig,
    PictureAutoencoderConfig,
    Posterior,
    TransposedConv,
    sampled,
)
from music_diffusion.networks.discriminators import STFTDiscriminatorConfig
from music_diffusion.networks.vggish import VGGishConfig
from music_diffusion.training.optimizers import frozen_mask

F, T, B = 16, 64, 4
CODEC = MelCodec(mels=F)
OURS = AutoencoderModel(codec=CODEC, frames=8, kl_weight=1e-3, config=FrameAutoencoderConfig(
    mels=F, patch=4, width=12, blocks=1, latent=6))
PAPER = AutoencoderModel(codec=CODEC, frames=8, distance=squared, regularization=moments,
                         config=PictureAutoencoderConfig(mels=F, features=(4, 6), latent=3))
EARS = FeatureLoss(network=VGGishConfig(channels=((4,), (4,)), hidden=(8,), embedding=4))
JUDGE = STFTDiscriminatorConfig(channels=(4, 6), strides=((2, 2),), stem_kernel=(3, 3))
RNG = jax.random.key(1)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    course = np.cumsum(rng.normal(size=(B, T, 3)), axis=1) @ rng.normal(size=(3, F))
    return {"targets": np.tanh(0.1 * course).astype(np.float32)}


def params_of(model):
    """Random where a fresh network has zeros."""
    rng = np.random.default_rng(5)
    fresh = compiled.init(model)["params"]
    return jax.tree.map(lambda v: v + jnp.asarray(0.1 * rng.normal(size=v.shape), jnp.float32)
                        if v.ndim > 1 else v, fresh)


def size(tree):
    return float(jnp.abs(ravel_pytree(tree)[0]).max())


@pytest.mark.parametrize("model, step, channels", [(OURS, 4, 6), (PAPER, 8, 6)], ids=["ours", "paper"])
def test_latents_are_small_and_of_unit_variance_while_training(model, step, channels, batch):
    params = params_of(model)
    posterior, _ = model.network.apply({"params": params["autoencoder"]}, batch["targets"], train=True,
                                       mutable=["tracked"], method="encode")
    assert posterior.mean.shape == (B, T // step, channels) == (
        B, T // model.config.step, model.config.channels)
    if model is OURS:
        np.testing.assert_allclose(posterior.mean.mean((0, 1)), 0, atol=1e-4)
        np.testing.assert_allclose(posterior.mean.var((0, 1)), 1, atol=0.05)
    assert model.decode(params, posterior.mean).shape == (B, T, F)


def test_the_paper_s_sizes():
    paper = AutoencoderModel(config=PictureAutoencoderConfig())
    shapes = jax.eval_shape(paper.network.init, RNG, jnp.zeros((1, 128, 128)))["params"]
    count = sum(np.prod(v.shape) for v in jax.tree.leaves(shapes))
    convolutions = 2 * 9 * (64 + 64 * 128 + 128 * 32) + (64 + 128 + 32) + (128 + 64 + 1)  # down and up
    assert count == convolutions + 4 * (64 + 128 + 32 + 128 + 64)  # batch norms
    assert (paper.config.step, paper.config.channels) == (8, 16 * 32)


def test_transposed_convolution_is_the_loop():
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=shape) for shape in ((1, 3, 4, 2), (3, 3, 2, 5), (5,)))
    want = np.zeros((6 + 2, 8 + 2, 5))  # with an edge of one cell
    for h, w, i, j in np.ndindex(3, 4, 3, 3):
        # As the convolution from 6 × 8 cells to 3 × 4 reads them, and so with its kernel reversed.
        want[2 * h + i, 2 * w + j] += x[0, h, w] @ kernel[2 - i, 2 - j]
    made = TransposedConv(5).apply({"params": {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}},
                                   jnp.float32(x))
    np.testing.assert_allclose(made[0], want[1:-1, 1:-1] + bias, atol=1e-5)


def test_frames_see_their_surroundings_alone(batch):
    params = params_of(OURS)
    changed = batch["targets"].copy()
    changed[:, 33] += 0.5  # in patch 8; two convolutions of 3 taps see two patches on each side
    away = np.abs(OURS.encode(params, batch["targets"]) - OURS.encode(params, changed)).max((0, 2))
    assert (away[6:11] > 0).all() and not away[:6].any() and not away[11:].any()


def test_regularisations():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(2, 1, 3, 2))
    grid = np.linspace(-12, 12, 20001)[:, None, None]
    variance = np.exp(logvar[0])
    density = np.exp(-0.5 * (grid - mean[0])**2 / variance) / np.sqrt(2 * np.pi * variance)
    normal = np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi)
    integrand = np.where(density > 0, density * np.log(np.maximum(density, 1e-300) / normal), 0.0)
    oracle = np.trapezoid(integrand, dx=24 / 20000, axis=0).mean()
    assert divergence(Posterior(jnp.asarray(mean), jnp.asarray(logvar))) == pytest.approx(oracle, rel=1e-4)
    at = {z: float(moments(Posterior(jnp.full((1, 1, 1), z), None))) for z in (0.5, 1.0, -1.0, 2.0)}
    assert at[1.0] == pytest.approx(0.0, abs=1e-6) and at[1.0] == at[-1.0] < min(at[0.5], at[2.0])
    with pytest.raises(UserError, match="no width"):
        divergence(Posterior(jnp.zeros((1, 1, 1)), None))


def test_samples_have_the_posterior_s_width():
    posterior = Posterior(jnp.full((1, 20000, 1), 0.3), jnp.full((1, 20000, 1), np.log(0.04)))
    drawn = np.asarray(sampled(posterior, RNG))
    assert drawn.mean() == pytest.approx(0.3, abs=0.01) and drawn.std() == pytest.approx(0.2, rel=0.05)
    assert sampled(Posterior(posterior.mean, None), RNG) is posterior.mean


@pytest.mark.slow
@pytest.mark.parametrize("base", [OURS, PAPER], ids=["ours", "paper"])
@pytest.mark.parametrize("weights, trains", [
    ({"kl_weight": 1.0}, {"encoder"}), ({"perceptual_weight": 1.0}, {"encoder", "decoder"}),
    ({"adversarial_weight": 1.0}, {"encoder", "decoder"}),
    ({"feature_weight": 1.0}, {"encoder", "decoder"})],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "")
def test_every_term_trains_what_it_should(base, weights, trains, batch):
    nothing = dict.fromkeys(("kl_weight", "perceptual_weight", "adversarial_weight", "feature_weight"), 0.0)
    model = dataclasses.replace(base, ears=EARS, judge=JUDGE, **nothing)
    alone = dataclasses.replace(model, **weights)
    params = params_of(model)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: model.loss_fn(p, batch, RNG)[0]))(params)

    without, having = gradient(model), gradient(alone)
    own = jax.tree.map(jnp.subtract, having, without)
    assert {part for part in ("encoder", "decoder") if size(own["autoencoder"][part]) > 1e-7} == trains
    assert size(own["judge"]) < 1e-6 < size(having["judge"])  # which has its own loss alone
    assert size(having["ears"]) == 0
    assert min(size(without["autoencoder"][part]) for part in ("encoder", "decoder")) > 1e-6


def test_parts_that_training_alone_needs():
    model = dataclasses.replace(OURS, ears=EARS, judge=JUDGE)
    params = compiled.init(model)["params"]
    assert set(params) == {"autoencoder", "judge", "ears"}
    assert set(model.released_params(params)) == set(compiled.init(OURS)["params"]) == {"autoencoder"}
    frozen = frozen_mask(params, model.frozen, strict=True)
    assert all(jax.tree.leaves(frozen["ears"])) and not any(jax.tree.leaves(frozen["autoencoder"]))


@pytest.mark.slow
@pytest.mark.parametrize("model", [OURS, PAPER], ids=["ours", "paper"])
def test_it_learns_to_reconstruct(model, batch):
    params = compiled.init(model)["params"]
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, rng):
        gradient = jax.grad(lambda p: model.loss_fn(p, batch, rng)[0])(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    before = float(model.eval_fn(params, batch, RNG)[1]["l1_nat"])
    for i in range(150):
        params, state = step(params, state, jax.random.key(i))
    assert float(model.eval_fn(params, batch, RNG)[1]["l1_nat"]) < 0.5 * before


def test_space_is_the_autoencoder(batch):
    params, space = params_of(OURS), LatentSpace(codec=CODEC, autoencoder=OURS.config)
    mel = CODEC.unscale(batch["targets"][0])
    latent = space.of_mel(params, mel)
    assert latent.shape == (T // space.step, space.channels)
    made = OURS.predict_batch(params, {"targets": batch["targets"][:1]}, RNG)
    np.testing.assert_allclose(space.to_mel(params, latent), CODEC.unscale(np.clip(made[0], -1, 1)),
                               atol=1e-4)


@pytest.mark.parametrize("changes, words", [
    ({"codec": MelCodec(mels=8)}, "16 bins are not the codec's 8"), ({"frames": 6}, "multiple of 4"),
    ({"kl_weight": -1.0}, "kl_weight=-1.0")])
def test_impossible_fields_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(OURS, **changes)
