"""The log-mel codec in JAX: differentiable, batched, equal to `MelCodec.encode` to 1e-4 nat."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from music_diffusion.audio.codec import MelCodec


def frame(samples: Float[Array, "*B S"], *, length: int, hop: int) -> Float[Array, "*B T length"]:
    """Overlapping frames by reshaping (gathers are slow on CPU and TPU).

    S must be (T - 1 + ceil(length / hop)) * hop, so that T whole frames fit.
    """
    overlap = -(-length // hop)
    blocks = samples.reshape(*samples.shape[:-1], samples.shape[-1] // hop, hop)
    frames = blocks.shape[-2] - overlap + 1
    parts = [blocks[..., i:i + frames, :] for i in range(overlap)]
    return jnp.concatenate(parts, axis=-1)[..., :length]


def overlap_add(frames: Float[Array, "*B T length"], *, hop: int) -> Float[Array, "*B S"]:
    """Transpose of `frame`: S = (T - 1 + ceil(length / hop)) * hop samples."""
    length, count = frames.shape[-1], frames.shape[-2]
    overlap = -(-length // hop)
    lead = [(0, 0)] * (frames.ndim - 2)
    frames = jnp.pad(frames, [*lead, (0, 0), (0, overlap * hop - length)])
    blocks = frames.reshape(*frames.shape[:-1], overlap, hop)
    # Part i of every frame, delayed by i blocks.
    parts = [jnp.pad(blocks[..., i, :], [*lead, (i, overlap - 1 - i), (0, 0)])
             for i in range(overlap)]
    total = sum(parts[1:], parts[0])
    return total.reshape(*frames.shape[:-2], (count + overlap - 1) * hop)


def magnitude(spectrum: Complex[Array, "*B"]) -> Float[Array, "*B"]:
    """|z| with a gradient of 0 where z is 0, as in silence; that of `jnp.abs` is NaN."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    positive = power > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, power, 1.0)), 0.0)


def encode_jax(codec: MelCodec, samples: Float[Array, "*B S"]) -> Float[Array, "*B T F"]:
    """Log-mel spectrogram [..., ceil(S / hop), F] in nat; see `MelCodec.encode`.

    Its spectra are float32: more than about 130 dB below the loudest partial of
    a frame they are rounding noise.
    """
    frames = codec.frames_of(samples.shape[-1])
    blocks = frames - 1 + -(-codec.window // codec.hop)
    lead = [(0, 0)] * (samples.ndim - 1)
    padded = jnp.pad(samples, [*lead, (0, blocks * codec.hop - samples.shape[-1])])
    windows = frame(padded, length=codec.window, hop=codec.hop)
    hann = jnp.broadcast_to(codec.hann.astype(np.float32), windows.shape)
    spectrum = jnp.fft.rfft(windows * hann, codec.fft)
    mel = jnp.matmul(magnitude(spectrum), codec.mel_matrix, precision="highest")
    return jnp.log(jnp.clip(mel, codec.clip_min, codec.clip_max))
