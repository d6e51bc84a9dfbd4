"""The front end of VGGish: waveform → patches of a log-mel spectrogram, in NumPy and in JAX.

Hershey et al. 2017 (arXiv:1609.09430) and the constants of the model that was
published with AudioSet: magnitude spectra of 25 ms every 10 ms, 64 mel bands,
log(mel + 0.01), patches of 0.96 s. Frame i is the spectrum of samples
[i * hop, i * hop + window), as in `codec`; here only whole frames and whole
patches count, and what is left at the end is dropped.
"""

from __future__ import annotations

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec import BLOCK_FRAMES, check_mono, mel_matrix
from music_diffusion.audio.codec_jax import frame, magnitude


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGGishMel:
    """All that defines a patch; the defaults are the published ones."""

    sample_rate: int = 16000  # Hz
    hop: int = 160  # samples from frame to frame
    window: int = 400  # samples under the periodic Hann window
    fft: int = 512  # samples in the transform (the window is zero-padded to it); even
    mels: int = 64  # F, number of mel bands
    fmin: float = 125.0  # Hz, lower edge of the first band
    fmax: float = 7500.0  # Hz, upper edge of the last band, <= sample_rate / 2
    offset: float = 0.01  # magnitude, added before the logarithm
    patch_frames: int = 96  # frames of a patch (0.96 s)
    patch_hop: int = 96  # frames from patch to patch (0.96 s)

    def __post_init__(self):
        if not 0 < self.hop <= self.window <= self.fft or self.fft % 2:
            raise ValueError(f"need 0 < {self.hop=} <= {self.window=} <= {self.fft=}, an even number")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"need 0 <= {self.fmin=} < {self.fmax=} <= {self.sample_rate=} / 2")
        if min(self.mels, self.patch_frames, self.patch_hop) < 1 or not self.offset > 0:
            raise ValueError(f"need {self.mels=}, {self.patch_frames=} and {self.patch_hop=} >= 1 "
                             f"and {self.offset=} > 0")

    @functools.cached_property
    def mel_matrix(self) -> np.ndarray:
        """Mel filters [fft / 2 + 1, F] float32 (read-only)."""
        matrix = mel_matrix(fft_bins=self.fft // 2 + 1, mels=self.mels, fmin=self.fmin,
                            fmax=self.fmax, sample_rate=self.sample_rate).astype(np.float32)
        matrix.setflags(write=False)
        return matrix

    @functools.cached_property
    def hann(self) -> np.ndarray:
        """Periodic Hann window [window] float64 (read-only)."""
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)
        hann.setflags(write=False)
        return hann

    @property
    def patch_samples(self) -> int:
        """Samples that one patch depends on: 15,600 of 16 kHz."""
        return (self.patch_frames - 1) * self.hop + self.window

    @property
    def patch_hop_samples(self) -> int:
        """Samples from patch to patch: 15,360 of 16 kHz."""
        return self.patch_hop * self.hop

    def patches_of(self, samples: int) -> int:
        """n for a number of samples: the whole patches in them, at least 1."""
        return 1 + max(0, samples - self.patch_samples) // self.patch_hop_samples

    def encode(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n T F"]:
        """Log-mel patches [n, patch_frames, F] float32 of mono audio at `sample_rate` (NumPy).

        Audio shorter than a patch is padded with zeros to one. Spectra are
        computed in float64.

        Raises:
          UserError: not one-dimensional, or not finite.
        """
        samples = check_mono(samples)
        count = self.patches_of(len(samples))
        samples = np.pad(samples, (0, max(0, self.patch_samples - len(samples))))
        frames = (count - 1) * self.patch_hop + self.patch_frames
        windows = np.lib.stride_tricks.sliding_window_view(samples, self.window)[::self.hop]
        mel = np.empty((frames, self.mels), np.float32)
        for first in range(0, frames, BLOCK_FRAMES):
            last = min(first + BLOCK_FRAMES, frames)
            block = windows[first:last].astype(np.float64) * self.hann
            magnitude = np.abs(np.fft.rfft(block, self.fft)).astype(np.float32)
            mel[first:last] = np.log(magnitude @ self.mel_matrix + np.float32(self.offset))
        starts = self.patch_hop * np.arange(count)
        return mel[starts[:, None] + np.arange(self.patch_frames)]

    def patches(self, samples: Float[Array, "B S"]) -> Float[Array, "B n T F"]:
        """`encode` of every row in JAX, float32: differentiable, and compiled inside a step.

        The gradient is finite everywhere, and zero where all is silent.
        """
        count = self.patches_of(samples.shape[-1])
        frames = (count - 1) * self.patch_hop + self.patch_frames
        size = (frames - 1 + -(-self.window // self.hop)) * self.hop
        samples = jnp.pad(samples, ((0, 0), (0, max(0, size - samples.shape[-1]))))[:, :size]
        windows = frame(samples.astype(jnp.float32), length=self.window, hop=self.hop)
        spectrum = jnp.fft.rfft(windows * jnp.asarray(self.hann, jnp.float32)[None, None], self.fft)
        mel = jnp.matmul(magnitude(spectrum), self.mel_matrix, precision="highest")
        log_mel = jnp.log(mel + self.offset)
        starts = [i * self.patch_hop for i in range(count)]
        return jnp.stack([log_mel[:, i:i + self.patch_frames] for i in starts], axis=1)
