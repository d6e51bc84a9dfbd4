"""Degradations of recordings, for ears that are to hear through them (NumPy, SciPy, libsndfile).

Each is a frozen setting that is called with samples [S] and a rate, and returns as many samples, in time:
what a filter or a codec delays is taken back. `Chain` makes one of several, `draw_chain` draws one.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import scipy.fft
import scipy.signal
import soundfile
import soxr
from jaxtyping import Float

from music_diffusion.errors import UserError

Samples = Float[np.ndarray, "S"]
WHITE, PINK, HUM = "white", "pink", "hum"
HARMONICS = 12  # of hum
MP3, OPUS, VORBIS = "mp3", "opus", "vorbis"
# libsndfile's format and subtype, and the highest compression that its encoders take.
CODECS = {MP3: ("MP3", "MPEG_LAYER_III", 0.95), OPUS: ("OGG", "OPUS", 1.0), VORBIS: ("OGG", "VORBIS", 1.0)}
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # Hz


class Degradation(Protocol):
    """A change of a recording."""

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the changed samples [S], float32, in time with those given."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """A change of level."""

    db: float = -6.0

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the samples louder by so many dB."""
        return np.multiply(samples, np.float32(10 ** (self.db / 20)), dtype=np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicrophoneEQ:
    """A microphone's frequency response: gains at some frequencies, even between them on a log scale.

    The filter has linear phase and takes its own delay back.
    """

    hertz: tuple[float, ...] = (60.0, 200.0, 4000.0, 9000.0)  # rising
    db: tuple[float, ...] = (-12.0, 0.0, 3.0, -9.0)  # gain at each; beyond the ends as there
    taps: int = 1025  # odd; the resolution is sample_rate / taps

    def __post_init__(self):
        if len(self.hertz) != len(self.db) or not self.hertz or list(self.hertz) != sorted(set(self.hertz)):
            raise UserError(f"a microphone needs a gain for each of rising frequencies, not {self.db} dB "
                            f"at {self.hertz} Hz")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the filtered samples."""
        bins = np.fft.rfftfreq(8 * self.taps, 1 / sample_rate)
        db = np.interp(np.log(np.maximum(bins, 1.0)), np.log(self.hertz), self.db)
        response = np.fft.fftshift(np.fft.irfft(10 ** (db / 20), 8 * self.taps))
        middle = len(response) // 2
        half = self.taps // 2
        response = response[middle - half:middle + half + 1] * np.hanning(2 * half + 3)[1:-1]
        return scipy.signal.fftconvolve(samples, response)[half:half + len(samples)].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise:
    """Noise at a ratio of powers to the recording, over its whole length."""

    kind: str = PINK  # WHITE, PINK (power falls as 1 / f) or HUM (a mains frequency with harmonics)
    snr_db: float = 30.0
    mains: float = 50.0  # Hz, of hum: 50 or 60
    seed: int = 0

    def __post_init__(self):
        if self.kind not in (WHITE, PINK, HUM):
            raise UserError(f"noise of kind {self.kind!r}: choose {WHITE}, {PINK} or {HUM}")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the samples with noise; silence stays silent."""
        power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
        if not power:
            return samples.astype(np.float32)
        noise = self._noise(len(samples), sample_rate)
        scale = math.sqrt(power / float(np.mean(np.square(noise)))) * 10 ** (-self.snr_db / 20)
        return (samples + scale * noise).astype(np.float32)

    def _noise(self, length: int, sample_rate: int) -> np.ndarray:
        rng = np.random.default_rng(self.seed)
        if self.kind == HUM:
            time = np.arange(length) / sample_rate
            number = np.arange(1, HARMONICS + 1)
            number = number[number * self.mains < sample_rate / 2]
            gain = rng.uniform(0.3, 1.0, len(number)) / number
            phase = rng.uniform(0, 2 * np.pi, len(number))
            return np.sum([g * np.sin(2 * np.pi * n * self.mains * time + p)
                           for g, n, p in zip(gain, number, phase, strict=True)], axis=0)
        noise = rng.normal(size=length)
        if self.kind == WHITE:
            return noise
        hertz = scipy.fft.rfftfreq(length, 1 / sample_rate)
        return scipy.fft.irfft(scipy.fft.rfft(noise) / np.sqrt(np.maximum(hertz, 20.0)), length)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compressor:
    """Dynamic-range compression by the static curve of Giannoulis et al. (2012), equation 4, hard knee.

    The level is a peak detector in dB with an attack and a release time; so gain moves without clicks.
    """

    threshold_db: float = -24.0  # dBFS
    ratio: float = 4.0  # dB in for a dB out, above the threshold
    attack: float = 0.005  # seconds
    release: float = 0.12  # seconds
    makeup_db: float = 0.0

    def __post_init__(self):
        if not (self.ratio >= 1 and self.attack > 0 and self.release > 0):
            raise UserError(f"a compressor needs {self.ratio=} from 1, {self.attack=} and {self.release=} "
                            "above 0")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the compressed samples."""
        step = max(1, round(0.001 * sample_rate))  # the detector sees one peak a millisecond
        count = -(-len(samples) // step)
        peaks = np.zeros(count * step)
        peaks[:len(samples)] = np.abs(samples)
        level = 20 * np.log10(np.maximum(peaks.reshape(count, step).max(1), 1e-6))
        over = np.maximum(level - self.threshold_db, 0.0)
        wanted = (over * (1 - 1 / self.ratio)).tolist()  # dB of reduction
        up, down = (math.exp(-step / (seconds * sample_rate)) for seconds in (self.attack, self.release))
        reduction, now = np.zeros(count), 0.0
        for i, want in enumerate(wanted):
            keep = up if want > now else down
            now = keep * now + (1 - keep) * want
            reduction[i] = now
        gain = np.interp(np.arange(len(samples)) / step, np.arange(count) + 0.5, reduction) \
            if count else np.zeros(0)
        return (samples * 10 ** ((self.makeup_db - gain) / 20)).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clipping:
    """Hard clipping: so many dB of the peak are cut off, and the rest keeps its level."""

    over_db: float = 6.0

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the clipped samples."""
        limit = float(np.abs(samples).max(initial=0.0)) * 10 ** (-self.over_db / 20)
        return np.clip(samples, -limit, limit).astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BandLimit:
    """A recording that once had a lower sample rate: soxr down and up again, in time."""

    rate: int = 8000  # Hz

    def __post_init__(self):
        if not self.rate > 0:
            raise UserError(f"a band limit needs {self.rate=} above 0")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the samples without what a lower rate does not hold; as they are where it is no lower."""
        if self.rate >= sample_rate or not len(samples):
            return samples.astype(np.float32)
        return _there_and_back(samples, sample_rate, self.rate, lambda x: x)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Codec:
    """A lossy codec, by libsndfile: encoded, decoded, and shifted to where it was.

    Measured, of one channel in kbit/s for qualities 0, 0.1, 0.4 and 1: at 16 kHz mp3 16, 32, 82, 164,
    opus 9, 34, 109, 260, vorbis 25, 28, 39, 69; at 48 kHz mp3 48, 81, 162, 324, opus the same, vorbis 55,
    68, 86, 255.
    """

    kind: str = MP3  # MP3, OPUS or VORBIS
    quality: float = 0.1  # 0..1

    def __post_init__(self):
        if self.kind not in CODECS or not 0 <= self.quality <= 1:
            raise UserError(f"codec {self.kind!r} of quality {self.quality}: choose {', '.join(CODECS)}, "
                            "and 0..1")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the samples as decoded. Rates that a codec lacks go over the next higher one."""
        if not len(samples):
            return samples.astype(np.float32)
        rates = {OPUS: OPUS_RATES, MP3: MP3_RATES}.get(self.kind, (sample_rate,))
        rate = min((r for r in rates if r >= sample_rate), default=max(rates))
        return _there_and_back(samples, sample_rate, rate, lambda x: self._coded(x, rate))

    def _coded(self, samples: np.ndarray, rate: int) -> np.ndarray:
        container, subtype, most = CODECS[self.kind]
        # Float samples beyond full scale would be clipped by decoders.
        scale = max(1.0, float(np.abs(samples).max()) / 0.99)
        more = {"bitrate_mode": "CONSTANT"} if self.kind == MP3 else {}
        file = io.BytesIO()
        soundfile.write(file, samples / scale, rate, format=container, subtype=subtype,
                        compression_level=most * (1 - self.quality), **more)
        file.seek(0)
        decoded = soundfile.read(file, dtype="float32")[0] * scale
        return aligned(decoded, samples)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """Degradations one after another."""

    steps: tuple[Degradation, ...] = ()

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Returns the samples after all of them."""
        result = samples.astype(np.float32)
        for step in self.steps:
            result = step(result, sample_rate)
        return result


def aligned(moved: Samples, samples: Samples, most: int = 4096) -> Samples:
    """Returns S samples of `moved`, shifted by the lag (`most` at most) at which it correlates best."""
    size = scipy.fft.next_fast_len(len(moved) + len(samples), real=True)
    product = scipy.fft.irfft(scipy.fft.rfft(moved, size) * np.conj(scipy.fft.rfft(samples, size)), size)
    lags = np.arange(-min(most, len(samples) - 1), min(most, len(moved) - 1) + 1)
    lag = int(lags[np.argmax(product[lags])])
    result = np.zeros(len(samples), np.float32)
    part = moved[max(lag, 0):max(lag, 0) + len(samples)]
    start = max(-lag, 0)
    part = part[:len(samples) - start]
    result[start:start + len(part)] = part
    return result


def draw_chain(rng: np.random.Generator, *, codecs: Sequence[str] = tuple(CODECS)) -> Chain:
    """Draws a chain as recordings have it: room noise, microphone, level, compression, clipping, codec.

    Each step is there with a probability of its own; some chains are empty.
    """
    steps: list[Degradation] = []
    if rng.random() < 0.3:
        kind = str(rng.choice([WHITE, PINK, HUM]))
        steps.append(Noise(kind=kind, snr_db=float(rng.uniform(15, 50)), mains=float(rng.choice([50, 60])),
                           seed=int(rng.integers(1 << 31))))
    if rng.random() < 0.5:
        hertz = np.exp(np.sort(rng.uniform(np.log(50), np.log(10000), 5)))
        steps.append(MicrophoneEQ(hertz=tuple(hertz.tolist()), db=tuple(rng.uniform(-10, 6, 5).tolist())))
    if rng.random() < 0.3:
        steps.append(Compressor(
            threshold_db=float(rng.uniform(-36, -12)), ratio=float(rng.uniform(1.5, 8)),
            attack=float(rng.uniform(0.001, 0.03)), release=float(rng.uniform(0.05, 0.4))))
    if rng.random() < 0.1:
        steps.append(Clipping(over_db=float(rng.uniform(1, 10))))
    if rng.random() < 0.2:
        steps.append(BandLimit(rate=int(rng.choice([8000, 11025, 12000]))))
    if codecs and rng.random() < 0.3:
        steps.append(Codec(kind=str(rng.choice(list(codecs))), quality=float(rng.uniform(0, 0.4))))
    if rng.random() < 0.5:
        steps.append(Level(db=float(rng.uniform(-18, 0))))
    return Chain(steps=tuple(steps))


def _there_and_back(samples: np.ndarray, rate: int, other: int, change) -> Samples:
    """Changes samples at another rate; the resampler delays nothing."""
    if rate == other:
        return change(samples.astype(np.float32))
    there = soxr.resample(samples.astype(np.float32), rate, other, quality="HQ")
    back = soxr.resample(change(there), other, rate, quality="HQ")
    result = np.zeros(len(samples), np.float32)
    result[:min(len(back), len(samples))] = back[:len(samples)]
    return result
