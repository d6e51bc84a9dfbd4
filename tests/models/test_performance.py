"""Performances of zoo members: their feature, dropout, guidance, and models that grow."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from reference import compiled
from reference.compiled import eval_fn

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.performance import performance_weights
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ScoreDenoiserConfig
from music_diffusion.networks.transformer import T5Config
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS

B, T, F, R = 4, 8, 4, 3
CODEC = MelCodec(mels=F)
TABLE = PerformanceConfig(count=R, features=5)
T5 = SpectrogramDiffusionModel(codec=CODEC, guidance_weight=1.0, config=T5Config(
    embed_dim=8, num_heads=2, head_dim=4, mlp_dim=16, encoder_layers=1, decoder_layers=1, vocab_size=16,
    max_tokens=6, frames=T, mel_bins=F, context=False, dropout_rate=0.0, performances=TABLE))
UNET = FrameDiffusionModel(config=ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=4, layers=1, codec=CODEC), performances=TABLE, residual_std=0.2,
    unet=UNet1DConfig(widths=(8, 8), blocks=1, time_features=4, heads=1, head_dim=4, output=F)))
MODELS = {"t5": T5, "unet": UNET}
RNG = jax.random.key(7)


def with_table(model, table):
    return dataclasses.replace(model, config=dataclasses.replace(model.config, performances=table))


def batch_of(size=B):
    """Features of both models."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 16, (size, 6)).astype(np.int32)
    tokens[:, 4:] = 0
    return {"inputs": tokens,
            "maps": rng.uniform(-1, 1, (size, T, 2, F)).astype(np.float32),
            "roll": rng.uniform(0, 1, (size, T, ROLL_CHANNELS)).astype(np.float32),
            "targets": rng.uniform(-1, 1, (size, T, F)).astype(np.float32),
            "performance": (np.arange(size) % 2 * 2).astype(np.int32)}  # 0, 2, 0, 2


@functools.cache
def params_of(model):
    """Random where a fresh network has zeros, so that every path says something."""
    shapes = {k: v.shape for k, v in batch_of().items()}
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + jnp.asarray(0.2 * rng.standard_normal(x.shape), jnp.float32),
        dict(compiled.init(model, shapes)["params"]))


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


Z = jnp.asarray(np.random.default_rng(5).standard_normal((B, T, F)), jnp.float32)
LOGSNR = jnp.linspace(-4.0, 4.0, B)


@functools.partial(jax.jit, static_argnums=0)
def denoised(model, params, batch):
    return model.denoiser(params, batch)(Z, LOGSNR)


def performed(number):
    """The batch with one performance, or with weights of all."""
    number = np.asarray(number)
    if number.ndim:
        return batch_of() | {"performance": np.tile(number.astype(np.float32), (B, 1))}
    return batch_of() | {"performance": np.full(B, number, np.int32)}


def without_notes(batch):
    return batch | {"inputs": 0 * batch["inputs"]}


# ---- the feature ----


def test_numbers_are_rows_and_weights_are_themselves():
    given = performance_weights({"performance": np.array([1, 0])}, TABLE)
    np.testing.assert_array_equal(given, [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(performance_weights({"performance": given}, TABLE), given)
    kept = performance_weights({"performance": given}, TABLE, jnp.asarray([0.0, 1.0]))
    np.testing.assert_array_equal(kept, [[0, 0, 0], [1, 0, 0]])
    assert performance_weights({}, None) is None
    with pytest.raises(ValueError, match="2 weights for a table of 3"):
        performance_weights({"performance": np.zeros((4, 2))}, TABLE)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["loss_fn", "eval_fn", "predict_batch"])
def test_a_batch_without_the_feature_is_named(model, call):
    batch = {k: v for k, v in batch_of().items() if k != "performance"}
    with pytest.raises(UserError, match="performance"):
        getattr(model, call)(params_of(model), batch, RNG)


@pytest.mark.slow
def test_a_model_without_performances_ignores_the_feature(model):
    plain = with_table(model, None)
    batch = batch_of()
    losses = [float(eval_fn(plain, params_of(plain), b, RNG)[0])
              for b in (batch, {k: v for k, v in batch.items() if k != "performance"})]
    assert losses[0] == losses[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_feature_shapes_are_enough_to_begin_with(name):
    model = MODELS[name]
    fresh = jax.eval_shape(lambda: compiled.init(model, model.feature_shapes, RNG))["params"]
    assert jax.tree.map(jnp.shape, dict(fresh)) == jax.tree.map(jnp.shape, params_of(model))


# ---- what a performance does ----


@pytest.mark.slow
def test_weights_of_zero_are_an_embedding_of_zero(model):
    """Whatever is in the table."""
    params = params_of(model)
    zeros = {**params, "performances": jax.tree.map(jnp.zeros_like, params["performances"])}
    dropped = denoised(model, params, performed([0, 0, 0]))
    np.testing.assert_allclose(dropped, denoised(model, zeros, performed(1)), atol=1e-6)
    assert np.abs(dropped - denoised(model, params, performed(1))).max() > 1e-2


def test_weights_of_a_mixture_mix_the_rows_of_the_table(model):
    params = params_of(model)
    table = params["performances"]["embedding"]
    mixed = {**params, "performances": {"embedding": table.at[1].set(0.3 * table[0] + 0.7 * table[2])}}
    np.testing.assert_allclose(denoised(model, params, performed([0.3, 0, 0.7])),
                               denoised(model, mixed, performed(1)), atol=1e-5)


@pytest.mark.slow
def test_the_gradient_reaches_the_rows_of_the_batch_and_no_others(model):
    model = dataclasses.replace(model, performance_dropout=0.0)
    gradient = jax.jit(jax.grad(lambda p: model.loss_fn(p, batch_of(), RNG)[0]))(params_of(model))
    rows = np.abs(gradient["performances"]["embedding"]).max(axis=1)
    assert rows[1] == 0 and (rows[[0, 2]] > 0).all()


def without_map_film(params):
    """The U-Net's parameters where the map is the same for all performances."""
    return {**params, "map_film": jax.tree.map(jnp.zeros_like, params["map_film"])}


def test_the_unets_blocks_hear_the_performance_apart_from_the_map():
    params = without_map_film(params_of(UNET))
    a, b, none = (denoised(UNET, params, performed(p)) for p in (0, 1, [0, 0, 0]))
    assert min(np.abs(a - b).max(), np.abs(a - none).max(), np.abs(b - none).max()) > 1e-2


@pytest.mark.slow
def test_the_loss_teaches_every_block_of_the_unet_what_a_performance_is():
    """The rows of their FiLM that take the performance's features, beside those of the time."""
    params = without_map_film(params_of(UNET))
    model = dataclasses.replace(UNET, performance_dropout=0.0)
    gradient = jax.jit(jax.grad(lambda p: model.loss_fn(p, batch_of(), RNG)[0]))(params)
    film = {k: v for k, v in traverse_util.flatten_dict(gradient["unet"], sep="/").items()
            if "film/" in k}
    blocks = {f"{way}_{level}_0" for way in ("down", "up") for level in (0, 1)} | {"middle"}
    assert {k.split("/")[0] for k in film} == blocks
    for name, rows in film.items():
        assert np.abs(rows[-TABLE.features:]).max(axis=1).min() > 0, name
    table = np.abs(gradient["performances"]["embedding"]).max(axis=1)
    assert table[1] == 0 and (table[[0, 2]] > 0).all()


@pytest.mark.parametrize("name", MODELS)
def test_notes_and_performance_are_dropped_independently(name):
    """With 0.3 and 0.2: each as often, and both as often as independent events."""
    seen, size = {}, 4000

    if name == "t5":
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Spy(SpectrogramDiffusionModel):
            def _loss(self, params, batch, rng, rng_dropout):
                seen.update(notes=np.asarray(batch["inputs"]).any(1),
                            performance=np.asarray(batch["performance"]).any(1))
    else:
        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Spy(FrameDiffusionModel):
            def _loss(self, params, batch, rng, keep, keep_performance=None, keep_evidence=None):
                seen.update(notes=np.asarray(keep) > 0, performance=np.asarray(keep_performance) > 0)

    base = MODELS[name]
    fields = {f.name: getattr(base, f.name) for f in dataclasses.fields(base)}
    model = Spy(**fields | {"condition_dropout": 0.3, "performance_dropout": 0.2})
    batch = {k: np.repeat(v[:1], size, 0) for k, v in batch_of().items() if k != "roll"}
    model.loss_fn({}, batch | {"roll": np.zeros((size, 1, 1))}, jax.random.key(0))
    notes, performance = ~seen["notes"], ~seen["performance"]
    # 4000 draws: standard deviations 0.007, 0.006 and 0.004.
    assert abs(notes.mean() - 0.3) < 0.03 and abs(performance.mean() - 0.2) < 0.03
    assert abs((notes & performance).mean() - 0.06) < 0.02


# ---- guidance ----


@functools.partial(jax.jit, static_argnums=0)
def denoised_without_notes(model, params, batch):
    """Of the U-Net."""
    cond = model.condition(params, batch, jnp.zeros(B))
    return model.network.apply({"params": params}, Z, LOGSNR, model.schedule.inverse(LOGSNR), cond,
                               method="denoise")


def by_hand(model, params, batch, notes, performance):
    """Equation 2 of `diffusion.guidance`, from evaluations of their own of the unguided model."""
    plain = dataclasses.replace(model, guidance_weight=1.0, performance_guidance=1.0)
    zeros = batch | {"performance": np.zeros((B, R), np.float32)}
    full = denoised(plain, params, batch)
    no_performance = denoised(plain, params, zeros)
    no_notes = (denoised(plain, params, without_notes(batch)) if "decoder" in params
                else denoised_without_notes(plain, params, batch))
    assert np.abs(full - no_notes).max() > 1e-2 and np.abs(full - no_performance).max() > 1e-2
    return full + (notes - 1) * (full - no_notes) + (performance - 1) * (full - no_performance)


@pytest.mark.slow
@pytest.mark.parametrize("notes, performance", [(1.25, 1.5), (1.0, 2.0)])
def test_two_weights_are_the_formula(model, notes, performance):
    params, batch = params_of(model), batch_of()
    guided = dataclasses.replace(model, guidance_weight=notes, performance_guidance=performance)
    np.testing.assert_allclose(denoised(guided, params, batch),
                               by_hand(model, params, batch, notes, performance), atol=1e-4)


def test_weights_that_are_asked_for_are_the_models(model):
    asked = model.sampled_by(Sampling(guidance=1.25, performance_guidance=1.5))
    assert asked == dataclasses.replace(model, guidance_weight=1.25, performance_guidance=1.5)
    assert asked.sampling == dataclasses.replace(
        model.sampling, guidance=1.25, performance_guidance=1.5)
    assert model.sampled_by(Sampling()) == model


@pytest.mark.parametrize("notes, performance, count", [
    (1.0, 1.0, 1), (1.25, 1.0, 2), (1.0, 1.25, 2), (1.25, 1.25, 3)])
def test_a_weight_of_one_costs_no_evaluation(notes, performance, count, monkeypatch):
    """Of the T5, which evaluates one after the other; the one without notes has the performance."""
    calls = []

    class Network:
        def apply(self, variables, *args, method, **given):
            if method != "decode":
                return f"{method} {given.get('performance', '')}".strip()
            calls.append((args[2], given["performance"]))
            return jnp.zeros((1,))

    monkeypatch.setattr(SpectrogramDiffusionModel, "network", Network())
    model = dataclasses.replace(T5, guidance_weight=notes, performance_guidance=performance)
    model.denoiser({}, batch_of())(Z, LOGSNR)
    assert len(calls) == count and calls[0] == ("encode performance_rows", "performance_rows")
    assert ((None, "performance_rows") in calls) == (notes != 1.0)


def test_encoders_and_rows_are_computed_before_the_loop():
    model = dataclasses.replace(T5, guidance_weight=1.25, performance_guidance=1.25, num_steps=3)
    params = params_of(model)
    shapes = {k: v.shape for k, v in traverse_util.flatten_dict(params, sep="/").items()}
    jaxpr = jax.make_jaxpr(lambda p, b: model.predict_batch(p, b, RNG))(params, batch_of())
    (loop,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    # The loop reads the decoder's parameters and none of the table's or the encoder's.
    names = sorted(shapes)
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    assert [jax.tree_util.keystr(k, simple=True, separator="/") for k, _ in flat] == names
    read = {name for name, var in zip(names, jaxpr.jaxpr.invars, strict=False)
            if any(var is x for x in loop.invars)}
    assert {n.split("/")[0] for n in read} == {"decoder"}


@pytest.mark.parametrize("fields", [
    {"performance_dropout": -0.1}, {"performance_dropout": 1.1}, {"performance_guidance": float("inf")}])
def test_settings_out_of_range_are_refused(model, fields):
    with pytest.raises(UserError):
        dataclasses.replace(model, **fields)


# ---- models that grow ----


@pytest.mark.slow
@pytest.mark.parametrize("before", [None, PerformanceConfig(count=2, features=4)])
def test_a_widened_model_predicts_as_the_smaller_one(before, model=T5):
    """For every performance that it knew, or for any at all where it knew none."""
    small = with_table(model, before)
    stored, fresh = params_of(small), unchanged(model)
    larger = model.adopt(fresh, jax.tree.map(np.asarray, stored))
    assert jax.tree.map(jnp.shape, dict(larger)) == jax.tree.map(jnp.shape, fresh)
    for number in range(R if before is None else before.count):
        np.testing.assert_allclose(denoised(model, larger, performed(number)),
                                   denoised(small, stored, performed(number)), atol=1e-5)
    np.testing.assert_allclose(denoised(model, larger, performed([0, 0, 0])), denoised(
        small, stored, performed([0] * before.count) if before else batch_of()), atol=1e-5)


@functools.cache
def unchanged(model):
    """Fresh parameters."""
    shapes = {k: v.shape for k, v in batch_of().items()}
    return dict(compiled.init(model, shapes, 9)["params"])
