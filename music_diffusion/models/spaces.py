"""Spaces that generators sample in: the mel spectrogram, or a latent that knows its way to it."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
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
