"""DiffTransfer: noise is predicted beside the source, at any level; all slices share theirs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import compiled
from reference.compiled import eval_fn, loss_fn, predict

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.conditions.base import Source
from music_diffusion.diffusion.solvers import DDPM
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.timbre_transfer import TimbreTransferModel
from music_diffusion.networks.unet2d import UNet2DConfig
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

B, T, F = 3, 8, 8
CODEC = MelCodec(mels=F)
CONFIG = UNet2DConfig(widths=(4, 6), blocks=1, middle=8, heads=1, head_dim=4, noise_features=4,
                      attention_down=(), attention_up=(1,))
MODEL = TimbreTransferModel(config=CONFIG, codec=CODEC, frames=T, num_steps=3)
RNG = jax.random.key(3)


def draw(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def batch():
    return {"targets": draw(0, B, T, F), "source": draw(1, B, T, F)}


@pytest.fixture(scope="module")
def fresh(batch):
    return compiled.init(MODEL, {k: v.shape for k, v in batch.items()})["params"]


@pytest.fixture(scope="module")
def params(fresh):
    """Random where a fresh network has zeros."""
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda v: np.abs(v + 0.2 * rng.normal(size=v.shape)).astype(np.float32)
                        if v.ndim == 1 else (v + 0.2 * rng.normal(size=v.shape)).astype(np.float32), fresh)


@pytest.mark.parametrize("function", [loss_fn, eval_fn])
def test_silence_about_the_noise_costs_its_mean_size(fresh, function):
    many = {name: draw(seed, 64, T, F) for seed, name in enumerate(("targets", "source"))}
    loss, metrics = function(MODEL, fresh, many, RNG)
    # A fresh network predicts no noise: the mean of |N(0, 1)|.
    assert abs(loss - np.sqrt(2 / np.pi)) < 0.02 and metrics["loss"] == pytest.approx(loss)


def test_levels_and_ranges_of_slices_play_no_part(params, batch):
    gain, shift = np.float32([0.1, 0.5, 0.9])[:, None, None], np.float32([-0.5, 0.0, 0.05])[:, None, None]
    other = {name: gain * values + shift for name, values in batch.items()}
    want = eval_fn(MODEL, params, batch, RNG)[0]
    np.testing.assert_allclose(eval_fn(MODEL, params, other, RNG)[0], want, rtol=1e-4)
    as_they_are = dataclasses.replace(MODEL, slices_scaled=False)
    assert abs(eval_fn(as_they_are, params, other, RNG)[0] - want) > 1e-3


def test_what_is_made_has_the_range_of_its_source(params, batch):
    made = predict(MODEL, params, {"source": batch["source"]}, RNG)
    gain, shift = np.float32([0.1, 0.5, 0.9])[:, None, None], np.float32([-0.5, 0.0, 0.05])[:, None, None]
    other = predict(MODEL, params, {"source": gain * batch["source"] + shift}, RNG)
    np.testing.assert_allclose(other, gain * made + shift, atol=1e-4)
    low, high = batch["source"].min((1, 2)), batch["source"].max((1, 2))
    assert (made.min((1, 2)) >= low - 1e-5).all() and (made.max((1, 2)) <= high + 1e-5).all()


def test_a_slice_of_one_value_is_no_division_by_nothing(params):
    flat = {"source": np.full((1, T, F), -1, np.float32), "targets": draw(0, 1, T, F)}
    assert np.isfinite(eval_fn(MODEL, params, flat, RNG)[0])
    np.testing.assert_allclose(predict(MODEL, params, flat, RNG), -1, atol=1e-5)


def test_the_source_is_seen(params, batch):
    other = batch | {"source": draw(9, B, T, F)}
    assert abs(eval_fn(MODEL, params, batch, RNG)[0] - eval_fn(MODEL, params, other, RNG)[0]) > 1e-3


@pytest.mark.slow
def test_training_follows_the_batch_and_evaluation_the_running_statistics(params, batch):
    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: MODEL.loss_fn(p, batch, RNG)[0])(params)

    running = gradient(params)["down_0_0"]["norm"]["running_mean"]
    assert np.abs(running).max() > 1e-3
    moved = dict(params)
    moved["down_0_0"] = jax.tree.map(lambda x: x, params["down_0_0"])
    moved["down_0_0"]["norm"] = dict(params["down_0_0"]["norm"]) | {
        "running_mean": params["down_0_0"]["norm"]["running_mean"] + 1}
    np.testing.assert_allclose(loss_fn(MODEL, moved, batch, RNG)[0], loss_fn(MODEL, params, batch, RNG)[0],
                               rtol=1e-5)
    assert abs(eval_fn(MODEL, moved, batch, RNG)[0] - eval_fn(MODEL, params, batch, RNG)[0]) > 1e-3
    still = jax.grad(lambda p: MODEL.eval_fn(p, batch, RNG)[0])(params)
    assert not np.any(still["down_0_0"]["norm"]["running_mean"])


def test_schedule_is_that_of_the_authors():
    alpha = 1 / np.sqrt(1 + np.exp(-np.asarray(MODEL.schedule.logsnr(jnp.linspace(0, 1, 5)))))
    np.testing.assert_allclose(alpha, np.cos(np.linspace(np.arccos(0.95), np.arccos(0.02), 5)), rtol=1e-3)


def rendered(params, mel, settings=RenderSettings(), model=MODEL):
    source = Source(codec=CODEC, mel=mel, frames=len(mel))
    synthesizer = Synthesizer(name="tiny", model=model, params=params, inverter=GriffinLim(codec=CODEC))
    return list(synthesizer.stream_mel(source, settings))


def test_slices_of_a_piece_begin_with_the_same_noise(params):
    slice_ = CODEC.unscale(draw(2, T, F))
    one, two, rest = rendered(params, np.concatenate([slice_, slice_, slice_[:3]]))
    np.testing.assert_array_equal(one, two)
    assert len(rest) == 3
    other = rendered(params, slice_, RenderSettings(seed=1))[0]
    assert np.abs(other - one).max() > 1e-3


@pytest.mark.slow
def test_overlapping_slices_agree_where_they_meet(params):
    model = dataclasses.replace(MODEL, frames=64)
    mel = CODEC.unscale(draw(2, 96, F))
    settings = RenderSettings(joining="overlap", segment=1.28, overlap=0.64)
    whole = np.concatenate(rendered(params, mel, settings, model))
    assert whole.shape == mel.shape and np.isfinite(whole).all()
    # The hook sees what comes out, not the slices in their own range: half of a fixed spectrogram stays.
    def half(x0):
        return x0.at[:, :4].set(0.25)

    batch = {"source": draw(1, 2, T, F) * np.float32([[[1.0]], [[0.3]]])}
    made = model.sample(params, batch, jnp.asarray(draw(4, 2, T, F)), RNG, x0_hook=half)
    np.testing.assert_allclose(made[:, :4], 0.25, atol=1e-5)


def test_steps_and_solver_can_be_chosen_and_guidance_not():
    assert MODEL.sampling == Sampling(steps=3, solver=MODEL.solver, strength=1.0)
    other = MODEL.sampled_by(Sampling(steps=7, solver=DDPM(), strength=0.5))
    assert (other.num_steps, other.solver, other.strength) == (7, DDPM(), 0.5)
    with pytest.raises(UserError, match="guidance"):
        MODEL.sampled_by(Sampling(guidance=2.0))


def test_little_strength_leaves_the_recording(params, batch):
    given = {"source": batch["source"]}
    noise = jnp.asarray(draw(4, B, T, F))
    schedule = dataclasses.replace(MODEL.schedule, logsnr_max=20.0)  # the authors' begins with some noise
    model = dataclasses.replace(MODEL, schedule=schedule)
    little = model.sampled_by(Sampling(strength=1e-4)).sample(params, given, noise, RNG)
    np.testing.assert_allclose(little, batch["source"], atol=0.05)
    assert np.abs(model.sample(params, given, noise, RNG) - batch["source"]).max() > 0.3


@pytest.mark.parametrize("bad, word", [({"frames": 6}, "frames"), ({"codec": MelCodec(mels=6)}, "mels"),
                                       ({"num_steps": 0}, "num_steps"),
                                       ({"strength": 0.0}, "strength"), ({"strength": 1.1}, "strength")])
def test_sizes_that_do_not_fit_are_refused(bad, word):
    with pytest.raises(UserError, match=word):
        dataclasses.replace(MODEL, **bad)


@pytest.mark.parametrize("missing", ["targets", "source"])
def test_missing_features_are_named(params, batch, missing):
    with pytest.raises(UserError, match=missing):
        MODEL.loss_fn(params, {k: v for k, v in batch.items() if k != missing}, RNG)
