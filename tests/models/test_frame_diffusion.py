import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from reference import compiled
from reference.compiled import eval_fn, loss_fn, predict
from reference.diffusion_oracle import alpha_sigma

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.losses import diffusion_loss, squared, stratified_times
from music_diffusion.diffusion.parameterizations import V
from music_diffusion.diffusion.sampling import tempered
from music_diffusion.diffusion.solvers import DDPM
from music_diffusion.errors import UserError
from music_diffusion.models.base import split_variables
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.note_timbre import NoteTimbreModel
from music_diffusion.models.weights import load_safetensors, save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import SLOT_FIELDS, ScoreDenoiserConfig
from music_diffusion.networks.unet1d import UNet1DConfig
from music_diffusion.notes.frames import ROLL_CHANNELS, FrameGrid, roll_features, slot_features
from music_diffusion.notes.notes import Notes

B, T, F = 4, 8, 8
CONFIG = ScoreDenoiserConfig(
    timbre=NoteTimbreConfig(width=8, layers=1, codec=MelCodec(mels=F)),
    unet=UNet1DConfig(widths=(16, 16), blocks=1, time_features=4, heads=1, head_dim=8, output=F),
    residual_std=0.2)
MODEL = FrameDiffusionModel(config=CONFIG, num_steps=4)
RNG = jax.random.key(7)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    grid = FrameGrid()
    examples = []
    for _ in range(B):
        start = rng.uniform(0, 0.1, 3)
        notes = Notes(start, start + rng.uniform(0.02, 0.2, 3), rng.integers(40, 90, 3),
                      rng.integers(20, 128, 3), rng.integers(0, 96, 3), np.zeros(3))
        slots = slot_features(notes, 0.0, T, grid, 4)
        slots.pop("dropped")
        examples.append({"roll": roll_features(notes, 0.0, T, grid),
                         "targets": rng.uniform(-1, 1, (T, F)).astype(np.float32),
                         **{f"slot_{k}": v for k, v in slots.items()}})
    return {k: np.stack([e[k] for e in examples]) for k in examples[0]}


@pytest.fixture(scope="module")
def variables(batch):
    return compiled.init(MODEL, {k: v.shape for k, v in batch.items()})


@pytest.fixture(scope="module")
def params(variables):
    """A U-Net that says something: random where a fresh one is zero."""
    rng = np.random.default_rng(2)
    flat = traverse_util.flatten_dict(split_variables(variables)[0])
    return traverse_util.unflatten_dict({
        k: v + jnp.asarray(0.1 * rng.normal(size=v.shape), jnp.float32) if k[0] == "unet" else v
        for k, v in flat.items()})


def without(batch, *names):
    return {k: v for k, v in batch.items() if not k.startswith(names)}


def test_init_gives_params_and_their_logical_axes_in_one_structure(variables):
    params, axes = split_variables(variables)
    flat_axes = traverse_util.flatten_dict(axes)
    assert {k: v.ndim for k, v in traverse_util.flatten_dict(params).items()} == {
        k: len(v) for k, v in flat_axes.items()}


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1.0, 0.0])
def test_the_loss_is_the_networks_error_at_unit_variance(params, batch, keep):
    """Mean of (v − v̂)² n² / s², that is of (F − target)² in equation 2, drawn as the loss does."""
    model = dataclasses.replace(MODEL, condition_dropout=1.0 - keep)
    loss, metrics = loss_fn(model, params, batch, RNG)
    cond = MODEL.condition(params, batch, jnp.full(B, keep))
    errors = []

    def denoise(z, logsnr):
        v = MODEL.network.apply({"params": params}, z, logsnr, MODEL.schedule.inverse(logsnr), cond,
                                method="denoise")
        alpha, sigma = alpha_sigma(np.asarray(logsnr))
        s = 0.2 if keep else CONFIG.data_std
        errors.append(np.sqrt(alpha**2 * s**2 + sigma**2) / s)
        return v

    rng_loss, _ = jax.random.split(RNG)
    # The distance sees unscaled outputs; each example is weighted afterwards.
    _, _ = diffusion_loss(denoise, jnp.asarray(batch["targets"]), rng_loss, schedule=MODEL.schedule,
                          parameterization=V(), distance=squared, times=stratified_times)
    factor = errors[0]

    def weighted(pred, target):
        return (jnp.asarray(factor[:, None, None], jnp.float32) * (pred - target)) ** 2

    want, _ = diffusion_loss(denoise, jnp.asarray(batch["targets"]), rng_loss,
                             schedule=MODEL.schedule, parameterization=V(), distance=weighted,
                             times=stratified_times)
    assert float(loss) == pytest.approx(float(want), rel=1e-4)
    assert np.isfinite(list(map(float, metrics.values()))).all()


@pytest.mark.slow
def test_map_l1_is_the_maps_error_in_nat(params, batch):
    _, metrics = eval_fn(MODEL, params, batch, RNG)
    maps = np.asarray(MODEL.note_maps(params, batch))
    codec = CONFIG.codec
    want = np.abs(codec.unscale(maps[:, :, 0]) - codec.unscale(batch["targets"])).mean()
    assert float(metrics["map_l1"]) == pytest.approx(want, rel=1e-4)


@pytest.mark.slow
def test_condition_dropout_takes_the_notes_away(params, batch):
    always = dataclasses.replace(MODEL, condition_dropout=1.0)
    never = dataclasses.replace(MODEL, condition_dropout=0.0)
    other = {**batch, "roll": batch["roll"][::-1].copy(),
             **{f"slot_{f}": batch[f"slot_{f}"][::-1].copy() for f in SLOT_FIELDS}}
    loss = [[float(loss_fn(m, params, b, RNG)[0]) for b in (batch, other)] for m in (always, never)]
    assert loss[0][0] == loss[0][1] and loss[1][0] != loss[1][1]
    # Evaluation drops nothing.
    assert float(eval_fn(always, params, batch, RNG)[0]) == float(eval_fn(never, params, batch, RNG)[0])


def test_maps_made_beforehand_replace_the_slots(params, batch):
    maps = np.asarray(MODEL.note_maps(params, batch))
    mapped = {**without(batch, "slot_"), "maps": maps.astype(np.float32)}
    a, b = (float(eval_fn(MODEL, params, x, RNG)[0]) for x in (batch, mapped))
    assert a == pytest.approx(b, rel=1e-4)


@pytest.mark.slow
def test_loss_falls_over_a_few_steps_and_frozen_parameters_are_named(variables, batch):
    """One optimiser step a time on one batch; the timbre network is left to `frozen`."""
    params = split_variables(variables)[0]
    optimizer = optax.adam(3e-3)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, rng):
        gradient = jax.grad(lambda p: MODEL.loss_fn(p, batch, rng)[0])(params)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, update), state

    def measured(params):
        return np.mean([float(eval_fn(MODEL, params, batch, jax.random.key(i))[0]) for i in range(5)])

    before = measured(params)
    for i in range(40):
        params, state = step(params, state, jax.random.key(100 + i))
    assert measured(params) < 0.8 * before
    assert MODEL.frozen == ("timbre/.*",)
    assert dataclasses.replace(MODEL, train_timbre=True).frozen == ()


@pytest.mark.slow
def test_training_the_timbre_uses_the_slots_gradients(params, batch):
    trained = dataclasses.replace(MODEL, train_timbre=True)
    a, b = (jax.jit(jax.grad(lambda p, m=m: m.loss_fn(p, batch, RNG)[0]))(params)["timbre"]
            for m in (MODEL, trained))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), a, b)
    assert np.abs(b["output"]["kernel"]).max() > 0


@pytest.mark.slow
def test_prediction_has_the_notes_shape_lies_in_range_and_is_deterministic(params, batch):
    notes = without(batch, "targets")
    x = predict(MODEL, params, notes, jax.random.key(1))
    assert x.shape == (B, T, F) and x.dtype == jnp.float32
    assert np.abs(x).max() <= 1 and np.std(x) > 0
    np.testing.assert_array_equal(predict(MODEL, params, notes, jax.random.key(1)), x)
    assert np.abs(predict(MODEL, params, notes, jax.random.key(2)) - x).max() > 1e-3


def test_prediction_follows_the_notes(params, batch):
    notes = without(batch, "targets")
    swapped = {k: v[::-1].copy() for k, v in notes.items()}
    a, b = (predict(MODEL, params, n, jax.random.key(1)) for n in (notes, swapped))
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.slow
def test_temperature_scales_the_starting_noise(params, batch):
    rng = np.random.default_rng(5)
    z = jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32)
    half, cold = (dataclasses.replace(MODEL, temperature=t) for t in (0.5, 0.0))
    np.testing.assert_array_equal(half.sample(params, batch, z, RNG),
                                  MODEL.sample(params, batch, 0.5 * z, RNG))
    a, b = (predict(cold, params, batch, jax.random.key(i)) for i in (1, 2))
    np.testing.assert_array_equal(a, b)  # a deterministic solver: the mean of the notes
    rough = dataclasses.replace(MODEL, temperature=0.25, texture=0.75)
    np.testing.assert_array_equal(rough.sample(params, batch, z, RNG),
                                  MODEL.sample(params, batch, tempered(z, 0.25, 0.75), RNG))


@pytest.mark.slow
@pytest.mark.parametrize("weight", [1.0, 2.5, 0.0])
def test_guidance_is_its_formula(params, batch, weight):
    rng = np.random.default_rng(5)
    z, logsnr = jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32), jnp.linspace(-5.0, 8.0, B)
    guided = dataclasses.replace(MODEL, guidance_weight=weight).denoiser(params, batch)(z, logsnr)
    full, none = (
        MODEL.network.apply({"params": params}, z, logsnr, MODEL.schedule.inverse(logsnr),
                            MODEL.condition(params, batch, jnp.full(B, keep)), method="denoise")
        for keep in (1.0, 0.0))
    np.testing.assert_allclose(guided, none + weight * (full - none), atol=2e-4)


def test_x0_hook_has_the_last_word(params, batch):
    x = MODEL.sample(params, batch, jnp.zeros((B, T, F)), RNG, x0_hook=lambda x0: 0 * x0 + 0.25)
    np.testing.assert_array_equal(x, 0.25)


def test_a_model_is_a_key_of_jit_caches_whatever_its_solver():
    a = dataclasses.replace(MODEL, solver=DDPM(log_variance=0.5))
    assert a == dataclasses.replace(MODEL, solver=DDPM(log_variance=0.5)) and a != MODEL
    assert hash(a) == hash(dataclasses.replace(MODEL, solver=DDPM(log_variance=0.5)))


@pytest.mark.parametrize("missing, call", [
    ("targets", "loss_fn"), ("targets", "eval_fn"), ("roll", "predict_batch"),
    ("slot_age", "eval_fn"), ("roll", "loss_fn")])
def test_missing_features_are_named(params, batch, missing, call):
    with pytest.raises(UserError, match=missing):
        getattr(MODEL, call)(params, without(batch, missing), RNG)


@pytest.mark.parametrize("fields", [
    {"condition_dropout": 1.5}, {"num_steps": 0}, {"guidance_weight": float("nan")},
    {"temperature": -0.5}, {"temperature": float("nan")}, {"texture": -0.1}])
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(UserError):
        dataclasses.replace(MODEL, **fields)


def timbre_batch(size=32):
    rng = np.random.default_rng(3)
    pitch = rng.integers(40, 90, size)
    mel = np.full((size, F), CONFIG.codec.log_min, np.float32)
    mel[np.arange(size), pitch // 12] = rng.uniform(-3, 2, size)
    return {"program": rng.integers(0, 4, size), "pitch": pitch,
            "velocity": rng.integers(1, 128, size), "age": rng.uniform(0, 1, size).astype(np.float32),
            "release": rng.uniform(-1, 0, size).astype(np.float32), "mel": mel}


@pytest.fixture(scope="module")
def timbre():
    model = NoteTimbreModel(config=CONFIG.timbre)
    return model, split_variables(compiled.init(model, key=4))[0]


@pytest.mark.slow
def test_timbre_loss_is_the_error_where_something_sounds(timbre):
    model, params = timbre
    batch = timbre_batch()
    loss, _ = model.loss_fn(params, batch, RNG)
    from music_diffusion.networks.note_timbre import NoteTimbre

    mel = np.asarray(NoteTimbre(CONFIG.timbre).apply(
        {"params": params}, *(batch[f] for f in SLOT_FIELDS)))
    floor = CONFIG.codec.log_min
    error = np.abs(mel - batch["mel"])
    error[(mel < floor) & (batch["mel"] < floor + 0.02)] = 0
    assert float(loss) == pytest.approx(error.mean(), rel=1e-4)
    # What is silent in both costs nothing, however far below the floor the network goes.
    silent = {**params, "output": {"kernel": 0 * params["output"]["kernel"],
                                   "bias": -50 + 0 * params["output"]["bias"]}}
    quiet = {**batch, "mel": np.full_like(batch["mel"], floor)}
    assert float(model.loss_fn(silent, quiet, RNG)[0]) == 0


def test_timbre_loss_falls(timbre):
    model, params = timbre
    batch = timbre_batch()
    optimizer = optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(lambda p: model.loss_fn(p, batch, RNG)[0])(params)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, update), state, loss

    losses = []
    for _ in range(30):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_a_trained_timbre_network_begins_the_denoisers(timbre, tmp_path):
    _, params = timbre
    save_safetensors(tmp_path / "timbre", params, dtype="float32")
    model = dataclasses.replace(MODEL, timbre_weights=str(tmp_path / "timbre"))
    begun = compiled.init(model)["params"]
    jax.tree.map(np.testing.assert_array_equal, begun["timbre"], load_safetensors(tmp_path / "timbre"))
    fresh = compiled.init(MODEL)["params"]
    jax.tree.map(np.testing.assert_array_equal, begun["unet"], fresh["unet"])


def test_timbre_weights_of_another_size_are_refused(timbre, tmp_path):
    other = NoteTimbreModel(config=dataclasses.replace(CONFIG.timbre, width=4))
    save_safetensors(tmp_path / "other", split_variables(compiled.init(other, key=RNG))[0])
    with pytest.raises(UserError, match="other"):
        compiled.init(dataclasses.replace(MODEL, timbre_weights=str(tmp_path / "other")), key=RNG)
    with pytest.raises(UserError, match="nowhere"):
        compiled.init(dataclasses.replace(MODEL, timbre_weights="nowhere"), key=RNG)


def test_reverberation_sums_energies():
    """Map and tails against the sum written out in NumPy, with gains of a performance."""
    import jax

    from music_diffusion.audio.codec import MelCodec
    from music_diffusion.networks.score_denoiser import GAIN_SCALE, QUIET, Reverberation

    codec, rng = MelCodec(mels=3), np.random.default_rng(0)
    note_map = rng.uniform(-6, 2, (2, 7, 3)).astype(np.float32)
    tails = rng.uniform(-6, 2, (2, 7, 2, 3)).astype(np.float32)
    performance = rng.normal(size=(2, 4)).astype(np.float32)
    kernel = rng.normal(0, 0.1, (4, 6)).astype(np.float32)
    module = Reverberation(codec)
    share = np.array([1.0, 0.25], np.float32)
    given = (codec.scale(note_map), codec.scale(tails), performance)
    fresh = module.init(jax.random.key(0), *given, share)["params"]
    assert not np.asarray(fresh["DenseGeneral_0"]["kernel"]).any()
    room = {"params": {"DenseGeneral_0": {"kernel": kernel}}}
    found = codec.unscale(module.apply(room, *given, share))
    gains = QUIET + GAIN_SCALE * (performance @ kernel).reshape(2, 1, 2, 3)
    energy = share[:, None, None] * np.exp(2 * (tails + gains)).sum(2)
    expected = 0.5 * np.log(np.exp(2 * note_map) + energy)
    np.testing.assert_allclose(found, expected.clip(codec.log_min, codec.log_max), atol=1e-4)
    # No performance, no room.
    none = module.apply(room, *given, np.zeros(2, np.float32))
    np.testing.assert_allclose(none, given[0], atol=1e-5)


@pytest.mark.slow
def test_maps_made_beforehand_with_performances_and_without():
    """Drawn inside with the performances as they are kept, or given: the same condition."""
    table = PerformanceConfig(count=3, features=4)
    model = dataclasses.replace(MODEL, config=dataclasses.replace(
        MODEL.config, performances=table,
        timbre=dataclasses.replace(MODEL.config.timbre, performances=table)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32),
                          compiled.init(model, key=RNG)["params"])
    shape = (2, 8, 3)
    batch = {"slot_program": rng.integers(-1, 129, shape), "slot_pitch": rng.integers(30, 90, shape),
             "slot_velocity": rng.integers(1, 128, shape), "slot_age": rng.uniform(0, 0.2, shape),
             "slot_release": rng.uniform(-1, 1, shape), "performance": np.array([1, 2]),
             "roll": rng.uniform(size=(2, 8, ROLL_CHANNELS))}
    own, base = (np.asarray(model.note_maps(params, batch, weights))
                 for weights in (jnp.eye(3)[1:], jnp.zeros((2, 3))))
    assert np.abs(own - base).max() > 0.01
    mapped = {**without(batch, "slot_"), "maps": own, "base_maps": base}
    keep = jnp.array([1.0, 0.0])
    drawn, given = (model.condition(params, b, jnp.ones(2), keep) for b in (batch, mapped))
    np.testing.assert_allclose(drawn["features"], given["features"], atol=1e-5)
    kept = model.condition(params, mapped, jnp.ones(2))
    assert np.abs(kept["map"][1] - given["map"][1]).max() > 0.01
    np.testing.assert_allclose(kept["map"][0], given["map"][0], atol=1e-5)
    with pytest.raises(UserError, match="base_maps"):
        model.condition(params, without(mapped, "base_"), jnp.ones(2), keep)


def test_the_loss_hears_maps_where_the_performance_is_kept_and_base_maps_where_it_is_dropped(batch):
    table = PerformanceConfig(count=3, features=4)
    model = dataclasses.replace(MODEL, condition_dropout=0.0, config=dataclasses.replace(
        MODEL.config, performances=table,
        timbre=dataclasses.replace(MODEL.config.timbre, performances=table)))
    params = model.init(RNG, {})["params"]
    rng = np.random.default_rng(0)
    maps, base, other = rng.uniform(-1, 1, (3, B, T, 2, F)).astype(np.float32)
    given = {**without(batch, "slot_"), "performance": np.arange(B) % 3}

    def loss(dropout, maps, base):
        dropping = dataclasses.replace(model, performance_dropout=dropout)
        return float(loss_fn(dropping, params, {**given, "maps": maps, "base_maps": base}, RNG)[0])

    assert loss(0.0, maps, base) == loss(0.0, maps, other) != loss(0.0, other, base)
    assert loss(1.0, maps, base) == loss(1.0, other, base) != loss(1.0, maps, other)
