import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from reference import compiled
from reference.compiled import eval_fn, loss_fn, predict
from reference.transformer_oracle import Oracle

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.losses import squared
from music_diffusion.diffusion.parameterizations import V
from music_diffusion.diffusion.schedules import alpha_sigma
from music_diffusion.diffusion.solvers import DDIM
from music_diffusion.errors import UserError
from music_diffusion.models.base import require_features, split_variables
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel, drop_conditions
from music_diffusion.networks.transformer import T5Config

CONFIG = T5Config(
    embed_dim=8, num_heads=2, head_dim=4, mlp_dim=16, encoder_layers=1, decoder_layers=1,
    vocab_size=16, max_tokens=6, frames=8, context_frames=8, mel_bins=4)
CODEC = MelCodec(mels=4)
MODEL = SpectrogramDiffusionModel(config=CONFIG, codec=CODEC, num_steps=4)
B = 4


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 16, (B, 6)).astype(np.int32)
    tokens[:, 4:] = 0
    mask = np.ones((B, 8), np.float32)
    mask[0] = 0
    return {
        "inputs": tokens,
        "targets": rng.uniform(-1, 1, (B, 8, 4)).astype(np.float32),
        "targets_context": rng.uniform(-1, 1, (B, 8, 4)).astype(np.float32),
        "targets_context_mask": mask,
    }


@pytest.fixture(scope="module")
def variables(batch):
    return compiled.init(MODEL, {name: x.shape for name, x in batch.items()})


@pytest.fixture(scope="module")
def params(variables):
    return variables["params"]


def test_init_gives_params_and_their_logical_axes_in_one_structure(variables):
    params, axes = split_variables(variables)
    flat_axes = traverse_util.flatten_dict(axes)
    assert all(len(flat_axes.pop(path)) == x.ndim
               for path, x in traverse_util.flatten_dict(params).items())
    assert not flat_axes


def test_defaults_are_the_papers():
    model = SpectrogramDiffusionModel(config=CONFIG, codec=CODEC)
    assert (model.num_steps, model.guidance_weight, model.condition_dropout) == (1000, 2.0, 0.1)
    assert model.config.dropout_rate == 0.1 and model.solver.log_variance == 1.0
    x, y = jnp.asarray([1.0]), jnp.asarray([-2.0])
    assert model.distance(x, y) == 3.0  # L1
    np.testing.assert_array_equal(model.parameterization.target(x, y, jnp.asarray(0.0)), y)  # ε


@pytest.mark.slow
def test_eval_is_without_dropout_and_training_with(params, batch):
    # Twice the same noise, told apart by what the model drops only.
    still = dataclasses.replace(
        MODEL, condition_dropout=0.0, config=dataclasses.replace(CONFIG, dropout_rate=0.0))
    dropping = dataclasses.replace(
        MODEL, condition_dropout=0.9, config=dataclasses.replace(CONFIG, dropout_rate=0.9))
    rng = jax.random.key(3)
    assert eval_fn(still, params, batch, rng)[0] == eval_fn(dropping, params, batch, rng)[0]
    assert abs(loss_fn(still, params, batch, rng)[0] - loss_fn(dropping, params, batch, rng)[0]) > 0


@pytest.mark.slow
def test_the_loss_is_l1_on_the_noise_at_the_time_of_the_schedule(params, batch):
    # The network's part by the float64 oracle; noise and times are read off the denoiser's input.
    model, seen = MODEL, {}

    @dataclasses.dataclass(frozen=True)
    class Spy:
        def target(self, x0, eps, logsnr):
            seen.update(eps=np.float64(eps), logsnr=np.float64(logsnr))
            return eps

        def to_x0(self, output, z, logsnr):
            seen.update(z=z)
            return output

    loss, metrics = dataclasses.replace(model, parameterization=Spy()).eval_fn(
        params, batch, jax.random.key(1))
    oracle = Oracle({k: np.asarray(x) for k, x in traverse_util.flatten_dict(
        params, sep="/").items()}, num_heads=2, max_time=20_000.0)
    # λ = −2 ln tan(a t + b), solved for t.
    b = np.arctan(np.exp(-10.0))
    a = np.arctan(np.exp(10.0)) - b
    time = (np.arctan(np.exp(-seen["logsnr"] / 2)) - b) / a
    output = oracle(np.asarray(seen["z"]), time, batch["inputs"], batch["targets_context"],
                    batch["targets_context_mask"])
    np.testing.assert_allclose(loss, np.abs(output - seen["eps"]).mean(), atol=5e-4)
    assert metrics["loss"] == loss
    alpha, sigma = (np.float64(x)[:, None, None] for x in alpha_sigma(seen["logsnr"]))
    np.testing.assert_allclose(seen["z"], alpha * batch["targets"] + sigma * seen["eps"], atol=1e-5)


@pytest.mark.slow
def test_noise_times_are_drawn_as_injected(params, batch):
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Spy:
        def target(self, x0, eps, logsnr):
            seen.append(np.float64(logsnr))
            return eps

        def to_x0(self, output, z, logsnr):
            return output

    times = np.linspace(0.1, 0.9, B)
    model = dataclasses.replace(MODEL, parameterization=Spy(),
                                training_times=lambda rng, size: jnp.asarray(times[:size]))
    model.loss_fn(params, batch, jax.random.key(0))
    # λ = −2 ln tan(a t + b)
    b = np.arctan(np.exp(-10.0))
    a = np.arctan(np.exp(10.0)) - b
    np.testing.assert_allclose(seen[0], -2 * np.log(np.tan(a * times + b)), rtol=1e-4)


def test_dropping_the_condition_zeroes_ids_context_and_mask_per_example(batch):
    keep = jnp.asarray([True, False, True, False])
    dropped = drop_conditions(batch, keep)
    for name in ("inputs", "targets_context", "targets_context_mask"):
        np.testing.assert_array_equal(dropped[name][::2], batch[name][::2])
        assert (np.asarray(dropped[name][1::2]) == 0).all()
        assert dropped[name].dtype == batch[name].dtype
    np.testing.assert_array_equal(dropped["targets"], batch["targets"])


def test_training_always_dropped_equals_training_on_zero_conditions(params, batch):
    model = dataclasses.replace(
        MODEL, condition_dropout=1.0, config=dataclasses.replace(CONFIG, dropout_rate=0.0))
    zeros = {**batch, **{k: np.zeros_like(batch[k]) for k in batch if k != "targets"}}
    rng = jax.random.key(0)
    assert loss_fn(model, params, batch, rng)[0] == loss_fn(model, params, zeros, rng)[0]
    kept = dataclasses.replace(model, condition_dropout=0.0)
    assert loss_fn(kept, params, batch, rng)[0] != loss_fn(kept, params, zeros, rng)[0]


def test_the_share_of_dropped_conditions_is_condition_dropout(batch):
    many = {k: np.repeat(x, 500, axis=0) for k, x in batch.items()}
    seen = []

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Spy(SpectrogramDiffusionModel):
        def _loss(self, params, batch, rng, rng_dropout):
            seen.append(np.asarray(batch["inputs"]))

    Spy(config=CONFIG, codec=CODEC).loss_fn({}, many, jax.random.key(0))
    share = (seen[0] == 0).all(axis=1).mean()
    assert abs(share - 0.1) < 0.03  # 2000 draws: standard deviation 0.007


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(params, batch):
    model = dataclasses.replace(MODEL, config=dataclasses.replace(CONFIG, dropout_rate=0.0))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(params):
        def step(carry, rng):
            params, state = carry
            (loss, _), grads = jax.value_and_grad(model.loss_fn, has_aux=True)(params, batch, rng)
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), loss

        return jax.lax.scan(
            step, (params, optimizer.init(params)), jax.random.split(jax.random.key(0), 60))

    (trained, _), losses = train(params)
    assert losses[-10:].mean() < 0.8 * losses[:5].mean()
    for name in ("token_encoder", "continuous_encoder", "decoder"):
        table = trained[name]["Embed_0"]["embedding"]
        np.testing.assert_array_equal(table, params[name]["Embed_0"]["embedding"])


@pytest.mark.slow
def test_guidance_combines_the_two_halves(params, batch):
    z = jnp.asarray(np.random.default_rng(1).standard_normal((B, 8, 4)), jnp.float32)
    logsnr = jnp.full((B,), 1.5)

    def output(weight, batch):
        model = dataclasses.replace(MODEL, guidance_weight=weight)
        return np.float64(jax.jit(lambda p, b: model.denoiser(p, b)(z, logsnr))(params, batch))

    conditional = output(1.0, batch)
    unconditional = output(1.0, {k: np.zeros_like(x) for k, x in batch.items()})
    assert np.abs(conditional - unconditional).max() > 1e-2
    np.testing.assert_allclose(
        output(2.0, batch), unconditional + 2.0 * (conditional - unconditional), atol=1e-5)
    np.testing.assert_allclose(output(0.0, batch), unconditional, atol=1e-5)


def test_the_encoders_run_once_and_not_in_the_sampling_loop(params, batch):
    jaxpr = jax.make_jaxpr(lambda p, b: MODEL.predict_batch(p, b, jax.random.key(0)))(params, batch)
    loops = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    assert len(loops) == 1

    def products(jaxpr):
        inner = [p for e in jaxpr.eqns for p in jax.tree.leaves(
            list(e.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"))
            if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        return sum(e.primitive.name == "dot_general" for e in jaxpr.eqns) + sum(
            products(getattr(p, "jaxpr", p)) for p in inner)

    # One decoder layer. Both halves: time 2, in 1, out 1, FiLM 2, self-attention 4 + 2, MLP 3.
    # The conditional half adds a query, an out and 2 of attention, but no key and no value.
    body = loops[0].params["jaxpr"].jaxpr
    assert products(body) == 2 * (2 + 1 + 1 + 2 + 6 + 3) + 4


def test_prediction_is_in_range_deterministic_and_follows_seed_and_notes(params, batch):
    a, again, other = (predict(MODEL, params, batch, jax.random.key(k)) for k in (0, 0, 1))
    assert a.shape == (B, 8, 4) and a.dtype == jnp.float32
    assert np.abs(a).max() <= 1.0
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - other).max() > 1e-3
    changed = {**batch, "inputs": batch["inputs"][:, ::-1].copy()}
    assert np.abs(a - predict(MODEL, params, changed, jax.random.key(0))).max() > 1e-3


def test_progress_reports_every_step(params, batch):
    seen = []
    model = dataclasses.replace(MODEL, num_steps=3, solver=DDIM())
    jax.block_until_ready(jax.jit(lambda p, b: model.predict_batch(
        p, b, jax.random.key(0), progress=lambda done, total: seen.append((done, total))))(
            params, batch))
    jax.effects_barrier()
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_parts_are_injected_and_context_can_be_absent(batch):
    model = SpectrogramDiffusionModel(codec=CODEC,
        config=dataclasses.replace(CONFIG, context=False), parameterization=V(),
        distance=squared, solver=DDIM(), num_steps=2)
    small = {k: batch[k] for k in ("inputs", "targets")}
    variables = compiled.init(model, {k: x.shape for k, x in small.items()})
    assert "continuous_encoder" not in variables["params"]
    loss, _ = loss_fn(model, variables["params"], small, jax.random.key(0))
    assert np.isfinite(loss)
    conditions = {"inputs": batch["inputs"]}
    mel = predict(model, variables["params"], conditions, jax.random.key(0))
    assert mel.shape == (B, 8, 4)


def test_bad_input_is_named(params, batch):
    with pytest.raises(UserError, match="targets_context"):
        MODEL.predict_batch(params, {"inputs": batch["inputs"]}, jax.random.key(0))
    with pytest.raises(UserError, match=r"no b: .*a, b.*got a"):
        require_features({"a": 0}, ("a", "b"))
    for bad in ({"num_steps": 0}, {"condition_dropout": 1.5}, {"guidance_weight": float("nan")}):
        with pytest.raises(UserError):
            dataclasses.replace(MODEL, **bad)
