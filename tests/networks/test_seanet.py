import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.networks.seanet import SEANet, SEANetConfig, Upsample

F = 3
CONFIG = SEANetConfig(channels=16, strides=(3, 2), mels=F)
PAPER_STRIDES = SEANetConfig(channels=16, mels=F)  # hop 320
# 16, 24, 44.1 and 48 kHz at about 20 ms, and odd ones.
STRIDES = {320: (8, 5, 4, 2), 480: (8, 5, 4, 3), 882: (9, 7, 7, 2), 960: (8, 6, 5, 4), 15: (5, 3)}


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, mel):
    return SEANet(config).apply({"params": params}, mel)


def random_params(config, *, positive=False):
    """All parameters at random; all positive, so that nothing cancels, if asked for."""
    fresh = jax.eval_shape(SEANet(config).init, jax.random.key(0), jnp.zeros((1, 4, config.mels)))
    rng = np.random.default_rng(0)

    def draw(shape):
        value = rng.normal(size=shape.shape) / math.sqrt(math.prod(shape.shape[:-1]) or 1)
        return jnp.asarray(np.abs(value) if positive else value, jnp.float32)

    return jax.tree.map(draw, unfreeze(fresh["params"]))


def random_mel(config, frames, batch=1):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.uniform(-1, 1, (batch, frames, config.mels)), jnp.float32)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def convolve(x, params, dilation=1):
    """[T, C] → [T, D], every tap by itself, zeros outside."""
    kernel, y = params["kernel"], np.zeros((len(x), params["kernel"].shape[-1])) + params["bias"]
    for i, tap in enumerate(kernel):
        shift = (i - len(kernel) // 2) * dilation
        for t in range(len(x)):
            if 0 <= t + shift < len(x):
                y[t] += x[t + shift] @ tap
    return y


def transposed(x, params, stride):
    """Every input adds 2 * stride outputs, stride // 2 of which lie before its own."""
    pairs = params["pairs"]["kernel"].reshape(2, x.shape[1], stride, -1)
    kernel = np.concatenate([pairs[1].swapaxes(0, 1), pairs[0].swapaxes(0, 1)])  # [2 * stride, C, D]
    full = np.zeros(((len(x) + 1) * stride, kernel.shape[-1]))
    for t, frame in enumerate(x):
        for k in range(2 * stride):
            full[t * stride + k] += frame @ kernel[k]
    return full[stride // 2:][:len(x) * stride] + params["bias"]


def oracle(config, params, mel):
    """The generator from its description, float64, [T, F] → [S]."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    x = convolve(np.asarray(mel, np.float64), params["input"])
    for i, stride in enumerate(config.strides):
        x = transposed(elu(x), params[f"up_{i}"], stride)
        for j, dilation in enumerate(config.dilations):
            unit = params[f"unit_{i}_{j}"]
            y = elu(convolve(elu(x), unit["dilated"], dilation))
            x = x + y @ unit["pointwise"]["kernel"] + unit["pointwise"]["bias"]
    return convolve(elu(x), params["output"])[:, 0]


@pytest.mark.parametrize("strides", [(3, 2), (2,), (1, 4)])
def test_generator_is_its_description(strides):
    config = SEANetConfig(channels=8, strides=strides, mels=F)
    params, mel = random_params(config), random_mel(config, 5, batch=2)
    want = np.stack([oracle(config, params, m) for m in mel])
    assert np.std(want) > 0.1
    np.testing.assert_allclose(run(config, params, mel), want, atol=1e-5)


def test_upsample_by_hand():
    params = {"pairs": {"kernel": jnp.asarray([[1.0, 2.0], [10.0, 20.0]])}, "bias": jnp.ones(1)}
    x = jnp.asarray([[[1.0], [100.0]]])
    y = Upsample(1, 2).apply({"params": params}, x)[0, :, 0]
    # (0, 1), (1, 100), (100, 0) are the pairs; 1 of 2 outputs lies before the first boundary's end.
    assert (y - 1).tolist() == [20.0, 1001.0, 2002.0, 100.0]


@pytest.mark.parametrize("hop, strides", STRIDES.items())
def test_frames_become_hop_samples_each(hop, strides):
    config = SEANetConfig(channels=32, strides=strides, mels=F)
    assert config.hop == hop
    mel = jax.ShapeDtypeStruct((2, 7, F), jnp.float32)
    shape = jax.eval_shape(lambda m: SEANet(config).init_with_output(jax.random.key(0), m)[0], mel)
    assert shape.shape == (2, 7 * hop)


@pytest.mark.slow
@pytest.mark.parametrize("strides", [STRIDES[320], STRIDES[882][:3], STRIDES[15]], ids=str)
def test_context_frames_are_the_receptive_field_exactly(strides):
    config = SEANetConfig(channels=16, strides=strides, mels=F)
    context = config.context_frames
    frames = 2 * context + 5
    middle, params = frames // 2, random_params(config, positive=True)

    def of_the_middle(mel):
        return run(config, params, mel).reshape(frames, config.hop)[middle].sum()

    # All weights and inputs are positive: the gradient is too, wherever there is a path.
    seen = np.abs(jax.grad(of_the_middle)(jnp.ones((1, frames, F))))[0].sum(axis=1) > 0
    reach = np.flatnonzero(seen) - middle
    assert max(-reach[0], reach[-1]) == context
    assert min(-reach[0], reach[-1]) >= context - 1
    assert seen[reach[0] + middle:reach[-1] + middle + 1].all()


def test_samples_beyond_the_context_do_not_change_at_all():
    config, params = PAPER_STRIDES, random_params(PAPER_STRIDES)
    context, frames = config.context_frames, 13
    mel = random_mel(config, frames)
    other = mel.at[:, 6].add(1.0)
    change = np.asarray(run(config, params, mel) - run(config, params, other)).reshape(frames, -1)
    changed = np.flatnonzero(np.abs(change).max(axis=1))
    assert 6 - context <= changed.min() and changed.max() <= 6 + context
    assert {5, 6, 7} <= set(changed)


def test_a_piece_in_parts_with_context_is_the_piece():
    config, params = PAPER_STRIDES, random_params(PAPER_STRIDES)
    context, mel = config.context_frames, random_mel(PAPER_STRIDES, 20)
    whole = np.asarray(run(config, params, mel))[0]
    part = np.asarray(run(config, params, mel[:, 7 - context:12 + context]))[0]
    inner = part[context * config.hop:-context * config.hop]
    np.testing.assert_allclose(inner, whole[7 * config.hop:12 * config.hop], atol=1e-5)


def parameters(channels, strides, units, mels):
    """Counted on paper."""
    total = 3 * mels * channels + channels
    for stride in strides:
        total += channels * 2 * stride * channels // 2 + channels // 2
        channels //= 2
        total += units * (3 * channels**2 + channels + channels**2 + channels)
    return total + 7 * channels + 1


@pytest.mark.parametrize("config", [CONFIG, SEANetConfig(), SEANetConfig(channels=128)])
def test_number_of_parameters(config):
    mel = jax.ShapeDtypeStruct((1, 2, config.mels), jnp.float32)
    params = jax.eval_shape(SEANet(config).init, jax.random.key(0), mel)["params"]
    assert sum(p.size for p in jax.tree.leaves(params)) == parameters(
        config.channels, config.strides, len(config.dilations), config.mels)


def test_every_parameter_matters_and_has_logical_axes():
    mel, params = random_mel(CONFIG, 6), random_params(CONFIG)
    gradient = jax.grad(lambda p: jnp.sum(run(CONFIG, p, mel) ** 2))(params)
    for name, g in traverse_util.flatten_dict(gradient).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    variables = jax.eval_shape(SEANet(CONFIG).init, jax.random.key(0), mel)
    axes = unfreeze(get_axis_names(variables["params_axes"]))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in traverse_util.flatten_dict(axes).items()} == {
        k: v.ndim for k, v in flat.items()}


@pytest.mark.slow
def test_a_fresh_generator_is_as_loud_as_music():
    config = SEANetConfig(channels=64, strides=(4, 2))
    y, _ = jax.jit(SEANet(config).init_with_output)(jax.random.key(0), random_mel(config, 20))
    assert 0.03 < float(jnp.std(y)) < 0.3


def test_only_the_linear_output_reaches_full_scale():
    mel, params = random_mel(CONFIG, 6), random_params(CONFIG)
    params["output"]["kernel"] *= 10
    linear = run(CONFIG, params, mel)
    bent = run(SEANetConfig(channels=16, strides=(3, 2), mels=F, tanh=True), params, mel)
    assert linear.max() > 1 and linear.min() < -1
    np.testing.assert_allclose(bent, np.tanh(linear), atol=1e-6)


@pytest.mark.parametrize("fields, match", [
    ({"strides": ()}, "strides"), ({"strides": (4, 0)}, "strides"), ({"dilations": (0,)}, "dilations"),
    ({"channels": 24}, "channels"), ({"channels": 0}, "channels")])
def test_configurations_that_cannot_be_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        SEANetConfig(**fields)
