"""Cache of results on disk, by what they were made of; an interrupted evaluation goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from music_diffusion.files import write_bytes

Arrays = dict[str, np.ndarray]


def digest(*parts: Any) -> str:
    """Returns a key of values that JSON can hold: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def file_digest(path: str | os.PathLike) -> str:
    """Returns the digest of a file's content."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()[:32]


def array_digest(arrays: Arrays) -> str:
    """Returns the digest of arrays: their names, types, shapes and values."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()[:32]


class Cache:
    """A folder of results: arrays as safetensors, floats as JSON, each with a checksum.

    A file that is damaged, or was not written to its end, is made again.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def arrays(self, kind: str, key: str, make: Callable[[], Arrays]) -> Arrays:
        """Returns what `make` returned for this key, now or earlier."""
        path = self._folder / f"{kind}-{key}.safetensors"
        found = _read_arrays(path)
        if found is None:
            found = {name: np.ascontiguousarray(array) for name, array in make().items()}
            write_bytes(path, save(found, metadata={"digest": array_digest(found)}))
        return found

    def values(self, kind: str, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns such a dict of what JSON holds; NaN comes back as NaN at the top level."""
        path = self._folder / f"{kind}-{key}.json"
        found = _read_values(path)
        if found is None:
            found = make()
            plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}
            content = {"digest": digest(plain), "values": plain}
            write_bytes(path, json.dumps(content, allow_nan=False).encode())
        return found


def _read_arrays(path: pathlib.Path) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as f:
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118 (no dict)
            kept = (f.metadata() or {}).get("digest")
    except (SafetensorError, OSError, ValueError):
        return None
    return arrays if kept == array_digest(arrays) else None


def _read_values(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        values, kept = content["values"], content["digest"]
    except (ValueError, KeyError, TypeError, OSError):
        return None
    if kept != digest(values):
        return None
    return {k: math.nan if v is None else v for k, v in values.items()}
