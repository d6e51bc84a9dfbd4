"""Recordings that are made anew in part: which cells of the spectrogram stay, and the sound joined again.

Outside the stretch that is made anew, and its fades, the samples are the recording's own.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import level
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress

FADE = 0.02  # seconds, centred on the edges of a stretch
BAND_EDGE = 0.05  # octaves, half of the width of a band's edges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stretch:
    """Stretch of a recording, in time and in frequency."""

    begin: float  # seconds
    end: float
    low: float = 0.0  # Hz
    high: float = math.inf

    def __post_init__(self):
        if not 0 <= self.begin <= self.end - FADE:
            raise UserError(f"a stretch from {self.begin:g} to {self.end:g} s is too short; give BEGIN:END "
                            f"in seconds, {FADE:g} s or more apart")
        if not 0 <= self.low < self.high:
            raise UserError(f"a band from {self.low:g} to {self.high:g} Hz is none; give LOW:HIGH in Hz")

    def cells(self, frames: int, codec: MelCodec) -> Bool[np.ndarray, "T F"]:
        """Returns the cells of a spectrogram that hear anything of it."""
        # A frame's window reaches half its length to both sides of its centre, (i + 1) hops.
        reach = codec.window / codec.sample_rate / 2
        centre = (np.arange(frames) + 1) * codec.hop / codec.sample_rate
        when = (centre > self.begin - reach) & (centre < self.end + reach)
        hertz = np.linspace(0, codec.sample_rate / 2, codec.mel_matrix.shape[0])
        inside = (hertz >= self.low) & (hertz <= self.high)
        where = codec.mel_matrix[inside].sum(axis=0) > 0
        return when[:, None] & where[None, :]


def parse_pair(text: str, flag: str, unit: str) -> tuple[float, float]:
    """Reads BEGIN:END. Raises UserError that says how it is written."""
    first, colon, second = text.partition(":")
    try:
        pair = float(first), float(second)
    except ValueError:
        pair = math.nan, math.nan
    if not colon or not (0 <= pair[0] < pair[1] < math.inf):
        raise UserError(f"{flag} {text}: write two numbers of {unit}, the lower first, such as 3.0:5.5")
    return pair


def remade(synthesizer: Synthesizer, wave: Waveform, region: Bool[np.ndarray, "T F"], source: Source,
           settings: RenderSettings = RenderSettings(), progress: Progress | None = None
           ) -> tuple[Float[np.ndarray, " n"], int]:
    """Makes anew what a region leaves open; about it the model sees as much as a segment has.

    Args:
      synthesizer: of any model.
      wave: mono, at the codec's rate.
      region: cells of its spectrogram that stay.
      source: what else the model is conditioned on, for the whole recording.
      settings: see `RenderSettings`.
      progress: takes the share that is done.

    Returns samples of the part that was looked at, and its first sample in the recording.
    """
    codec, frames = synthesizer.codec, len(region)
    mel = codec.encode(wave.samples)
    mel = np.concatenate([mel, np.full((max(0, frames - len(mel)), codec.mels), codec.log_min)])
    mel = mel[:frames].astype(np.float32)
    anew = np.flatnonzero(~region.all(axis=1))
    around = synthesizer.model.segment.around
    first, last = max(0, int(anew[0]) - around), min(frames, int(anew[-1]) + 1 + around)
    span = dataclasses.replace(source, frames=frames, span=(first, last))
    if source.notes is None:  # a model of recordings at one level
        stays = region.any(axis=1)
        back = np.float32(level(mel[stays] if stays.any() else mel) - LEVEL)
    else:
        back = _own_level(np.concatenate(list(synthesizer.stream_mel(span, settings))),
                          mel[first:last], region[first:last])
    given = np.maximum(mel - back, codec.log_min)
    span = dataclasses.replace(span, mel=given, region=region)
    made = np.concatenate(list(synthesizer.stream_mel(span, settings, progress)))
    return synthesizer.inverter.invert(np.maximum(made + back, codec.log_min)), first * codec.hop


def _own_level(made: Float[np.ndarray, "T F"], mel: Float[np.ndarray, "T F"],
               region: Bool[np.ndarray, "T F"]) -> np.float32:
    """Returns by how many nat a recording is louder than what a model makes of the same notes."""
    loud = region & (mel > np.median(mel)) & (made > np.median(made))
    return np.float32(np.median((mel - made)[loud])) if loud.any() else np.float32(0)


def spliced(wave: Waveform, made: Waveform, at: float, stretch: Stretch) -> Waveform:
    """Returns a recording in which a stretch is what was made.

    Args:
      wave: the recording, [S] or [S, channels].
      made: mono, at any rate; of it counts what lies in the stretch.
      at: seconds of the recording at which `made` begins.
      stretch: its end may be that of the recording, which is not faded then.
    """
    new = made.resample(wave.sample_rate).samples
    samples = np.array(wave.samples if wave.samples.ndim == 2 else wave.samples[:, None], np.float32)
    placed = np.zeros(len(samples), np.float32)
    first = round(at * wave.sample_rate)
    count = min(len(new), len(samples) - first)
    placed[first:first + count] = new[:count]
    seconds = np.arange(len(samples)) / wave.sample_rate
    share = _ramp((seconds - stretch.begin) / FADE)
    if stretch.end * wave.sample_rate < len(samples) - 1:
        share *= _ramp((stretch.end - seconds) / FADE)
    if stretch.low > 0 or stretch.high < wave.sample_rate / 2:
        own = Waveform(samples, wave.sample_rate).mono().samples
        inside = slice(first, first + count)
        change = np.zeros_like(placed)
        change[inside] = _band(placed[inside] - own[inside], wave.sample_rate, stretch.low, stretch.high)
        result = samples + (share * change)[:, None]
    else:
        result = samples + share[:, None] * (placed[:, None] - samples)
    result = np.where(share[:, None] > 0, result, samples)
    return Waveform(result if wave.samples.ndim == 2 else result[:, 0], wave.sample_rate)


def _ramp(x: np.ndarray) -> np.ndarray:
    """Rises from 0 at −1/2 to 1 at 1/2, as half a cosine."""
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(x + 0.5, 0, 1))).astype(np.float32)


def _band(samples: np.ndarray, rate: int, low: float, high: float) -> np.ndarray:
    """Returns what lies in a band of frequencies, with edges of BAND_EDGE octaves to both sides."""
    size = 1 << (2 * len(samples) - 1).bit_length()
    hertz = np.maximum(np.fft.rfftfreq(size, 1 / rate), 1e-3)
    gain = np.ones(len(hertz))
    if low > 0:
        gain *= _ramp(np.log2(hertz / low) / (2 * BAND_EDGE))
    if high < rate / 2:
        gain *= _ramp(np.log2(high / hertz) / (2 * BAND_EDGE))
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[:len(samples)].astype(np.float32)
