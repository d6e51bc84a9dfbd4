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
from music_diffusion.networks.unet1d import (
    AttentionBlock,
    Conv3,
    ResidualBlock,
    UNet1D,
    UNet1DConfig,
)

B, T, F, C = 2, 8, 4, 3
CONFIG = UNet1DConfig(widths=(8, 12), blocks=1, time_features=4, heads=2, head_dim=4, output=F)
NETWORK = UNet1D(CONFIG)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return (jnp.asarray(rng.normal(size=(B, T, F)), jnp.float32), jnp.asarray([0.2, 0.9]),
            jnp.asarray(rng.normal(size=(B, T, C)), jnp.float32))


@pytest.fixture(scope="module")
def variables(inputs):
    return jax.jit(NETWORK.init)(jax.random.key(0), *inputs)


@pytest.fixture(scope="module")
def params(variables):
    """Random where a fresh network has zeros, so that every path carries something."""
    flat = traverse_util.flatten_dict(unfreeze(variables["params"]))
    rng = np.random.default_rng(1)
    return traverse_util.unflatten_dict({
        k: v + jnp.asarray(0.3 * rng.normal(size=v.shape), jnp.float32) for k, v in flat.items()})


@functools.partial(jax.jit, static_argnums=0)
def run(config, params, z, time, condition):
    return UNet1D(config).apply({"params": params}, z, time, condition)


def test_conv3_is_the_convolution(inputs):
    z = inputs[0]
    conv = Conv3(5)
    params = conv.init(jax.random.key(1), z)["params"]
    kernel, bias = params["taps"]["kernel"], params["taps"]["bias"]
    assert kernel.shape == (3 * F, 5)
    bias = bias + jnp.arange(5.0)
    want = jax.lax.conv_general_dilated(
        z, kernel.reshape(3, F, 5), window_strides=(1,), padding="SAME",
        dimension_numbers=("NWC", "WIO", "NWC")) + bias[None, None]
    got = conv.apply({"params": {"taps": {"kernel": kernel, "bias": bias}}}, z)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_conv3_by_hand():
    conv = Conv3(1)
    x = jnp.asarray([[[1.0], [10.0], [100.0]]])
    params = {"taps": {"kernel": jnp.asarray([[1.0], [2.0], [3.0]]), "bias": jnp.zeros(1)}}
    # 1 · before + 2 · now + 3 · after
    assert conv.apply({"params": params}, x)[0, :, 0].tolist() == [32.0, 321.0, 210.0]


@pytest.mark.slow
def test_fresh_residual_block_is_the_identity_or_a_linear_map(inputs):
    z, time, condition = inputs
    same, _ = ResidualBlock(F).init_with_output(jax.random.key(0), z, condition[:, 0])
    np.testing.assert_array_equal(same, z)
    wider, variables = ResidualBlock(6).init_with_output(jax.random.key(0), z, condition[:, 0])
    kernel = variables["params"]["shortcut"]["kernel"]
    np.testing.assert_allclose(wider, np.asarray(z) @ np.asarray(kernel), atol=1e-5)


@pytest.mark.slow
def test_fresh_network_is_silent_but_learns(inputs, variables):
    assert not run(CONFIG, variables["params"], *inputs).any()

    def loss(params):
        return jnp.mean((run(CONFIG, params, *inputs) - 1.0) ** 2)

    gradient = traverse_util.flatten_dict(jax.grad(loss)(unfreeze(variables["params"])))
    assert np.abs(gradient["output", "kernel"]).max() > 0


def test_every_parameter_matters_and_has_logical_axes(inputs, variables, params):
    def loss(params):
        return jnp.sum(run(CONFIG, params, *inputs) ** 2)

    for name, gradient in traverse_util.flatten_dict(jax.grad(loss)(params)).items():
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, name
    axes = traverse_util.flatten_dict(unfreeze(get_axis_names(variables["params_axes"])))
    flat = traverse_util.flatten_dict(params)
    assert {k: len(v) for k, v in axes.items()} == {k: v.ndim for k, v in flat.items()}


@pytest.mark.slow
def test_time_condition_and_noise_all_reach_every_frame(inputs, params):
    z, time, condition = inputs

    def output(z, time, condition):
        return run(CONFIG, params, z, time, condition)

    dz, dt, dc = jax.grad(lambda *x: jnp.sum(output(*x)[0] ** 2), (0, 1, 2))(z, time, condition)
    for gradient in (dz[0], dt[:1], dc[0]):
        assert (np.abs(gradient) > 0).all()
    for gradient in (dz[1], dt[1:], dc[1]):  # examples of a batch do not see each other
        assert not np.any(gradient)


def test_fine_levels_reach_the_output_past_the_coarse_ones(inputs, variables):
    """Fresh blocks are identities: without the way across, frames of a pair would be alike."""
    params = unfreeze(variables["params"])
    params["output"]["kernel"] = params["output"]["kernel"] + 1.0
    x = run(CONFIG, params, *inputs)
    assert np.abs(x[:, 0::2] - x[:, 1::2]).min() > 1e-4


@pytest.mark.slow
def test_attention_block_adds_to_its_input(inputs):
    z = inputs[0]
    block = AttentionBlock(CONFIG)
    params = unfreeze(block.init(jax.random.key(0), z, None)["params"])
    assert np.abs(block.apply({"params": params}, z, None) - z).max() > 0
    params["attention"]["out"]["kernel"] *= 0
    np.testing.assert_array_equal(block.apply({"params": params}, z, None), z)


@pytest.mark.slow
def test_a_local_network_sees_only_near_frames(inputs):
    """Without attention, a frame depends on its surroundings through convolutions alone."""
    z, time, condition = inputs
    config = dataclasses.replace(CONFIG, widths=(8,))
    params = unfreeze(UNet1D(config).init(jax.random.key(0), *inputs)["params"])
    params["middle"]["attention"]["out"]["kernel"] *= 0
    params["output"]["kernel"] += 1.0
    for name in ("down_0_0", "up_0_0"):
        for conv in ("conv_0", "conv_1"):
            params[name][conv]["taps"]["kernel"] += 0.2
    seen = jax.grad(lambda z: run(config, params, z, time, condition)[0, 0].sum())(z)[0]
    # One frame to each side by the input, and two by each of the two blocks.
    assert (np.abs(seen).sum(1) > 0).tolist() == [True] * 6 + [False] * 2


def test_levels_and_output_have_the_shapes_of_the_configuration(inputs, params):
    assert run(CONFIG, params, *inputs).shape == (B, T, F)
    assert {k: CONFIG.__class__(widths=(8,) * k).frame_multiple for k in (1, 2, 3)} == {
        1: 1, 2: 2, 3: 4}
    assert params["down_1_0"]["conv_0"]["taps"]["kernel"].shape == (3 * 8, 12)
    assert params["raise_0"]["kernel"].shape == (12, 8)


def test_bfloat16_products_stay_near_float32(inputs, params):
    exact = run(CONFIG, params, *inputs)
    rough = run(dataclasses.replace(CONFIG, dtype="bfloat16"), params, *inputs)
    assert 0 < np.abs(rough - exact).max() < 0.1 * np.abs(exact).max()


def test_frames_that_do_not_halve_are_an_error(inputs, params):
    z, time, condition = inputs
    with pytest.raises(ValueError, match="7 frames are not a multiple of 2"):
        run(CONFIG, params, z[:, :7], time, condition[:, :7])


@pytest.mark.parametrize("fields", [{"widths": ()}, {"blocks": 0}, {"norm": "batch"}])
def test_configurations_that_cannot_be_are_refused(fields):
    with pytest.raises((ValueError, UserError), match=next(iter(fields))):
        UNet1DConfig(**fields)
