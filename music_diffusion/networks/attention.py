"""Exact dot-product attention, in memory that does not grow with queries × keys.

Queries are taken a block at a time. The gradient computes a block's weights
again, from the logarithm L of their sum, instead of keeping them (Rabe and
Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135):

    P = exp(Q Kᵀ − L),   O = P V                                           (1)
    dS = P ∘ (dO Vᵀ − δ),   δ = Σ_D dO ∘ O                                 (2)
    dQ = dS K,   dK = dSᵀ Q,   dV = Pᵀ dO                                  (3)

and the tangent of the output, of which (2) and (3) are the transpose,

    Ṡ = Q̇ Kᵀ + Q K̇ᵀ,   Ȯ = (P ∘ Ṡ) V − Σ_N (P ∘ Ṡ) ∘ O + P V̇            (4)

Sums and exponentials are float32, whatever the dtype of queries, keys and values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from music_diffusion.networks.linear_map import linear_map

KEPT = "attention"  # name of what rematerialisation may keep of attention
NEVER = -1e30  # a logit that no softmax notices; finite, so that gradients stay finite

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_jvp, nondiff_argnums=(4,))
def attention(
    query: Float[Array, "B Q H D"],
    key: Float[Array, "B N H D"],
    value: Float[Array, "B N H D"],
    mask: Bool[Array, "B N"] | None = None,
    block: int = 256,
) -> Float[Array, "B Q H D"]:
    """softmax(q·k) v over the keys that `mask` allows; differentiable in both modes.

    There is no division by sqrt(D): `MultiHeadAttention` folds it into the
    query's initialisation, as T5 does. Where `mask` allows no key at all, the
    result is exactly zero (a softmax would average all values).

    Args:
      query: what attends.
      key: what it attends to.
      value: what is averaged.
      mask: True for the keys that count; None for all.
      block: queries at a time: B · H · block · N weights are in memory.
    """
    return _forward(query, key, value, mask, block)[0]


def _forward(query, key, value, mask, block):
    queries, key_BHND, value_BHND = (_heads_first(x) for x in (query, key, value))

    def one(nothing, query):
        logits = _logits(query, key_BHND, mask)
        peak = jnp.max(logits, -1, keepdims=True)
        weights = jnp.exp(logits - peak)
        total = jnp.sum(weights, -1, keepdims=True)
        out = _product("BHQN,BHND->BHQD", weights.astype(value.dtype), value_BHND) / total
        return nothing, (out.astype(value.dtype), peak + jnp.log(total))

    _, blocks = _scan(one, None, _split(queries, block))
    out, log_total = (_join(x, query.shape[1]) for x in blocks)
    if mask is not None:
        some = jnp.any(mask, -1)[:, None, None, None]
        out = jnp.where(some, out, jnp.zeros_like(out))
        log_total = jnp.where(some, log_total, -NEVER)  # every weight of equation 1 is 0
    out, log_total = checkpoint_name((_heads_first(out), log_total), KEPT)
    return out, (query, key, value, mask, out, log_total)


def _jvp(block, primals, tangents):
    out, residuals = _forward(*primals, block)
    tangent = functools.partial(_tangent, block=block)
    transpose = functools.partial(_transpose, block=block)
    return out, linear_map(tangent, transpose, residuals, tuple(tangents[:3]))


def _tangent(residuals, dots, block):
    query, key, value, mask, out, log_total = residuals
    key_BHND, value_BHND = _heads_first(key), _heads_first(value)
    key_dot, value_dot = (_heads_first(x) for x in dots[1:])

    def one(nothing, x):
        query, query_dot, out, log_total = x
        weights = jnp.exp(_logits(query, key_BHND, mask) - log_total)
        logits_dot = (_product("BHQD,BHND->BHQN", query_dot, key_BHND)
                      + _product("BHQD,BHND->BHQN", query, key_dot))
        weighted = (weights * logits_dot).astype(value.dtype)
        out_dot = (_product("BHQN,BHND->BHQD", weighted, value_BHND)
                   - jnp.sum(weights * logits_dot, -1, keepdims=True) * out.astype(jnp.float32)
                   + _product("BHQN,BHND->BHQD", weights.astype(value.dtype), value_dot))
        return nothing, out_dot.astype(value.dtype)

    xs = (_split(_heads_first(x), block) for x in (query, dots[0], out))
    _, out_dots = _scan(one, None, (*xs, _split(log_total, block)))
    return _heads_first(_join(out_dots, query.shape[1]))


def _transpose(residuals, out_bar, block):
    query, key, value, mask, out, log_total = residuals
    key_BHND, value_BHND = _heads_first(key), _heads_first(value)
    delta = jnp.sum(out_bar.astype(jnp.float32) * out.astype(jnp.float32), -1, keepdims=True)

    def one(bars, x):
        key_bar, value_bar = bars
        query, query_T, out_bar, out_bar_T, log_total, delta = x
        weights = jnp.exp(_logits(query, key_BHND, mask) - log_total)
        weights_bar = _product("BHQD,BHND->BHQN", out_bar, value_BHND)
        logits_bar = (weights * (weights_bar - delta)).astype(query.dtype)
        key_bar += _product("BHDQ,BHQN->BHDN", query_T, logits_bar)
        value_bar += _product("BHDQ,BHQN->BHDN", out_bar_T, weights.astype(query.dtype))
        return (key_bar, value_bar), _product("BHQN,BHND->BHQD", logits_bar, key_BHND)

    queries, out_bars, deltas = (_split(_heads_first(x), block) for x in (query, out_bar, delta))
    zeros = jnp.zeros(jnp.swapaxes(key_BHND, 2, 3).shape, jnp.float32)
    # XLA:CPU multiplies a transposed factor slowly; here the transposed ones are small and ready.
    (key_bar, value_bar), query_bars = _scan(
        one, (zeros, zeros),
        (queries, jnp.swapaxes(queries, 3, 4), out_bars, jnp.swapaxes(out_bars, 3, 4),
         _split(log_total, block), deltas))
    query_bar = _heads_first(_join(query_bars, query.shape[1])).astype(query.dtype)
    key_bar, value_bar = (jnp.transpose(x, (0, 3, 1, 2)) for x in (key_bar, value_bar))
    return query_bar, key_bar.astype(key.dtype), value_bar.astype(value.dtype)


attention.defjvp(_jvp)


def _heads_first(x: Float[Array, "B N H D"]) -> Float[Array, "B H N D"]:
    """Swaps the axes of heads and positions; its own inverse."""
    return jnp.swapaxes(x, 1, 2)


def _logits(query, key, mask) -> Float[Array, "B H Q N"]:
    logits = _product("BHQD,BHND->BHQN", query, key)
    return logits if mask is None else jnp.where(mask[:, None, None, :], logits, NEVER)


def _split(x: Float[Array, "B H Q D"], block: int) -> Float[Array, "k B H q D"]:
    """k blocks of equal size, at most `block`; the last filled up with zeros."""
    count = x.shape[2]
    blocks = -(-count // block)
    size = -(-count // blocks)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, blocks * size - count), (0, 0)))
    return jnp.moveaxis(x.reshape(*x.shape[:2], blocks, size, x.shape[3]), 2, 0)


def _join(x: Float[Array, "k B H q D"], count: int) -> Float[Array, "B H Q D"]:
    """The inverse of `_split`, with `count` queries."""
    x = jnp.moveaxis(x, 0, 2)
    return x.reshape(*x.shape[:2], -1, x.shape[4])[:, :, :count]


def _scan(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
    """`lax.scan`, but no loop around a single step."""
    if jax.tree.leaves(xs)[0].shape[0] > 1:
        return jax.lax.scan(step, carry, xs)
    carry, out = step(carry, jax.tree.map(lambda x: x[0], xs))
    return carry, jax.tree.map(lambda x: x[None], out)
