"""Loudness normalisation in flat memory: meter, true-peak limiter, and the two on a file.

ITU-R BS.1770-4: integrated loudness with gating (annex 1), true peak by
oversampling (annex 2).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import scipy.ndimage
import scipy.signal

from music_diffusion.audio.io import BLOCK, AudioReader, AudioWriter
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError

ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU below the mean of what passes the absolute gate
OFFSET = -0.691  # dB, so that a 997 Hz sine at 0 dBFS in one channel is at -3.01 LUFS
CHANNEL_GAINS = (1.0, 1.0, 1.0, 1.41, 1.41)  # left, right, centre, surrounds
STEPS_PER_BLOCK = 4  # 400 ms blocks, every 100 ms
BIN = 0.01  # LU, resolution of the gate
BINS = 12000  # from the absolute gate up to +50 LUFS
OVERSAMPLING = 8  # about 0.1 dB of error at 0.45 of the sample rate; the standard asks for 4
TAPS = 96  # input samples under one interpolated one
SAFETY = 0.2  # dB kept below the ceiling for what the meter misses near half the sample rate


def k_weighting(sample_rate: float) -> np.ndarray:
    """The two stages of BS.1770's pre-filter as second-order sections [2, 6].

    A high shelf (+4 dB, 1500 Hz, Q 0.707) and a high pass (38 Hz, Q 0.5) by
    R. Bristow-Johnson's "Cookbook formulae for audio EQ biquad filters"; at
    48 kHz within 0.05 dB of the standard's table.
    """
    def angle(hertz, q):
        w = 2 * math.pi * hertz / sample_rate
        return math.cos(w), math.sin(w) / (2 * q)

    gain = 10 ** (4.0 / 40)
    cos, alpha = angle(1500.0, math.sqrt(0.5))
    root = 2 * math.sqrt(gain) * alpha
    shelf = [gain * ((gain + 1) + (gain - 1) * cos + root),
             -2 * gain * ((gain - 1) + (gain + 1) * cos),
             gain * ((gain + 1) + (gain - 1) * cos - root),
             (gain + 1) - (gain - 1) * cos + root,
             2 * ((gain - 1) - (gain + 1) * cos),
             (gain + 1) - (gain - 1) * cos - root]
    cos, alpha = angle(38.0, 0.5)
    high_pass = [(1 + cos) / 2, -(1 + cos), (1 + cos) / 2, 1 + alpha, -2 * cos, 1 - alpha]
    return np.array([np.array(s) / s[3] for s in (shelf, high_pass)])


class LoudnessMeter:
    """Integrated loudness of a stream.

    The loudness of the gating blocks is kept as a histogram with exact energy
    sums, so only the place of the gate is rounded (to 0.01 LU).
    """

    def __init__(self, sample_rate: int, channels: int = 1):
        if not 1 <= channels <= len(CHANNEL_GAINS):
            raise UserError(f"loudness of {channels} channels is not defined; use 1 to 5")
        self._channels = channels
        self._sections = k_weighting(sample_rate)
        self._state = np.zeros((2, 2, channels))
        self._step = round(0.1 * sample_rate)  # samples
        self._rest = np.zeros(0)  # weighted squares that do not fill a step yet
        self._steps = np.zeros(0)  # mean squares of the last 3 steps
        self._count = np.zeros(BINS)
        self._energy = np.zeros(BINS)
        self._short = (0.0, 0)  # energy and samples of all, for audio shorter than a block
        self._blocks = 0

    def push(self, samples: np.ndarray) -> None:
        """Takes [n] (mono) or [n, channels], finite."""
        samples = _two_dimensional(samples, self._channels).astype(np.float64)
        weighted, self._state = scipy.signal.sosfilt(self._sections, samples, 0, self._state)
        power = np.square(weighted) @ np.array(CHANNEL_GAINS[:self._channels])
        self._short = (self._short[0] + power.sum(), self._short[1] + len(power))
        power = np.concatenate([self._rest, power])
        whole = len(power) // self._step
        means = power[:whole * self._step].reshape(whole, self._step).mean(axis=1)
        self._rest = power[whole * self._step:]
        steps = np.concatenate([self._steps, means])
        self._steps = steps[-(STEPS_PER_BLOCK - 1):]
        if len(steps) >= STEPS_PER_BLOCK:
            windows = np.lib.stride_tricks.sliding_window_view(steps, STEPS_PER_BLOCK)
            self._add(windows.mean(axis=1))

    def _add(self, energy: np.ndarray) -> None:
        self._blocks += len(energy)
        energy = energy[energy > _energy(ABSOLUTE_GATE)]
        at = ((_loudness(energy) - ABSOLUTE_GATE) / BIN).astype(int).clip(0, BINS - 1)
        np.add.at(self._count, at, 1)
        np.add.at(self._energy, at, energy)

    @property
    def integrated(self) -> float:
        """LUFS so far; -inf where all is below -70. Below 400 ms it is ungated."""
        if not self._blocks:
            energy, samples = self._short
            value = float(_loudness(energy / samples)) if energy else -math.inf
            return value if value > ABSOLUTE_GATE else -math.inf
        if not self._count.any():
            return -math.inf
        gate = _loudness(self._energy.sum() / self._count.sum()) + RELATIVE_GATE
        first = max(0, round((gate - ABSOLUTE_GATE) / BIN))
        return float(_loudness(self._energy[first:].sum() / self._count[first:].sum()))


def _energy(loudness: float) -> float:
    return 10 ** ((loudness - OFFSET) / 10)


def _loudness(energy):
    return OFFSET + 10 * np.log10(energy)


def _two_dimensional(samples: np.ndarray, channels: int) -> np.ndarray:
    samples = np.asarray(samples)
    samples = samples[:, None] if samples.ndim == 1 else samples
    if samples.ndim != 2 or samples.shape[1] != channels:
        raise ValueError(f"{samples.shape=} should be [n, {channels}]")
    return samples


class TruePeakMeter:
    """Peaks of the band-limited signal between its samples, by a windowed sinc."""

    def __init__(self, channels: int = 1):
        self._channels = channels
        self._history = np.zeros((TAPS - 1, channels))
        # Row j: the value at sample (TAPS/2 - 1) + j / OVERSAMPLING of the window.
        offset = np.arange(OVERSAMPLING)[:, None] / OVERSAMPLING
        distance = np.arange(TAPS)[None] - (TAPS // 2 - 1) - offset
        window = np.i0(6.0 * np.sqrt(np.maximum(0, 1 - (distance / (TAPS / 2)) ** 2))) / np.i0(6.0)
        kernel = np.sinc(distance) * window
        self._kernel = kernel / kernel.sum(axis=1, keepdims=True)
        self.peak = 0.0  # highest amplitude so far

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes [n] or [n, channels]; returns [n] amplitudes, delayed by TAPS / 2.

        Element i is the highest magnitude, over channels, in the interval from
        input sample i - TAPS / 2 to the next one.
        """
        samples = _two_dimensional(samples, self._channels).astype(np.float64)
        if not len(samples):
            return np.zeros(0)
        padded = np.concatenate([self._history, samples])
        self._history = padded[-(TAPS - 1):]
        windows = np.lib.stride_tricks.sliding_window_view(padded, TAPS, axis=0)  # [n, C, TAPS]
        peaks = np.abs(windows @ self._kernel.T).max(axis=(1, 2))
        self.peak = max(self.peak, float(peaks.max()))
        return peaks

    def finish(self) -> np.ndarray:
        """The last TAPS / 2 amplitudes."""
        return self.push(np.zeros((TAPS // 2, self._channels)))


class TruePeakLimiter:
    """Turns the gain down smoothly before a peak, and slowly up after it.

    The gain that each sample needs is minimised over the look-ahead, released
    at a constant rate in dB, and averaged over the look-ahead: an average of
    values none of which is above what its sample needs. Channels share it.
    """

    def __init__(self, sample_rate: int, channels: int = 1, *, ceiling_dbtp: float = -1.0,
                 lookahead: float = 0.005, release: float = 60.0):
        """lookahead: seconds; release: dB a second."""
        self._channels = channels
        self._ceiling = ceiling_dbtp - SAFETY
        self._span = max(2, round(lookahead * sample_rate))  # samples
        self._rise = release / sample_rate  # dB a sample
        window = np.hanning(self._span + 2)[1:-1]
        self._smooth = window / window.sum()
        self._meter = TruePeakMeter(channels)
        self._need = np.zeros(0)  # dB, of the intervals whose look-ahead is not complete
        self._gain: np.ndarray = np.zeros(self._span - 1)  # dB, released gains of the past
        self._last = 0.0  # dB, the latest of them
        # The gain must be down already when the first sample is a peak: the audio
        # is taken to come after silence, which does not come out again. The meter's
        # peak i lies before sample i - (TAPS / 2 - 1).
        self._samples = np.zeros((TAPS // 2 - 1, channels), np.float32)  # still without gain
        self._drop = TAPS // 2 - 1 + self._span  # samples of silence still to come out
        self._left = 0  # samples that went in and are not out
        self._take(np.zeros((self._span, channels), np.float32))

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes [n] (mono) or [n, channels]; returns the samples that are ready, likewise."""
        samples = _two_dimensional(samples, self._channels).astype(np.float32)
        self._left += len(samples)
        return self._take(samples)

    def finish(self) -> np.ndarray:
        """The remaining samples: all parts together are as long as the input."""
        return self._take(np.zeros((self._span + TAPS, self._channels), np.float32))

    def _take(self, samples: np.ndarray) -> np.ndarray:
        self._samples = np.concatenate([self._samples, samples])
        gain = self._gains(np.maximum(self._meter.push(samples), 1e-9))
        factor = (10 ** (gain / 20)).astype(np.float32)[:, None]
        out, self._samples = self._samples[:len(gain)] * factor, self._samples[len(gain):]
        dropped = min(self._drop, len(out))
        out = out[dropped:dropped + self._left]
        self._drop -= dropped
        self._left -= len(out)
        return out[:, 0] if self._channels == 1 else out

    def _gains(self, peaks: np.ndarray) -> np.ndarray:
        """Gains in dB of the samples whose look-ahead is complete."""
        need = np.minimum(0, self._ceiling - 20 * np.log10(peaks))
        need = np.concatenate([self._need, need])
        width = self._span + 1  # a sample touches the intervals on both its sides
        ready = max(0, len(need) - width + 1)
        self._need = need[ready:]
        if not ready:
            return np.zeros(0)
        lowest = scipy.ndimage.minimum_filter1d(need, width, origin=-(width // 2))[:ready]
        # released[n] = min(lowest[n], released[n - 1] + rise), as a running minimum
        slope = self._rise * np.arange(1, ready + 1)
        released = slope + np.minimum.accumulate(np.minimum(lowest - slope, self._last))
        self._last = released[-1]
        released = np.concatenate([self._gain, released])
        self._gain = released[-(self._span - 1):]
        return np.convolve(released, self._smooth, mode="valid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalization:
    """Result of `normalize_file`."""

    source_lufs: float  # LUFS, -inf for silence
    lufs: float  # LUFS of the result
    gain_db: float  # dB before the limiter
    peak_dbtp: float  # dBTP of the result before it was encoded, -inf for silence


def normalize_file(source: str | os.PathLike, destination: str | os.PathLike, *,
                   target_lufs: float = -14.0, ceiling_dbtp: float = -1.0,
                   max_gain_db: float = 40.0, refinements: int = 4) -> Normalization:
    """Writes source to destination at a given loudness, block by block.

    Where the limiter takes loudness away, the gain is raised again (each
    refinement reads the source once more). Silence stays silence. MP3's own
    error comes on top of the ceiling.

    Args:
      source, destination: paths; they may be the same file.
      target_lufs: integrated loudness of the result.
      ceiling_dbtp: the result's true peak is at most this.
      max_gain_db: quieter sources stay below the target.
      refinements: how often the loudness after the limiter may be measured.
    """
    with AudioReader(source) as reader:
        rate, channels = reader.sample_rate, reader.channels
        loudness, gain = _loudness_and_gain(reader.blocks, rate, channels, target_lufs=target_lufs,
                                            ceiling_dbtp=ceiling_dbtp, max_gain_db=max_gain_db,
                                            refinements=refinements)
        meter, peaks = LoudnessMeter(rate, channels), TruePeakMeter(channels)
        with AudioWriter(destination, rate, channels) as writer:
            for block in _limited(reader.blocks(), rate, channels, gain, ceiling_dbtp):
                writer.write(block)
                meter.push(block)
                peaks.push(block)
        peaks.finish()
    peak = 20 * math.log10(peaks.peak) if peaks.peak else -math.inf
    return Normalization(source_lufs=loudness, lufs=meter.integrated, gain_db=gain, peak_dbtp=peak)


def normalize(wave: Waveform, *, target_lufs: float = -14.0, ceiling_dbtp: float = -1.0,
              max_gain_db: float = 40.0, refinements: int = 4) -> Waveform:
    """The same as `normalize_file`, in memory."""
    rate, channels = wave.sample_rate, wave.channels

    def blocks() -> Iterator[np.ndarray]:
        for at in range(0, len(wave), BLOCK):
            yield wave.samples[at:at + BLOCK]

    _, gain = _loudness_and_gain(blocks, rate, channels, target_lufs=target_lufs,
                                 ceiling_dbtp=ceiling_dbtp, max_gain_db=max_gain_db,
                                 refinements=refinements)
    parts = list(_limited(blocks(), rate, channels, gain, ceiling_dbtp))
    return Waveform(np.concatenate(parts), rate)


def _loudness_and_gain(blocks: Callable[[], Iterator[np.ndarray]], rate: int, channels: int, *,
                       target_lufs: float, ceiling_dbtp: float, max_gain_db: float,
                       refinements: int) -> tuple[float, float]:
    """LUFS of the source, and the gain in dB that reaches the target after the limiter."""
    meter = LoudnessMeter(rate, channels)
    for block in blocks():
        meter.push(block)
    loudness = meter.integrated
    if math.isinf(loudness):
        return loudness, 0.0
    gain = min(target_lufs - loudness, max_gain_db)
    for _ in range(refinements):
        meter = LoudnessMeter(rate, channels)
        for block in _limited(blocks(), rate, channels, gain, ceiling_dbtp):
            meter.push(block)
        missing = target_lufs - meter.integrated
        if missing < 0.05 or gain >= max_gain_db:
            break
        gain = min(gain + min(missing, 6.0), max_gain_db)
    return loudness, gain


def _limited(blocks: Iterable[np.ndarray], rate: int, channels: int, gain_db: float,
             ceiling_dbtp: float) -> Iterator[np.ndarray]:
    limiter = TruePeakLimiter(rate, channels, ceiling_dbtp=ceiling_dbtp)
    factor = np.float32(10 ** (gain_db / 20))
    for block in blocks:
        yield limiter.push(block * factor)
    yield limiter.finish()
