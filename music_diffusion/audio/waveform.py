"""Audio that carries its sample rate."""

from __future__ import annotations

import dataclasses

import numpy as np
import soxr

from music_diffusion.audio.mixdown import mix, polarity
from music_diffusion.errors import UserError


@dataclasses.dataclass(frozen=True)
class Waveform:
    """Samples and their rate.

    Raises UserError where the samples are not [S] or [S, channels], not
    floating point, or not finite, or where the rate is not positive.
    """

    samples: np.ndarray  # [S] (mono) or [S, channels], float32, full scale is ±1
    sample_rate: int  # Hz

    def __post_init__(self):
        samples = np.asarray(self.samples)
        if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] == 0):
            raise UserError(f"audio has shape {samples.shape}; it must be [samples] "
                            "or [samples, channels]")
        if not np.issubdtype(samples.dtype, np.floating):
            raise UserError(f"audio has type {samples.dtype}; "
                            "convert it to floating point with full scale ±1")
        if not np.isfinite(samples).all():
            raise UserError("audio has NaN or infinite samples; repair or re-export it")
        if int(self.sample_rate) != self.sample_rate or self.sample_rate <= 0:
            raise UserError(f"sample rate {self.sample_rate} must be a positive integer (Hz)")
        object.__setattr__(self, "samples", samples.astype(np.float32, copy=False))
        object.__setattr__(self, "sample_rate", int(self.sample_rate))

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def channels(self) -> int:
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    def mono(self) -> Waveform:
        """The mean of the channels, which do not cancel each other (`mixdown.polarity`); samples [S]."""
        if self.samples.ndim == 1:
            return self
        signs = polarity([self.samples], self.sample_rate)
        return Waveform(mix(self.samples, signs), self.sample_rate)

    def resample(self, sample_rate: int) -> Waveform:
        """The same sound at another rate (soxr, high quality, linear phase)."""
        if sample_rate == self.sample_rate or not len(self.samples):
            return Waveform(self.samples, sample_rate)
        if int(sample_rate) != sample_rate or sample_rate <= 0:
            raise UserError(f"sample rate {sample_rate} must be a positive integer (Hz)")
        return Waveform(soxr.resample(self.samples, self.sample_rate, sample_rate, quality="HQ"),
                        sample_rate)
