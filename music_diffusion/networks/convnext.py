"""One-dimensional ConvNeXt blocks over frames, with frequencies as channels.

Liu et al. 2022, "A ConvNet for the 2020s", section 2, as Vocos (Siuzdak 2023,
arXiv:2306.00814) uses it for vocoding: depthwise convolution in time, layer
norm, pointwise expansion, GELU, pointwise projection, learned scale per
channel, residual.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.networks.layers import DTYPES, Dense, check_choice, match_rank
from music_diffusion.networks.remat import POLICIES, rematerialized


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtConfig:
    """A stack of blocks at one frame rate."""

    dim: int = 384  # channels D
    hidden: int = 1152  # channels of the pointwise expansion
    blocks: int = 8
    kernel: int = 7  # frames, odd
    scale: float = 0.1  # initial scale of every block's contribution
    dtype: str = "float32"  # of the blocks' matrix products; what they add up to is float32
    remat: str = "none"  # what a block computes again for its gradient: none, dots or full

    def __post_init__(self):
        check_choice(self, "dtype", DTYPES)
        check_choice(self, "remat", POLICIES)
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"{self.kernel=} must be odd")
        if min(self.dim, self.hidden, self.blocks) < 1:
            raise ValueError(f"{self.dim=}, {self.hidden=} and {self.blocks=} must be positive")

    @property
    def context_frames(self) -> int:
        """Frames on each side that an output frame depends on: of the input convolution and blocks."""
        return (self.blocks + 1) * (self.kernel // 2)


class LayerNorm(nn.Module):
    """Zero mean and unit variance over channels, then learned scale and bias; in float32."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        size = x.shape[-1]
        scale = param_with_axes("scale", nn.initializers.ones, (size,), axes=("embed",))
        bias = param_with_axes("bias", nn.initializers.zeros, (size,), axes=("embed",))
        wide = x.astype(jnp.float32)
        mean = wide.mean(axis=-1, keepdims=True)
        variance = jnp.square(wide - mean).mean(axis=-1, keepdims=True)
        unit = (wide - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (unit * match_rank(scale, x) + match_rank(bias, x)).astype(x.dtype)


class DepthwiseConv(nn.Module):
    """One filter in time per channel, zero padding, stride 1.

    A sum of shifted products: XLA's grouped convolution is many times slower on CPU.
    """

    kernel: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        size, half = x.shape[-1], self.kernel // 2
        init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal", in_axis=0,
                                                out_axis=(), batch_axis=1)
        kernel = param_with_axes("kernel", init, (self.kernel, size), axes=("conv", "embed"))
        bias = param_with_axes("bias", nn.initializers.zeros, (size,), axes=("embed",))
        padded = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        terms = [padded[:, i:i + x.shape[1]] * match_rank(kernel[i], x) for i in range(self.kernel)]
        return sum(terms[1:], terms[0]) + match_rank(bias, x)


class ConvNeXtBlock(nn.Module):
    """x + scale * Dense(GELU(Dense(LayerNorm(DepthwiseConv(x)))))."""

    config: ConvNeXtConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        c = self.config
        dtype = DTYPES[c.dtype]
        y = DepthwiseConv(c.kernel, name="conv")(x)
        y = LayerNorm(name="norm")(y)
        y = Dense(c.hidden, ("embed", "mlp"), use_bias=True, dtype=dtype, name="expand")(y)
        y = nn.gelu(y, approximate=True)
        y = Dense(c.dim, ("mlp", "embed"), use_bias=True, dtype=dtype, name="project")(y)
        scale = param_with_axes("scale", nn.initializers.constant(c.scale), (c.dim,), axes=("embed",))
        return x + y * match_rank(scale.astype(x.dtype), x)


class ConvNeXt(nn.Module):
    """Frames in, frames out: input convolution, norm, blocks, norm."""

    config: ConvNeXtConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"]) -> Float[Array, "B T D"]:
        c = self.config
        # A full convolution as one matmul over the frames that it sees.
        half, frames = c.kernel // 2, x.shape[1]
        padded = jnp.pad(x, ((0, 0), (half, half), (0, 0)))
        seen = jnp.concatenate([padded[:, i:i + frames] for i in range(c.kernel)], axis=-1)
        x = Dense(c.dim, ("mel", "embed"), use_bias=True, name="embed")(seen)
        x = LayerNorm(name="norm_in")(x)
        for i in range(c.blocks):
            x = rematerialized(c.remat, ConvNeXtBlock(c, name=f"block_{i}"), x)
        return LayerNorm(name="norm_out")(x)
