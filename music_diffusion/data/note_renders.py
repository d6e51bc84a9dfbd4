"""Isolated notes of a SoundFont as training rows for the note timbre network."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.notes.frames import DRUMS, FrameGrid
from music_diffusion.notes.notes import Notes

ROW_DTYPE = np.dtype([("program", "u1"), ("pitch", "u1"), ("velocity", "u1"),
                      ("age", "f4"), ("release", "f4"), ("mel", "f2", (128,))])


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteSampling:
    """How isolated notes are drawn."""

    low: int = 21  # lowest melodic pitch
    high: int = 108  # highest melodic pitch
    drum_low: int = 27  # lowest drum key
    drum_high: int = 87  # highest drum key
    shortest: float = 0.05  # seconds; durations are log-uniform
    longest: float = 5.0  # seconds
    steady_kept: float = 0.35  # share of frames kept away from onset and release (0.1 s)
    silence_kept: float = 0.1  # share of frames at the codec's floor that are kept

    def draw(self, rng: np.random.Generator, program: int, count: int, tail: float) -> Notes:
        """`count` notes one after another, each with its whole tail before the next."""
        drum = program == DRUMS
        low, high = (self.drum_low, self.drum_high) if drum else (self.low, self.high)
        pitch = low + rng.permutation(np.arange(count) % (high - low + 1))
        velocity = rng.integers(20, 128, count)
        length = np.exp(rng.uniform(np.log(self.shortest), np.log(self.longest), count))
        start = 0.1 + np.cumsum(np.concatenate([[0], length[:-1] + tail + 0.1])) \
            + rng.uniform(0, 0.02, count)
        return Notes(start, start + length, pitch, velocity,
                     np.full(count, 0 if drum else program), np.full(count, drum))


def note_rows(program: int, count: int, seed: int, *, renderer: SoundFontRenderer,
              codec: MelCodec, grid: FrameGrid, sampling: NoteSampling) -> np.ndarray:
    """Renders `count` isolated notes of one program; returns rows of ROW_DTYPE."""
    rng = np.random.default_rng([seed, program])
    notes = sampling.draw(rng, program, count, grid.tail)
    mel = codec.encode(renderer(notes).samples)
    centre = grid.centres(0.0, len(mel))
    index = np.searchsorted(notes.start - grid.half_window, centre, side="right") - 1
    valid = index >= 0
    index = np.maximum(index, 0)
    age, release = centre - notes.start[index], centre - notes.end[index]
    valid &= release < grid.tail
    silent = mel.max(1) <= codec.log_min + 0.05
    changing = (age < 0.1) | (np.abs(release) < 0.1)
    share = np.where(silent, sampling.silence_kept, np.where(changing, 1.0, sampling.steady_kept))
    valid &= rng.uniform(size=len(mel)) < share
    rows = np.zeros(int(valid.sum()), ROW_DTYPE)
    rows["program"], rows["pitch"] = program, notes.pitch[index][valid]
    rows["velocity"] = notes.velocity[index][valid]
    rows["age"], rows["release"], rows["mel"] = age[valid], release[valid], mel[valid]
    return rows
