"""Reads a sound once as it is stored and once at one rate, in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator

import numpy as np
import scipy.fft
from jaxtyping import Float

from music_diffusion.audio.io import AudioReader
from music_diffusion.data.items import Sound, SoundFacts
from music_diffusion.data.sounds import AudioFile, EmbeddedAudio, Mixture, cut

RATE = 16000  # Hz, of what is examined
WHOLE_SECONDS = 600.0  # longer sounds are examined in parts
PART_SECONDS, PARTS = 30.0, 20  # length and number of those parts
QUIET = 1e-3  # -60 dBFS, of the root mean square of a frame
FRAME = RATE // 20  # samples of such a frame (50 ms)
SPECTRUM = 4096  # samples of a frame of the mean spectrum
COARSE_STEP, FINE_STEP = 2.0 ** -7, 2.0 ** -15  # from one value to the next, of 8 and of 16 bits
RUN = 3  # equal samples at an extreme that make a flat top
KEPT_FRAMES = 16  # of the mean spectrum, from each block: enough, and a small part of the time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """A stretch of a sound."""

    start: float  # seconds of the sound
    samples: np.ndarray  # [n] float32, one channel at RATE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signal:
    """Measures of the stored samples of one file, over all its channels."""

    name: str  # of the file
    sample_rate: int  # Hz
    channels: int
    samples: int  # of one channel
    peak: float  # highest amplitude
    flat_top: float  # amplitude of the flat tops, 0 where there are none
    flat_runs: int  # number of them
    flat_samples: int  # samples in them
    spectrum: np.ndarray  # [SPECTRUM / 2 + 1] mean level of the first channel's sounding frames, dB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hearing:
    """A sound as it is examined."""

    facts: SoundFacts
    seconds: float  # that were really read
    parts: tuple[Stretch, ...]  # all of it, or PARTS stretches spread over it
    signals: tuple[Signal, ...]  # of the files that it consists of

    @property
    def peak(self) -> float:
        return max((float(np.abs(p.samples).max(initial=0.0)) for p in self.parts), default=0.0)


    @property
    def audible(self) -> bool:
        """Returns whether any frame is louder than -60 dBFS."""
        return any((levels(p.samples) >= QUIET).any() for p in self.parts)


def levels(samples: Float[np.ndarray, " n"]) -> Float[np.ndarray, " frames"]:
    """Returns the root mean square of every frame of 50 ms."""
    whole = samples[:len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return np.sqrt(np.square(whole, dtype=np.float64).mean(axis=1))


def hear(sound: Sound, whole: float = WHOLE_SECONDS) -> Hearing:
    """Reads a sound twice from its start.

    Args:
      sound: any.
      whole: seconds up to which it is kept in whole.

    Raises:
      UserError: a file is missing, unreadable, or damaged further on.
    """
    facts = sound.facts()
    signals = tuple(measure(*stored) for stored in _stored(sound, facts))
    seconds, parts = listen(sound, facts, whole)
    return Hearing(facts=facts, seconds=seconds, parts=parts, signals=signals)


def listen(sound: Sound, facts: SoundFacts, whole: float = WHOLE_SECONDS
           ) -> tuple[float, tuple[Stretch, ...]]:
    """Returns how many seconds a sound lasts, and its stretches that are examined."""
    if facts.seconds <= whole:
        samples = np.concatenate([np.zeros(0, np.float32), *sound.blocks(RATE)])
        return len(samples) / RATE, (Stretch(start=0.0, samples=samples),)
    length = round(PART_SECONDS * RATE)
    starts = np.linspace(0, facts.seconds * RATE - length, PARTS).astype(int)
    kept = np.zeros((PARTS, length), np.float32)
    at = 0
    for block in sound.blocks(RATE):
        for row, start in zip(kept, starts, strict=True):
            first, last = max(at, start), min(at + len(block), start + length)
            if first < last:
                row[first - start:last - start] = block[first - at:last - at]
        at += len(block)
    # What the header promises and the file does not hold is no silence: it is not there.
    return at / RATE, tuple(Stretch(start=start / RATE, samples=row[:max(0, at - start)])
                            for row, start in zip(kept, starts, strict=True) if start < at)


def _stored(sound: Sound, facts: SoundFacts
            ) -> Iterator[tuple[str, int, int, Iterator[np.ndarray]]]:
    """Yields (name, rate, channels, blocks [n, channels]) of each file that a sound consists of."""
    if isinstance(sound, Mixture):
        for part in sound.parts:
            yield from _stored(part, part.facts())
    elif isinstance(sound, AudioFile | EmbeddedAudio):
        data = io.BytesIO(sound.load()) if isinstance(sound, EmbeddedAudio) else None
        name = f"{sound.path}: {sound.name}" if isinstance(sound, EmbeddedAudio) else sound.path
        with AudioReader(name, data) as reader:
            rate = reader.sample_rate
            yield name, rate, reader.channels, cut(reader.blocks(), rate, sound.start, sound.end)
    else:
        blocks = (block[:, None] for block in sound.blocks(facts.sample_rate))
        yield sound.files[0] if sound.files else "", facts.sample_rate, 1, blocks


def measure(name: str, sample_rate: int, channels: int, blocks: Iterator[np.ndarray]) -> Signal:
    """Measures the samples of a file, block by block."""
    samples, peak, frames = 0, 0.0, 0
    spectrum = np.zeros(SPECTRUM // 2 + 1)
    tops = _FlatTops()
    window = np.hanning(SPECTRUM).astype(np.float32)
    for block in blocks:
        samples += len(block)
        peak = max(peak, float(np.abs(block).max(initial=0.0)))
        tops.push(block)
        whole = block[:len(block) // SPECTRUM * SPECTRUM, 0].reshape(-1, SPECTRUM)[:KEPT_FRAMES]
        whole = whole[np.square(whole).mean(axis=1) > QUIET ** 2]
        power = np.square(np.abs(scipy.fft.rfft(whole * window, axis=1)))
        # In decibels: partials that sound for a while do not hide what is always there.
        spectrum += 10 * np.log10(power + 1e-16 * SPECTRUM).sum(axis=0)
        frames += len(whole)
    level, runs, flat = tops.result(peak)
    return Signal(name=name, sample_rate=sample_rate, channels=channels, samples=samples, peak=peak,
                  flat_top=level, flat_runs=runs, flat_samples=flat,
                  spectrum=spectrum / max(frames, 1))


class _FlatTops:
    """Runs of equal samples at the highest (or lowest) value of a channel.

    A loud low tone has such runs too where its top is rounded to whole steps; it leaves them by
    one step. A clipped wave leaves them by many.
    """

    EDGE = 6  # steps by which a run must be left, at one of its sides at least
    NEAR = 0.98  # of the highest so far: what is lower is no extreme

    def __init__(self):
        self._found: dict[tuple[int, float], list[int]] = {}  # (channel, value) → runs, samples
        self._step = COARSE_STEP

    def push(self, block: np.ndarray) -> None:
        if len(block) < RUN + 2:
            return
        difference = np.abs(np.diff(block, axis=0))
        if self._step == COARSE_STEP and (block % COARSE_STEP).any():
            self._step = FINE_STEP
        for channel in range(block.shape[1]):
            self._runs(channel, block[:, channel], difference[:, channel])
        highest = max((abs(value) for _, value in self._found), default=0.0)
        self._found = {k: v for k, v in self._found.items() if abs(k[1]) >= self.NEAR * highest}

    def _runs(self, channel: int, x: np.ndarray, difference: np.ndarray) -> None:
        edges = np.flatnonzero(difference)  # x[e] and x[e + 1] differ
        length = np.diff(edges)
        at = np.flatnonzero(length >= RUN)
        first, last = edges[at] + 1, edges[at + 1]
        left = np.maximum(difference[first - 1], difference[last]) > self.EDGE * self._step
        value = x[first]
        # The wave is nearer to zero on both sides.
        top = (np.abs(x[first - 1]) < np.abs(value)) & (np.abs(x[last + 1]) < np.abs(value))
        for v, n in zip(value[left & top].tolist(), length[at][left & top].tolist(), strict=True):
            count = self._found.setdefault((channel, v), [0, 0])
            count[0] += 1
            count[1] += n

    def result(self, peak: float) -> tuple[float, int, int]:
        """Returns (amplitude, runs, samples) of the flat tops within 2 % of the highest amplitude."""
        best: dict[tuple[int, bool], tuple[float, int, int]] = {}
        for (channel, value), (runs, samples) in self._found.items():
            if abs(value) >= self.NEAR * peak:
                side = channel, value > 0
                best[side] = max(best.get(side, (0.0, 0, 0)), (abs(value), runs, samples),
                                 key=lambda x: x[2])
        if not best:
            return 0.0, 0, 0
        found = list(best.values())
        return (max(f[0] for f in found), sum(f[1] for f in found), sum(f[2] for f in found))
