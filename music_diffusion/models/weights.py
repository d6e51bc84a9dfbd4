"""Weights on disk: safetensors, names of nested parameters joined by '/'. Pickle is never loaded.

Weights may lie in several files, where one would be too large for its place: `weights.safetensors` says
how many, the others are `weights.2.safetensors` and so on.
"""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.files import write_bytes
from music_diffusion.types import Params

WEIGHTS = "weights.safetensors"  # file names in the folder of a released model
CONFIG = "config.gin"


def save_safetensors(
    path: str | os.PathLike, params: Params, *, dtype: str = "float16",
    facts: dict | None = None, most_bytes: int | None = None,
) -> None:
    """Writes a nested dict of arrays; floats become `dtype`, other arrays stay. Atomic.

    `most_bytes` of arrays go into one file, the rest into others beside it; None: all into one.
    """
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
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, array in arrays.items():
        there = sum(a.nbytes for a in parts[-1].values())
        if most_bytes is not None and there and there + array.nbytes > most_bytes:
            parts.append({})
        parts[-1][name] = array
    metadata = {"facts": json.dumps(facts or {})}
    if len(parts) > 1:
        metadata["parts"] = str(len(parts))
    # The first, which names the others, comes last.
    for number in range(len(parts), 0, -1):
        write_bytes(_part(path, number), save(parts[number - 1], metadata=metadata))


def _part(path: str | os.PathLike, number: int) -> pathlib.Path:
    """Returns the first file's own path, and `weights.2.safetensors` for the second."""
    path = pathlib.Path(path)
    return path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def weight_files(path: str | os.PathLike) -> list[pathlib.Path]:
    """Finds the file and those that belong to it.

    Raises UserError: no such file, no safetensors file, or one of several is missing.
    """
    from safetensors import SafetensorError, safe_open

    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            count = int((file.metadata() or {}).get("parts", "1"))
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
    files = [_part(path, number) for number in range(1, count + 1)]
    for file_ in files:
        if not file_.is_file():
            raise UserError(f"{file_}: is missing; {path} is one of {count} files, copy all of them")
    return files


def load_safetensors(path: str | os.PathLike, dtype: str | None = "float32") -> Params:
    """Reads a nested dict of NumPy arrays; floats become `dtype` (None: as stored)."""
    from flax.traverse_util import unflatten_dict
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    flat: dict[str, np.ndarray] = {}
    for file in weight_files(path):
        try:
            flat |= load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file}: not a safetensors file ({error})") from error
    if dtype is not None:
        flat = {k: v.astype(dtype) if np.issubdtype(v.dtype, np.floating) else v
                for k, v in flat.items()}
    return unflatten_dict(flat, sep="/")
