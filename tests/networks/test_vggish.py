"""VGGish against a float64 forward pass from its definition."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from reference import vggish_oracle

from music_diffusion.networks.vggish import VGGish, VGGishConfig

SMALL = VGGishConfig(frames=16, mels=8, channels=((4,), (6, 5)), hidden=(12, 10), embedding=7)


def patches(config, batch=3, seed=0):
    shape = (batch, config.frames, config.mels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def fresh(config):
    """Random parameters, with biases that are not zero."""
    variables = jax.eval_shape(VGGish(config).init, jax.random.key(0), patches(config))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: 0.3 * rng.normal(size=x.shape).astype(np.float32),
                        variables["params"])


def oracle(params, config, x):
    """The layers in order; see `vggish_oracle.forward`."""
    groups = [[(params[f"conv_{g}_{i}"]["kernel"], params[f"conv_{g}_{i}"]["bias"])
               for i in range(len(group))] for g, group in enumerate(config.channels)]
    full = [*(f"hidden_{i}" for i in range(len(config.hidden))), "embedding"]
    return vggish_oracle.forward(x, groups, [(params[n]["kernel"], params[n]["bias"]) for n in full],
                                 final_activation=config.final_activation)


@pytest.mark.parametrize("final_activation", [False, True])
def test_network_is_the_definition(final_activation):
    config = VGGishConfig(frames=16, mels=8, channels=((4,), (6, 5)), hidden=(12, 10), embedding=7,
                          final_activation=final_activation)
    params, x = fresh(config), patches(config)
    got = jax.jit(VGGish(config).apply)({"params": params}, x)
    want = oracle(params, config, x)
    assert got.shape == (3, 7) and got.dtype == jnp.float32
    assert (want < 0).any() != final_activation
    np.testing.assert_allclose(got, want, atol=1e-5)  # measured 5e-7


def test_published_size_and_shapes():
    config = VGGishConfig()
    variables = jax.eval_shape(VGGish(config).init, jax.random.key(0), jnp.zeros((1, 96, 64)))
    shapes = {name: p["kernel"].shape for name, p in variables["params"].items()}
    assert shapes == {
        "conv_0_0": (3, 3, 1, 64), "conv_1_0": (3, 3, 64, 128),
        "conv_2_0": (3, 3, 128, 256), "conv_2_1": (3, 3, 256, 256),
        "conv_3_0": (3, 3, 256, 512), "conv_3_1": (3, 3, 512, 512),
        "hidden_0": (6 * 4 * 512, 4096), "hidden_1": (4096, 4096), "embedding": (4096, 128)}
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])) == 72_141_184
    assert config.flat == 12288


def test_every_parameter_has_logical_axes():
    variables = jax.eval_shape(VGGish(SMALL).init, jax.random.key(0), jnp.zeros((1, 16, 8)))
    names = unfreeze(get_axis_names(variables["params_axes"]))
    assert set(names) == set(variables["params"])
    for layer, axes in names.items():
        conv = layer.startswith("conv")
        assert tuple(axes["kernel"]) == (("conv", "conv_2") if conv else ()) + ("embed", "mlp")
        assert tuple(axes["bias"]) == ("mlp",)


def test_a_fresh_network_keeps_the_scale_of_its_input():
    config = VGGishConfig(channels=((32,), (32, 32)), hidden=(256,), embedding=256)
    x = patches(config, batch=8)
    y, _ = jax.jit(VGGish(config).init_with_output)(jax.random.key(1), x)
    # Max pooling takes the largest of four, so some more than 1; without He's factor 2 of every
    # ReLU the power would fall by 2^4.
    assert 0.5 < float(jnp.mean(y**2)) < 20


def test_half_precision_products_give_float32_near_the_full_ones():
    params, x = fresh(SMALL), patches(SMALL)
    full = jax.jit(VGGish(SMALL).apply)({"params": params}, x)
    half = jax.jit(VGGish(SMALL, dtype=jnp.bfloat16).apply)({"params": params}, x)
    assert half.dtype == jnp.float32
    error = float(jnp.max(jnp.abs(half - full)) / jnp.max(jnp.abs(full)))
    assert 0 < error < 0.05  # bfloat16 has 8 bits


@pytest.mark.parametrize("fields, named", [
    ({"frames": 90}, "frames"), ({"mels": 0}, "mels"), ({"channels": ((8,), ())}, "channels"),
    ({"hidden": (0,)}, "hidden"), ({"embedding": 0}, "embedding")])
def test_bad_sizes_are_refused(fields, named):
    with pytest.raises(ValueError, match=named):
        VGGishConfig(**fields)


def test_patches_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\[B, 16, 8\]"):
        VGGish(SMALL).init(jax.random.key(0), jnp.zeros((1, 8, 16)))
