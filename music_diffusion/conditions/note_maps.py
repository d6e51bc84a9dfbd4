"""Note maps outside training, where only the notes that are there are drawn.

The same maps as `FrameDiffusionModel.note_maps`, without padded slots: a
segment costs what its notes cost, up to VOICES notes of a frame.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.score_denoiser import ONSET_SECONDS, SLOT_FIELDS
from music_diffusion.notes.frames import VOICES, FrameGrid, note_states
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Params

ROWS = 2048  # note frames drawn at once


@functools.partial(jax.jit, static_argnums=0)
def _energy(config: NoteTimbreConfig, params: Params, performance, *states):
    """Returns the power [R, F] of rows [R]."""
    mel = NoteTimbre(config).apply({"params": params}, *(s[None] for s in states), performance)
    return jnp.exp(2 * mel[0])


def draw_note_maps(config: NoteTimbreConfig, timbre: Params, notes: Notes, start: float, frames: int,
                   grid: FrameGrid, performance: Float[np.ndarray, " R"] | None = None) -> np.ndarray:
    """Draws scaled maps [T, 2, F] float32 of all notes, and of those in their first frames.

    Where more than VOICES notes are heard at once, of the loudest and newest; whoever draws a piece
    says so (`notes.frames.warn_if_crowded`).

    Args:
      config, timbre: the note timbre network and its parameters.
      notes: absolute times.
      start: seconds, time of the segment's first sample.
      frames: T.
      grid: frame times and tail.
      performance: weights of the performances, where the network has some; None and all 0 are none.
    """
    states = note_states(notes, start, frames, grid, VOICES)
    codec: MelCodec = config.codec
    weights = None
    if config.performances is not None:
        count = config.performances.count
        weights = np.zeros((1, count), np.float32)
        weights += 0 if performance is None else np.asarray(performance, np.float32).reshape(1, count)
    power = np.zeros((frames, 2, codec.mels), np.float32)
    for first in range(0, len(states["frame"]), ROWS):
        rows = {k: v[first:first + ROWS] for k, v in states.items()}
        size = len(rows["frame"])
        padded = {k: np.pad(v, (0, ROWS - size)) for k, v in rows.items() if k != "frame"}
        energy = np.asarray(_energy(config, timbre, weights, *(padded[k] for k in SLOT_FIELDS)))[:size]
        _add(power[:, 0], rows["frame"], energy)
        new = rows["age"] < ONSET_SECONDS
        _add(power[:, 1], rows["frame"][new], energy[new])
    return codec.scale(0.5 * np.log(power + codec.clip_min**2)).astype(np.float32)


def _add(total: np.ndarray, frame: np.ndarray, energy: np.ndarray) -> None:
    """Adds energy to total[frame], for frames in order."""
    if len(frame):
        at = np.flatnonzero(np.diff(frame, prepend=-1))
        total[frame[at]] += np.add.reduceat(energy, at, axis=0)
