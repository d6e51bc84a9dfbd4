"""Samples whose spectrogram is closer to the one that they were made from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.codec_jax import frame, overlap_add
from music_diffusion.audio.griffin_lim import interpolate_log

SMALLEST = 1e-6  # mel magnitude below which a ratio means nothing


def match_mel(codec: MelCodec, samples: Float[Array, " S"], mel: Float[Array, "T F"], *,
              passes: int = 1, upsample: int = 2, largest: float = 4.0) -> Float[Array, " S"]:
    """Multiplicative correction towards `mel`; phases stay.

    The ratio of wanted to present mel magnitudes, spread over FFT bins and
    interpolated in time, is applied in the short-time Fourier domain at
    `upsample` frames a codec frame. What a network blurs in time, its input still knows.

    Args:
      codec: whose spectrogram `mel` is.
      samples: S >= (T - 1) * hop + window; what follows is cut off.
      mel: nat.
      passes: how often; every pass comes closer.
      upsample: divides the codec's hop.
      largest: factor by which a pass raises a bin at most, and its inverse.

    Returns:
      [T * hop]. In a pass a sample depends on `reach_frames` frames on each side.
    """
    hop, frames = codec.hop // upsample, len(mel) * upsample
    length = (frames - 1 + -(-codec.window // hop)) * hop
    hann = jnp.broadcast_to(codec.hann.astype(np.float32), (frames, codec.window))
    weight = overlap_add(hann**2, hop=hop)
    weight = jnp.maximum(weight, 0.05 * weight.max())
    # Logarithms are averaged: a bin between a raised and a lowered band stays as it is.
    area = codec.mel_matrix.sum(axis=1)
    spread = (codec.mel_matrix / np.maximum(area, 1e-6)[:, None]).T
    target = jnp.exp(mel)

    def correct(_, samples):
        windows = frame(samples, length=codec.window, hop=hop)
        spectrum = jnp.fft.rfft(windows * hann, codec.fft)
        present = jnp.abs(spectrum[::upsample]) @ codec.mel_matrix
        ratio = jnp.clip(target / jnp.maximum(present, SMALLEST), 1 / largest, largest)
        gain = interpolate_log(jnp.exp(jnp.log(ratio) @ spread), upsample)
        parts = jnp.fft.irfft(spectrum * gain, codec.fft)[:, :codec.window] * hann
        return overlap_add(parts, hop=hop) / weight

    samples = jnp.pad(samples, (0, max(0, length - len(samples))))[:length]
    return jax.lax.fori_loop(0, passes, correct, samples)[:len(mel) * codec.hop]


def reach_frames(codec: MelCodec) -> int:
    """Codec frames on each side that a sample depends on in one pass of `match_mel`."""
    return -(-codec.window // codec.hop) + 1
