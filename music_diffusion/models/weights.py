"""Weights on disk: safetensors, names of nested parameters joined by '/'. Pickle is never loaded."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.types import Params

WEIGHTS = "weights.safetensors"  # file names in the folder of a released model
CONFIG = "config.gin"


def save_safetensors(
    path: str | os.PathLike, params: Params, *, dtype: str = "float16",
    facts: dict | None = None,
) -> None:
    """Nested dict of arrays -> file; floats become `dtype`, other arrays stay. Atomic."""
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save

    arrays = {}
    for name, value in flatten_dict(dict(params), sep="/").items():
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):
                small = array.astype(dtype)
            if not np.isfinite(small).all():
                raise UserError(f"{name}: has values that {dtype} cannot hold; export as float32")
            array = small
        arrays[name] = np.ascontiguousarray(array)
    part = pathlib.Path(f"{path}.part")
    part.write_bytes(save(arrays, metadata={"facts": json.dumps(facts or {})}))
    os.replace(part, path)


def load_safetensors(path: str | os.PathLike, dtype: str | None = "float32") -> Params:
    """File -> nested dict of NumPy arrays; floats become `dtype` (None: as stored)."""
    from flax.traverse_util import unflatten_dict
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        flat = load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    if dtype is not None:
        flat = {k: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v
                for k, v in flat.items()}
    return unflatten_dict(flat, sep="/")
