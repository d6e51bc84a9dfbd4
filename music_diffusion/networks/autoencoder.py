"""Autoencoders of spectrograms: a few values for every stretch of frames, and back.

`PictureAutoencoderConfig` is that of Prioteasa & Stempel-Hauburger 2025 ("Musical style transfer using
latent diffusion models", section 2.1.1): convolutions of stride 2, mirrored. `FrameAutoencoderConfig` takes
mel bins for the channels of a frame, as `networks.unet1d` does: patches of frames, residual blocks of
convolutions over time, dense in frequency; many times cheaper on a CPU.

Both encoders end in a batch norm: in the second without scale and bias, so that its latent has mean 0 and
variance 1.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import DTYPES, BatchNorm, Dense, check_choice, fan_in_init
from music_diffusion.networks.unet1d import NORMS, ResidualBlock

LOGVAR = (-12.0, 4.0)  # range of the posterior's log variance


class Posterior(NamedTuple):
    """Normal distribution of the latent, given a spectrogram."""

    mean: Float[Array, "B t C"]
    logvar: Float[Array, "B t C"] | None  # None: a point


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameAutoencoderConfig:
    """Sizes of the one that is dense over frames."""

    mels: int = 128  # F
    patch: int = 4  # frames of a position of the latent
    width: int = 384  # features between
    blocks: int = 3  # residual blocks, each way
    latent: int = 64  # C
    norm: str = "rms"  # rms or group
    dtype: str = "float32"  # of the matrix products

    def __post_init__(self):
        if min(self.mels, self.patch, self.width, self.blocks, self.latent) < 1:
            raise ValueError(f"{self.mels=}, {self.patch=}, {self.width=}, {self.blocks=} and "
                             f"{self.latent=} should be at least 1")
        check_choice(self, "norm", NORMS)
        check_choice(self, "dtype", DTYPES)

    @property
    def step(self) -> int:
        """Frames of a position of the latent."""
        return self.patch

    @property
    def channels(self) -> int:
        """Values of a position."""
        return self.latent


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureAutoencoderConfig:
    """Sizes of the paper's: 128 × 128 → [16, 16, 32]."""

    mels: int = 128  # F; a multiple of `step`
    features: tuple[int, ...] = (64, 128)  # of the convolutions before that of the latent
    latent: int = 32  # features of a cell of the latent's picture

    def __post_init__(self):
        if min(self.features, default=1) < 1 or self.latent < 1:
            raise ValueError(f"{self.features=} and {self.latent=} should be at least 1")
        if self.mels < 1 or self.mels % self.step:
            raise ValueError(f"{self.mels=} should be a multiple of {self.step}")

    @property
    def step(self) -> int:
        """Frames of a position of the latent: every convolution halves them."""
        return 2 ** (len(self.features) + 1)

    @property
    def channels(self) -> int:
        """Values of a position: those of all cells above each other."""
        return self.mels // self.step * self.latent


AutoencoderConfig = FrameAutoencoderConfig | PictureAutoencoderConfig


class FrameEncoder(nn.Module):
    """Patches → posterior."""

    config: FrameAutoencoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> Posterior:
        c = self.config
        dtype = DTYPES[c.dtype]
        patches = x.reshape(x.shape[0], -1, c.patch * c.mels)
        h = Dense(c.width, axes=("mel", "embed"), use_bias=True, dtype=dtype, name="input")(patches)
        for i in range(c.blocks):
            h = ResidualBlock(c.width, norm=c.norm, dtype=dtype, name=f"block_{i}")(h)
        h = nn.swish(NORMS[c.norm](dtype=dtype, name="norm")(h))
        both = Dense(2 * c.latent, axes=("embed", "mlp"), use_bias=True, name="latent")(h)
        mean, logvar = jnp.split(both, 2, axis=-1)
        # Fresh networks begin with little noise, lest the decoder learn to do without the latent.
        return Posterior(BatchNorm(affine=False, name="unit")(mean, train),
                         jnp.clip(logvar - 4.0, *LOGVAR))


class FrameDecoder(nn.Module):
    """Latent → patches."""

    config: FrameAutoencoderConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B t C"], train: bool) -> Float[Array, "B T F"]:
        c = self.config
        dtype = DTYPES[c.dtype]
        h = Dense(c.width, axes=("mlp", "embed"), use_bias=True, dtype=dtype, name="input")(z)
        for i in range(c.blocks):
            h = ResidualBlock(c.width, norm=c.norm, dtype=dtype, name=f"block_{i}")(h)
        h = nn.swish(NORMS[c.norm](dtype=dtype, name="norm")(h))
        patches = Dense(c.patch * c.mels, axes=("embed", "mel"), use_bias=True, name="output")(h)
        return patches.reshape(z.shape[0], -1, c.mels)


class PictureEncoder(nn.Module):
    """Convolution of stride 2, batch norm, ReLU; the last without ReLU, as wide as the latent."""

    config: PictureAutoencoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], train: bool) -> Posterior:
        c = self.config
        h = x[..., None]
        for i, size in enumerate((*c.features, c.latent)):
            h = BatchNorm(name=f"norm_{i}")(Conv(size, (3, 3), stride=(2, 2), name=f"conv_{i}")(h), train)
            h = nn.relu(h) if i < len(c.features) else h
        return Posterior(h.reshape(*h.shape[:2], -1), None)


class PictureDecoder(nn.Module):
    """The encoder mirrored, with transposed convolutions; its output passes through tanh."""

    config: PictureAutoencoderConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B t C"], train: bool) -> Float[Array, "B T F"]:
        c = self.config
        h = z.reshape(*z.shape[:2], -1, c.latent)
        sizes = (*reversed(c.features), 1)
        for i, size in enumerate(sizes):
            h = TransposedConv(size, name=f"conv_{i}")(h)
            if i < len(sizes) - 1:
                h = nn.relu(BatchNorm(name=f"norm_{i}")(h, train))
        return jnp.tanh(h[..., 0])


class TransposedConv(nn.Module):
    """3 × 3 convolution of stride 2, transposed: cell i of the input reaches 2i - 1, 2i and 2i + 1."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B 2H 2W D"]:
        kernel = param_with_axes("kernel", fan_in_init, (3, 3, x.shape[-1], self.features), jnp.float32,
                                 axes=("conv", "conv_2", "embed", "mlp"))
        bias = param_with_axes("bias", nn.initializers.zeros, (self.features,), jnp.float32, axes=("mlp",))
        y = jax.lax.conv_transpose(x, kernel, (2, 2), ((1, 2), (1, 2)),
                                   dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + bias[None, None, None]


class Autoencoder(nn.Module):
    """Scaled mel [B, T, F] → latent [B, T / step, channels] → scaled mel; T a multiple of `config.step`."""

    config: AutoencoderConfig

    def setup(self) -> None:
        picture = isinstance(self.config, PictureAutoencoderConfig)
        self.encoder = (PictureEncoder if picture else FrameEncoder)(self.config)
        self.decoder = (PictureDecoder if picture else FrameDecoder)(self.config)

    def encode(self, x: Float[Array, "B T F"], train: bool = False) -> Posterior:
        """Returns the distribution of the latent. `train`: see `layers.BatchNorm`."""
        if x.shape[1] % self.config.step or x.shape[2] != self.config.mels:
            raise ValueError(f"spectrograms {x.shape} should have {self.config.mels} bins and a multiple "
                             f"of {self.config.step} frames")
        return self.encoder(x, train)

    def decode(self, z: Float[Array, "B t C"], train: bool = False) -> Float[Array, "B T F"]:
        """Returns the spectrogram of a latent."""
        return self.decoder(z, train)

    def __call__(self, x: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
        """Encodes to the mean and decodes."""
        return self.decode(self.encode(x).mean)


def sampled(posterior: Posterior, rng: jax.Array) -> Float[Array, "B t C"]:
    """Returns a latent of the distribution; its mean where it is a point."""
    mean, logvar = posterior
    if logvar is None:
        return mean
    return mean + jnp.exp(0.5 * logvar) * jax.random.normal(rng, mean.shape)
