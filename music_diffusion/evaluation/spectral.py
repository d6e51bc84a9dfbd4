"""Distances of two waveforms: spectra, and the times of attacks. Arrays in, floats out.

None of it hears phase or timbre as a listener does: two signals with equal
distances here may sound very different. See `attack_offsets` for timing.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import scipy.ndimage
import scipy.signal
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec, check_mono
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.errors import UserError

BLOCK = 65536  # samples compared at once


class LogMelDistance:
    """Mean |Δ log-mel| of two streams in nat, over frames and bins; in flat memory."""

    def __init__(self, codec: MelCodec):
        self._streams = MelStream(codec), MelStream(codec)
        self._sum, self._count = 0.0, 0

    def push(self, a: np.ndarray, b: np.ndarray) -> None:
        """Takes the next samples [n] of both."""
        check_pair(a, b)
        self._add(*(stream.push(x) for stream, x in zip(self._streams, (a, b), strict=True)))

    def finish(self) -> float:
        """The distance; NaN without samples. Call once, at the end."""
        self._add(*(stream.finish() for stream in self._streams))
        return self._sum / self._count if self._count else math.nan

    def _add(self, a: np.ndarray, b: np.ndarray) -> None:
        self._sum += float(np.abs(a - b).sum(dtype=np.float64))
        self._count += a.size


class FineSpectralDistance:
    """Mean |Δ log magnitude| of two streams in nat, in short windows; in flat memory.

    Windows are short, so it sees when energy comes, to about 10 ms, and hardly
    which pitch it has. Frames begin at every multiple of the hop; zeros follow
    the end.
    """

    def __init__(self, sample_rate: float = 16000, *, window: float = 0.016, hop: float = 0.004,
                 floor: float = 1e-4):
        """Sets the windows: by default periodic Hann windows of 256, a hop of 64 samples at 16 kHz.

        Args:
          sample_rate: Hz.
          window, hop: seconds.
          floor: amplitude of a sine; spectra below it (-80 dBFS) count as it.
        """
        self._window, self._hop = round(window * sample_rate), round(hop * sample_rate)
        if not 0 < self._hop <= self._window or floor <= 0:
            raise ValueError(f"need 0 < {hop=} <= {window=} at {sample_rate=}, and {floor=} > 0")
        self._floor = floor
        self._hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._window) / self._window)
        self._samples = np.zeros((2, 0))  # of both, from the next frame's first on
        self._sum, self._count = 0.0, 0

    def push(self, a: np.ndarray, b: np.ndarray) -> None:
        """Takes the next samples [n] of both."""
        check_pair(a, b)
        for at in range(0, len(a), BLOCK):
            block = np.stack([a[at:at + BLOCK], b[at:at + BLOCK]]).astype(np.float64)
            self._add(np.concatenate([self._samples, block], axis=1))

    def finish(self) -> float:
        """The distance; NaN without samples. Call once, at the end."""
        frames = -(-self._samples.shape[1] // self._hop)
        if frames:
            missing = (frames - 1) * self._hop + self._window - self._samples.shape[1]
            self._add(np.pad(self._samples, ((0, 0), (0, max(0, missing)))))
        return self._sum / self._count if self._count else math.nan

    def _add(self, samples: np.ndarray) -> None:
        """Compares all whole frames, and keeps the rest."""
        frames = max(0, (samples.shape[1] - self._window) // self._hop + 1)
        self._samples = samples[:, frames * self._hop:]
        if frames:
            windows = np.lib.stride_tricks.sliding_window_view(samples, self._window, axis=1)
            windows = windows[:, :(frames - 1) * self._hop + 1:self._hop]
            # A sine of amplitude 1 has a peak of half the window's sum.
            magnitude = np.abs(np.fft.rfft(windows * self._hann)) * (2 / self._hann.sum())
            log = np.log(np.maximum(magnitude, self._floor))
            self._sum += float(np.abs(log[0] - log[1]).sum())
            self._count += log[0].size


def log_mel_distance(codec: MelCodec, a: np.ndarray, b: np.ndarray) -> float:
    """Returns the mean |Δ log-mel| in nat of two signals [S] at the codec's rate."""
    distance = LogMelDistance(codec)
    distance.push(a, b)
    return distance.finish()


def fine_spectral_distance(a: np.ndarray, b: np.ndarray, sample_rate: float = 16000, *,
                           window: float = 0.016, hop: float = 0.004, floor: float = 1e-4) -> float:
    """Returns the mean |Δ log magnitude| in nat of two signals [S]; see `FineSpectralDistance`."""
    distance = FineSpectralDistance(sample_rate, window=window, hop=hop, floor=floor)
    distance.push(a, b)
    return distance.finish()


def check_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Raises UserError unless both are [S] with the same S, and finite."""
    a, b = check_mono(a), check_mono(b)
    if len(a) != len(b):
        raise UserError(f"signals of {len(a)} and {len(b)} samples cannot be compared; "
                        "cut them to the same length")


def attack_times(samples: np.ndarray, sample_rate: float, *, width: float = 0.005,
                 rise: float = 0.5, spacing: float = 0.03, quiet_db: float = -40.0
                 ) -> Float[np.ndarray, " N"]:
    """Returns the times of attacks, where the energy rises most steeply.

    The energy e(t) is the squared signal smoothed by a Gaussian. An attack is a
    local maximum of e'(t), computed at every sample and refined by a parabola. A
    step in level has it at the step; a click, `width` before it. Shifting the
    signal shifts the times by exactly as much.

    Args:
      samples: [S].
      sample_rate: Hz.
      width: seconds, standard deviation of the Gaussian; 5 ms does not see the
        beating of harmonics 80 Hz apart.
      rise: least √(2π) · width · e'/e; a step from energy B to B + S has
        S / (B + S / 2), so 0.5 is 2.2 dB, and 2 a start from silence.
      spacing: seconds; of attacks that are closer the steepest counts.
      quiet_db: attacks at a lower energy, relative to the highest, do not count.

    Returns:
      Seconds, ascending.
    """
    reach = math.ceil(5 * width * sample_rate)
    time = np.arange(-reach, reach + 1) / sample_rate
    gauss = np.exp(-0.5 * np.square(time / width))
    gauss /= gauss.sum()
    power = np.square(np.pad(check_mono(samples).astype(np.float64), 2 * reach))
    energy = scipy.signal.oaconvolve(power, gauss, mode="same")
    slope = scipy.signal.oaconvolve(power, -time / width**2 * gauss, mode="same")
    highest = energy.max()
    if highest <= 0:
        return np.zeros(0)
    enough = (energy >= 10 ** (quiet_db / 10) * highest) & (
        math.sqrt(2 * math.pi) * width * slope >= rise * energy)
    size = 2 * round(spacing * sample_rate) + 1
    at = np.flatnonzero(enough & (slope == scipy.ndimage.maximum_filter1d(slope, size)))
    before, here, after = slope[at - 1], slope[at], slope[at + 1]
    curve = before - 2 * here + after
    shift = np.where(curve < 0, 0.5 * (before - after) / np.where(curve < 0, curve, -1), 0)
    return (at + shift - 2 * reach) / sample_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackOffsets:
    """Offsets of the attacks of a signal from those of a reference."""

    attacks: int  # of the reference
    matched: float  # share of them that have one of the signal's (0..1); NaN without attacks
    extra: int  # attacks of the signal without one of the reference
    # Of the matched ones, positive where the signal is late; NaN without any.
    mean_ms: float
    median_abs_ms: float
    p95_abs_ms: float
    max_abs_ms: float


def match_attacks(reference: Float[np.ndarray, " N"], times: Float[np.ndarray, " M"],
                  tolerance: float) -> Float[np.ndarray, " K"]:
    """Returns offsets (times - reference) of attacks that are each other's nearest, and near enough.

    Args:
      reference, times: seconds, ascending.
      tolerance: seconds, the greatest offset.
    """
    if not len(reference) or not len(times):
        return np.zeros(0)
    there, back = _nearest(times, reference), _nearest(reference, times)
    mutual = back[there] == np.arange(len(reference))
    offsets = times[there[mutual]] - reference[mutual]
    return offsets[np.abs(offsets) <= tolerance]


def _nearest(values: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Returns for each query the index of the nearest of the ascending values."""
    right = np.searchsorted(values, queries).clip(1, max(1, len(values) - 1))
    left = right - 1
    right = np.minimum(right, len(values) - 1)
    return np.where(queries - values[left] <= values[right] - queries, left, right)


def attack_offsets(reference: np.ndarray, signal: np.ndarray, sample_rate: float, *,
                   tolerance: float = 0.05) -> AttackOffsets:
    """Compares the attacks of two signals [S] (`attack_times`), matched within `tolerance` seconds."""
    check_pair(reference, signal)
    expected, found = attack_times(reference, sample_rate), attack_times(signal, sample_rate)
    offsets = 1000 * match_attacks(expected, found, tolerance)
    size = np.abs(offsets) if len(offsets) else np.array([math.nan])
    return AttackOffsets(
        attacks=len(expected), matched=len(offsets) / len(expected) if len(expected) else math.nan,
        extra=len(found) - len(offsets), mean_ms=float(offsets.mean()) if len(offsets) else math.nan,
        median_abs_ms=float(np.median(size)), p95_abs_ms=float(np.percentile(size, 95)),
        max_abs_ms=float(size.max()))
