"""Synthetic recording conditions: rooms and tone controls as impulse responses (NumPy).

Both are causal and keep the direct sound at sample 0, so that attacks stay where
they are. `convolve` applies them; `in_turn` makes one response of several.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np
import scipy.fft
from jaxtyping import Float

from music_diffusion.errors import UserError

EARLY_SECONDS = 0.06  # within which the early reflections arrive after the first one
DAMPED_FROM = 1000.0  # Hz, above which sound decays sooner
SIXTY_DB = math.log(1000.0)  # nat of amplitude


def convolve(samples: Float[np.ndarray, "S"], response: Float[np.ndarray, "N"]
             ) -> Float[np.ndarray, "S"]:
    """Returns the first S samples of the linear convolution, float32.

    In blocks of some times the response's length (overlap-add), which stay in a processor's
    cache, and in single precision: its error, 3e-7 of the peak, is that of float32 samples.
    """
    size = scipy.fft.next_fast_len(max(4 * len(response), 8192), real=True)
    step = size - len(response) + 1
    blocks = -(-len(samples) // step)
    parts = np.zeros((blocks, step), np.float32)
    parts.reshape(-1)[:len(samples)] = samples
    spectrum = scipy.fft.rfft(parts, size) * scipy.fft.rfft(response.astype(np.float32), size)
    heard = np.zeros(blocks * step + size, np.float32)
    for i, part in enumerate(scipy.fft.irfft(spectrum, size)):
        heard[i * step:i * step + size] += part
    return heard[:len(samples)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    """A room as a direct sound, a few early reflections and a decaying tail of noise.

    The tail is Gaussian noise under an exponential envelope (Moorer 1979, "About
    this reverberation business"), here with the decay time a function of frequency:
    RT60(f) = rt60 (1 kHz / f)^damping above 1 kHz, and rt60 below it.
    """

    rt60: float = 0.6  # seconds until the tail has lost 60 dB, up to 1 kHz
    pre_delay: float = 0.01  # seconds from the direct sound to the first reflection
    wet_db: float | None = -10.0  # energy of all but the direct sound, relative to it; None: dry
    damping: float = 0.4  # how fast RT60 falls with frequency, 0: not at all
    reflections: int = 6  # early ones
    early: float = 0.2  # their share of the wet energy, 0..1
    seed: int = 0  # of reflections and noise

    def __post_init__(self):
        if not (self.rt60 > 0 and self.pre_delay > 0 and self.damping >= 0):
            raise UserError(f"a room needs {self.rt60=} > 0, {self.pre_delay=} > 0 and "
                            f"{self.damping=} >= 0")
        if not (self.reflections >= 1 and 0 <= self.early < 1):
            raise UserError(f"a room needs {self.reflections=} >= 1 and {self.early=} in 0..1")

    def impulse_response(self, sample_rate: int) -> Float[np.ndarray, "N"]:
        """Returns the response from the direct sound (1 at sample 0) to the tail at -60 dB; float32."""
        if self.wet_db is None:
            return np.ones(1, np.float32)
        rng = np.random.default_rng(self.seed)
        first = max(1, round(self.pre_delay * sample_rate))  # the wet part never moves the attack
        tail = self._tail(sample_rate, rng)
        early = self._early(sample_rate, len(tail), rng)
        wet = np.sqrt(self.early) * _unit(early) + np.sqrt(1 - self.early) * _unit(tail)
        response = np.zeros(first + len(wet), np.float32)
        response[0] = 1.0
        response[first:] = 10 ** (self.wet_db / 20) * _unit(wet)
        return response

    def __call__(self, samples: Float[np.ndarray, "S"], sample_rate: int
                 ) -> Float[np.ndarray, "S"]:
        """Returns the samples as heard in the room; as they are where it is dry."""
        if self.wet_db is None:
            return samples
        return convolve(samples, self.impulse_response(sample_rate))

    def _tail(self, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
        """Returns white noise whose octaves decay each at its rate; the octaves sum to the whole."""
        length = max(2, round(self.rt60 * sample_rate))
        time = np.arange(length) / sample_rate
        spectrum = np.fft.rfft(rng.normal(size=length))
        hertz = np.fft.rfftfreq(length, 1 / sample_rate)
        octave = np.log2(np.maximum(hertz, DAMPED_FROM) / DAMPED_FROM)  # above DAMPED_FROM
        tail = np.zeros(length)
        for band in range(math.ceil(octave[-1]) + 1):
            share = np.maximum(0.0, 1 - np.abs(octave - band))  # triangles that sum to 1
            decay = SIXTY_DB / self.rt60 * 2 ** (band * self.damping)
            tail += np.fft.irfft(share * spectrum, length) * np.exp(-decay * time)
        return tail

    def _early(self, sample_rate: int, length: int, rng: np.random.Generator) -> np.ndarray:
        """Returns single echoes: one at once, the others within EARLY_SECONDS, weaker with time."""
        delay = np.append(0.0, rng.uniform(0, EARLY_SECONDS, self.reflections - 1))
        at = np.minimum(np.round(delay * sample_rate).astype(int), length - 1)
        echoes = np.zeros(length)
        sign = rng.choice([-1.0, 1.0], self.reflections)
        np.add.at(echoes, at, sign * np.exp(-SIXTY_DB * delay / self.rt60))
        return echoes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shelf:
    """A tone control: one gain below a frequency, another above it, 6 dB an octave between.

    The first-order shelf H(s) = (low + high s) / (1 + s), s = j f / hertz, by the
    bilinear transform with prewarping; minimum phase.
    """

    hertz: float = 1000.0  # where the two meet
    low_db: float = 0.0  # gain far below
    high_db: float = 0.0  # gain far above

    def impulse_response(self, sample_rate: int) -> Float[np.ndarray, "N"]:
        """Returns the response until it has decayed by 120 dB; float32."""
        if not 0 < self.hertz < sample_rate / 2:
            raise UserError(f"a shelf at {self.hertz} Hz needs a sample rate above "
                            f"{2 * self.hertz} Hz, and not {sample_rate}")
        low, high = 10 ** (self.low_db / 20), 10 ** (self.high_db / 20)
        w = math.tan(math.pi * self.hertz / sample_rate)
        b0, b1, pole = (high + low * w) / (1 + w), (low * w - high) / (1 + w), (1 - w) / (1 + w)
        length = 2 + math.ceil(2 * SIXTY_DB / -math.log(max(abs(pole), 1e-9)))
        # h[0] = b0 and h[n] = (b1 + pole b0) pole^(n-1) of y[n] = b0 x[n] + b1 x[n-1] + pole y[n-1]
        tail = (b1 + pole * b0) * pole ** np.arange(length - 1)
        return np.append(b0, tail).astype(np.float32)

    def __call__(self, samples: Float[np.ndarray, "S"], sample_rate: int
                 ) -> Float[np.ndarray, "S"]:
        """Returns the filtered samples."""
        return convolve(samples, self.impulse_response(sample_rate))


class Effect(Protocol):
    """Sound on its way to the listener, as a linear filter: a room, recorded or not, or a shelf."""

    def impulse_response(self, sample_rate: int) -> Float[np.ndarray, "N"]:
        """Returns its response from the direct sound at sample 0 on."""
        ...


def in_turn(effects: Iterable[Effect], sample_rate: int) -> Float[np.ndarray, "N"]:
    """Returns the impulse response of effects one after another, so that one convolution applies all."""
    whole = np.ones(1, np.float32)
    for effect in effects:
        response = effect.impulse_response(sample_rate)
        whole = convolve(np.pad(whole, (0, len(response) - 1)), response)
    return whole


def draw_room(rng: np.random.Generator) -> Room:
    """Draws a room, from a dry booth to a hall."""
    return Room(
        rt60=float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))),
        pre_delay=float(rng.uniform(0.001, 0.03)), wet_db=float(rng.uniform(-18.0, -2.0)),
        damping=float(rng.uniform(0.1, 0.6)), reflections=int(rng.integers(3, 13)),
        early=float(rng.uniform(0.1, 0.5)), seed=int(rng.integers(1 << 31)))


def draw_shelf(rng: np.random.Generator) -> Shelf:
    """Draws a tilt of up to 8 dB around a frequency that tone controls have."""
    tilt = rng.uniform(-8.0, 8.0)
    return Shelf(hertz=float(np.exp(rng.uniform(np.log(250.0), np.log(3000.0)))),
                 low_db=float(-tilt / 2), high_db=float(tilt / 2))


def _unit(x: np.ndarray) -> np.ndarray:
    """Returns a response scaled to energy 1."""
    return x / np.sqrt(np.sum(np.square(x)))
