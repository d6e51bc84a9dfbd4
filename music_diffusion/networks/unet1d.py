"""A 1-D U-Net over frames, mel bins as channels (Maman et al. 2024, section 3.1).

Frame-aligned conditions enter at the input layer. The noise level, and a
performance if there is one, modulate every block. RMS norms act within a frame,
so that a frame's result depends on its surroundings only through convolution
and the attention of the coarsest level; group norms, the paper's, see all frames.
The coarsest levels may also attend to memories, such as maps of a recording
(`networks.style`), which have no place in time.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from music_diffusion.networks.film import FiLMLayer, embed_time
from music_diffusion.networks.layers import (
    DTYPES,
    Dense,
    GroupNorm,
    MultiHeadAttention,
    RMSNorm,
    check_choice,
)
from music_diffusion.networks.remat import POLICIES, rematerialized

NORMS: dict[str, Callable[..., nn.Module]] = {"rms": RMSNorm, "group": GroupNorm}


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet1DConfig:
    """Sizes of the U-Net."""

    widths: tuple[int, ...] = (320, 320, 320)  # features of each level; a level halves the frames
    blocks: int = 2  # residual blocks of each level, down and up
    time_features: int = 64  # of the embedding of the noise level
    heads: int = 5  # of the attention at the coarsest level
    head_dim: int = 64
    output: int = 128  # F
    memories: int = 0  # coarsest levels that attend to a memory, on the way down and up
    norm: str = "rms"  # rms or group
    dtype: str = "float32"  # of the matrix products; "bfloat16" on accelerators
    remat: str = "none"  # what a residual block computes again for its gradient: none, dots or full

    def __post_init__(self):
        if not self.widths or self.blocks < 1:
            raise ValueError(f"{self.widths=} must not be empty and {self.blocks=} at least 1")
        if not 0 <= self.memories <= len(self.widths):
            raise ValueError(f"{self.memories=} must be from 0 to the {len(self.widths)} levels")
        check_choice(self, "norm", NORMS)
        check_choice(self, "dtype", DTYPES)
        check_choice(self, "remat", POLICIES)

    @property
    def frame_multiple(self) -> int:
        """The number of frames must be a multiple of this."""
        return 2 ** (len(self.widths) - 1)


class Conv3(nn.Module):
    """Convolution over time with 3 taps, zero padded: [B, T, D] → [B, T, features].

    Three shifted copies and one matrix product: on CPUs several times faster
    than XLA's convolution, and equal to it.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal")

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T E"]:
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        taps = jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], -1)
        return Dense(self.features, axes=("taps", "mlp"), use_bias=True, dtype=self.dtype,
                     kernel_init=self.kernel_init, name="taps")(taps)


class ResidualBlock(nn.Module):
    """norm → FiLM → swish → conv → norm → swish → conv, plus a linear shortcut if widths differ.

    Without FiLM where there is no conditioning.
    """

    features: int
    norm: str = "rms"  # of NORMS
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], conditioning: Float[Array, "B K"] | None = None):
        norm = functools.partial(NORMS[self.norm], dtype=self.dtype)
        h = norm(name="norm_0")(x)
        if conditioning is not None:
            h = FiLMLayer(dtype=self.dtype, name="film")(h, conditioning)
        h = Conv3(self.features, dtype=self.dtype, name="conv_0")(nn.swish(h))
        h = norm(name="norm_1")(h)
        # Zero: a new block begins as the identity.
        h = Conv3(self.features, dtype=self.dtype, kernel_init=nn.initializers.zeros,
                  name="conv_1")(nn.swish(h))
        if x.shape[-1] != self.features:
            x = Dense(self.features, axes=("embed", "mlp"), dtype=self.dtype, name="shortcut")(x)
        return x + h


class AttentionBlock(nn.Module):
    """x + attention(FiLM(norm(x))) over all frames; without FiLM where there is no conditioning."""

    config: UNet1DConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], conditioning: Float[Array, "B K"] | None
                 ) -> Float[Array, "B T D"]:
        c = self.config
        h = NORMS[c.norm](dtype=DTYPES[c.dtype], name="norm")(x)
        if conditioning is not None:
            h = FiLMLayer(dtype=DTYPES[c.dtype], kernel_init=nn.initializers.zeros, name="film")(
                h, conditioning)
        return x + MultiHeadAttention(x.shape[-1], c.heads, c.head_dim, dtype=DTYPES[c.dtype],
                                      name="attention")(h)


class MemoryBlock(nn.Module):
    """x + attention from norm(x) to a memory; x where the mask leaves nothing of it."""

    config: UNet1DConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], memory: Float[Array, "B M E"], mask: Bool[Array, " B"]
                 ) -> Float[Array, "B T D"]:
        c = self.config
        # Zero: a network that goes on learning with a memory begins as it was.
        attention = MultiHeadAttention(x.shape[-1], c.heads, c.head_dim, dtype=DTYPES[c.dtype],
                                       out_init=nn.initializers.zeros, name="attention")
        h = NORMS[c.norm](dtype=DTYPES[c.dtype], name="norm")(x)
        rows = jnp.broadcast_to(mask[:, None], memory.shape[:2])
        return x + attention.attend(h, *attention.keys_values(memory), rows)


class UNet1D(nn.Module):
    """(z, noise level, frame-aligned condition) → output.

    The features of each level are added on the way up to those of the coarser one.
    """

    config: UNet1DConfig

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B T F"],
        time: Float[Array, " B"],
        condition: Float[Array, "B T C"],
        performance: Float[Array, "B D"] | None = None,
        memories: Sequence[Float[Array, "B M E"]] = (),
        remembers: Bool[Array, " B"] | None = None,
    ) -> Float[Array, "B T O"]:
        """One prediction.

        Args:
          z: noisy data; T a multiple of `config.frame_multiple`.
          time: the schedule's time, in [0, 1].
          condition: frame-aligned.
          performance: beside the time in the FiLM of every block, and then of the attention too.
          memories: of the coarsest levels, the coarsest last; `config.memories` of them.
          remembers: which examples have them; with memories only.
        """
        c = self.config
        if len(memories) != c.memories or (remembers is None) != (not c.memories):
            raise ValueError(f"{c.memories=}: the network was given {len(memories)}")
        dtype = DTYPES[c.dtype]
        if z.shape[1] % c.frame_multiple:
            raise ValueError(f"{z.shape[1]} frames are not a multiple of {c.frame_multiple}")
        k = 4 * c.time_features
        dense = [Dense(k, axes=("embed", "mlp"), name=f"time_{i}") for i in range(2)]
        t = embed_time(time, *dense, features=c.time_features, max_time=2e4)
        if performance is not None:
            t = jnp.concatenate([t, performance], -1)

        def reminded(x: Array, level: int, name: str) -> Array:
            """Returns x after its attention to the level's memory, if there is one."""
            place = level - (len(c.widths) - c.memories)
            if place < 0:
                return x
            return MemoryBlock(c, name=f"{name}_{level}_memory")(x, memories[place], remembers)

        x = jnp.concatenate([z, condition], -1)
        x = Conv3(c.widths[0], dtype=dtype, name="input")(x)
        skips = []
        for level, width in enumerate(c.widths):
            if level:
                x = 0.5 * (x[:, 0::2] + x[:, 1::2])
            for i in range(c.blocks):
                block = ResidualBlock(width, norm=c.norm, dtype=dtype, name=f"down_{level}_{i}")
                x = rematerialized(c.remat, block, x, t)
            x = reminded(x, level, "down")
            skips.append(x)
        x = AttentionBlock(c, name="middle")(x, None if performance is None else t)
        for level, width in reversed(list(enumerate(c.widths))):
            if level < len(c.widths) - 1:
                x = Dense(width, axes=("embed", "mlp"), dtype=dtype, name=f"raise_{level}")(x)
                x = jnp.repeat(x, 2, axis=1) + skips[level]
            for i in range(c.blocks):
                block = ResidualBlock(width, norm=c.norm, dtype=dtype, name=f"up_{level}_{i}")
                x = rematerialized(c.remat, block, x, t)
            x = reminded(x, level, "up")
        x = nn.swish(NORMS[c.norm](dtype=dtype, name="output_norm")(x))
        return Dense(c.output, axes=("embed", "mel"), use_bias=True, kernel_init=nn.initializers.zeros,
                     name="output")(x)

