"""Maps over time and pitch of what is heard and of what the notes promise, which can be compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.fft
import scipy.ndimage
from jaxtyping import Float

from music_diffusion.audio.log_frequency import LogFrequencyConfig, fft_size
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.notes.activations import pitch_roll
from music_diffusion.notes.notes import Notes

CONFIG = LogFrequencyConfig(sample_rate=RATE, hop=400, windows=(4096,))
HOP = CONFIG.frame_seconds
LOWEST, PITCHES = CONFIG.lowest_pitch, CONFIG.highest_pitch - CONFIG.lowest_pitch + 1
THIRDS = CONFIG.bins_per_semitone  # the pitch axis of spectra is that fine
FLOOR = 1e-3  # of the loud frames' largest amplitude: what is fainter is no pitch
FLUX_WINDOW = 1024  # samples; short, because it shall see when notes begin
FLUX_BANDS = 24
BLOCK = 512  # frames at once
# Semitones above a note at which its partials 1..6 sound, and how much they count.
PARTIALS = ((0, 1.0), (12, 0.8), (19, 0.6), (24, 0.5), (28, 0.4), (31, 0.3))
NEIGHBOURS = 13  # semitones whose mean is taken off
MEMORY = 4.0  # seconds whose mean is taken off


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Spectrum of one stretch of a sound; frame i is centred on (i + 0.5) HOP after its start."""

    start: float  # seconds of the sound
    log: Float[np.ndarray, "T bins"]  # nat; a third of a semitone a bin
    flux: Float[np.ndarray, " T"]  # how much power rises, mean over bands, nat


def spectra(parts: tuple[Stretch, ...]) -> tuple[Spectrum, ...]:
    """Returns the spectra of all parts that hold a frame, above one common floor."""
    amplitudes = [(p, _amplitude(p.samples)) for p in parts if len(p.samples) >= CONFIG.hop]
    loud = [a.max(axis=1) for _, a in amplitudes]
    reference = float(np.percentile(np.concatenate(loud), 95)) if loud else 0.0
    floor = FLOOR * max(reference, 1e-6)
    return tuple(Spectrum(start=p.start, log=np.log(a + floor), flux=_flux(p.samples))
                 for p, a in amplitudes)


def _amplitude(samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "T bins"]:
    window = CONFIG.windows[0]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)).astype(np.float32)
    return np.concatenate([
        np.abs(scipy.fft.rfft(frames * hann, fft_size(window), axis=1)) @ CONFIG.filters[0]
        for frames in _frames(samples, window)])


def _flux(samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, " T"]:
    edges = np.unique(np.geomspace(2, FLUX_WINDOW // 2, FLUX_BANDS + 1).astype(int))[:-1]
    hann = np.hanning(FLUX_WINDOW).astype(np.float32)
    power = np.concatenate([
        np.add.reduceat(np.square(np.abs(scipy.fft.rfft(frames * hann, axis=1))), edges, axis=1)
        for frames in _frames(samples, FLUX_WINDOW)])
    floor = 1e-6 * float(np.percentile(power.max(axis=1), 95)) + 1e-12
    rise = np.diff(np.log(power + floor), axis=0, prepend=np.log(power[:1] + floor))
    return np.maximum(rise, 0).mean(axis=1)


def _frames(samples: np.ndarray, window: int):
    """Returns frames [n, window] in blocks; silence before the first sample and after the last."""
    count, hop = len(samples) // CONFIG.hop, CONFIG.hop
    padded = np.pad(samples, (window // 2 - hop // 2, window))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:count]
    return (frames[first:first + BLOCK] for first in range(0, count, BLOCK))


def heard_map(log: Float[np.ndarray, "T bins"], thirds: int, pool: int = 1
              ) -> Float[np.ndarray, "T pitches"]:
    """Returns how strongly each pitch is heard.

    Args:
      log: of a Spectrum.
      thirds: a pitch is looked for so many thirds of a semitone above its place.
      pool: frames that become one.
    """
    log = log[:len(log) // pool * pool]
    bins = np.arange(log.shape[1]) + thirds
    shifted = log[:, bins.clip(0, log.shape[1] - 1)]
    pitches = shifted.reshape(len(log), PITCHES, THIRDS).max(axis=2)
    if pool > 1:
        pitches = pitches.reshape(-1, pool, PITCHES).mean(axis=1)
    return whiten(pitches, pool * HOP)


def promised_map(notes: Notes, start: float, frames: int, hop: float = HOP
                 ) -> Float[np.ndarray, "T pitches"]:
    """Returns what the notes promise: their partials while they sound.

    Args:
      notes: in the sound's seconds.
      start: seconds where frame 0 begins; may be negative.
      frames: T.
      hop: seconds from frame to frame.
    """
    sounding = notes.between(start, start + frames * hop).shift(-start)
    roll = pitch_roll(sounding, hop, frames).astype(np.float32)
    roll = roll[:, LOWEST:LOWEST + PITCHES]
    promised = np.zeros_like(roll)
    for semitones, weight in PARTIALS:
        np.maximum(promised[:, semitones:], weight * roll[:, :PITCHES - semitones],
                   out=promised[:, semitones:])
    return whiten(promised, hop)


def whiten(values: Float[np.ndarray, "T pitches"], hop: float) -> Float[np.ndarray, "T pitches"]:
    """Removes what neighbouring pitches have in common and what stays for seconds: level and timbre."""
    values = values - scipy.ndimage.uniform_filter1d(values, NEIGHBOURS, axis=1, mode="nearest")
    return values - scipy.ndimage.uniform_filter1d(
        values, 1 + 2 * margin(hop), axis=0, mode="nearest")


def margin(hop: float) -> int:
    """Returns how many frames to each side the running mean of a map looks at."""
    return round(MEMORY / 2 / hop)


def onset_curve(notes: Notes, start: float, frames: int) -> Float[np.ndarray, " T"]:
    """Returns a curve that rises where notes begin; each note of a chord counts less."""
    at = np.floor((notes.start - start) / HOP).astype(int)
    count = np.bincount(at[(at >= 0) & (at < frames)], minlength=frames)
    return contrast(np.sqrt(count).astype(np.float32))


def contrast(curve: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
    """Returns a curve smoothed over a few frames, less its mean over two seconds."""
    smooth = scipy.ndimage.gaussian_filter1d(curve, 1.0)
    return smooth - scipy.ndimage.uniform_filter1d(smooth, 81)
