import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.test_util import check_grads

from music_diffusion.networks.attention import attention

B, Q, N, H, D = 2, 7, 5, 2, 4
MASKS = {
    "none": None,
    "some": [[1, 1, 0, 1, 0], [0, 0, 1, 0, 0]],
    "nothing in the first": [[0] * N, [1] * N],
}
BLOCKS = (1, 3, 100)  # queries at a time; 3 does not divide 7
run = jax.jit(attention, static_argnums=4)


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"):
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def inputs():
    return normal(0, B, Q, H, D), normal(1, B, N, H, D), normal(2, B, N, H, D)


def as_mask(name):
    return None if MASKS[name] is None else jnp.asarray(MASKS[name], bool)


def oracle(query, key, value, mask):
    """Float64, one head of one example at a time, keys that do not count taken out."""
    out = np.zeros(query.shape)
    for b in range(len(query)):
        keys = slice(None) if mask is None else np.asarray(mask[b])
        if mask is not None and not keys.any():
            continue
        for h in range(query.shape[2]):
            e = np.exp(np.float64(query[b, :, h]) @ np.float64(key[b, keys, h]).T)
            out[b, :, h] = e / e.sum(1, keepdims=True) @ np.float64(value[b, keys, h])
    return out


def textbook(query, key, value, mask):
    """With all weights at once, for JAX to differentiate by itself."""
    logits = jnp.einsum("BQHD,BNHD->BHQN", query, key)
    if mask is None:
        return jnp.einsum("BHQN,BNHD->BQHD", jax.nn.softmax(logits), value)
    allowed = mask[:, None, None, :]
    weights = jnp.where(allowed, jnp.exp(jnp.where(allowed, logits, 0.0)), 0.0)
    weights = weights / jnp.maximum(jnp.sum(weights, -1, keepdims=True), 1e-9)
    return jnp.einsum("BHQN,BNHD->BQHD", weights, value)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", MASKS)
def test_attention_is_a_softmax_over_the_keys_that_count_without_division(name, block):
    got = run(*inputs(), as_mask(name), block)
    np.testing.assert_allclose(got, oracle(*inputs(), as_mask(name)), atol=1e-6)  # measured 2e-7


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", MASKS)
def test_the_gradient_is_that_of_the_textbook_formula(name, block):
    def gradients(f):
        def loss(*args):
            return jnp.sum(f(*args, as_mask(name)) * normal(3, B, Q, H, D))

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs())

    got = gradients(functools.partial(attention, block=block))
    for a, b in zip(got, gradients(textbook), strict=True):
        assert a.shape == b.shape and np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, atol=2e-6)  # measured 5e-7


@pytest.mark.parametrize("block", [3, 100])
def test_the_gradient_matches_finite_differences(block):
    mask = jnp.asarray([[True, False, True, True, False]] * B)
    check_grads(lambda *qkv: run(*qkv, mask, block), inputs(), 1, "rev",
                atol=2e-2, rtol=2e-2)


def test_nothing_to_attend_to_gives_exact_zero_and_no_gradient():
    mask = as_mask("nothing in the first")
    assert (np.asarray(run(*inputs(), mask, 3)[0]) == 0).all()
    grads = jax.grad(lambda *qkv: jnp.sum(run(*qkv, mask, 3) ** 2), (0, 1, 2))(*inputs())
    for g in grads:
        assert (np.asarray(g[0]) == 0).all()
        assert np.isfinite(g[1]).all() and np.abs(g[1]).max() > 0


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_huge_logits_neither_overflow_nor_attend_to_masked_keys(scale):
    query, key, value = inputs()
    mask = jnp.asarray([[True, True, False, False, True]] * B)
    value = jnp.where(mask[:, :, None, None], 1.0, 1e6 * value)
    out, pullback = jax.vjp(lambda *qkv: run(*qkv, mask, 3), scale * query, scale * key, value)
    np.testing.assert_allclose(out, 1.0, atol=1e-6)
    assert all(np.isfinite(g).all() for g in pullback(jnp.ones_like(out)))


def test_one_query_at_a_time_never_holds_all_weights():
    """Of the arrays in the compiled gradient's program none is as large as all weights."""
    query, key, value = (normal(i, 1, 64, 1, 4) for i in range(3))

    def sizes(jaxpr):
        for eqn in jaxpr.eqns:
            yield from (v.aval.size for v in eqn.outvars)
            for inner in jaxprs_in_params(eqn.params):
                yield from sizes(inner)

    def largest(block):
        grad = jax.grad(lambda *qkv: jnp.sum(attention(*qkv, None, block)), (0, 1, 2))
        return max(sizes(jax.make_jaxpr(grad)(query, key, value).jaxpr))

    assert largest(64) >= 64 * 64
    assert largest(4) <= 64 * 4


def test_bfloat16_inputs_are_summed_in_float32():
    query, key, value = (x.astype(jnp.bfloat16) for x in inputs())
    out, pullback = jax.vjp(lambda *qkv: run(*qkv, None, 3), query, key, value)
    grads = pullback(jnp.ones_like(out))
    assert {x.dtype for x in (out, *grads)} == {jnp.dtype("bfloat16")}
    np.testing.assert_allclose(np.float32(out), oracle(query, key, value, None), atol=0.02)
    # 4096 equal keys: a sum of weights in bfloat16 would stop at 256, and the mean be wrong.
    many = jnp.ones((1, 4096, 1, 4), jnp.bfloat16)
    np.testing.assert_allclose(np.float32(run(many[:, :1], many, many)), 1.0, atol=1e-2)
