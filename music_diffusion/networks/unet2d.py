"""A 2-D U-Net over spectrograms as pictures (Comanducci et al. 2023, arXiv 2307.04586, section 3.2).

Three levels down, each of residual blocks and an average over 2 x 2 cells; a bottleneck; and the same way
up by transposed convolutions, where every block also sees what the block of the same place made on the way
down. Self-attention over all cells at the levels that are named. The noise level enters at the input, as
sines of the noise's variance that are the same in every cell (Béres 2022, "Denoising diffusion implicit
models", keras.io, whose network the authors of DiffTransfer enlarged).

Features of a level are constant while its cells fall by four, so the first level costs most; on a CPU
`unet1d` is many times cheaper for the same spectrogram.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import (
    DTYPES,
    BatchNorm,
    Dense,
    GroupNorm,
    MultiHeadAttention,
    check_choice,
)
from music_diffusion.networks.remat import POLICIES, rematerialized

NORMS = ("batch", "group")


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNet2DConfig:
    """Sizes of the U-Net. Defaults are the paper's: 21,565,441 parameters with two pictures in."""

    widths: tuple[int, ...] = (64, 128, 256)  # features of each level; a level halves both axes
    blocks: int = 4  # residual blocks of each level, down and up
    middle: int = 512  # features of the bottleneck
    middle_blocks: int = 1
    attention_down: tuple[int, ...] = (2,)  # levels, from 0, that end with attention on the way down
    attention_middle: bool = True
    attention_up: tuple[int, ...] = (2,)  # … on the way up
    heads: int = 4
    head_dim: int = 64
    noise_features: int = 32  # sines and cosines of the noise's variance, even
    noise_hertz: tuple[float, float] = (1.0, 1000.0)  # of the slowest and the fastest, per unit of variance
    norm: str = "batch"  # of NORMS
    products: bool = True  # convolves by matrix products (`networks.conv.nine_taps`)
    dtype: str = "float32"  # of the matrix products; "bfloat16" on accelerators
    remat: str = "none"  # what a residual block computes again for its gradient: none, dots or full

    def __post_init__(self):
        if not self.widths or self.blocks < 1 or self.middle_blocks < 1:
            raise ValueError(f"{self.widths=} must not be empty, {self.blocks=} and "
                             f"{self.middle_blocks=} at least 1")
        if self.noise_features < 4 or self.noise_features % 2:
            raise ValueError(f"{self.noise_features=} must be even and at least 4")
        for level in (*self.attention_down, *self.attention_up):
            if not 0 <= level < len(self.widths):
                raise ValueError(f"attention at level {level}: there are 0 to {len(self.widths) - 1}")
        check_choice(self, "norm", NORMS)
        check_choice(self, "dtype", DTYPES)
        check_choice(self, "remat", POLICIES)

    @property
    def multiple(self) -> int:
        """Frames and bins must be multiples of this."""
        return 2 ** len(self.widths)


def embed_variance(variance: Float[Array, " B"], features: int, hertz: tuple[float, float]
                   ) -> Float[Array, "B D"]:
    """Returns sines and cosines of 2π f v, of frequencies f in a geometric row; halves not interleaved."""
    frequency = np.geomspace(*hertz, features // 2).astype(np.float32)
    angle = 2 * np.pi * frequency[None] * variance.astype(jnp.float32)[:, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class ResidualPicture(nn.Module):
    """conv → swish → norm → conv, plus the input through a kernel of one cell."""

    features: int
    config: UNet2DConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W D"]:
        c, dtype = self.config, DTYPES[self.config.dtype]
        conv = functools.partial(Conv, self.features, (3, 3), products=c.products)
        x = x.astype(dtype)
        h = nn.swish(conv(name="conv_0")(x))
        h = BatchNorm(dtype=dtype, name="norm")(h, train) if c.norm == "batch" else GroupNorm(
            dtype=dtype, name="norm")(h)
        h = conv(name="conv_1")(h)
        return h + Dense(self.features, axes=("embed", "mlp"), use_bias=True, dtype=dtype,
                         name="shortcut")(x)


class AttentionPicture(nn.Module):
    """x + attention over all cells of the normalised x."""

    config: UNet2DConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        c, dtype = self.config, DTYPES[self.config.dtype]
        cells = GroupNorm(dtype=dtype, name="norm")(x).reshape(x.shape[0], -1, x.shape[-1])
        y = MultiHeadAttention(x.shape[-1], c.heads, c.head_dim, dtype=dtype, name="attention")(cells)
        return x + y.reshape(x.shape)


class UNet2D(nn.Module):
    """(picture, noise's variance, pictures that condition it) → picture."""

    config: UNet2DConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B T F"], variance: Float[Array, " B"],
                 condition: Float[Array, "B T F K"] | None = None,
                 extra: Float[Array, "B D"] | None = None, *, train: bool = False
                 ) -> Float[Array, "B T F"]:
        """One prediction.

        Args:
          z: noisy data; T and F multiples of `config.multiple`.
          variance: σ² of the noise, 0..1.
          condition: K pictures beside it (Saharia et al. 2022, "Palette").
          extra: features of the whole picture, beside the noise's in every cell.
          train: batch norms take the batch's statistics and sow how far the running ones are from them.

        Raises ValueError for sizes that cannot be halved so often.
        """
        c, dtype = self.config, DTYPES[self.config.dtype]
        if any(size % c.multiple for size in z.shape[1:]):
            raise ValueError(f"{z.shape[1]} frames and {z.shape[2]} bins are not multiples of {c.multiple}")
        x = z[..., None] if condition is None else jnp.concatenate([z[..., None], condition], axis=-1)
        x = Dense(c.widths[0], axes=("mel", "embed"), use_bias=True, dtype=dtype, name="input")(x)
        whole = embed_variance(variance, c.noise_features, c.noise_hertz)
        if extra is not None:
            whole = jnp.concatenate([whole, extra], axis=-1)
        x = jnp.concatenate([x, jnp.broadcast_to(
            whole[:, None, None].astype(dtype), (*x.shape[:3], whole.shape[-1]))], axis=-1)

        def block(x, features, name):
            module = ResidualPicture(features, c, name=name)
            return rematerialized(c.remat, module, x, train=train)

        seen = []
        for level, width in enumerate(c.widths):
            for i in range(c.blocks):
                x = block(x, width, f"down_{level}_{i}")
                if level in c.attention_down and i == c.blocks - 1:
                    x = AttentionPicture(c, name=f"down_{level}_attention")(x)
                seen.append(x)
            x = 0.25 * (x[:, 0::2, 0::2] + x[:, 0::2, 1::2] + x[:, 1::2, 0::2] + x[:, 1::2, 1::2])
        for i in range(c.middle_blocks):
            x = block(x, c.middle, f"middle_{i}")
        if c.attention_middle:
            x = AttentionPicture(c, name="middle_attention")(x)
        for level, width in reversed(list(enumerate(c.widths))):
            x = Doubled(width, dtype=dtype, name=f"raise_{level}")(x)
            for i in range(c.blocks):
                x = block(jnp.concatenate([x, seen.pop()], axis=-1), width, f"up_{level}_{i}")
            if level in c.attention_up:
                x = AttentionPicture(c, name=f"up_{level}_attention")(x)
        return Dense(1, axes=("embed", "mel"), use_bias=True, kernel_init=nn.initializers.zeros,
                     name="output")(x)[..., 0]


class Doubled(nn.Module):
    """Transposed convolution, 2 x 2 with stride 2: every cell becomes four."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2H 2W D"]:
        four = Dense(4 * self.features, axes=("embed", "mlp"), use_bias=True, dtype=self.dtype,
                     name="cells")(x)
        b, h, w = x.shape[:3]
        four = four.reshape(b, h, w, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return four.reshape(b, 2 * h, 2 * w, self.features)
