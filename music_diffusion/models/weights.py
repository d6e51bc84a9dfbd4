"""Weights on disk: safetensors, names of nested parameters joined by '/'. Pickle is never loaded.

Weights may lie in several files, where one would be too large for its place: `weights.safetensors` says
how many, the others are `weights.2.safetensors` and so on. Floats are float16 as a rule; large matrices
may be in 8 bits with a scale per row (`models.compact`), which the metadata `storage` says.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.files import write_bytes
from music_diffusion.models import compact
from music_diffusion.types import Params

WEIGHTS = "weights.safetensors"  # file names in the folder of a released model
CONFIG = "config.gin"
DTYPES = ("float16", "int8", "float32")  # as which weights are stored
MOST_FILES = 1000  # over which weights are spread


def check_dtype(dtype: str) -> None:
    """Raises UserError for what weights cannot be stored as."""
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype}: unknown; choose {', '.join(DTYPES)}")


def save_safetensors(
    path: str | os.PathLike, params: Params, *, dtype: str = "float16",
    facts: dict | None = None, most_bytes: int | None = None,
) -> None:
    """Writes a nested dict of arrays; floats become `dtype`, other arrays stay. Atomic.

    Args:
      path: of the file.
      params: parameters.
      dtype: of `DTYPES`. 'int8' stores large matrices in 8 bits with a scale per row (`models.compact`),
        other floats in float16.
      facts: what the file says of itself.
      most_bytes: of arrays in one file; the rest goes into others beside it. None: all into one.

    Raises UserError that names an array with values that cannot be held.
    """
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save

    check_dtype(dtype)
    parts: list[dict[str, np.ndarray]] = [{}]
    for name, value in flatten_dict(dict(params), sep="/").items():
        arrays = _stored(name, np.asarray(value), dtype)
        there, more = (sum(a.nbytes for a in of.values()) for of in (parts[-1], arrays))
        if most_bytes is not None and there and there + more > most_bytes:
            parts.append({})
        parts[-1] |= arrays
    metadata = {"facts": json.dumps(facts or {})}
    if dtype == "int8":
        metadata["storage"] = compact.STORAGE
    if len(parts) > 1:
        metadata["parts"] = str(len(parts))
    # The first, which names the others, comes last.
    for number in range(len(parts), 0, -1):
        arrays = parts[number - 1]
        if dtype == "int8":  # how many there are, so that one that is lost is missed
            metadata["scales"] = str(sum(name.endswith(compact.SCALE) for name in arrays))
        write_bytes(_part(path, number), save(arrays, metadata=metadata))


def _stored(name: str, array: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
    """Returns what stands in the file for an array: itself, or 8 bits and their scale."""
    if dtype == "int8" and compact.fits(name, array):
        q, scale = compact.to_int8(name, array)
        return {name: np.ascontiguousarray(q), name + compact.SCALE: np.ascontiguousarray(scale)}
    if np.issubdtype(array.dtype, np.floating):
        dtype = "float16" if dtype == "int8" else dtype
        with np.errstate(over="ignore"):
            small = array.astype(dtype)
        if not np.isfinite(small).all():
            raise UserError(f"{name}: has values that {dtype} cannot hold; export as float32")
        array = small
    return {name: np.ascontiguousarray(array)}


def _part(path: str | os.PathLike, number: int) -> pathlib.Path:
    """Returns the first file's own path, and `weights.2.safetensors` for the second."""
    path = pathlib.Path(path)
    return path if number == 1 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def weight_files(path: str | os.PathLike) -> list[pathlib.Path]:
    """Finds the file and those that belong to it.

    Raises UserError: no such file, no safetensors file, or one of several is missing.
    """
    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: no such file")
    with _opened(path) as file:
        said = (file.metadata() or {}).get("parts", "1")
    if not said.isdecimal() or not 1 <= int(said) <= MOST_FILES:
        raise UserError(f"{path}: damaged (it is one of {said!r} files)")
    files = [_part(path, number) for number in range(1, int(said) + 1)]
    for part in files:
        if not part.is_file():
            raise UserError(f"{part}: is missing; {path} is one of {said} files, copy all of them")
    return files


def read_facts(path: str | os.PathLike) -> dict:
    """Reads what a file of weights says of itself; nothing from a file that others have made.

    Raises UserError: no such file, or no safetensors file.
    """
    with _opened(weight_files(path)[0]) as file:
        try:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
        except ValueError as error:
            raise UserError(f"{path}: damaged (facts are no JSON: {error})") from error
    return facts if isinstance(facts, dict) else {}


def load_safetensors(path: str | os.PathLike, dtype: str | None = "float32") -> Params:
    """Reads a nested dict of NumPy arrays; floats become `dtype`.

    None: floats as stored; those in 8 bits become float32. Beyond the result, memory holds one array.

    Raises UserError: no such file, a damaged one, or one in a format of a later version.
    """
    from flax.traverse_util import unflatten_dict

    flat: dict[str, np.ndarray] = {}
    for file in weight_files(path):
        for name, array in _arrays(file):
            floats = dtype is not None and np.issubdtype(array.dtype, np.floating)
            flat[name] = array.astype(dtype, copy=False) if floats else array
    folders = {name.rsplit("/", depth)[0] for name in flat for depth in range(1, name.count("/") + 1)}
    if both := folders & set(flat):
        raise UserError(f"{path}: damaged ({min(both)} is an array and has arrays below it)")
    return unflatten_dict(flat, sep="/")


def _arrays(path: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays of one file by name, those in 8 bits as float32."""
    with _opened(path) as file:
        metadata = file.metadata() or {}
        storage = metadata.get("storage")
        if storage not in (None, compact.STORAGE):
            raise UserError(f"{path}: is stored as {storage!r}, which this version cannot read; "
                            "update music-diffusion")
        names = list(file.keys())
        scales = {name for name in names if storage and name.endswith(compact.SCALE)}
        lonely = {name.removesuffix(compact.SCALE) for name in scales} - set(names)
        if storage and metadata.get("scales") != str(len(scales)):
            raise UserError(f"{path}: damaged ({len(scales)} of {metadata.get('scales')} scales are there)")
        if lonely:
            raise UserError(f"{path}: damaged ({min(lonely)} is missing, and its scale is there)")
        for name in names:
            if name in scales:
                continue
            array = file.get_tensor(name)
            if name + compact.SCALE in scales:
                scale = file.get_tensor(name + compact.SCALE)
                try:
                    compact.check_scale(array, scale)
                except ValueError as error:
                    raise UserError(f"{path}: damaged ({name}: {error})") from error
                array = compact.from_int8(array, scale)
            elif np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise UserError(f"{path}: damaged ({name} has values that are not finite)")
            yield name, array


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Any]:
    """Opens one file. Raises UserError where it is none of safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from error
