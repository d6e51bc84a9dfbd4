"""The 2-D U-Net: sizes and reach by hand, transposed convolutions, the noise's sines, modes of norms."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.errors import UserError
from music_diffusion.networks.layers import TRACKED
from music_diffusion.networks.unet2d import (
    AttentionPicture,
    Doubled,
    ResidualPicture,
    UNet2D,
    UNet2DConfig,
    embed_variance,
)

B, T, F = 2, 8, 12
CONFIG = UNet2DConfig(widths=(4, 6), blocks=2, middle=8, attention_down=(1,), attention_up=(1,), heads=2,
                      head_dim=4, noise_features=4)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def inputs():
    return normal(0, B, T, F), jnp.asarray([0.2, 0.9]), normal(1, B, T, F, 1)


def random_params(config, inputs, seed=1):
    """Random where a fresh network has zeros, so that every path carries something."""
    variables = jax.jit(UNet2D(config).init)(jax.random.key(0), *inputs)
    flat = traverse_util.flatten_dict(unfreeze(variables["params"]), sep="/")
    rng = np.random.default_rng(seed)
    drawn = {k: v + 0.3 * rng.normal(size=v.shape).astype(np.float32) for k, v in flat.items()}
    return traverse_util.unflatten_dict(
        {k: jnp.abs(v) if k.endswith("variance") else v for k, v in drawn.items()}, sep="/")


@pytest.fixture(scope="module")
def params(inputs):
    return random_params(CONFIG, inputs)


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, *inputs):
    return UNet2D(config).apply({"params": params}, *inputs)


def test_transposed_convolution_by_hand():
    x = jnp.asarray([[[[1.0], [2.0]]]])
    params = {"cells": {"kernel": jnp.asarray([[1.0, 10.0, 100.0, 1000.0]]), "bias": jnp.zeros(4)}}
    y = Doubled(1).apply({"params": params}, x)
    assert y[0, :, :, 0].tolist() == [[1, 10, 2, 20], [100, 1000, 200, 2000]]


def test_transposed_convolution_is_that_of_jax():
    x = normal(0, 2, 3, 5, 4)
    kernel = normal(1, 2, 2, 4, 6)
    params = {"cells": {"kernel": kernel.transpose(2, 0, 1, 3).reshape(4, -1), "bias": jnp.zeros(24)}}
    # jax's kernels run backwards: over the output's cells it slides what the input is multiplied by.
    want = jax.lax.conv_transpose(x, kernel[::-1, ::-1], (2, 2), "SAME",
                                  dimension_numbers=("NHWC", "HWIO", "NHWC"), transpose_kernel=False)
    got = Doubled(6).apply({"params": params}, x)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_noise_is_told_by_sines_of_its_variance():
    variance = jnp.asarray([0.0, 0.3])
    got = embed_variance(variance, 6, (1.0, 100.0))
    frequency = np.array([1.0, 10.0, 100.0])
    want = np.concatenate([np.sin(2 * np.pi * frequency * 0.3), np.cos(2 * np.pi * frequency * 0.3)])
    np.testing.assert_allclose(got, [[0, 0, 0, 1, 1, 1], want], atol=1e-4)


def test_residual_block_is_its_definition():
    x = normal(0, 2, 3, 4, 2)
    config = dataclasses.replace(CONFIG, norm="group")
    block = ResidualPicture(32, config)
    params = unfreeze(block.init(jax.random.key(0), x, False)["params"])
    shut = params | {"conv_1": jax.tree.map(jnp.zeros_like, params["conv_1"])}
    straight = block.apply({"params": shut}, x, False)
    np.testing.assert_allclose(straight, x @ params["shortcut"]["kernel"], atol=1e-5)

    def conv(x, p):
        return jax.lax.conv_general_dilated(x, p["kernel"], (1, 1), "SAME",
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))

    h = jax.nn.swish(conv(x, params["conv_0"]))
    h = (h - h.mean((1, 2), keepdims=True)) / jnp.sqrt(h.var((1, 2), keepdims=True) + 1e-6)  # a group each
    np.testing.assert_allclose(block.apply({"params": params}, x, False) - straight,
                               conv(h, params["conv_1"]), atol=1e-4)


def test_attention_sees_all_cells_whatever_their_order(inputs):
    x = normal(3, 2, 3, 4, 6)
    module = AttentionPicture(CONFIG)
    params = module.init(jax.random.key(0), x)
    y = module.apply(params, x)
    turned = module.apply(params, x[:, ::-1, ::-1])
    np.testing.assert_allclose(turned[:, ::-1, ::-1], y, atol=1e-5)
    moved = np.abs(module.apply(params, x.at[0, 0, 0].add(1.0)) - y).max(-1)
    assert (moved[0] > 1e-6).all() and not moved[1].any()


def count(c, pictures=2):
    """Parameters of the network from its sizes."""
    def dense(n, m):
        return n * m + m

    def block(before, after):
        norm = (4 if c.norm == "batch" else 2) * after
        return dense(9 * before, after) + norm + dense(9 * after, after) + dense(before, after)

    def attention(width):
        return 2 * width + 4 * width * c.heads * c.head_dim

    total, x, seen = dense(pictures, c.widths[0]), c.widths[0] + c.noise_features, []
    for level, width in enumerate(c.widths):
        for _ in range(c.blocks):
            total, x = total + block(x, width), width
            seen.append(width)
        total += attention(width) * (level in c.attention_down)
    for _ in range(c.middle_blocks):
        total, x = total + block(x, c.middle), c.middle
    total += attention(c.middle) * c.attention_middle
    for level, width in reversed(list(enumerate(c.widths))):
        total, x = total + dense(x, 4 * width), width
        for _ in range(c.blocks):
            total, x = total + block(x + seen.pop(), width), width
        total += attention(width) * (level in c.attention_up)
    return total + dense(x, 1)


@pytest.mark.parametrize("config, known", [
    (CONFIG, None), (UNet2DConfig(), 21_565_441), (UNet2DConfig(norm="group"), None),
    (dataclasses.replace(CONFIG, middle_blocks=2, attention_middle=False, attention_up=(0, 1)), None)])
def test_number_of_parameters(config, known):
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    size = config.multiple
    params = jax.eval_shape(UNet2D(config).init, jax.random.key(0), shape((1, size, size)), shape((1,)),
                            shape((1, size, size, 1)))["params"]
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert total == count(config) and known in (None, total)


@pytest.mark.slow
def test_a_cell_sees_what_the_sizes_say():
    # Without attention: convolutions of 3 x 3 on three levels, whose cells are 1, 2 and 4 wide.
    config = dataclasses.replace(CONFIG, blocks=1, attention_down=(), attention_middle=False,
                                 attention_up=())
    inputs = normal(0, 1, 64, 8), jnp.asarray([0.4]), normal(1, 1, 64, 8, 1)
    params = random_params(config, inputs)
    middle = 32

    def output(z, condition):
        return jnp.sum(run(config, params, z, inputs[1], condition)[0, middle])

    for gradient in jax.grad(output, argnums=(0, 1))(inputs[0], inputs[2]):
        reached = np.flatnonzero(np.abs(np.asarray(gradient)[0]).reshape(64, -1).max(1) > 0)
        # Up: 2 at width 1; then the cell of 2 with 2 each side, the cell of 4 with 2 on each side; down:
        # 2 cells at each level again, and in full resolution 2 around all.
        low, high = middle - 2, middle + 2
        low, high = low // 2 - 2, high // 2 + 2
        low, high = low // 2 - 2, high // 2 + 2
        low, high = 2 * low - 2, 2 * high + 1 + 2
        low, high = 2 * low - 2, 2 * high + 1 + 2
        assert (reached[0], reached[-1]) == (max(low, 0), min(high, 63)), reached


@pytest.mark.parametrize("norm", ["batch", pytest.param("group", marks=pytest.mark.slow)])
def test_examples_do_not_see_each_other_but_in_training_by_batch_norm(inputs, norm):
    config = dataclasses.replace(CONFIG, norm=norm)
    params = random_params(config, inputs)
    z, variance, condition = inputs
    changed = (z.at[1].add(1.0), variance, condition)
    a, b = run(config, params, *inputs), run(config, params, *changed)
    np.testing.assert_allclose(a[0], b[0], atol=1e-5)
    assert np.abs(a[1] - b[1]).max() > 1e-3

    @jax.jit
    def train(*inputs):
        return UNet2D(config).apply({"params": params}, *inputs, train=True, mutable=[TRACKED])

    (a, sown), (b, _) = train(*inputs), train(*changed)
    assert (np.abs(a[0] - b[0]).max() > 1e-3) == (norm == "batch")
    blocks = 2 * 2 * 2 + 1
    assert len(jax.tree.leaves(sown)) == (blocks if norm == "batch" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_every_parameter_matters_and_has_logical_axes(inputs, params, remat):
    config = dataclasses.replace(CONFIG, remat=remat)
    weights = normal(5, B, T, F)

    @jax.jit
    def gradient(params):
        def loss(params):
            output, sown = UNet2D(config).apply({"params": params}, *inputs, train=True, mutable=[TRACKED])
            return jnp.sum(weights * output) + sum(jax.tree.leaves(sown))
        return jax.grad(loss)(params)

    for name, g in traverse_util.flatten_dict(gradient(params), sep="/").items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, name
    variables = jax.eval_shape(UNet2D(config).init, jax.random.key(0), *inputs)
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(variables["params_axes"])), sep="/")
    flat = traverse_util.flatten_dict(params, sep="/")
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in flat.items()}
    assert tuple(axes["down_0_0/conv_0/kernel"]) == ("conv", "conv_2", "embed", "mlp")


def test_a_fresh_network_says_nothing(inputs):
    variables = jax.jit(UNet2D(CONFIG).init)(jax.random.key(0), *inputs)
    assert not run(CONFIG, variables["params"], *inputs).any()


@pytest.mark.slow
def test_it_works_without_condition(inputs):
    z, variance, _ = inputs
    params = random_params(CONFIG, (z, variance))
    y = run(CONFIG, params, z, variance)
    assert y.shape == (B, T, F) and np.abs(y).max() > 0


@pytest.mark.parametrize("size", [(6, 12), (8, 10)])
def test_sizes_that_cannot_be_halved_are_refused(inputs, params, size):
    with pytest.raises(ValueError, match="multiples of 4"):
        run(CONFIG, params, jnp.zeros((1, *size)), jnp.zeros(1), jnp.zeros((1, *size, 1)))


@pytest.mark.parametrize("bad, word", [
    ({"widths": ()}, "widths"), ({"blocks": 0}, "blocks"), ({"middle_blocks": 0}, "middle_blocks"),
    ({"noise_features": 5}, "noise_features"), ({"attention_up": (3,)}, "level 3"),
    ({"attention_down": (-1,)}, "level -1")])
def test_bad_sizes_are_refused(bad, word):
    with pytest.raises(ValueError, match=word):
        UNet2DConfig(**bad)


def test_unknown_norms_are_refused():
    with pytest.raises(UserError, match="batch, group"):
        UNet2DConfig(norm="layer")
