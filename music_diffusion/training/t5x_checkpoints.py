"""Checkpoints of t5x, read without t5x: Orbax's, and the older ones of MessagePack and tensorstore.

A run of t5x has folders `checkpoint_STEP`. In a newer one lies `state/`, which Orbax reads. An
older one has a file `checkpoint`, a MessagePack of the state in which most arrays stand for a
zarr array in a folder beside it (t5x, `checkpoints.py`, version 3). Pickle is never loaded.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from music_diffusion.errors import UserError
from music_diffusion.types import Params

STATE, MESSAGE = "state", "checkpoint"  # names in the folder of a checkpoint
_STEP = re.compile(r"checkpoint_(\d+)")
SPEC = {"driver", "kvstore", "metadata"}  # keys of what stands for an array elsewhere


def is_t5x(path: str | os.PathLike) -> bool:
    """Returns whether `path` is a checkpoint of t5x, or a folder of such."""
    folder = pathlib.Path(path)
    return _is_checkpoint(folder) or bool(_checkpoints(folder))


def read_t5x(path: str | os.PathLike, step: int | None = None) -> tuple[Params, int]:
    """(params, step) of a checkpoint of t5x.

    The parameters are the averaged ones where this package's optimizer kept an
    average, else the last; nested dicts of float32 NumPy arrays.

    Args:
      path: a folder `checkpoint_STEP`, or one of such folders.
      step: which of them; None for the newest.

    Raises UserError where there is none, or it is damaged.
    """
    folder = pathlib.Path(path)
    if not _is_checkpoint(folder):
        there = _checkpoints(folder)
        step = max(there, default=None) if step is None else step
        if step not in there:
            raise UserError(f"{folder}: no checkpoint_{'STEP' if step is None else step} there; there "
                            f"are {', '.join(str(s) for s in sorted(there)) or 'none'}")
        folder = there[step]
    read = _read_orbax if (folder / STATE).is_dir() else _read_message
    try:
        params, step = read(folder)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{folder}: no checkpoint of t5x, or a damaged one "
                        f"({' '.join(str(error).split())[:200]})") from error
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params), step


def _is_checkpoint(folder: pathlib.Path) -> bool:
    return _STEP.fullmatch(folder.name) is not None and (
        (folder / STATE).is_dir() or (folder / MESSAGE).is_file())


def _checkpoints(folder: pathlib.Path) -> dict[int, pathlib.Path]:
    """Step → folder, of complete ones: others have longer names."""
    return {int(match[1]): path for path in folder.glob("checkpoint_*")
            if (match := _STEP.fullmatch(path.name)) and _is_checkpoint(path)}


def _chosen(tree: Mapping[str, Any]) -> tuple[str, ...]:
    """Path of the parameters in a state."""
    average = ("state", "param_states", "ema_params")
    found: Any = tree
    for name in average:
        found = found.get(name) if isinstance(found, Mapping) else None
    return average if found else ("target",)


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _read_orbax(folder: pathlib.Path) -> tuple[Params, int]:
    import orbax.checkpoint as ocp

    state, reader = (folder / STATE).absolute(), ocp.PyTreeCheckpointHandler()
    tree = reader.metadata(state).tree
    path = _chosen(tree)
    wanted = {path: _at(tree, path), ("state", "step"): _at(tree, ("state", "step"))}
    item = jax.tree.map(lambda _: np.zeros(()), unflatten_dict(wanted))
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
    restored = reader.restore(state, args=ocp.args.PyTreeRestore(
        item, partial_restore=True, restore_args=arguments))
    return _at(restored, path), int(_at(restored, ("state", "step")))


def _read_message(folder: pathlib.Path) -> tuple[Params, int]:
    from flax.serialization import msgpack_restore

    message = msgpack_restore((folder / MESSAGE).read_bytes())
    state = message["optimizer"]
    leaves = flatten_dict(_at(state, _chosen(state)), is_leaf=lambda _, value: _is_spec(value))
    reads = {path: _open(folder, leaf) if _is_spec(leaf) else leaf for path, leaf in leaves.items()}
    arrays = {path: leaf.result().read().result() if _is_spec(leaves[path]) else leaf
              for path, leaf in reads.items()}
    return unflatten_dict(arrays), int(state["state"]["step"])


def _is_spec(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() >= SPEC


def _open(folder: pathlib.Path, spec: Mapping[str, Any]) -> Any:
    """A tensorstore that is being opened; where it was written (a bucket, another folder) is no
    matter."""
    import tensorstore

    name = spec["kvstore"].get("path") or spec["path"]
    where = {"driver": "file", "path": str((folder / name).absolute())}
    return tensorstore.open({"driver": spec["driver"], "kvstore": where}, open=True, read=True)
