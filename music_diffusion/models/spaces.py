"""Spaces that generators sample in: the mel spectrogram, or a latent that knows its way to it."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.autoencoder import Autoencoder, AutoencoderConfig
from music_diffusion.types import Mel, Params


class Space(Protocol):
    """Space in which a generator samples, with its way to log-mel and back. Frozen and hashable."""

    @property
    def codec(self) -> MelCodec:
        """Returns the codec of the spectrograms."""
        ...

    @property
    def step(self) -> int:
        """Returns how many mel frames one frame of the space stands for, from 1."""
        ...

    @property
    def channels(self) -> int:
        """Returns C, the values of one frame."""
        ...

    def to_mel(self, params: Params, x: Float[np.ndarray, "t C"]) -> Mel:
        """Returns log-mel [t * step, F] in nat."""
        ...

    def of_mel(self, params: Params, mel: Mel) -> Float[np.ndarray, "t C"]:
        """Returns the frames of a log-mel [t * step, F] in nat."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelSpace:
    """Scaled mel in [-1, 1]; implements `Space`."""

    codec: MelCodec

    @property
    def step(self) -> int:
        """Returns one."""
        return 1

    @property
    def channels(self) -> int:
        """Returns the mel bins."""
        return self.codec.mels

    def to_mel(self, params: Params, x: Float[np.ndarray, "t C"]) -> Mel:
        """Returns log-mel [t, F] in nat."""
        return self.codec.unscale(x)

    def of_mel(self, params: Params, mel: Mel) -> Float[np.ndarray, "t C"]:
        """Returns scaled mel, which clips what the model cannot make."""
        return self.codec.scale(mel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """Latent of an autoencoder, which is the part `autoencoder` of the parameters; implements `Space`."""

    codec: MelCodec
    autoencoder: AutoencoderConfig

    @property
    def step(self) -> int:
        """Returns the frames of a position."""
        return self.autoencoder.step

    @property
    def channels(self) -> int:
        """Returns the values of a position."""
        return self.autoencoder.channels

    def to_mel(self, params: Params, x: Float[np.ndarray, "t C"]) -> Mel:
        """Returns log-mel [t * step, F] in nat, decoded."""
        made = _decode(self.autoencoder, params["autoencoder"], jnp.asarray(x)[None])
        return self.codec.unscale(np.clip(np.asarray(made)[0], -1.0, 1.0))

    def of_mel(self, params: Params, mel: Mel) -> Float[np.ndarray, "t C"]:
        """Returns the latent's mean."""
        scaled = jnp.asarray(self.codec.scale(np.asarray(mel, np.float32)))[None]
        return np.asarray(_encode(self.autoencoder, params["autoencoder"], scaled))[0]


@functools.partial(jax.jit, static_argnums=0)
def _decode(config: AutoencoderConfig, params: Params, latent: jax.Array) -> jax.Array:
    return Autoencoder(config).apply({"params": params}, latent, method="decode")


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: AutoencoderConfig, params: Params, scaled: jax.Array) -> jax.Array:
    return Autoencoder(config).apply({"params": params}, scaled, method="encode").mean
