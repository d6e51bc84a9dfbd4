"""Tails of rooms: the exponentially decaying energy by which a room carries a spectrogram on.

In a diffuse field the energy of the reverberation decays exponentially (Sabine; Moorer 1979), so that
of a room is a mixture of few decay times with gains by frequency. Here are the tails of some decay
times; the gains are learned (`networks.score_denoiser`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError


def lead_frames(seconds: Sequence[float], codec: MelCodec) -> int:
    """Frames after which a tail has lost 60 dB: so many before a segment are heard in it; whole seconds."""
    return math.ceil(max(seconds, default=0.0)) * round(codec.frame_rate)


def energy_tails(mel: Float[np.ndarray, "T F"], seconds: Sequence[float], codec: MelCodec
                 ) -> Float[np.ndarray, "T K F"]:
    """Log-mel of what is still heard of earlier frames, for each decay time.

    With P the energy (squared magnitude) above the codec's floor, and a the decay of a frame,

        tail[t] = a tail[t-1] + (1 - a) P[t-1],    a = 10^(-6 hop / seconds)

    so the tail of a steady sound comes to be as loud as the sound.

    Args:
      mel: nat; before its first frame was silence.
      seconds: K decay times, until 60 dB are lost.
      codec: of the spectrogram.
    """
    from scipy.signal import lfilter

    if not all(s > 0 for s in seconds):
        raise UserError(f"decay times of {tuple(seconds)} s: give times above 0")
    floor = codec.clip_min**2
    power = np.maximum(np.exp(2 * np.asarray(mel, np.float64)) - floor, 0)
    result = np.empty((len(power), len(seconds), power.shape[1]), np.float32)
    for k, decay in enumerate(seconds):
        a = 10 ** (-6 * codec.hop / codec.sample_rate / decay)
        tail = lfilter([0.0, 1 - a], [1.0, -a], power, axis=0)
        result[:, k] = 0.5 * np.log(np.maximum(tail, 0) + floor)
    return result
