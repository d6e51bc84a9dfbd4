"""Loudness that follows a recording's: what is made of it swells and fades as it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import SILENT
from music_diffusion.notes.programs import decays

SUSTAINED_SECONDS = 0.5  # of the window that loudness is measured in
DECAYING_SECONDS = 2.0  # … of sounds that decay by themselves: what a bow holds is not held for them
MOST = 2.0  # nat, by which frames are made louder or quieter at most


def window_seconds(programs: Iterable[int]) -> float:
    """Returns the length of the window for these instruments, in seconds."""
    return DECAYING_SECONDS if any(map(decays, programs)) else SUSTAINED_SECONDS


class LevelFollower:
    """Makes frames as loud as a recording's, in the mean of a window; frame by frame they stay as they are.

    Frames come out as soon as the window around them is known.
    """

    def __init__(self, level: Float[np.ndarray, " T"], codec: MelCodec, seconds: float):
        """level: nat, of the recording's frames (`frame_levels`); seconds: of the window."""
        self._codec, self._half = codec, max(1, round(0.5 * seconds * codec.frame_rate))
        window = np.hanning(2 * self._half + 3)[1:-1]
        self._window = window / window.sum()
        self._floor = np.exp(2 * codec.log_min) * codec.mels
        self._wanted = self._smooth(np.pad(np.exp(2 * level), self._half))
        self._energy = np.zeros(self._half)  # of the frames around those that wait
        self._waiting = np.zeros((0, codec.mels), np.float32)
        self._done = 0

    def push(self, mel: Float[np.ndarray, "t F"]) -> Float[np.ndarray, "u F"]:
        """Returns the next frames of log-mel in nat that are certain."""
        self._waiting = np.concatenate([self._waiting, mel])
        self._energy = np.concatenate([self._energy, np.exp(2 * mel.astype(np.float64)).sum(axis=1)])
        return self._ready()

    def finish(self) -> Float[np.ndarray, "u F"]:
        """Returns the last frames, as if silence followed."""
        self._energy = np.pad(self._energy, (0, self._half))
        return self._ready()

    def _ready(self) -> np.ndarray:
        count = len(self._energy) - 2 * self._half
        if count <= 0:
            return self._waiting[:0]
        made = self._smooth(self._energy)
        wanted = self._wanted[self._done:self._done + count]
        wanted = np.pad(wanted, (0, count - len(wanted)), mode="edge" if len(wanted) else "constant")
        by = 0.5 * np.log((wanted + self._floor) / (made + self._floor))
        ready, self._waiting = self._waiting[:count], self._waiting[count:]
        self._energy, self._done = self._energy[count:], self._done + count
        least = self._codec.log_min
        louder = np.maximum(ready + np.clip(by, -MOST, MOST)[:, None].astype(np.float32), least)
        return np.where(ready > least + SILENT, louder, ready)

    def _smooth(self, energy: Float[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
        return np.maximum(np.convolve(energy, self._window, "valid"), 0)


def followed(frames: Iterable[Float[np.ndarray, "t F"]], follower: LevelFollower
             ) -> Iterator[Float[np.ndarray, "u F"]]:
    """Yields all frames of log-mel in nat, as loud as the follower makes them."""
    for part in frames:
        yield follower.push(part)
    yield follower.finish()
