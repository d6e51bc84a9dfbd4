"""Note timbre network in a file of weights, whichever model it belongs to."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.performance import PERFORMANCE_TABLE, PerformanceConfig
from music_diffusion.types import Params


def stored_timbre(path: str | os.PathLike) -> tuple[NoteTimbreConfig, Params]:
    """Reads the note timbre network in a safetensors file, of its own or of a frame diffusion model.

    Raises UserError: the file cannot be read, or holds no such network.
    """
    stored = load_safetensors(path)
    timbre = stored.get("timbre", stored)
    flat = flatten_dict(dict(timbre), sep="/")
    table = flat.get(PERFORMANCE_TABLE)
    kernel = np.shape(flat.get("input/kernel", ()))
    if len(kernel) != 2:
        raise UserError(f"{path}: not the weights of a note timbre network")
    performances = None if table is None else PerformanceConfig(
        count=table.shape[0], features=table.shape[1])
    config = NoteTimbreConfig(performances=performances, layers=sum(
        name.startswith("wi_") for name in timbre), width=kernel[1])
    ids = jax.ShapeDtypeStruct((1,), jnp.int32)
    performance = None if table is None else jax.ShapeDtypeStruct((1, len(table)), jnp.float32)
    shapes = jax.eval_shape(NoteTimbre(config).init, jax.random.key(0), ids, ids, ids, ids, ids,
                            performance)["params"]
    wanted = {k: v.shape for k, v in flatten_dict(shapes, sep="/").items()}
    if {k: np.shape(v) for k, v in flat.items()} != wanted:
        raise UserError(f"{path}: not the weights of {config}")
    return config, timbre
