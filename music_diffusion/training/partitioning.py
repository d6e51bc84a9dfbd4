"""Where arrays live: a mesh of devices and rules from logical axes to its axes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.core import unfreeze
from flax.linen.partitioning import get_axis_names
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from music_diffusion.errors import UserError
from music_diffusion.training.state import TrainState
from music_diffusion.types import Batch

Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

BATCH_AXES = ("data", "fsdp")
DEFAULT_RULES: Rules = (
    ("batch", BATCH_AXES),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("embed", "fsdp"),
    ("kv", None),
    ("length", None),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How the devices of all processes are arranged. One axis may be -1: what is left."""

    data: int = -1  # copies of the model, each with its share of the batch
    fsdp: int = 1  # the same, but each keeps only a share of the parameters
    model: int = 1  # devices that split the wide axes of every layer (tensor parallel)
    rules: Rules = DEFAULT_RULES  # logical axis -> mesh axis, first match wins

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.model)
        if any(s == 0 or s < -1 for s in sizes) or sizes.count(-1) > 1:
            raise UserError(f"MeshConfig(data={self.data}, fsdp={self.fsdp}, model={self.model}): "
                            "axes are positive, and at most one is -1")

    def make_mesh(self) -> Mesh:
        """The mesh over all devices, axes ('data', 'fsdp', 'model')."""
        sizes, count = [self.data, self.fsdp, self.model], jax.device_count()
        known = math.prod(s for s in sizes if s != -1)
        sizes = [count // known if s == -1 else s for s in sizes]
        if math.prod(sizes) != count:
            raise UserError(f"MeshConfig(data={self.data}, fsdp={self.fsdp}, model={self.model}) "
                            f"does not fill {count} devices")
        from jax.experimental import mesh_utils

        return Mesh(mesh_utils.create_device_mesh(tuple(sizes)), (*BATCH_AXES, "model"))


@contextlib.contextmanager
def on_mesh(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Makes constraints by logical names inside a model mean this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        yield


def partition_spec(
    names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    """The mesh axes of one array. An axis that does not divide evenly stays whole."""
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} logical axes {names} for an array of shape {shape}")
    spec = nn.logical_to_mesh_axes(names, rules) or ()

    def fits(size: int, axes) -> bool:
        axes = (axes,) if isinstance(axes, str) else axes
        return size % math.prod(mesh.shape[a] for a in axes) == 0

    return PartitionSpec(*(axes if axes is not None and fits(size, axes) else None
                           for size, axes in zip(shape, spec, strict=True)))


def state_shardings(
    state: TrainState, params_axes: Mapping[str, Any], mesh: Mesh, rules: Rules
) -> TrainState:
    """A NamedSharding for every leaf of a (possibly abstract) state.

    Optimizer statistics and the average lie where their parameter lies if they
    have its shape; everything else is on every device.
    """
    names = flatten_dict(unfreeze(get_axis_names(dict(params_axes)))) if params_axes else {}
    whole = NamedSharding(mesh, PartitionSpec())
    placed = {}
    for param_path, leaf in flatten_dict(unfreeze(dict(state.params))).items():
        spec = PartitionSpec()
        if param_path in names:
            spec = partition_spec(tuple(names[param_path]), leaf.shape, mesh, rules)
        placed[param_path] = leaf.shape, NamedSharding(mesh, spec)

    def place(path, leaf):
        keys = tuple(k.key if isinstance(k, jax.tree_util.DictKey) else None for k in path)
        for first in range(len(keys)):
            if keys[first:] in placed:
                shape, sharding = placed[keys[first:]]
                return sharding if shape == leaf.shape else whole
        return whole

    return jax.tree_util.tree_map_with_path(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Examples spread over the data axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def put_local_batch(batch: Batch, mesh: Mesh) -> Batch:
    """This process's examples -> their part of the global arrays."""
    sharding = batch_sharding(mesh)
    return {k: jax.make_array_from_process_local_data(sharding, np.asarray(v))
            for k, v in batch.items()}


def put_global_batch(batch: Batch, mesh: Mesh) -> Batch:
    """The same examples in every process -> global arrays (whole if they do not divide)."""
    copies = math.prod(mesh.shape[a] for a in BATCH_AXES)
    size = len(next(iter(batch.values())))
    sharding = batch_sharding(mesh) if size % copies == 0 else NamedSharding(mesh, PartitionSpec())
    return {k: jax.device_put(np.asarray(v), sharding) for k, v in batch.items()}
