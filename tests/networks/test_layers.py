import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from music_diffusion.networks.layers import (
    Dense,
    Embed,
    GatedMLP,
    GroupNorm,
    MultiHeadAttention,
    RMSNorm,
)

B, Q, N, H, D, E = 2, 3, 5, 2, 4, 6


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_cached_keys_and_values_are_the_path_of_self_attention():
    module = MultiHeadAttention(E, H, D)
    x = normal(0, B, Q, E)
    variables = module.init(jax.random.key(0), x)
    k, v = module.apply(variables, x, method="keys_values")
    np.testing.assert_array_equal(
        module.apply(variables, x), module.apply(variables, x, k, v, method="attend"))


def test_the_query_init_folds_in_the_division_by_sqrt_head_dim():
    module = MultiHeadAttention(256, 8, 32)
    kernels = module.init(jax.random.key(0), normal(0, 1, 2, 256))["params"]
    ratio = np.std(kernels["key"]["kernel"]) / np.std(kernels["query"]["kernel"])
    assert abs(ratio / np.sqrt(32) - 1) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("features, groups, wanted", [(6, 2, 2), (6, 32, 2), (64, 32, 32), (5, 4, 1)])
def test_group_norm_is_its_formula(features, groups, wanted):
    """Of as many groups as divide the features and the greatest number; against float64."""
    x = normal(0, B, Q, features) * 7 + 3
    scale, bias = normal(1, features), normal(2, features)
    y = GroupNorm(groups).apply({"params": {"scale": scale, "bias": bias}}, x)
    size = features // wanted
    expected = np.empty(x.shape)
    for example in range(B):
        for first in range(0, features, size):
            part = np.float64(x[example, :, first:first + size])
            expected[example, :, first:first + size] = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
    np.testing.assert_allclose(y, expected * np.float64(scale) + np.float64(bias), atol=2e-5)


def test_a_fresh_group_norm_has_moments_of_zero_and_one_and_computes_in_float32():
    x = (normal(0, B, Q, 8) + 100).astype(jnp.bfloat16)
    y, variables = GroupNorm(4, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.bfloat16
    assert {k: v.dtype for k, v in variables["params"].items()} == dict.fromkeys(
        ("scale", "bias"), jnp.float32)
    grouped = np.float64(y).reshape(B, Q, 4, 2)
    np.testing.assert_allclose(grouped.mean((1, 3)), 0, atol=0.02)
    np.testing.assert_allclose(grouped.var((1, 3)), 1, atol=0.05)


def test_rms_norm_formula():
    x = normal(0, B, Q, E) * 7 + 3
    module = RMSNorm()
    scale = normal(1, E)
    y = module.apply({"params": {"scale": scale}}, x)
    x = np.float64(x)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.float64(scale)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    tiny = module.apply({"params": {"scale": jnp.ones(E)}}, jnp.full((1, E), 1e-3))
    np.testing.assert_allclose(tiny, 1 / np.sqrt(2), rtol=1e-5)  # ε counts: 1e-6 + 1e-6


def test_one_hot_embedding_equals_the_gather_with_its_gradient():
    module = Embed(7, E)
    ids = jnp.asarray([[0, 3, 3], [6, 1, 0]])
    variables = module.init(jax.random.key(0), ids)

    def loss(variables, one_hot):
        return (module.apply(variables, ids, one_hot=one_hot) ** 3).sum()

    for a, b in zip(*(jax.tree.leaves(jax.value_and_grad(loss)(variables, o)) for o in (0, 1)),
                    strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_gated_mlp_drops_hidden_features_only_when_asked():
    module = GatedMLP(16, dropout_rate=0.5)
    x = normal(0, B, Q, E)
    variables = module.init(jax.random.key(0), x)
    quiet = module.apply(variables, x)
    noisy = module.apply(variables, x, deterministic=False, rngs={"dropout": jax.random.key(1)})
    assert np.abs(quiet - noisy).max() > 1e-3
    kernels = jax.tree.map(np.float64, variables["params"])
    a = np.float64(x) @ kernels["wi_0"]["kernel"]
    gelu = a * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    expected = (gelu * (np.float64(x) @ kernels["wi_1"]["kernel"])) @ kernels["wo"]["kernel"]
    np.testing.assert_allclose(quiet, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("module", [
    Dense(3, axes=("embed", "mlp"), use_bias=True), RMSNorm(), GatedMLP(8),
    MultiHeadAttention(E, H, D)], ids=lambda m: type(m).__name__)
def test_bfloat16_computes_in_bfloat16_with_float32_parameters(module: nn.Module):
    x = normal(0, B, Q, E)
    half = module.clone(dtype=jnp.bfloat16)
    variables = half.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables["params"])} == {jnp.dtype("float32")}
    y16, y32 = half.apply(variables, x), module.apply(variables, x)
    assert y16.dtype == jnp.bfloat16 and y32.dtype == jnp.float32
    np.testing.assert_allclose(np.float32(y16), y32, atol=0.05)  # 8 bits of mantissa


def test_dense_bias_is_added_and_named():
    module = Dense(3, axes=("embed", "mlp"), use_bias=True)
    variables = module.init(jax.random.key(0), jnp.ones((1, E)))
    assert variables["params_axes"]["bias_axes"].names == ("mlp",)
    params = {**variables["params"], "bias": jnp.asarray([1.0, 2.0, 3.0])}
    difference = module.apply({"params": params}, jnp.zeros((1, E)))
    np.testing.assert_array_equal(difference, [[1.0, 2.0, 3.0]])
