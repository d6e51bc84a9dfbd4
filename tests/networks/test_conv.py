import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names

from music_diffusion.networks.conv import Conv, fold_stride


def oracle(x, kernel, bias, stride, dilation, groups):
    """The definition, tap by tap in float64: kernels centred on their strides, zeros outside."""
    *taps, inner, features = kernel.shape
    count = [-(-n // s) for n, s in zip(x.shape[1:-1], stride, strict=True)]
    y = np.zeros((len(x), *count, features)) + bias
    before = [((k - 1) * dilation + 1 - s) // 2 for k, s in zip(taps, stride, strict=True)]
    for out in np.ndindex(*count):
        for tap in np.ndindex(*taps):
            at = [o * s + t * dilation - b
                  for o, s, t, b in zip(out, stride, tap, before, strict=True)]
            if any(not 0 <= a < n for a, n in zip(at, x.shape[1:-1], strict=True)):
                continue
            for g in range(groups):
                seen = x[(slice(None), *at, slice(g * inner, (g + 1) * inner))]
                part = slice(g * features // groups, (g + 1) * features // groups)
                y[(slice(None), *out, part)] += seen.astype(np.float64) @ kernel[(*tap, slice(None), part)]
    return y


@pytest.mark.slow
@pytest.mark.parametrize("shape, conv", [
    ((2, 9, 3), Conv(4, (3,))),
    ((1, 30, 2), Conv(3, (3,), dilation=9)),
    ((1, 12, 1), Conv(2, (7,))),
    ((2, 16, 2), Conv(3, (5,), stride=(4,))),
    ((1, 19, 2), Conv(3, (11,), stride=(4,))),
    ((1, 17, 3), Conv(2, (4,), stride=(4,))),
    ((1, 18, 4), Conv(6, (5,), stride=(4,), groups=2)),
    ((1, 18, 2), Conv(3, (3,), stride=(2,), dilation=2)),
    ((2, 5, 7, 2), Conv(3, (3, 3))),
    ((2, 5, 7, 2), Conv(3, (3, 3), products=True)),
    ((1, 5, 8, 2), Conv(3, (3, 4), stride=(1, 2))),
    ((1, 7, 9, 2), Conv(3, (4, 4), stride=(2, 2))),
    ((1, 4, 11, 2), Conv(3, (3, 8), stride=(1, 4))),
], ids=lambda c: "" if isinstance(c, tuple) else f"{c.kernel}-{c.stride}-{c.dilation}-{c.groups}")
def test_conv_is_the_definition(shape, conv):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    params = jax.jit(conv.init)(jax.random.key(0), x)["params"]
    assert not params["bias"].any()
    params = {"kernel": params["kernel"], "bias": np.arange(conv.features, dtype=np.float32)}
    want = oracle(x, np.asarray(params["kernel"], np.float64), params["bias"],
                  conv.stride or (1,) * len(conv.kernel), conv.dilation, conv.groups)
    got = jax.jit(conv.apply)({"params": params}, x)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_fold_stride_has_the_gradients_of_the_strided_convolution():
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((2, 21, 3), (9, 3, 4)))

    def strided(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (4,), [(2, 6)], dimension_numbers=("NWC", "WIO", "NWC"))

    def folded(x, kernel):
        return fold_stride(x, kernel, 4, (2, 6))

    np.testing.assert_allclose(folded(x, kernel), strided(x, kernel), atol=1e-5)
    got, want = (jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), (0, 1))(x, kernel)
                 for f in (folded, strided))
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-3)


def test_grouped_channels_do_not_mix():
    conv = Conv(4, (3,), groups=2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 4)), jnp.float32)
    variables = conv.init(jax.random.key(0), x)
    seen = jax.jit(jax.jacobian(lambda x: conv.apply(variables, x)[0, 2]))(x)[:, 0]  # [D, N, C]
    mixes = np.abs(seen).max(axis=1) > 0
    assert mixes.tolist() == [[i // 2 == j // 2 for j in range(4)] for i in range(4)]


def test_variance_is_kept_by_a_fresh_convolution():
    x = jax.random.normal(jax.random.key(1), (1, 2000, 32))
    y, _ = Conv(64, (5,), stride=(2,)).init_with_output(jax.random.key(0), x)
    assert 0.8 < float(jnp.std(y)) < 1.2


@pytest.mark.parametrize("axes", [1, 2])
def test_parameters_have_logical_axes(axes):
    x = jnp.zeros((1, *itertools.repeat(6, axes), 3))
    variables = jax.eval_shape(Conv(4, (3,) * axes).init, jax.random.key(0), x)
    names = unfreeze(get_axis_names(variables["params_axes"]))
    assert tuple(names["kernel"]) == ("conv", "conv_2")[:axes] + ("embed", "mlp")
    assert tuple(names["bias"]) == ("mlp",)


def test_strides_that_skip_inputs_are_refused():
    with pytest.raises(ValueError, match="kernel"):
        Conv(4, (3,), stride=(4,)).init(jax.random.key(0), jnp.zeros((1, 8, 2)))


def test_products_have_the_gradients_of_the_convolution():
    rng = np.random.default_rng(0)
    x, weights = (jnp.asarray(rng.normal(size=(2, 4, 6, n)), jnp.float32) for n in (3, 5))
    params = Conv(5, (3, 3)).init(jax.random.key(0), x)["params"]

    def gradients(products):
        conv = Conv(5, (3, 3), products=products)
        return jax.jit(jax.grad(lambda p, x: jnp.sum(weights * conv.apply({"params": p}, x)),
                                argnums=(0, 1)))(params, x)

    for a, b in zip(jax.tree.leaves(gradients(True)), jax.tree.leaves(gradients(False)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("other", [
    {"kernel": (3,)}, {"kernel": (1, 3)}, {"stride": (1, 2)}, {"dilation": 2}, {"groups": 3}])
def test_products_are_for_one_kernel(other):
    conv = Conv(**{"features": 3, "kernel": (3, 3), "products": True} | other)
    with pytest.raises(ValueError, match="3 x 3"):
        conv.init(jax.random.key(0), jnp.zeros((1, *[4] * len(conv.kernel), 3)))
