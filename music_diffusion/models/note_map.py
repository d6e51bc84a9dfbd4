"""Note maps outside training: only the notes that are there are drawn.

The same maps as `FrameDiffusionModel.note_maps`, without padded slots: a
segment costs what its notes cost, and no number of notes is too many.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.score_denoiser import ONSET_SECONDS
from music_diffusion.notes.frames import FrameGrid, note_states
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Params

ROWS = 2048  # note frames drawn at once


@functools.partial(jax.jit, static_argnums=0)
def _energy(config: NoteTimbreConfig, params: Params, program, pitch, velocity, age, release):
    """Rows [R] → power [R, F]."""
    mel = NoteTimbre(config).apply({"params": params}, program, pitch, velocity, age, release)
    return jnp.exp(2 * mel)


def draw_note_maps(config: NoteTimbreConfig, timbre: Params, notes: Notes, start: float, frames: int,
                   grid: FrameGrid) -> np.ndarray:
    """Scaled maps [T, 2, F] float32 of all notes, and of those in their first frames.

    Args:
      config, timbre: the note timbre network and its parameters.
      notes: absolute times.
      start: seconds, time of the segment's first sample.
      frames: T.
      grid: frame times and tail.
    """
    states = note_states(notes, start, frames, grid)
    codec: MelCodec = config.codec
    power = np.zeros((frames, 2, codec.mels), np.float32)
    for first in range(0, len(states["frame"]), ROWS):
        rows = {k: v[first:first + ROWS] for k, v in states.items()}
        size = len(rows["frame"])
        padded = {k: np.pad(v, (0, ROWS - size)) for k, v in rows.items() if k != "frame"}
        energy = np.asarray(_energy(config, timbre, *(padded[k] for k in (
            "program", "pitch", "velocity", "age", "release"))))[:size]
        _add(power[:, 0], rows["frame"], energy)
        new = rows["age"] < ONSET_SECONDS
        _add(power[:, 1], rows["frame"][new], energy[new])
    return codec.scale(0.5 * np.log(power + codec.clip_min**2)).astype(np.float32)


def _add(total: np.ndarray, frame: np.ndarray, energy: np.ndarray) -> None:
    """total[frame] += energy, for frames in order."""
    if len(frame):
        at = np.flatnonzero(np.diff(frame, prepend=-1))
        total[frame[at]] += np.add.reduceat(energy, at, axis=0)
