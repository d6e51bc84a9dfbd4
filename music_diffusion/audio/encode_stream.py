"""Log-mel spectrograms of a stream, in memory that does not grow with it."""

from __future__ import annotations

import numpy as np

from music_diffusion.audio.codec import MelCodec, check_mono
from music_diffusion.types import Mel


class MelStream:
    """`MelCodec.encode` block by block: the parts together are the whole's spectrogram.

    Equal to float32 rounding, however the audio is cut. A frame comes out as soon
    as its window is complete; the windows that reach beyond the end, at the end.
    """

    def __init__(self, codec: MelCodec):
        self._codec = codec
        self._samples = np.zeros(0, np.float32)  # from the next frame's first sample on

    def push(self, samples: np.ndarray) -> Mel:
        """Takes the next samples [n] at the codec's rate; returns [t, F] nat, t >= 0.

        Raises UserError if they are not one-dimensional or not finite.
        """
        codec = self._codec
        self._samples = np.concatenate([self._samples, check_mono(samples)])
        frames = max(0, (len(self._samples) - codec.window) // codec.hop + 1)
        if not frames:
            return np.zeros((0, codec.mels), np.float32)
        mel = codec.encode(self._samples[:(frames - 1) * codec.hop + codec.window])[:frames]
        self._samples = self._samples[frames * codec.hop:]
        return mel

    def finish(self) -> Mel:
        """The remaining frames: all together are ceil(S / hop). Call once, at the end."""
        return self._codec.encode(self._samples)
