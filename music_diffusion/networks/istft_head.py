"""The fast generator: a network at the frame rate predicts short spectra, overlap-add joins them.

After Vocos (Siuzdak 2023, arXiv:2306.00814), whose sub-frames are its frames;
here a frame gives several, so that the trunk stays slow and the phase fine.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec_jax import overlap_add
from music_diffusion.networks.convnext import ConvNeXt, ConvNeXtConfig
from music_diffusion.networks.layers import Dense

# Magnitudes are in units of the peak that a sine of amplitude 1 makes.
LOG_START = -7.0  # nat, of a fresh network: about 0.005 RMS, quieter than music
LOG_LIMIT = math.log(100.0)  # nat; beyond every signal in [-1, 1], so that exp cannot overflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class ISTFTHeadConfig:
    """Sizes and timing of the generator."""

    trunk: ConvNeXtConfig = ConvNeXtConfig()
    hop: int = 320  # samples from frame to frame, the codec's
    mels: int = 128  # F
    upsample: int = 2  # sub-frames of a frame; divides hop
    fft: int = 640  # samples, the window of a sub-frame; even, >= 2 * hop / upsample
    codec_window: int = 640  # samples, the codec's window: a frame's centre lies at half of it

    def __post_init__(self):
        if self.upsample < 1 or self.hop < 1 or self.hop % self.upsample:
            raise ValueError(f"{self.upsample=} should divide {self.hop=}")
        if self.fft % 2 or self.fft < 2 * self.fine_hop:
            raise ValueError(f"{self.fft=} should be even and at least {2 * self.fine_hop}, "
                             "two sub-frames, so that windows overlap")

    @property
    def fine_hop(self) -> int:
        """Samples from sub-frame to sub-frame."""
        return self.hop // self.upsample

    @property
    def start(self) -> int:
        """First sample of sub-frame 0's window; negative where windows are long.

        The sub-frames of frame i lie evenly around its centre, i * hop + codec_window / 2.
        """
        return (self.codec_window - (self.upsample - 1) * self.fine_hop - self.fft) // 2

    @property
    def context_frames(self) -> int:
        """Frames on each side that the samples of a frame depend on: overlap-add's and the trunk's."""
        # Sub-frame n weighs samples start + n * fine_hop + 1 ... + fft - 1: Hann begins with 0.
        first = -((self.start + self.fft - 1) // self.fine_hop)
        last = (self.hop - 2 - self.start) // self.fine_hop
        return max(-(first // self.upsample), last // self.upsample) + self.trunk.context_frames


def inverse_stft(
    log_magnitude: Float[Array, "B N K"],
    angle: Float[Array, "B N K"],
    *,
    hop: int,
    start: int,
    samples: int,
) -> Float[Array, "B S"]:
    """Least-squares signal of the spectra of periodic Hann windows of 2 * (K - 1) samples.

    Griffin and Lim 1984, equation 6: sum of window · inverse FFT over sum of
    window². Beyond the first and last spectrum there is silence: the sum of
    window² is that of an endless row everywhere.

    Args:
      log_magnitude: nat, of multiples of the peak that a sine of amplitude 1 makes.
      angle: radians, of phases at the window's centre.
      hop: samples from window to window.
      start: sample at which window 0 begins; may be negative.
      samples: S, number of samples from sample 0 on.
    """
    fft = 2 * (log_magnitude.shape[-1] - 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(fft) / fft)
    # From phases at the window's centre to phases at its beginning: half a window is π per bin.
    unit = jnp.asarray(fft / 4 * (-1.0) ** np.arange(fft // 2 + 1), jnp.float32)[None, None]
    magnitude = unit * jnp.exp(jnp.minimum(log_magnitude, LOG_LIMIT))
    spectrum = jax.lax.complex(magnitude * jnp.cos(angle), magnitude * jnp.sin(angle))
    # Every `hop`-th value of window² from each phase of the hop on.
    power = np.pad(window**2, (0, -fft % hop)).reshape(-1, hop).sum(axis=0)
    weight = window / np.resize(power, fft)
    frames = jnp.fft.irfft(spectrum, fft) * jnp.asarray(weight, jnp.float32)[None, None]
    total = overlap_add(frames, hop=hop)
    total = jnp.pad(total, ((0, 0), (max(0, start), 0)))[:, max(0, -start):][:, :samples]
    return jnp.pad(total, ((0, 0), (0, samples - total.shape[1])))


class ISTFTHead(nn.Module):
    """A generator: mel in the model range → samples, T frames to T * hop samples."""

    config: ISTFTHeadConfig

    @nn.compact
    def __call__(self, mel_scaled: Float[Array, "B T F"]) -> Float[Array, "B S"]:
        c = self.config
        batch, frames, _ = mel_scaled.shape
        bins = c.fft // 2 + 1
        x = ConvNeXt(c.trunk, name="trunk")(mel_scaled)
        x = Dense(c.upsample * 2 * bins, axes=("embed", "mlp"), use_bias=True, name="spectra")(x)
        x = x.reshape(batch, frames * c.upsample, 2, bins)
        return inverse_stft(x[:, :, 0] + LOG_START, x[:, :, 1], hop=c.fine_hop, start=c.start,
                            samples=frames * c.hop)
