"""Sound of a recording, for a network that makes other music sound so: maps of it, and one vector.

The maps of several resolutions are memories that a U-Net attends to (Prioteasa & Stempel-Hauburger 2025,
"Musical style transfer using latent diffusion models", section 2.1.2); the vector is beside the noise level
in every block, and holds what is the same all along.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import DTYPES, Dense, check_choice
from music_diffusion.networks.patches import folded
from music_diffusion.networks.unet1d import NORMS, ResidualBlock


class Style(NamedTuple):
    """Maps of a recording, the finest first, and a vector of all of it."""

    maps: tuple[Float[Array, "B M E"], ...]
    vector: Float[Array, "B D"] | None  # None of an encoder that makes maps alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameStyleConfig:
    """Sizes of the encoder that is dense over frames."""

    patch: int = 4  # frames of a position of the finest map
    width: int = 256  # features of a map
    blocks: int = 2  # residual blocks of each map
    maps: int = 2  # each of half as many positions as the one before
    vector: int = 128  # D
    norm: str = "rms"  # rms or group
    dtype: str = "float32"  # of the matrix products

    def __post_init__(self):
        if min(self.patch, self.width, self.blocks, self.maps, self.vector) < 1:
            raise ValueError(f"{self.patch=}, {self.width=}, {self.blocks=}, {self.maps=} and "
                             f"{self.vector=} should be at least 1")
        check_choice(self, "norm", NORMS)
        check_choice(self, "dtype", DTYPES)

    @property
    def multiple(self) -> int:
        """Frames must be a multiple of this."""
        return self.patch * 2 ** (self.maps - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureStyleConfig:
    """Sizes of the paper's encoder: 2,729,984 parameters."""

    features: tuple[int, ...] = (64, 128, 256, 256, 256, 512)  # of the convolutions, each of stride 2
    maps: int = 2  # of the last convolutions

    def __post_init__(self):
        if min(self.features, default=0) < 1 or not 1 <= self.maps <= len(self.features):
            raise ValueError(f"{self.features=} should be at least 1, and {self.maps=} at most as many")

    @property
    def multiple(self) -> int:
        """Frames and bins must be multiples of this."""
        return 2 ** len(self.features)


class FrameStyleEncoder(nn.Module):
    """Scaled mel → style; the vector knows mean and mean square of the coarsest map."""

    config: FrameStyleConfig

    @nn.compact
    def __call__(self, style: Float[Array, "B S F"]) -> Style:
        c = self.config
        if style.shape[1] % c.multiple:
            raise ValueError(f"{style.shape[1]} frames of a style are not a multiple of {c.multiple}")
        dtype = DTYPES[c.dtype]
        h = Dense(c.width, axes=("mel", "embed"), use_bias=True, dtype=dtype, name="input")(
            folded(style, c.patch))
        maps = []
        for level in range(c.maps):
            if level:
                h = 0.5 * (h[:, 0::2] + h[:, 1::2])
            for i in range(c.blocks):
                h = ResidualBlock(c.width, norm=c.norm, dtype=dtype, name=f"block_{level}_{i}")(h)
            maps.append(NORMS[c.norm](dtype=dtype, name=f"norm_{level}")(h))
        seen = nn.swish(maps[-1])
        pooled = jnp.concatenate([seen.mean(axis=1), jnp.sqrt(jnp.square(seen).mean(axis=1) + 1e-6)], -1)
        return Style(tuple(maps), Dense(c.vector, axes=("embed", "mlp"), name="vector")(pooled))


class PictureStyleEncoder(nn.Module):
    """Convolutions of stride 2 with ReLU; cells of the last maps are positions. There is no vector."""

    config: PictureStyleConfig

    @nn.compact
    def __call__(self, style: Float[Array, "B S F"]) -> Style:
        c = self.config
        if any(size % c.multiple for size in style.shape[1:]):
            raise ValueError(f"a style {style.shape[1:]} has no multiples of {c.multiple} on both sides")
        h, maps = style[..., None], []
        for i, size in enumerate(c.features):
            h = nn.relu(Conv(size, (3, 3), stride=(2, 2), name=f"conv_{i}")(h))
            maps.append(h.reshape(len(h), -1, size))
        return Style(tuple(maps[-c.maps:]), None)
