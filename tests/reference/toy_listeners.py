"""An embedder and a transcriber that need no weights, and the sine music that they understand."""

from __future__ import annotations

import dataclasses
import types

import numpy as np

from music_diffusion.evaluation.tools import Resynthesis, Tools
from music_diffusion.notes.notes import Notes

RATE = 8000
CALLS: list[str] = []  # what was computed in this process


def sine_notes(seed: int, seconds: float = 4.0, program: int = 0) -> Notes:
    """Half a second each, one after the other, three semitones apart at least."""
    rng = np.random.default_rng(seed)
    count = int(seconds / 0.5)
    start = 0.5 * np.arange(count)
    pitch = 57 + 3 * np.cumsum(rng.integers(1, 8, size=count)) % 24
    return Notes(start, start + 0.4, pitch, np.full(count, 80), np.full(count, program),
                 np.zeros(count, bool))


def play(notes: Notes, seconds: float = 4.0, rate: int = RATE) -> np.ndarray:
    """Sines of amplitude 0.3, [S]."""
    time = np.arange(round(seconds * rate)) / rate
    out = np.zeros(len(time))
    for start, end, pitch in zip(notes.start, notes.end, notes.pitch, strict=True):
        hertz = 440 * 2 ** ((pitch - 69) / 12)
        out += 0.3 * np.sin(2 * np.pi * hertz * time) * (time >= start) * (time < end)
    return out


@dataclasses.dataclass(frozen=True)
class ToyEmbedder:
    """Logarithms of the energy in eight bands, four times a second."""

    name: str = "toy"
    settings: str = "8 bands, 0.25 s at 8000 Hz"
    stand_in: bool = True
    sample_rate: int = RATE
    dim: int = 8

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        CALLS.append("embed")
        size = self.sample_rate // 4
        samples = np.pad(samples, (0, max(0, size - len(samples))))
        frames = samples[:len(samples) // size * size].reshape(-1, size)
        bands = np.square(np.abs(np.fft.rfft(frames, axis=1)))[:, 1:].reshape(len(frames), 8, -1)
        return np.log(bands.mean(axis=-1) + 1e-3).astype(np.float32)


class ToyTranscriber:
    """A pitch sounds where its own frequency has more than half of the usual amplitude."""

    sample_rate = RATE
    HOP = 0.02

    def transcribe(self, samples: np.ndarray):
        CALLS.append("transcribe")
        count, half = int(len(samples) / (RATE * self.HOP)), RATE // 20
        padded = np.pad(samples, half)
        window = np.hanning(2 * half)
        centres = ((np.arange(count) + 0.5) * self.HOP * RATE).astype(int)
        parts = np.stack([padded[c:c + 2 * half] * window for c in centres])
        hertz = 440 * 2.0 ** ((np.arange(21, 109) - 69) / 12)
        waves = np.exp(-2j * np.pi * hertz * np.arange(2 * half)[:, None] / RATE)
        level = np.abs(parts @ waves) * 2 / window.sum()
        active = (level > 0.15) & (level == _local_max(level))
        edges = np.diff(np.pad(active.astype(int), ((1, 1), (0, 0))), axis=0)
        begin, end = (np.argwhere(edges.T == sign) for sign in (1, -1))
        notes = Notes(begin[:, 1] * self.HOP, end[:, 1] * self.HOP, begin[:, 0] + 21,
                      np.full(len(begin), 80), np.zeros(len(begin)), np.zeros(len(begin), bool))
        keep = notes.end - notes.start > 0.1
        return types.SimpleNamespace(notes=notes[keep], frames=active.astype(np.float32),
                                     frame_seconds=self.HOP)


def _local_max(level: np.ndarray) -> np.ndarray:
    """The largest of a pitch and the two beside it on each side."""
    padded = np.pad(level, ((0, 0), (2, 2)))
    return np.max([padded[:, i:i + level.shape[1]] for i in range(5)], axis=0)


def quieter(samples: np.ndarray) -> np.ndarray:
    CALLS.append("invert")
    return 0.9 * samples


@dataclasses.dataclass(frozen=True)
class ToyLoader:
    """`cli.evaluate.load_tools` without weights."""

    transcriber: bool = True
    inverter: bool = False

    def __call__(self) -> Tools:
        return Tools(embedders=(ToyEmbedder(),), transcriber=ToyTranscriber() if self.transcriber else None,
                     transcriber_name="toy ear",
                     resynthesis=Resynthesis(name="toy inverter", sample_rate=RATE, run=quieter)
                     if self.inverter else None)
