import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from scipy.ndimage import correlate1d

from music_diffusion.networks.convnext import (
    ConvNeXt,
    ConvNeXtBlock,
    ConvNeXtConfig,
    DepthwiseConv,
    LayerNorm,
)

F = 3
CONFIG = ConvNeXtConfig(dim=6, hidden=10, blocks=2, kernel=3)


@functools.partial(jax.jit, static_argnums=0)
def run(module, params, x):
    return module.apply({"params": params}, x)


def shapes_of(module, features):
    x = jax.ShapeDtypeStruct((1, 4, features), jnp.float32)
    return jax.eval_shape(module.init, jax.random.key(0), x)


def random_params(module, features):
    rng = np.random.default_rng(0)

    def draw(shape):
        return jnp.asarray(rng.normal(size=shape.shape) / math.sqrt(shape.shape[0]), jnp.float32)

    return jax.tree.map(draw, unfreeze(shapes_of(module, features)["params"]))


def random_input(frames, features, batch=1):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(batch, frames, features)), jnp.float32)


def depthwise(x, params):
    """[T, D] → [T, D] float64, a correlation of each channel with its own taps."""
    channels = [correlate1d(x[:, d], params["kernel"][:, d], mode="constant")
                for d in range(x.shape[1])]
    return np.stack(channels, axis=1) + params["bias"]


def normalised(x, params):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def gelu(x):
    """Hendrycks and Gimpel 2016, the approximation with tanh."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def block(x, params):
    y = normalised(depthwise(x, params["conv"]), params["norm"])
    return x + params["scale"] * dense(gelu(dense(y, params["expand"])), params["project"])


def trunk(x, params, config):
    kernel, bias = params["embed"]["kernel"], params["embed"]["bias"]
    taps = kernel.reshape(config.kernel, x.shape[1], config.dim)
    y = np.zeros((len(x), config.dim)) + bias
    for i, tap in enumerate(taps):
        for t in range(len(x)):
            at = t + i - config.kernel // 2
            if 0 <= at < len(x):
                y[t] += x[at] @ tap
    y = normalised(y, params["norm_in"])
    for i in range(config.blocks):
        y = block(y, params[f"block_{i}"])
    return normalised(y, params["norm_out"])


@pytest.mark.parametrize("module, want", [
    (DepthwiseConv(1), depthwise), (DepthwiseConv(7), depthwise), (LayerNorm(), normalised),
    (ConvNeXtBlock(ConvNeXtConfig(dim=5, hidden=8, kernel=5)), block),
], ids=["conv_1", "conv_7", "norm", "block"])
def test_parts_are_their_definitions(module, want):
    x, params = random_input(9, 5, batch=2), random_params(module, 5)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    expected = np.stack([want(np.asarray(one, np.float64), exact) for one in x])
    # 2e-6 measured
    np.testing.assert_allclose(run(module, params, x), expected, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_trunk_is_its_definition(kernel):
    config = ConvNeXtConfig(dim=6, hidden=10, blocks=2, kernel=kernel)
    module, x = ConvNeXt(config), random_input(9, F, batch=2)
    params = random_params(module, F)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    expected = np.stack([trunk(np.asarray(one, np.float64), exact, config) for one in x])
    np.testing.assert_allclose(run(module, params, x), expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("blocks, kernel", [(1, 7), (3, 3), (2, 1)])
def test_context_frames_are_the_receptive_field_exactly(blocks, kernel):
    config = ConvNeXtConfig(dim=6, hidden=10, blocks=blocks, kernel=kernel)
    module, context = ConvNeXt(config), config.context_frames
    params, frames = random_params(module, F), 2 * context + 5
    middle = frames // 2
    seen = jax.grad(lambda x: jnp.sum(run(module, params, x)[0, middle, 0]))(random_input(frames, F))
    reached = np.abs(seen)[0].max(axis=1) > 0
    assert np.flatnonzero(reached).tolist() == list(range(middle - context, middle + context + 1))


def test_examples_of_a_batch_do_not_see_each_other():
    module = ConvNeXt(CONFIG)
    x, params = random_input(5, F, batch=2), random_params(module, F)
    other = x.at[1].add(1.0)
    y, z = run(module, params, x), run(module, params, other)
    np.testing.assert_array_equal(y[0], z[0])
    assert np.abs(y[1] - z[1]).max() > 0.01


@pytest.mark.parametrize("config", [CONFIG, ConvNeXtConfig()])
def test_number_of_parameters(config):
    d, h, k = config.dim, config.hidden, config.kernel
    of_a_block = (k * d + d) + 2 * d + (d * h + h) + (h * d + d) + d
    want = (k * 128 * d + d) + 2 * 2 * d + config.blocks * of_a_block
    assert sum(p.size for p in jax.tree.leaves(shapes_of(ConvNeXt(config), 128)["params"])) == want


def test_every_parameter_matters_and_has_logical_axes():
    module, x = ConvNeXt(CONFIG), random_input(6, F)
    params, target = random_params(module, F), random_input(6, CONFIG.dim)
    gradient = jax.grad(lambda p: jnp.sum(run(module, p, x) * target))(params)
    for name, g in traverse_util.flatten_dict(gradient).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(shapes_of(module, F)["params_axes"])))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in flat.items()}
    assert tuple(axes["block_0", "conv", "kernel"]) == ("conv", "embed")
    assert tuple(axes["block_0", "expand", "kernel"]) == ("embed", "mlp")
    assert tuple(axes["block_0", "project", "kernel"]) == ("mlp", "embed")
    assert tuple(axes["embed", "kernel"]) == ("mel", "embed")


def test_a_fresh_depthwise_convolution_keeps_the_variance():
    """A channel's fan-in is its own taps, whatever the number of channels."""
    y, _ = jax.jit(DepthwiseConv(7).init_with_output)(jax.random.key(0), random_input(400, 256))
    assert 0.8 < float(jnp.std(y)) < 1.2


@pytest.mark.slow
def test_fresh_blocks_contribute_their_initial_scale():
    module = ConvNeXtBlock(ConvNeXtConfig(dim=32, hidden=64, scale=0.1))
    x = random_input(40, 32)
    y, _ = jax.jit(module.init_with_output)(jax.random.key(0), x)
    assert 0.01 < float(jnp.std(y - x)) < 0.2
    silent = ConvNeXtBlock(ConvNeXtConfig(dim=32, hidden=64, scale=0.0))
    np.testing.assert_array_equal(silent.init_with_output(jax.random.key(0), x)[0], x)


def test_norm_is_float32_inside_and_keeps_the_dtype():
    x = (1000 + random_input(4, 16)).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(16), "bias": jnp.zeros(16)}
    y = run(LayerNorm(), params, x)
    assert y.dtype == jnp.bfloat16
    want = normalised(np.asarray(x, np.float64), {"scale": 1.0, "bias": 0.0})
    np.testing.assert_allclose(np.asarray(y, np.float32), want, atol=0.01)


@pytest.mark.parametrize("fields, match", [
    ({"kernel": 4}, "kernel"), ({"kernel": 0}, "kernel"), ({"dim": 0}, "dim"),
    ({"hidden": 0}, "hidden"), ({"blocks": 0}, "blocks")])
def test_configurations_that_cannot_be_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        ConvNeXtConfig(**fields)
