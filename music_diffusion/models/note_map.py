"""Note maps outside training: only the notes that are there are drawn.

The same maps as `FrameDiffusionModel.note_maps`, without padded slots: a
segment costs what its notes cost, up to VOICES notes of a frame.
"""

from __future__ import annotations

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.performance import TABLE
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.networks.score_denoiser import ONSET_SECONDS, SLOT_FIELDS
from music_diffusion.notes.frames import VOICES, FrameGrid, note_states
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Params

ROWS = 2048  # note frames drawn at once


@functools.partial(jax.jit, static_argnums=0)
def _energy(config: NoteTimbreConfig, params: Params, performance, *states):
    """Rows [R] → power [R, F]."""
    mel = NoteTimbre(config).apply({"params": params}, *(s[None] for s in states), performance)
    return jnp.exp(2 * mel[0])


def stored_timbre(path: str | os.PathLike) -> tuple[NoteTimbreConfig, Params]:
    """The note timbre network in a safetensors file, of its own or of a frame diffusion model.

    Raises UserError: the file cannot be read, or holds no such network.
    """
    stored = load_safetensors(path)
    timbre = stored.get("timbre", stored)
    flat = flatten_dict(dict(timbre), sep="/")
    table = flat.get(TABLE)
    performances = None if table is None else PerformanceConfig(
        count=table.shape[0], features=table.shape[1])
    config = NoteTimbreConfig(performances=performances, layers=sum(
        name.startswith("wi_") for name in timbre), width=np.shape(flat.get("input/kernel", [[]]))[1])
    ids = jax.ShapeDtypeStruct((1,), jnp.int32)
    performance = None if table is None else jax.ShapeDtypeStruct((1, len(table)), jnp.float32)
    shapes = jax.eval_shape(NoteTimbre(config).init, jax.random.key(0), ids, ids, ids, ids, ids,
                            performance)["params"]
    wanted = {k: v.shape for k, v in flatten_dict(shapes, sep="/").items()}
    if {k: np.shape(v) for k, v in flat.items()} != wanted:
        raise UserError(f"{path}: not the weights of {config}")
    return config, timbre


def draw_note_maps(config: NoteTimbreConfig, timbre: Params, notes: Notes, start: float, frames: int,
                   grid: FrameGrid, performance: Float[np.ndarray, " R"] | None = None) -> np.ndarray:
    """Scaled maps [T, 2, F] float32 of all notes, and of those in their first frames.

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
    """total[frame] += energy, for frames in order."""
    if len(frame):
        at = np.flatnonzero(np.diff(frame, prepend=-1))
        total[frame[at]] += np.add.reduceat(energy, at, axis=0)
