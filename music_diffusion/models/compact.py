"""Weights in 8 bits: q in -127…127 with a float32 scale s per row, w ≈ s q, |w - s q| ≤ s / 2.

The rows of a kernel are its inputs or its outputs, whichever give the smaller expected squared error,
the sum of s² / 12 over all elements: where some inputs are much stronger than others (the first layer of
a U-Net), a scale per output loses three times as much. s = max |w| / 127: smaller scales that clip the
largest values lower the error of no network in the package by as much as 1 %, so nothing is clipped, and
what is stored twice stays as it was.
"""

from __future__ import annotations

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.networks.patches import STATISTICS
from music_diffusion.networks.performance import PERFORMANCE_TABLE

STORAGE = "int8/1"  # name and version of the format, in the file's metadata
SCALE = "//scale"  # after the name of an array; parameters' names have no empty part
LARGE = 4096  # elements from which an array is worth 8 bits
SHORTEST = 16  # elements that share a scale, at least
MOST = 127  # greatest q; -128 is not used, so that signs are alike


def fits(name: str, array: np.ndarray) -> bool:
    """Returns whether an array is stored in 8 bits: a large matrix of floats, and no table of performances.

    Biases and norms are small. A table of performances has a digest of its values in float16. Axes of
    statistics must stay orthonormal.
    """
    return (np.issubdtype(array.dtype, np.floating) and array.ndim >= 2 and array.size >= LARGE
            and not name.endswith(PERFORMANCE_TABLE) and not name.startswith(f"{STATISTICS}/"))


def to_int8(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stores an array for which `fits` is true.

    Returns (q int8, s float32), where s has the axes of q with length 1 along a row.
    Raises UserError that names the array: NaN, infinite, or beyond float32.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(array, np.float32)
    if not np.isfinite(array).all():
        raise UserError(f"{name}: has values that int8 cannot hold (NaN or infinite); were they trained?")
    outputs = array.shape[-1]
    ways = {tuple(range(array.ndim - 1)): array.size // outputs, (array.ndim - 1,): outputs}
    scales = [np.abs(array).max(axis=axes, keepdims=True) / np.float32(MOST)
              for axes, length in ways.items() if length >= SHORTEST]
    scale = min(scales, key=lambda s: np.square(s, dtype=np.float64).mean())
    # Rows of zeros, or of what is 0 to float32 after the division, have the scale 0.
    rounded = np.rint(array / np.where(scale > 0, scale, np.float32(np.inf)))
    return np.clip(rounded, -MOST, MOST).astype(np.int8), scale


def from_int8(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns s q in float32."""
    values = q.astype(np.float32)
    values *= scale
    return values


def check_scale(q: np.ndarray, scale: np.ndarray) -> None:
    """Raises ValueError unless they are such as `to_int8` makes."""
    shapes = {(*(1,) * (q.ndim - 1), *q.shape[-1:]), (*q.shape[:-1], 1)}
    if q.dtype != np.int8 or scale.dtype != np.float32 or scale.shape not in shapes:
        raise ValueError(f"{q.dtype} {list(q.shape)} with a scale of {scale.dtype} {list(scale.shape)}")
    # Also such that the products are finite.
    if not ((scale >= 0) & (scale <= np.finfo(np.float32).max / MOST)).all():
        raise ValueError("a scale is negative, infinite or NaN")
    if (q < -MOST).any():
        raise ValueError(f"a value below {-MOST}")
