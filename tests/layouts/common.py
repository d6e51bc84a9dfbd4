"""What the makers of data set fixtures share: notes, a plain synthesizer, and the truth they return."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import soundfile

from music_diffusion.notes.notes import Notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """What a reader must find for one item."""

    name: str
    split: str | None
    samples: np.ndarray  # [S] at `sample_rate`, one channel, as written (before any file format's loss)
    sample_rate: int  # Hz
    notes: Notes | None = None  # seconds from the audio's start
    velocities: bool = True
    source: np.ndarray | None = None  # [S], the other timbre
    stems: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)  # program → [S]
    performance: str | None = None
    style: str | None = None
    piece: str | None = None


def scale(start: float = 0.1, count: int = 6, pitch: int = 60, program: int = 0, step: float = 0.3,
          velocity: int = 80, drum: bool = False) -> Notes:
    """Notes going up by a tone, one after the other."""
    onset = start + step * np.arange(count)
    return Notes(onset, onset + 0.8 * step, pitch + 2 * np.arange(count), np.full(count, velocity),
                 np.full(count, 0 if drum else program), np.full(count, drum))


def tones(notes: Notes, seconds: float, sample_rate: int) -> np.ndarray:
    """Every note as a sine with one overtone, float32 within ±0.9."""
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    out = np.zeros(len(time))
    for start, end, pitch, velocity in zip(notes.start, notes.end, notes.pitch, notes.velocity,
                                           strict=True):
        on = (time >= start) & (time < end)
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * (time[on] - start)
        wave = (np.sin(phase) + 0.3 * np.sin(2 * phase)) * np.exp(-2 * (time[on] - start))
        out[on] += velocity / 127 * wave
    return (0.9 * out / max(1.0, np.abs(out).max(initial=0.0))).astype(np.float32)


def write_wav(path: pathlib.Path, samples: np.ndarray, sample_rate: int, channels: int = 1,
              **options) -> None:
    """Any format of libsndfile, by the extension; with two channels both are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(samples[:, None], channels, 1), sample_rate, **options)
