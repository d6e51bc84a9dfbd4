"""Training that begins with parameters of an earlier run or a released model."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.training.checkpoints import read_params
from music_diffusion.training.t5x_checkpoints import is_t5x, read_t5x
from music_diffusion.types import Params


def stored_params(path: str | os.PathLike) -> Params:
    """The parameters in a safetensors file, or the averaged ones of a run's newest checkpoint.

    Raises UserError where there are none.
    """
    if pathlib.Path(path).is_dir():
        return read_t5x(path)[0] if is_t5x(path) else read_params(path)[0]
    return load_safetensors(path)


def warm_start(params: Params, stored: Params, parts: Sequence[str], source: str) -> Params:
    """`params`, but with those of `stored` where it has them, laid out over devices as they were.

    What is taken is taken whole: every top-level part that `stored` has must be
    there with the same names and shapes, so that no layer stays untrained by mistake.

    Args:
      params: fresh parameters.
      stored: nested dict of arrays.
      parts: top-level names to take; none for all that there are.
      source: of `stored`, for messages.

    Raises:
      UserError: naming the first parameter that does not fit.
    """
    missing = sorted(set(parts) - set(stored))
    if missing:
        raise UserError(f"{source}: has no part {missing[0]!r}, only {', '.join(sorted(stored))}")
    taken = flatten_dict({k: v for k, v in stored.items() if not parts or k in parts}, sep="/")
    tops = {name.partition("/")[0] for name in taken}
    fresh = flatten_dict(dict(params), sep="/")
    expected = {k: v for k, v in fresh.items() if k.partition("/")[0] in tops}
    for name in sorted(expected.keys() | taken.keys()):
        shapes = [tree[name].shape if name in tree else "none" for tree in (taken, expected)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{source}: does not fit this model, first at {name}: {shapes[0]} there, "
                            f"{shapes[1]} in the model; name what to take in train.init_parts, or "
                            "use the model's own sizes")
    return unflatten_dict({**fresh, **{k: _like(fresh[k], v) for k, v in taken.items()}}, sep="/")


def _like(fresh: jax.Array, values: np.ndarray) -> jax.Array:
    values = np.asarray(values, fresh.dtype)
    return jax.make_array_from_callback(values.shape, fresh.sharding, lambda index: values[index])
