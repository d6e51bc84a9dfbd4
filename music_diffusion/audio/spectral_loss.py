"""Multi-scale spectral distances of audio, as losses (JAX).

Both compare short-time magnitudes at several window lengths, linearly and as
logarithms, so that neither loud partials nor quiet details go unseen. Only
whole windows within the samples count.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec import mel_matrix
from music_diffusion.audio.codec_jax import frame
from music_diffusion.errors import UserError

WINDOWS = (64, 128, 256, 512, 1024, 2048)  # samples
OVERLAP = 4  # windows that see a sample


class SpectralLoss(Protocol):
    """A distance of two batches of audio that knows no phase."""

    @property
    def windows(self) -> tuple[int, ...]:
        """Returns the lengths of its windows in samples; audio needs at least the longest."""
        ...

    def __call__(self, real: Float[Array, "B S"], fake: Float[Array, "B S"], *, sample_rate: int
                 ) -> Float[Array, ""]:
        """0 for equal audio. Raises UserError for fewer samples than the longest window."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelSpectralLoss:
    """The reconstruction loss of SoundStream (arXiv:2107.03312, equations 4 and 5).

    Sum over windows s of the mean over frames t of
    ‖S_t − Ŝ_t‖₁ + α_s ‖ln S_t − ln Ŝ_t‖₂, where S_t are the mel magnitudes of a
    frame, and α_s = √(s / 2) (Gritsenko et al. 2020, arXiv:2008.01160).
    """

    windows: tuple[int, ...] = WINDOWS  # samples, multiples of 4
    mels: int = 64  # bins from 0 Hz to half the sample rate
    log_weight: float = 1.0  # of the logarithms, times √(s / 2)
    floor: float = 1e-5  # STFT magnitude that silence has

    def __post_init__(self):
        _check(self.windows, self.floor)
        if self.mels < 1:
            raise UserError(f"MelSpectralLoss.mels={self.mels} must be at least 1")

    def __call__(self, real: Float[Array, "B S"], fake: Float[Array, "B S"], *, sample_rate: int
                 ) -> Float[Array, ""]:
        total = jnp.zeros(())
        for window in self.windows:
            matrix = _mel_filters(window, self.mels, sample_rate)
            a, b = (jnp.matmul(magnitudes(x, window, floor=self.floor), matrix, precision="highest")
                    for x in (real, fake))
            linear = jnp.sum(jnp.abs(a - b), axis=-1)
            log = _norm(jnp.log(a) - jnp.log(b))
            total += jnp.mean(linear + self.log_weight * math.sqrt(window / 2) * log)
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearSpectralLoss:
    """All bins of the spectrum alike, whatever the level of the audio.

    Mean over windows of the mean over examples of
    Σ|m − m̂| / Σ m + mean |ln m − ln m̂|, over frames and bins: the two terms of
    Parallel WaveGAN (Yamamoto et al. 2020, arXiv:1910.11480, equations 5 and
    6), the first with L1 norms. A sine of amplitude 1 has a magnitude m of 1.
    """

    windows: tuple[int, ...] = WINDOWS  # samples, multiples of 4
    log_weight: float = 1.0  # of the logarithms
    floor: float = 1e-5  # magnitude m that silence has
    quiet: float = 1e-4  # mean magnitude below which differences count as at this level

    def __post_init__(self):
        _check(self.windows, self.floor)
        if not self.quiet > 0:
            raise UserError(f"LinearSpectralLoss.quiet={self.quiet} must be positive")

    def __call__(self, real: Float[Array, "B S"], fake: Float[Array, "B S"], *, sample_rate: int
                 ) -> Float[Array, ""]:
        del sample_rate  # all bins alike
        total = jnp.zeros(())
        for window in self.windows:
            unit = window / 4  # the peak of a sine of amplitude 1: half the sum of the window
            a, b = (magnitudes(x, window, floor=self.floor * unit) / unit for x in (real, fake))
            level = jnp.maximum(jnp.mean(a, axis=(1, 2)), self.quiet)
            linear = jnp.mean(jnp.abs(a - b), axis=(1, 2)) / level
            log = jnp.mean(jnp.abs(jnp.log(a) - jnp.log(b)), axis=(1, 2))
            total += jnp.mean(linear + self.log_weight * log)
        return total / len(self.windows)


def magnitudes(samples: Float[Array, "B S"], window: int, *, floor: float) -> Float[Array, "B T K"]:
    """√(|STFT|² + floor²) of the whole Hann windows, a quarter window apart; K = window / 2 + 1.

    The floor is inside the root so that the gradient is bounded, and 0 in silence.
    """
    hop = window // OVERLAP
    if samples.shape[-1] < window:
        raise UserError(f"{samples.shape[-1]} samples are shorter than the spectral loss's window of "
                        f"{window}; use longer segments or shorter windows")
    windows = frame(samples[..., :samples.shape[-1] // hop * hop], length=window, hop=hop)
    spectrum = jnp.fft.rfft(windows * jnp.asarray(_hann(window))[None, None])
    return jnp.sqrt(jnp.square(spectrum.real) + jnp.square(spectrum.imag) + floor**2)


def _norm(x: Float[Array, "B T K"]) -> Float[Array, "B T"]:
    """L2 norm of the last axis, whose gradient is 0 at 0."""
    squares = jnp.sum(jnp.square(x), axis=-1)
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


@functools.cache
def _hann(window: int) -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)


@functools.cache
def _mel_filters(window: int, mels: int, sample_rate: int) -> np.ndarray:
    """[window / 2 + 1, at most `mels`]: those that meet a bin; the others are 0 for all audio."""
    matrix = mel_matrix(fft_bins=window // 2 + 1, mels=mels, sample_rate=sample_rate, fmin=0.0,
                        fmax=sample_rate / 2).astype(np.float32)
    return matrix[:, matrix.any(axis=0)]


def _check(windows: tuple[int, ...], floor: float) -> None:
    if not windows or any(w < OVERLAP or w % OVERLAP for w in windows):
        raise UserError(f"spectral loss: windows={windows} must be multiples of {OVERLAP}, at least one")
    if not floor > 0:
        raise UserError(f"spectral loss: floor={floor} must be positive")
