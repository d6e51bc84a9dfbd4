"""Log-mel codec: waveform → log-mel spectrogram, and its model range (NumPy).

Frame i is the magnitude spectrum of samples [i * hop, i * hop + window), so
its centre lies at i * hop + window / 2; the end of the audio is padded with
zeros (`tf.signal.stft(pad_end=True)`), and S samples give ceil(S / hop) frames.
The settings are those of Spectrogram Diffusion (Hawthorne et al. 2022,
arXiv:2206.05408, section 3.1). The differentiable twin is in `codec_jax`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from music_diffusion.errors import UserError

RETIRED = ("spare_frames",)  # fields that earlier versions saved; they never had an effect
BLOCK_FRAMES = 1024  # frames encoded at once: bounds the memory for long audio (about 30 MB)


def mel_matrix(*, fft_bins: int, mels: int, sample_rate: float, fmin: float, fmax: float
               ) -> np.ndarray:
    """Triangular mel filters, [fft_bins, mels] float64.

    The formula of `tf.signal.linear_to_mel_weight_matrix`: HTK mel scale
    1127 ln(1 + f / 700), triangles that are linear in mel (not in Hz), zero
    for the DC bin, peaks of 1 (no area normalisation).
    """
    def to_mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)

    bins = to_mel(np.linspace(0.0, sample_rate / 2, fft_bins)[1:])[:, None]
    edges = np.linspace(to_mel(fmin), to_mel(fmax), mels + 2)
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (bins - lower) / (centre - lower), (upper - bins) / (upper - centre)
    return np.pad(np.maximum(0.0, np.minimum(rise, fall)), ((1, 0), (0, 0)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelCodec:
    """All that defines a spectrogram; a checkpoint carries one (`to_dict`)."""

    sample_rate: int = 16000  # Hz
    hop: int = 320  # samples from frame to frame
    window: int = 640  # samples, length of the periodic Hann window; hop <= window <= fft
    fft: int = 1024  # samples, FFT length (windows are zero-padded to it); even
    mels: int = 128  # F, number of mel bins
    fmin: float = 0.0  # Hz, lower edge of the first mel bin
    fmax: float = 8000.0  # Hz, upper edge of the last mel bin, <= sample_rate / 2
    clip_min: float = 1e-5  # magnitude; smaller mel magnitudes count as this
    clip_max: float = 1e8  # magnitude; larger mel magnitudes count as this
    log_min: float = math.log(1e-5)  # nat, mapped to -1 in the model range
    log_max: float = 4.0  # nat, mapped to +1 in the model range

    def __post_init__(self):
        if not 0 < self.hop <= self.window <= self.fft or self.fft % 2:
            raise ValueError(f"need 0 < {self.hop=} <= {self.window=} <= {self.fft=}, an even number")
        if not 0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(f"need 0 <= {self.fmin=} < {self.fmax=} <= {self.sample_rate=} / 2")
        if not (0 < self.clip_min < self.clip_max and self.log_min < self.log_max):
            raise ValueError(f"need 0 < {self.clip_min=} < {self.clip_max=} and "
                             f"{self.log_min=} < {self.log_max=}")
        if self.mels < 1:
            raise ValueError(f"need {self.mels=} >= 1")

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

    def frames_of(self, samples: int) -> int:
        """T for a number of samples: ceil(samples / hop)."""
        return -(-samples // self.hop)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Log-mel spectrogram of mono audio at `sample_rate`.

        The audio is followed by as much silence as the last windows need, and more
        of it would change nothing. Spectra are computed in float64: float32 FFT
        noise of a loud partial is above clip_min.

        Args:
          samples: [S], amplitudes.

        Returns:
          [ceil(S / hop), F] float32, nat, in [ln clip_min, ln clip_max].

        Raises:
          UserError: not one-dimensional, or not finite.
        """
        samples = check_mono(samples)
        frames = self.frames_of(len(samples))
        mel = np.empty((frames, self.mels), np.float32)
        for first in range(0, frames, BLOCK_FRAMES):
            last = min(first + BLOCK_FRAMES, frames)
            size = (last - first - 1) * self.hop + self.window
            block = samples[first * self.hop:first * self.hop + size].astype(np.float64)
            block = np.pad(block, (0, size - len(block)))
            windows = np.lib.stride_tricks.sliding_window_view(block, self.window)[::self.hop]
            magnitude = np.abs(np.fft.rfft(windows * self.hann, self.fft)).astype(np.float32)
            mel[first:last] = np.log(np.clip(magnitude @ self.mel_matrix,
                                             self.clip_min, self.clip_max))
        return mel

    def scale(self, mel):
        """nat → model range [-1, 1], clipped to it; NumPy or JAX, any shape."""
        unit = (mel.clip(self.log_min, self.log_max) - self.log_min) / (self.log_max - self.log_min)
        return 2.0 * unit - 1.0

    def unscale(self, mel_scaled):
        """Model range [-1, 1] → nat; the inverse of `scale`, without clipping."""
        return (mel_scaled + 1.0) * (0.5 * (self.log_max - self.log_min)) + self.log_min

    def to_dict(self) -> dict[str, int | float]:
        """Plain numbers, for a checkpoint; `from_dict` gives an equal codec."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Builds the codec of `to_dict`, of this version or an earlier one.

        Raises UserError unless exactly the codec's fields are there, with usable values.
        """
        if not isinstance(fields, Mapping):
            raise UserError(f"{fields!r} describes no codec")
        fields = {k: v for k, v in fields.items() if k not in RETIRED}
        names = {field.name for field in dataclasses.fields(cls)}
        if set(fields) != names:
            wrong = ", ".join(sorted(set(fields) ^ names))
            raise UserError(f"codec: missing or unknown fields ({wrong}); "
                            "was this checkpoint made by another version?")
        try:
            return cls(**fields)
        except (TypeError, ValueError) as e:
            raise UserError(f"codec: {e}") from e

    def check_same(self, other: MelCodec) -> None:
        """Raises UserError, naming the fields that differ, unless `other` is this codec."""
        mine, its = self.to_dict(), other.to_dict()
        differing = [f"{k} {mine[k]} and {its[k]}" for k in mine if mine[k] != its[k]]
        if differing:
            raise UserError(f"codecs differ ({', '.join(differing)}); "
                            "use parts that were made with the same codec")


def check_mono(samples: np.ndarray) -> np.ndarray:
    """Returns samples as an array if they are [S] and finite, else raises UserError."""
    samples = np.asarray(samples)
    if samples.ndim != 1:
        raise UserError(f"audio has shape {samples.shape}; mix it to one channel [S] first")
    if not np.isfinite(samples).all():
        raise UserError("audio has NaN or infinite samples; repair or re-export it")
    return samples
