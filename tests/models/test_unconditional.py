"""Generation: losses of a network that knows nothing yet, classes, and what is given of a spectrogram."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import compiled
from reference.compiled import eval_fn, loss_fn, predict

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.regions import CLASS, GIVEN, REGION
from music_diffusion.diffusion.sampling import KarrasLogSNR
from music_diffusion.diffusion.schedules import alpha_sigma, signal_rates
from music_diffusion.errors import UserError
from music_diffusion.models import unconditional
from music_diffusion.models.base import Sampling
from music_diffusion.models.unconditional import UnconditionalModel
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.unconditional import UnconditionalConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.networks.unet2d import UNet2DConfig
from music_diffusion.training.optimizers import frozen_mask

B, T, F = 4, 16, 8
CODEC = MelCodec(mels=F)
FRAMES = UNet1DConfig(widths=(12, 12), blocks=1, time_features=4, heads=1, head_dim=4, output=F)
PICTURE = UNet2DConfig(widths=(4, 6), blocks=1, middle=8, heads=1, head_dim=4, noise_features=4,
                       attention_down=(), attention_up=(0, 1))
OURS = UnconditionalModel(
    config=UnconditionalConfig(unet=FRAMES, classes=2, class_features=4, regions=True), codec=CODEC,
    frames=T, context=8, classes=("calm", "loud"), num_steps=4)
PAPER = UnconditionalModel(config=UnconditionalConfig(unet=PICTURE), codec=CODEC, frames=T, num_steps=3,
                           schedule=signal_rates(lowest=0.1952, highest=0.9326), data_std=0.0)
PATCHES = dataclasses.replace(OURS, config=dataclasses.replace(
    OURS.config, patch=2, region_features=6, unet=dataclasses.replace(FRAMES, output=2 * F)))
RNG = jax.random.key(3)


def normal(seed, size=B, mean=-0.45, std=0.45):
    return np.random.default_rng(seed).normal(mean, std, (size, T, F)).astype(np.float32)


def batch_of(model, size=B):
    batch = {"targets": normal(0, size)}
    return batch | ({CLASS: np.arange(size) % 2} if model.classes else {})


def shapes(model):
    return {k: v.shape for k, v in batch_of(model).items()}


def awake(model):
    """Random where a fresh network has zeros."""
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda v: (v + 0.3 * rng.normal(size=v.shape)).astype(np.float32) if v.ndim > 1
                        else np.abs(v + 0.1 * rng.normal(size=v.shape)).astype(np.float32),
                        compiled.init(model, shapes(model))["params"])


def statistics(axes=None):
    """Statistics of patches of N(-0.45, 0.45²), along given axes or random ones."""
    axes = np.linalg.qr(np.random.default_rng(8).normal(size=(2 * F, 2 * F)))[0] if axes is None else axes
    return {"mean": np.full(2 * F, -0.45), "axes": axes, "std": np.full(2 * F, 0.45)}


@pytest.fixture(scope="module")
def params():
    return awake(OURS)


@pytest.fixture(scope="module")
def patch_params():
    return awake(PATCHES) | {"statistics": jax.tree.map(np.float32, statistics())}


@pytest.mark.parametrize("function", [loss_fn, eval_fn])
@pytest.mark.parametrize("model", [OURS, PAPER, PATCHES], ids=["ours", "paper", "patches"])
def test_network_that_says_nothing_costs_one(model, function):
    # The noise has variance 1; and so has what is left of data N(mean, std²) at every noise level.
    fresh = compiled.init(model, shapes(model))["params"]
    if model is PATCHES:
        fresh = fresh | {"statistics": jax.tree.map(np.float32, statistics())}
    loss, metrics = function(model, fresh, batch_of(model, 256), RNG)
    assert loss == pytest.approx(1.0, abs=0.02) and metrics["loss"] == pytest.approx(loss)


def test_what_is_known_costs_nothing(monkeypatch):
    region = np.ones((B, T, F), np.float32)
    region[:, 3, 2] = 0
    monkeypatch.setattr(unconditional, "draw_regions", lambda rng, shape, dropout: jnp.asarray(region))
    fresh = OURS.init(RNG, {})["params"]
    batch = batch_of(OURS)
    elsewhere = {**batch, "targets": np.where(region > 0, normal(9), batch["targets"])}
    here = {**batch, "targets": np.where(region > 0, batch["targets"], normal(9))}
    own = OURS.eval_fn(fresh, batch, RNG)[0]
    assert OURS.eval_fn(fresh, elsewhere, RNG)[0] == own != OURS.eval_fn(fresh, here, RNG)[0]


def test_network_sees_where_and_what_is_known(params, monkeypatch):
    losses = []
    for value in (0.0, 1.0):  # the same cells count
        region = np.full((B, T, F), value, np.float32)
        monkeypatch.setattr(unconditional, "draw_regions",
                            lambda rng, shape, dropout, r=region: jnp.asarray(r))
        monkeypatch.setattr(unconditional, "diffusion_loss", lambda denoise, x0, rng, **_: (
            jnp.mean(denoise(jnp.zeros_like(x0), jnp.zeros(B))), {}))
        for seed in (0, 1):
            losses.append(float(OURS.eval_fn(params, batch_of(OURS) | {"targets": normal(seed)}, RNG)[0]))
    assert losses[0] == losses[1]  # nothing is known, and the targets play no part
    assert len(set(losses[1:])) == 3


def test_class_is_seen_dropped_and_mixed(params):
    batch = batch_of(OURS)
    other = batch | {CLASS: 1 - batch[CLASS]}
    assert abs(eval_fn(OURS, params, batch, RNG)[0] - eval_fn(OURS, params, other, RNG)[0]) > 1e-4
    dropped = dataclasses.replace(OURS, class_dropout=1.0)
    assert loss_fn(dropped, params, batch, RNG)[0] == loss_fn(dropped, params, other, RNG)[0]
    one_hot = batch | {CLASS: np.eye(2, dtype=np.float32)[batch[CLASS]]}
    np.testing.assert_allclose(eval_fn(OURS, params, one_hot, RNG)[0], eval_fn(OURS, params, batch, RNG)[0],
                               rtol=1e-6)


def test_guidance_goes_away_from_no_class(params):
    z, logsnr = normal(1, B, 0, 1), np.zeros(B, np.float32)
    batch = {CLASS: np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]}
    nothing = {CLASS: np.zeros((B, 2), np.float32)}

    def v(weight, batch):
        model = dataclasses.replace(OURS, guidance_weight=weight)
        return np.asarray(model.denoiser(params, batch, z.shape)(z, logsnr))

    with_class, without = v(1.0, batch), v(1.0, nothing)
    assert np.abs(with_class - without).max() > 1e-3
    np.testing.assert_allclose(v(2.5, batch), without + 2.5 * (with_class - without), atol=1e-4)


def test_what_is_given_stays(params):
    given, region = normal(2), (np.random.default_rng(1).random((B, T, F)) < 0.4).astype(np.float32)
    batch = {CLASS: np.zeros((B, 2), np.float32), GIVEN: given, REGION: region}
    made = predict(OURS, params, batch, RNG)
    np.testing.assert_array_equal(made[region > 0], given[region > 0])
    other = predict(OURS, params, batch | {GIVEN: np.where(region > 0, given, 0.7)}, RNG)
    np.testing.assert_array_equal(made, other)  # what does not stay plays no part
    changed = predict(OURS, params, batch | {GIVEN: normal(4)}, RNG)
    assert np.abs(changed - made)[region == 0].max() > 1e-3  # what stays does


def test_patches_see_only_what_is_known(patch_params):
    # A band and a beginning that ends within a patch.
    region = np.zeros((B, T, F), np.float32)
    region[:, :5], region[:, :, :3] = 1, 1
    batch = {CLASS: np.zeros((B, 2), np.float32), GIVEN: normal(2), REGION: region}
    z, logsnr = normal(1, B, 0, 1), np.zeros(B, np.float32)

    def v(**changes):
        return np.asarray(PATCHES.denoiser(patch_params, batch | changes, z.shape)(z, logsnr))

    np.testing.assert_array_equal(v(), v(**{GIVEN: np.where(region > 0, batch[GIVEN], 0.7)}))
    assert np.abs(v() - v(**{GIVEN: np.where(region > 0, 0.7, batch[GIVEN])})).max() > 1e-3
    assert np.abs(v() - v(**{REGION: region * (np.arange(F) > 0)})).max() > 1e-3
    made = predict(PATCHES, patch_params, batch, RNG)
    np.testing.assert_array_equal(made[region > 0], batch[GIVEN][region > 0])


def test_axes_are_another_view_of_the_same_data(patch_params):
    # With one deviation along all axes the guess is the same along any of them, and F is not along them.
    silent = jax.tree.map(np.zeros_like, patch_params["unet"])
    z, logsnr = normal(1, B, 0, 1), np.zeros(B, np.float32)
    batch = {CLASS: np.zeros((B, 2), np.float32)}
    ours = awake(OURS)
    by_axes = [PATCHES.denoiser(patch_params | {"unet": silent, "statistics": jax.tree.map(
        np.float32, statistics(axes))}, batch, z.shape)(z, logsnr) for axes in (None, np.eye(2 * F))]
    by_frames = OURS.denoiser(ours | {"unet": jax.tree.map(np.zeros_like, ours["unet"])}, batch, z.shape)(
        z, logsnr)
    for v in by_axes:
        np.testing.assert_allclose(v, by_frames, atol=1e-5)


def test_statistics_come_from_a_file_and_are_not_trained(tmp_path):
    file = tmp_path / "statistics.safetensors"
    save_safetensors(file, {"statistics": statistics()}, dtype="float32")
    model = dataclasses.replace(PATCHES, statistics=str(file))
    params = model.init(RNG, {})["params"]
    for name, value in statistics().items():
        np.testing.assert_allclose(params["statistics"][name], value, rtol=1e-6)
    assert jax.tree.structure(params) == jax.tree.structure(PATCHES.init(RNG, {})["params"])
    for name, gradient in jax.grad(lambda p: model.loss_fn(p, batch_of(model), RNG)[0])(
            params)["statistics"].items():
        assert not np.any(gradient), name
    frozen = frozen_mask(params, model.frozen, strict=True)
    assert all(jax.tree.leaves(frozen["statistics"])) and not any(jax.tree.leaves(frozen["unet"]))
    other = dataclasses.replace(OURS, statistics=str(file))
    with pytest.raises(UserError, match="not the statistics of patches of 0 frames"):
        other.init(RNG, {})


def test_what_is_projected_alone_is_not_seen(params):
    blind = dataclasses.replace(OURS, sees=False)
    z, logsnr = normal(1, B, 0, 1), np.zeros(B, np.float32)
    batch = {CLASS: np.zeros((B, 2), np.float32), GIVEN: normal(2), REGION: np.ones((B, T, F), np.float32)}
    free = OURS.denoiser(params, {CLASS: batch[CLASS]}, z.shape)(z, logsnr)
    np.testing.assert_array_equal(blind.denoiser(params, batch, z.shape)(z, logsnr), free)
    assert np.abs(OURS.denoiser(params, batch, z.shape)(z, logsnr) - free).max() > 1e-3
    half = batch | {REGION: batch[REGION] * (np.arange(T) < 8)[:, None]}
    np.testing.assert_array_equal(predict(blind, params, half, RNG)[:, :8], half[GIVEN][:, :8])


def test_variation_of_no_strength_is_the_recording(params):
    batch = {CLASS: np.zeros((B, 2), np.float32), GIVEN: np.clip(normal(2), -0.99, 0.99),
             REGION: np.zeros((B, T, F), np.float32)}

    def distance(strength):
        model = dataclasses.replace(OURS, strength=strength)
        return np.abs(predict(model, params, batch, RNG) - batch[GIVEN]).mean()

    assert distance(1e-4) < 0.01 < 0.1 < distance(1.0)


def test_schedule_of_the_paper():
    alpha, _ = alpha_sigma(PAPER.schedule.logsnr(jnp.asarray([0.0, 1.0])))
    np.testing.assert_allclose(alpha, [0.9326, 0.1952], rtol=1e-5)


def test_running_statistics_are_trained_with_the_paper_s_network():
    model, params = PAPER, awake(PAPER)
    batch = batch_of(model)
    gradient = jax.grad(lambda p: model.loss_fn(p, batch, RNG)[0])(params)
    assert np.abs(gradient["unet"]["down_0_0"]["norm"]["running_mean"]).max() > 1e-3
    assert OURS.sampling == Sampling(steps=4, solver=OURS.solver, grid=OURS.times, guidance=1.0,
                                     strength=1.0, passes=1)


@pytest.mark.parametrize("changes, words", [
    ({"frames": 15}, "frames = 15 must be a multiple of 2"),
    ({"classes": ("calm",)}, "the network has 2; give as many"),
    ({"context": 16}, "context = 16 must be at least 0, below 16"),
    ({"class_dropout": 1.5}, "class_dropout = 1.5 must be from 0 to 1"),
    ({"strength": 0.0}, "strength=0.0 must be above 0"), ({"passes": 0}, "passes=0"),
    ({"data_std": -1.0}, "data_std=-1.0"),
    ({"config": PATCHES.config, "data_std": 0.0}, "patches of 2 frames needs data_std above 0"),
    ({"config": dataclasses.replace(OURS.config, patch=2)}, "UNet1DConfig.output = 16"),
    ({"config": PATCHES.config, "frames": 18}, "frames = 18 must be a multiple of 4"),
    ({"num_steps": 0}, "num_steps=0")])
def test_impossible_fields_are_refused(changes, words):
    with pytest.raises(UserError, match=words):
        dataclasses.replace(OURS, **changes)


def test_settings_that_it_does_not_have_are_refused():
    with pytest.raises(UserError, match="no classes to follow"):
        PAPER.sampled_by(Sampling(guidance=2.0))
    with pytest.raises(UserError, match="context"):
        dataclasses.replace(PAPER, context=4)
    asked = Sampling(steps=7, grid=KarrasLogSNR(), strength=0.5, passes=3, guidance=2.0)
    assert OURS.sampled_by(asked) == dataclasses.replace(
        OURS, num_steps=7, times=KarrasLogSNR(), strength=0.5, passes=3, guidance_weight=2.0)
