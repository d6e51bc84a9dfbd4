"""Recorded notes: where they begin, at another pitch, and longer than they were recorded.

A sample is made longer by its loop: that of its file (the chunk `smpl` of a WAV, or loop points of an
SFZ), else a stretch that is found in its steady part, whose end is faded into its beginning. Loops are
unrolled at the file's rate, and what comes of it is resampled once (soxr), to pitch and rate at once.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import multiprocessing
import struct
import warnings

import numpy as np
import scipy.ndimage
import scipy.signal
import soundfile
import soxr
from jaxtyping import Float

from music_diffusion.audio.io import read_audio

LEAD = 0.01  # seconds before the onset that are kept, faded in
END_FADE = 0.05  # seconds over which a file's end is faded out
ONSET = 0.05  # share of the largest amplitude with which a note begins
WINDOW = 0.03  # seconds that must be alike at both ends of a loop: a period of 33 Hz
CROSSFADE = 0.1  # seconds at most
LOOP_ENDS = 12  # places that are tried


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vibrato:
    """A periodic change of pitch that sets in some time after the onset."""

    cents: float = 20.0  # up and down
    hertz: float = 5.5
    delay: float = 0.25  # seconds without it, and then as long to its full depth


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """A recorded note in an audio file."""

    path: str
    onset: float  # seconds of the file where the note begins
    begin: int = 0  # first sample of the file that may be heard
    end: int | None = None  # sample of the file where it ends; None: at its end
    loop: tuple[int, int] | None = None  # first and last sample that repeat
    sustained: bool = False  # without a loop, one is found when the note must be longer

    def played(self, seconds: float, semitones: float, sample_rate: int, vibrato: Vibrato | None = None
               ) -> tuple[Float[np.ndarray, "S"], int]:
        """Plays the note.

        Args:
          seconds: after the onset, at least, that a loop gives; without one the file's end may come first.
          semitones: up from the pitch of the file.
          sample_rate: Hz.
          vibrato: None: as recorded.

        Returns read-only samples, and the index among them where the note begins.

        Raises UserError: the file cannot be read.
        """
        have = _seconds(self.path) / 2 ** (semitones / 12)
        if seconds + self.onset + END_FADE <= have or not (self.sustained or self.loop):
            seconds = 0.0  # the file is enough, or all that there is
        else:
            seconds = 2.0 ** math.ceil(math.log2(seconds))  # so that few lengths are kept
        return _played(self, seconds, round(semitones, 4), sample_rate, vibrato)


@functools.lru_cache(maxsize=32)  # 1.5 MB each for 8 s at 48 kHz
def recording(path: str) -> tuple[Float[np.ndarray, "S"], int]:
    """Reads a file, its channels mixed to one: samples (read-only) and rate. Raises UserError."""
    wave = read_audio(path).mono()
    wave.samples.setflags(write=False)
    return wave.samples, wave.sample_rate


def warn(text: str) -> None:
    """Warns of what is left out, but not in processes that read the same again for another one."""
    if multiprocessing.parent_process() is None:
        warnings.warn(text, stacklevel=3)


@functools.lru_cache(maxsize=8192)
def _seconds(path: str) -> float:
    samples, rate = recording(path)
    return len(samples) / rate


def measure(path: str, begin: int = 0) -> tuple[float, float]:
    """Returns the onset (seconds of the file) and the largest amplitude of what follows `begin`."""
    samples, rate = recording(path)
    size = np.abs(samples[begin:])
    peak = float(size.max(initial=0.0))
    if peak == 0:
        return begin / rate, 0.0
    first = int(np.argmax(size > ONSET * peak))
    return (begin + first) / rate, peak


def loop_of_wav(path: str) -> tuple[int, int] | None:
    """Returns first and last sample of the forward loop in a WAV's chunk `smpl`; None without one."""
    with open(path, "rb") as f:
        head = f.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        while len(chunk := f.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"smpl":
                return _loop_of_chunk(path, f.read(size))
            f.seek(size + size % 2, 1)
    return None


def _loop_of_chunk(path: str, data: bytes) -> tuple[int, int] | None:
    count = struct.unpack_from("<I", data, 28)[0] if len(data) >= 36 else 0
    if not count or len(data) < 60:
        return None
    kind, first, last = struct.unpack_from("<III", data, 40)
    if kind != 0:
        warn(f"{path}: its loop goes backwards; it is not used")
        return None
    if not first < last < soundfile.info(path).frames:
        warn(f"{path}: its loop from {first} to {last} is not within the file; it is not used")
        return None
    return first, last


@functools.lru_cache(maxsize=256)  # 0.5 MB each for 8 s at 16 kHz
def _played(sample: Sample, seconds: float, semitones: float, sample_rate: int, vibrato: Vibrato | None
            ) -> tuple[np.ndarray, int]:
    whole, rate = recording(sample.path)
    speed = rate * 2 ** (semitones / 12) / sample_rate  # samples of the file for one of the result
    onset = min(round(sample.onset * rate), max(len(whole) - 1, 0))
    at = math.ceil(LEAD * sample_rate)  # in the result, where a sample of the file lies
    lead = round(at * speed)
    first = max(onset - lead, min(sample.begin, onset))
    lead_in = whole[first:onset] * _rise(onset - first)
    source = _unrolled(sample, whole, onset, rate, round(seconds * rate * 2 ** (semitones / 12)))
    source = np.concatenate([np.zeros(lead - len(lead_in), np.float32), lead_in, source])
    if vibrato is not None:
        source = _with_vibrato(source, lead, rate, vibrato, 2 ** (semitones / 12))
    result = soxr.resample(source, rate * 2 ** (semitones / 12), sample_rate, quality="HQ")
    result.setflags(write=False)
    return result, at


def _unrolled(sample: Sample, whole: np.ndarray, onset: int, rate: int, length: int) -> np.ndarray:
    """Returns the samples from the onset on: so many or more with a loop, else those of the file."""
    end = len(whole) if sample.end is None else min(sample.end, len(whole))
    body = whole[onset:end]
    if sample.loop is not None:
        first, last = sample.loop
        if 0 <= first < last < end and onset <= last:
            # Of a loop that begins before the onset the first round is what follows the onset.
            before = whole[onset:first] if onset <= first else whole[onset:last + 1]
            return repeated(before, whole[first:last + 1], length)
    if sample.sustained and length > len(body) - round(END_FADE * rate):
        start, stretch = find_loop(body, rate)
        if len(stretch):
            return repeated(body[:start], stretch, length)
    fade = min(round(END_FADE * rate), len(body) // 4)
    return np.concatenate([body[:len(body) - fade], body[len(body) - fade:] * _rise(fade)[::-1]])


def repeated(before: Float[np.ndarray, "A"], stretch: Float[np.ndarray, "B"], length: int
             ) -> Float[np.ndarray, "S"]:
    """Returns `before` and the stretch as often as it takes for `length` samples; once at least."""
    times = max(1, math.ceil((length - len(before)) / len(stretch)))
    return np.concatenate([before, np.tile(stretch, times)])


def find_loop(samples: Float[np.ndarray, "S"], rate: int) -> tuple[int, Float[np.ndarray, "L"]]:
    """Finds a stretch of a sustained note that can be repeated without a seam.

    Both ends are places of its steady part where WINDOW seconds are most alike (normalised
    cross-correlation). The stretch is brought to the level of its beginning by an even ramp, and its end
    is faded into what comes before its beginning, with constant power for that correlation.

    Args:
      samples: from the onset on.
      rate: Hz.

    Returns where it begins, and its samples; none where the note is too short for one.
    """
    low, high = _steady(samples, rate)
    window = min(round(WINDOW * rate), (high - low) // 4)
    if window < 16:
        return 0, samples[:0]
    begin, end, alike = _alike(samples.astype(np.float64), low, high, window)
    fade = min(round(CROSSFADE * rate), (end - begin) // 2, begin)
    level = [np.sqrt(np.mean(np.square(samples[max(0, x - 2 * window):x], dtype=np.float64)))
             for x in (begin, end)]
    ratio = min(max(level[0] / max(level[1], 1e-9), 0.25), 4.0)
    stretch = samples[begin:end] * ratio ** (np.arange(end - begin) / (end - begin))
    angle = 0.5 * np.pi * (np.arange(fade) + 0.5) / fade
    out, into = np.cos(angle), np.sin(angle)
    power = np.sqrt(1 + 2 * out * into * min(max(alike, 0.0), 1.0))
    stretch[len(stretch) - fade:] = (
        out * stretch[len(stretch) - fade:] + into * samples[begin - fade:begin]) / power
    return begin, stretch.astype(np.float32)


def _steady(samples: np.ndarray, rate: int) -> tuple[int, int]:
    """Returns the bounds of a note's steady part: after its attack, before it dies away."""
    frame = max(1, round(0.02 * rate))
    count = len(samples) // frame
    if count < 4:
        return 0, 0
    level = np.sqrt(np.mean(np.square(samples[:count * frame], dtype=np.float64).reshape(count, frame), 1))
    lasting = np.flatnonzero(level > 0.5 * np.quantile(level, 0.9))  # 6 dB below: the player has stopped
    high = (lasting[-1] if len(lasting) else count) * frame
    return min(round(0.3 * rate), round(0.3 * high)), high


def _alike(samples: np.ndarray, low: int, high: int, window: int) -> tuple[int, int, float]:
    """Returns the pair of places whose windows before them are most alike, and their correlation."""
    best = (low + window, high, -1.0, -2.0)
    for end in np.linspace(high - (high - low) // 4, high, LOOP_ENDS).astype(int):
        last = end - max(2 * window, (high - low) // 4)  # no shorter loops
        field, template = samples[low:last], samples[end - window:end]
        if len(field) < window:
            continue
        product = scipy.signal.correlate(field, template, "valid", "fft")
        power = np.diff(np.cumsum(np.append(0.0, np.square(field)))[
            np.add.outer([0, window], np.arange(len(product)))], axis=0)[0]
        alike = product / np.sqrt(np.maximum(power, 1e-12) * max(np.sum(np.square(template)), 1e-12))
        # Of places that are about as good the earliest, for a long loop.
        begin = low + window + np.arange(len(alike))
        score = alike + 0.02 * (end - begin) / (high - low)
        i = int(np.argmax(score))
        if score[i] > best[3]:
            best = int(begin[i]), int(end), float(alike[i]), float(score[i])
    return best[:3]


def _with_vibrato(source: np.ndarray, onset: int, rate: int, vibrato: Vibrato, speed: float) -> np.ndarray:
    """Warps the time of a sample, by cubic splines at the file's rate."""
    time = (np.arange(len(source)) - onset) / (rate * speed)  # seconds, as they are heard
    depth = np.clip((time - vibrato.delay) / max(vibrato.delay, 1e-3), 0.0, 1.0)
    # Pitch is the speed of reading: the integral of 2^(cents / 1200) - 1, for small cents.
    swing = 2 ** (vibrato.cents * depth * np.sin(2 * np.pi * vibrato.hertz * (time - vibrato.delay)) / 1200)
    place = np.arange(len(source)) + np.cumsum(swing - 1)
    return scipy.ndimage.map_coordinates(source, [place], order=3, mode="nearest").astype(np.float32)


def _rise(length: int) -> np.ndarray:
    """Returns a raised cosine from 0 up to 1."""
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))).astype(np.float32)
