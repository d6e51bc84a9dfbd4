"""VGGish patches out of the codec's own spectrogram: without a waveform, differentiable, approximate.

A loss that listens with VGGish's ears can so judge spectrograms that nobody has made audible. The codec's
bands are read as the mean magnitude of the bins below them, laid out over VGGish's bins, and frames are
interpolated. What is lost: phases between frames, and detail below the codec's resolution.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.vggish_mel import VGGishMel


@functools.lru_cache(maxsize=8)
def band_matrix(codec: MelCodec, front: VGGishMel) -> Float[np.ndarray, "F G"]:
    """Returns the matrix that takes magnitudes of the codec's bands to those of VGGish's."""
    weights = codec.mel_matrix.astype(np.float64)  # K F
    size = weights.sum(0)
    hertz = np.arange(len(weights)) * codec.sample_rate / codec.fft
    used = size > 0  # bands narrower than a bin may hold none
    centres = (hertz @ weights)[used] / size[used]
    target = np.arange(front.fft // 2 + 1) * front.sample_rate / front.fft
    # Each bin of VGGish lies between two bands' centres: linear interpolation, as a matrix.
    spread = np.zeros((codec.mels, len(target)))
    for i, band in enumerate(np.flatnonzero(used)):
        spread[band] = np.interp(target, centres, np.eye(len(centres))[i]) / size[band]
    # As for noise, whose power spreads over all that a sample rate can hold; a longer window has a sine
    # higher and narrower, which a band sums up to nearly the same.
    power, own = (x.sample_rate * np.sum(x.hann**2) for x in (front, codec))
    gain = np.sqrt(power / own)
    return gain * spread @ front.mel_matrix.astype(np.float64)


@functools.lru_cache(maxsize=8)
def frame_matrix(codec: MelCodec, front: VGGishMel, frames: int) -> Float[np.ndarray, "T U"]:
    """Returns the matrix that interpolates so many frames to VGGish's, whole patches of them."""
    seconds = ((frames - 1) * codec.hop + codec.window) / codec.sample_rate
    count = front.patches_of(int(seconds * front.sample_rate))
    last = (count - 1) * front.patch_hop + front.patch_frames
    centres = (np.arange(last) * front.hop + front.window / 2) / front.sample_rate
    place = (centres * codec.sample_rate - codec.window / 2) / codec.hop
    return np.stack([np.interp(place, np.arange(frames), row) for row in np.eye(frames)])


def vggish_patches(codec: MelCodec, front: VGGishMel, mel: Float[Array, "B T F"]
                   ) -> Float[Array, "B n U G"]:
    """Returns patches as `VGGishMel.patches` has them of log-mel in nat; the last may pass its end."""
    bands, times = band_matrix(codec, front), frame_matrix(codec, front, mel.shape[1])
    magnitude = jnp.exp(mel) @ jnp.asarray(bands, mel.dtype)
    moved = jnp.einsum("BTG,TU->BUG", magnitude, jnp.asarray(times, mel.dtype))
    logs = jnp.log(moved + front.offset)
    count = 1 + (logs.shape[1] - front.patch_frames) // front.patch_hop
    return jnp.stack([logs[:, i * front.patch_hop:i * front.patch_hop + front.patch_frames]
                      for i in range(count)], axis=1)
