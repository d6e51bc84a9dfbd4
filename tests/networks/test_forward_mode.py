"""The denoisers are differentiable in forward mode, and twice, as one-step distillation needs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from flax.core import unfreeze

from music_diffusion.networks.layers import linear
from music_diffusion.networks.remat import POLICIES
from music_diffusion.networks.transformer import SpectrogramTransformer, T5Config
from music_diffusion.networks.unet1d import UNet1D, UNet1DConfig

B, T, F = 2, 6, 3


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def unet(remat):
    network = UNet1D(UNet1DConfig(widths=(8, 12), blocks=1, time_features=4, heads=2, head_dim=4,
                                  output=F, remat=remat))
    condition = normal(1, B, T, F)
    return network, lambda z, time: (z, time, condition)


def transformer(remat):
    network = SpectrogramTransformer(T5Config(
        embed_dim=8, num_heads=2, head_dim=6, mlp_dim=10, encoder_layers=1, decoder_layers=2,
        vocab_size=11, max_tokens=7, frames=T, context_frames=4, context=True, mel_bins=F, remat=remat))
    tokens = jnp.asarray([[3, 5, 1, 0, 0, 0, 0], [2, 2, 9, 4, 6, 8, 1]])
    mask = jnp.asarray([[1.0, 1, 1, 0], [0, 0, 0, 0]])
    return network, lambda z, time: (z, time, tokens, normal(2, B, 4, F), mask)


@pytest.mark.slow
def test_the_modes_agree_to_second_order():
    check_modes(unet("dots"), twice=True)


@pytest.mark.slow
@pytest.mark.parametrize("remat", POLICIES)
@pytest.mark.parametrize("make", [unet, transformer])
def test_the_modes_agree_to_second_order_in_all_networks(make, remat):
    check_modes(make(remat), twice=True)


@pytest.mark.slow
def test_the_modes_agree_with_tokens_masks_and_context():
    check_modes(transformer("none"), twice=False)


def check_modes(made, twice):
    network, arguments = made
    z, time = normal(3, B, T, F), jnp.asarray([0.2, 0.7])
    variables = jax.jit(network.init)(jax.random.key(0), *arguments(z, time))
    flat = traverse_util.flatten_dict(unfreeze(variables["params"]))
    # Random where a fresh network has zeros, so that every path carries something.
    params = traverse_util.unflatten_dict({
        k: v + 0.2 * normal(i, *v.shape) for i, (k, v) in enumerate(sorted(flat.items()))})
    point = params, z, time
    a, b = (jax.tree.map(lambda x, s=seed: normal(s, *x.shape), point) for seed in (4, 5))

    def loss(params, z, time):
        return jnp.mean(network.apply({"params": params}, *arguments(z, time)) ** 2)

    def dot(x, y):
        return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, y)))

    @jax.jit
    def measure():
        gradient = jax.grad(loss, (0, 1, 2))

        def along(direction):
            return lambda *point: jax.jvp(loss, point, direction)[1]

        # aᵀ H b: of the gradient along a, of the slope along a, and with a and b exchanged.
        slope = {"slope": (along(a)(*point), dot(gradient(*point), a))}
        return slope if not twice else slope | {
            "curvature": (dot(jax.jvp(gradient, point, a)[1], b),
                          dot(jax.grad(along(a), (0, 1, 2))(*point), b), jax.jvp(along(b), point, a)[1])}

    for name, values in measure().items():
        assert abs(values[0]) > 1e-2, name
        np.testing.assert_allclose(values, values[0], rtol=2e-3, err_msg=name)


def test_a_step_along_the_tangent_is_the_step_of_the_network():
    """Against finite differences in float64 arithmetic of the values."""
    network, arguments = unet("none")
    z, time = normal(3, B, T, F), jnp.asarray([0.2, 0.7])
    params = jax.jit(network.init)(jax.random.key(0), *arguments(z, time))["params"]
    params = jax.tree.map(lambda x: x + 0.2 * normal(x.size, *x.shape), params)

    @jax.jit
    def run(z):
        return network.apply({"params": params}, *arguments(z, time))

    tangent = jax.jvp(run, (z,), (normal(4, *z.shape),))[1]
    step = 1e-2
    ends = [np.float64(run(z + sign * step * normal(4, *z.shape))) for sign in (1, -1)]
    got = (ends[0] - ends[1]) / (2 * step)
    assert np.linalg.norm(got - tangent) < 5e-3 * np.linalg.norm(got)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_the_kernels_gradient_is_summed_in_its_own_precision(shape):
    """A sum of 4096 products; in bfloat16 it would be off by parts in 256."""
    x = jnp.ones((4096, shape[0]), jnp.bfloat16) * 1.0078125
    y_bar = jnp.ones((4096, shape[1]), jnp.bfloat16)
    bar = jax.vjp(lambda kernel: linear(x, kernel), jnp.zeros(shape))[1](y_bar)[0]
    assert bar.dtype == jnp.float32
    np.testing.assert_allclose(bar, 4096 * 1.0078125, rtol=1e-6)
