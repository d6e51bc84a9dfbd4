"""Losses at the length that a batch needs: the same values and gradients, and less work."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.compiled import init

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.buckets import bucket_of, switch_loss
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.networks.transformer import T5Config

CONFIG = T5Config(
    embed_dim=8, num_heads=2, head_dim=4, mlp_dim=16, encoder_layers=1, decoder_layers=1,
    vocab_size=16, max_tokens=16, frames=8, context_frames=8, mel_bins=4, dropout_rate=0.0)
WHOLE = SpectrogramDiffusionModel(config=CONFIG, codec=MelCodec(mels=4))
BUCKETS = dataclasses.replace(WHOLE, token_buckets=(4, 8, 99))  # beyond the tokens: never used


def batch_of(longest):
    rng = np.random.default_rng(longest)
    tokens = rng.integers(1, 16, (2, 16)).astype(np.int32)
    tokens[0, longest:], tokens[1, longest // 2:] = 0, 0
    return {"inputs": tokens,
            "targets": rng.uniform(-1, 1, (2, 8, 4)).astype(np.float32),
            "targets_context": rng.uniform(-1, 1, (2, 8, 4)).astype(np.float32),
            "targets_context_mask": np.ones((2, 8), np.float32)}


@pytest.mark.parametrize("longest, index", [
    (0, 0), (1, 0), (4, 0), (5, 1), (8, 1), (9, 2), (16, 2), (17, 2)])
def test_the_least_bucket_that_is_long_enough(longest, index):
    assert int(bucket_of(jnp.int32(longest), (4, 8, 16))) == index


@pytest.fixture(scope="module")
def params():
    return init(WHOLE, {k: v.shape for k, v in batch_of(1).items()})["params"]


@pytest.fixture(scope="module")
def compiled():
    def pair(model):
        return (jax.jit(jax.value_and_grad(model.loss_fn, has_aux=True)), jax.jit(model.eval_fn))
    return pair(WHOLE), pair(BUCKETS)


@pytest.mark.slow
@pytest.mark.parametrize("longest", [0, 3, 4, 5, 8, 9, 16])
def test_loss_and_gradient_do_not_depend_on_buckets(params, compiled, longest):
    batch, key = batch_of(longest), jax.random.key(longest)
    (whole_train, whole_eval), (train, evaluate) = compiled
    (loss, _), grads = train(params, batch, key)
    (whole, _), whole_grads = whole_train(params, batch, key)
    assert float(loss) == pytest.approx(float(whole), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(whole_grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert float(evaluate(params, batch, key)[0]) == pytest.approx(
        float(whole_eval(params, batch, key)[0]), rel=1e-6)


def test_only_the_branch_that_is_taken_is_computed():
    ran = []

    def losses(name):
        def loss(params, data):
            jax.debug.callback(lambda: ran.append(name))
            return params["w"] * data, {"seen": data}
        return loss

    def total(params, index, data):
        value, metrics = switch_loss((losses("short"), losses("long")), index, params, data)
        return 3.0 * value, metrics  # the chain rule goes on outside

    step = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, metrics), grads = step({"w": 2.0}, 1, 5.0)
    jax.effects_barrier()
    assert ran == ["long"]
    assert (float(value), float(grads["w"]), float(metrics["seen"])) == (30.0, 15.0, 5.0)


@pytest.mark.parametrize("buckets", [(8, 4), (4, 4), (0, 4)])
def test_bad_buckets(buckets):
    with pytest.raises(UserError, match="ascending"):
        dataclasses.replace(WHOLE, token_buckets=buckets)
