"""The layers that all networks share, every parameter with logical axis names.

Names of axes follow T5X: embed, mlp, joined_kv (heads × head_dim, flattened),
vocab, length, and mel for mel bins. The layers are those of T5.1.1 (arXiv
2002.05202 for the gated MLP, 1910.07467 for RMS norm). Parameters are float32;
`dtype` is the dtype of the matrix products and of what lies between them;
norms, softmax and the sums of gradients are float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Int

from music_diffusion.errors import UserError
from music_diffusion.networks.attention import attention
from music_diffusion.networks.linear_map import linear_map

Initializer = Callable[..., jax.Array]
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

fan_in_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def check_choice(config: Any, field: str, choices: Collection[str]) -> None:
    """Raises UserError where `field` of a configuration is none of `choices`."""
    value = getattr(config, field)
    if value not in choices:
        raise UserError(
            f"{type(config).__name__}.{field} = {value!r}: give one of {', '.join(choices)}"
        )


def match_rank(vector: jax.Array, x: jax.Array) -> jax.Array:
    """[D] → [1, …, 1, D] with the rank of `x`: broadcasting is spelled out, never implied."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


@jax.custom_jvp
def linear(x: Float[Array, "... D"], kernel: Float[Array, "D E"]) -> Float[Array, "... E"]:
    """x · kernel in the dtype of `x`; the kernel's gradient is a sum in the kernel's own dtype."""
    # A plain product, which rematerialisation recognizes.
    return jnp.einsum("...D,DE->...E", x, kernel.astype(x.dtype))


def _linear_jvp(primals, tangents):
    x, kernel = primals
    x_dot, kernel_dot = tangents
    y = linear(x, kernel)
    parts = []
    if not isinstance(x_dot, SymbolicZero):
        parts.append(linear(x_dot, kernel))
    if not isinstance(kernel_dot, SymbolicZero):
        parts.append(linear_map(
            _by_kernel, functools.partial(_kernel_bar, dtype=kernel.dtype), x, kernel_dot))
    return y, sum(parts[1:], parts[0])


def _by_kernel(x, kernel_dot):
    return jnp.einsum("...D,DE->...E", x, kernel_dot.astype(x.dtype))


def _kernel_bar(x, y_bar, dtype):
    product = functools.partial(jnp.einsum, preferred_element_type=dtype)
    if x.dtype == dtype and x.shape[-1] > y_bar.shape[-1]:
        # XLA:CPU transposes the first factor, as slowly as it multiplies: here the narrower one.
        return product("...E,...D->ED", y_bar, x).T
    return product("...D,...E->DE", x, y_bar)


linear.defjvp(_linear_jvp, symbolic_zeros=True)


class Dense(nn.Module):
    """Linear map of the last axis, without bias unless asked for."""

    features: int  # size of the last axis of the output
    axes: tuple[str, str]  # logical names of the kernel's axes (in, out)
    use_bias: bool = False
    kernel_init: Initializer = fan_in_init
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        kernel = param_with_axes(
            "kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32, axes=self.axes
        )
        y = linear(x.astype(self.dtype), kernel)
        if self.use_bias:
            bias = param_with_axes(
                "bias", nn.initializers.zeros, (self.features,), jnp.float32, axes=self.axes[1:]
            )
            y = (y + match_rank(bias, y)).astype(self.dtype)
        return y


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + ε) · scale, over the last axis; computed in float32."""

    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        scale = param_with_axes(
            "scale", nn.initializers.ones, (x.shape[-1],), jnp.float32, axes=("embed",)
        )
        x = x.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + self.epsilon)
        return (y * match_rank(scale, y)).astype(self.dtype)


class GroupNorm(nn.Module):
    """Normalisation over all positions and the features of a group; scale and bias by feature. In float32.

    Wu & He 2018, https://arxiv.org/abs/1803.08494.
    """

    groups: int = 32  # at most; as many as divide the features
    epsilon: float = 1e-6
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B *N D"]) -> Float[Array, "B *N D"]:
        features = x.shape[-1]
        scale = param_with_axes("scale", nn.initializers.ones, (features,), jnp.float32, axes=("embed",))
        bias = param_with_axes("bias", nn.initializers.zeros, (features,), jnp.float32, axes=("embed",))
        groups = math.gcd(self.groups, features)
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], groups, features // groups)
        over = (*range(1, x.ndim - 1), x.ndim)
        grouped = grouped - jnp.mean(grouped, over, keepdims=True)
        grouped = grouped * jax.lax.rsqrt(jnp.mean(grouped**2, over, keepdims=True) + self.epsilon)
        y = grouped.reshape(x.shape)
        return (y * match_rank(scale, y) + match_rank(bias, y)).astype(self.dtype)


TRACKED = "tracked"  # collection in which statistics are sown that parameters should follow


class BatchNorm(nn.Module):
    """Normalisation of every feature over batch and positions; scale and bias by feature. In float32.

    Without `affine` there are no scale and bias: features have mean 0 and variance 1.
    Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167. While training by the batch's own mean and
    variance, else by running ones. These are parameters: `TRACKED` gets half of the square of how far
    they lie from the batch's, whose gradient (`follow`) moves them by `training.optimizers.tracking`.
    """

    epsilon: float = 1e-3
    dtype: jnp.dtype = jnp.float32
    affine: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B *N D"], train: bool = False) -> Float[Array, "B *N D"]:
        shape, axes = (x.shape[-1],), ("embed",)
        if self.affine:
            scale = param_with_axes("scale", nn.initializers.ones, shape, jnp.float32, axes=axes)
            bias = param_with_axes("bias", nn.initializers.zeros, shape, jnp.float32, axes=axes)
        mean = param_with_axes("running_mean", nn.initializers.zeros, shape, jnp.float32, axes=axes)
        variance = param_with_axes("running_variance", nn.initializers.ones, shape, jnp.float32, axes=axes)
        x = x.astype(jnp.float32)
        if train:
            over = tuple(range(x.ndim - 1))
            own_mean, own_variance = jnp.mean(x, over), jnp.var(x, over)
            away = [kept - jax.lax.stop_gradient(own)
                    for kept, own in ((mean, own_mean), (variance, own_variance))]
            self.sow(TRACKED, "away", 0.5 * sum(jnp.sum(jnp.square(a)) for a in away))
            mean, variance = own_mean, own_variance
        else:
            mean, variance = jax.lax.stop_gradient((mean, variance))
        y = (x - match_rank(mean, x)) * jax.lax.rsqrt(match_rank(variance, x) + self.epsilon)
        if self.affine:
            y = y * match_rank(scale, y) + match_rank(bias, y)
        return y.astype(self.dtype)


def follow(sown: Any) -> jax.Array:
    """Returns 0, whose gradient is that of all that was sown in `TRACKED`: a term of a loss."""
    total = sum(jax.tree.leaves(sown), jnp.zeros(()))
    return total - jax.lax.stop_gradient(total)


class Embed(nn.Module):
    """A row of a trained table for every id."""

    rows: int  # number of ids
    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, ids: Int[Array, "B N"], *, one_hot: bool = False
    ) -> Float[Array, "B N D"]:
        """`one_hot` picks the rows by a matrix product: the same values, and a fast gradient.

        The gradient of a gather is a scatter-add, which is many times slower
        than a product on CPUs and TPUs; forward, the gather is the faster one.
        """
        table = param_with_axes(
            "embedding",
            nn.initializers.normal(stddev=1.0),
            (self.rows, self.features),
            jnp.float32,
            axes=("vocab", "embed"),
        )
        if one_hot:
            return linear(jax.nn.one_hot(ids, self.rows, dtype=self.dtype), table)
        return jnp.take(table, ids, axis=0).astype(self.dtype)


class GatedMLP(nn.Module):
    """wo(gelu(wi_0 x) · wi_1 x) with dropout on the hidden features (T5.1.1)."""

    hidden: int  # hidden features
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], *, deterministic: bool = True
    ) -> Float[Array, "B T D"]:
        gate = Dense(self.hidden, axes=("embed", "mlp"), dtype=self.dtype, name="wi_0")(x)
        linear = Dense(self.hidden, axes=("embed", "mlp"), dtype=self.dtype, name="wi_1")(x)
        h = nn.gelu(gate, approximate=True) * linear
        h = nn.Dropout(self.dropout_rate, broadcast_dims=(-2,))(h, deterministic=deterministic)
        return Dense(x.shape[-1], axes=("mlp", "embed"), dtype=self.dtype, name="wo")(h)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with two-dimensional kernels (embed × joined_kv).

    `keys_values` and `attend` are separate because the keys and values of an
    encoding stay the same at every sampling step.
    """

    features: int  # of input and output
    num_heads: int
    head_dim: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    out_init: Initializer | None = None  # of the last kernel, where it is not as usual

    def setup(self) -> None:
        normal = functools.partial(
            nn.initializers.variance_scaling, mode="fan_in", distribution="normal"
        )
        self.query = self._projection(normal(1.0 / self.head_dim))
        self.key = self._projection(normal(1.0))
        self.value = self._projection(normal(1.0))
        self.out = Dense(
            self.features, axes=("joined_kv", "embed"), kernel_init=self.out_init or normal(1.0),
            dtype=self.dtype
        )
        # Of attention weights, one mask for all queries of a head as T5X has it: a key without its
        # weight is a key without its value.
        self.dropout = nn.Dropout(self.dropout_rate, broadcast_dims=(-1,))

    def _projection(self, kernel_init: Initializer) -> Dense:
        return Dense(
            self.num_heads * self.head_dim,
            axes=("embed", "joined_kv"),
            kernel_init=kernel_init,
            dtype=self.dtype,
        )

    def _heads(self, x: Float[Array, "B N J"]) -> Float[Array, "B N H D"]:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim)

    def keys_values(self, x: Float[Array, "B N E"]) -> tuple[jax.Array, jax.Array]:
        """Keys and values [B N H D] of what is attended to."""
        return self._heads(self.key(x)), self._heads(self.value(x))

    def attend(
        self,
        x: Float[Array, "B Q E"],
        keys: Float[Array, "B N H D"],
        values: Float[Array, "B N H D"],
        mask: Bool[Array, "B N"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B Q E"]:
        """Attends from x; exactly zero in batch rows whose mask allows nothing."""
        values = self.dropout(values, deterministic=deterministic)
        y = attention(self._heads(self.query(x)), keys, values, mask)
        return self.out(y.reshape(*x.shape[:2], -1))

    def __call__(
        self,
        x: Float[Array, "B Q E"],
        mask: Bool[Array, "B Q"] | None = None,
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B Q E"]:
        """Self-attention without causal mask."""
        return self.attend(x, *self.keys_values(x), mask, deterministic=deterministic)
