"""Log-frequency spectrograms of several windows: what a network of pitches looks at.

Bins lie evenly on the pitch axis, so that a harmonic is the same number of bins
above its fundamental for every pitch (Bittner et al. 2017, "Deep salience
representations for f0 estimation in polyphonic music", section 3.1, with a
constant-Q transform). Here each is a weighted sum of FFT magnitudes: a long
window separates low pitches, a short one sees when notes begin.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec_jax import frame, magnitude

A4_PITCH, A4_HERTZ = 69, 440.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogFrequencyConfig:
    """Frame i is centred on sample (i + 0.5) * hop."""

    sample_rate: int = 16000  # Hz
    hop: int = 400  # samples from frame to frame
    windows: tuple[int, ...] = (4096, 2048, 800)  # samples, periodic Hann; even
    bins_per_semitone: int = 3  # odd, so that one of them is the pitch itself
    lowest_pitch: int = 21  # MIDI
    highest_pitch: int = 118  # MIDI; below half the sample rate
    floor: float = 1e-4  # amplitude of a sinusoid that counts as silence

    def __post_init__(self):
        if self.hop < 1 or not 0 < self.floor < 1:
            raise ValueError(f"need {self.hop=} >= 1 and {self.floor=} between 0 and 1")
        if self.bins_per_semitone % 2 == 0 or self.bins_per_semitone < 1:
            raise ValueError(f"{self.bins_per_semitone=} must be odd")
        if not self.windows or any(w % 2 or w < 2 for w in self.windows):
            raise ValueError(f"{self.windows=} must be even numbers of samples")
        highest = hertz(self.highest_pitch + 1)
        if self.lowest_pitch >= self.highest_pitch or 2 * highest > self.sample_rate:
            raise ValueError(f"{self.lowest_pitch=} to {self.highest_pitch=} do not fit "
                             f"{self.sample_rate=}")

    @property
    def bins(self) -> int:
        """Bins of one window."""
        return (self.highest_pitch - self.lowest_pitch + 1) * self.bins_per_semitone

    @property
    def frame_seconds(self) -> float:
        return self.hop / self.sample_rate

    @property
    def reach(self) -> int:
        """Samples on each side of a frame's centre that it depends on."""
        return max(self.windows) // 2

    @functools.cached_property
    def filters(self) -> tuple[np.ndarray, ...]:
        """Returns for each window weights of FFT bins [K, bins] float32.

        A triangle over frequency that reaches as far as the next bin above, and at
        least as far as the next FFT bin, so that no filter is empty. It takes a mean:
        a sinusoid at the centre of a bin gives about its amplitude where the triangle
        is narrower than the window's main lobe, and a part of it where it is wider
        (with the defaults -3.6 dB at A4 and -25 dB at the highest pitch in the longest
        window, -9 dB there in the shortest).
        """
        pitch = self.lowest_pitch + (np.arange(self.bins) - self.bins_per_semitone // 2
                                     ) / self.bins_per_semitone
        centre = hertz(pitch)
        width = centre * (2 ** (1 / (12 * self.bins_per_semitone)) - 1)
        result = []
        for window in self.windows:
            fft = fft_size(window)
            step = self.sample_rate / fft
            each = np.maximum(width, step)
            k = np.arange(fft // 2 + 1)[:, None] * step
            triangle = np.maximum(0.0, 1 - np.abs(k - centre) / each)
            # A wide filter holds the whole main lobe, whose magnitudes sum to fft / window * 2
            # times its peak, roughly: those that only zero padding adds are made up for.
            hann_peak = window / 4
            total = np.maximum(triangle.sum(0), 1e-9)
            result.append((triangle / total / hann_peak * np.maximum(
                1.0, np.minimum(total, 2 * fft / window) / 2)).astype(np.float32))
        return tuple(result)


def hertz(pitch):
    """Frequency of a MIDI pitch, which may be fractional."""
    return A4_HERTZ * 2.0 ** ((np.asarray(pitch, np.float64) - A4_PITCH) / 12)


def fft_size(window: int) -> int:
    """The smallest power of two that holds a window."""
    return 1 << (window - 1).bit_length()


def log_frequency(config: LogFrequencyConfig, samples: Float[Array, "B S"]
                  ) -> Float[Array, "B T W bins"]:
    """Log amplitudes of S // hop frames, 0 at the floor and 1 at full scale.

    Before the first sample and after the last there is silence.
    """
    hop = config.hop
    frames = samples.shape[-1] // hop
    log_floor = np.log(config.floor)
    result = []
    for window, weights in zip(config.windows, config.filters, strict=True):
        lead = window // 2 - hop // 2
        size = (frames - 1 + -(-window // hop)) * hop
        begin = max(0, -lead)
        signal = jnp.pad(samples[..., begin:], ((0, 0), (max(0, lead), size)))[..., :size]
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        windows = frame(signal, length=window, hop=hop)
        spectrum = jnp.fft.rfft(windows * jnp.asarray(hann, jnp.float32)[None, None],
                                fft_size(window))
        amplitude = jnp.matmul(magnitude(spectrum), weights)
        result.append(1 - jnp.log(amplitude + config.floor) / log_floor)
    return jnp.stack(result, axis=-2)
