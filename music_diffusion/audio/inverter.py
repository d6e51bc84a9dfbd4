"""Protocol of inverters (log-mel → waveform)."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.types import Mel


class InverterStream(Protocol):
    """One piece of audio in the making. Memory does not grow with its length."""

    def push(self, mel: Mel) -> np.ndarray:
        """Takes the next frames [t, F] nat (any t >= 0); returns the samples that are now final."""
        ...

    def finish(self) -> np.ndarray:
        """Returns the remaining samples; all parts together have T * hop. Call once, at the end."""
        ...


class Inverter(Protocol):
    """A vocoder. The same mel gives the same samples, however it is cut into pushes."""

    @property
    def codec(self) -> MelCodec:
        """The codec whose spectrograms it understands."""
        ...

    def stream(self) -> InverterStream:
        """Begins a new piece."""
        ...

    def invert(self, mel: Mel) -> np.ndarray:
        """The whole piece at once: [T, F] nat → [T * hop] float32."""
        ...


def invert_by_stream(inverter: Inverter, mel: Mel) -> np.ndarray:
    """`Inverter.invert` in terms of `Inverter.stream`."""
    stream = inverter.stream()
    first = stream.push(mel)
    return np.concatenate([first, stream.finish()])


def check_mel(codec: MelCodec, mel: Mel) -> np.ndarray:
    """Returns mel as float32, limited to what the codec can produce.

    Raises:
      UserError: mel is not [T, F] with the codec's F, or has NaN or infinite values.
    """
    mel = np.asarray(mel)
    if mel.ndim != 2 or mel.shape[1] != codec.mels:
        raise UserError(f"spectrogram has shape {mel.shape}; this codec needs [frames, {codec.mels}]")
    if not np.isfinite(mel).all():
        frame = int(np.argmin(np.isfinite(mel).all(axis=1)))
        raise UserError(f"spectrogram has NaN or infinite values (first in frame {frame}); "
                        "the model that made it diverged or its weights are broken")
    low, high = np.log(codec.clip_min), np.log(codec.clip_max)
    return np.clip(mel, low, high).astype(np.float32)
