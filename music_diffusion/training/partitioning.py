"""Places of arrays: a mesh of devices and rules from logical axes to its axes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
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

# Logical axis -> mesh axis, or None for "whole"; see `partition_spec`.
Rules = tuple[tuple[str, str | tuple[str, ...] | None], ...]

BATCH_AXES = ("data", "fsdp")
DEFAULT_RULES: Rules = (
    ("batch", BATCH_AXES),
    ("vocab", "model"),
    ("mlp", "model"),
    ("heads", "model"),
    ("joined_kv", "model"),
    ("mel", "model"),
    ("embed", "fsdp"),
    ("taps", "fsdp"),
    ("mlp", "fsdp"),  # where neither is there or divides
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Arrangement of the devices of all processes. One axis may be -1: what is left."""

    data: int = -1  # copies of the model, each with its share of the batch
    fsdp: int = 1  # the same, but each keeps only a share of the parameters
    model: int = 1  # devices that split the wide axes of every layer (tensor parallel)
    rules: Rules = DEFAULT_RULES  # logical axis -> mesh axis, the first that fits wins

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.model)
        if any(s == 0 or s < -1 for s in sizes) or sizes.count(-1) > 1:
            raise UserError(f"{self._axes}: axes are positive, and at most one is -1")

    def make_mesh(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh over `devices`, by default all, with the axes ('data', 'fsdp', 'model').

        Neighbours along later axes talk more and are closer to each other: 'model' lies within a
        process where it fits, and within a TPU slice always.

        Raises:
          UserError: the axes do not fill the devices, or 'model' would span slices.
        """
        devices = jax.devices() if devices is None else devices
        sizes, count = [self.data, self.fsdp, self.model], len(devices)
        known = math.prod(s for s in sizes if s != -1)
        sizes = [count // known if s == -1 else s for s in sizes]
        if math.prod(sizes) != count:
            raise UserError(f"{self._axes} does not fill {count} devices")
        return Mesh(self._arranged(sizes, devices), (*BATCH_AXES, "model"))

    @property
    def _axes(self) -> str:
        return f"MeshConfig(data={self.data}, fsdp={self.fsdp}, model={self.model})"

    def _arranged(self, sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
        """The devices as an array of `sizes`."""
        from jax.experimental import mesh_utils

        slices = len({getattr(d, "slice_index", 0) for d in devices})
        if devices[0].platform != "tpu" or slices == 1:
            return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        data = math.gcd(sizes[0], slices)
        fsdp = math.gcd(sizes[1], slices // data)
        if data * fsdp != slices:
            raise UserError(f"{self._axes}: data x fsdp must be a multiple of {slices} TPU slices")
        within = (sizes[0] // data, sizes[1] // fsdp, sizes[2])
        return mesh_utils.create_hybrid_device_mesh(
            within, (data, fsdp, 1), devices, allow_split_physical_axes=True)


@contextlib.contextmanager
def on_mesh(mesh: Mesh, rules: Rules) -> Iterator[None]:
    """Makes constraints by logical names inside a model mean this mesh.

    There, parameters are whole along 'fsdp': every layer gathers its own when it needs them, and
    the activations stay with their examples. Constrained to their shares as they are stored, it
    would be the activations that are gathered, of all examples on every device.
    """
    used = tuple((name, axes) for name, axes in rules if name == "batch" or "fsdp" not in (axes or ()))
    with jax.set_mesh(mesh), nn.logical_axis_rules(used):
        yield


def partition_spec(
    names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh, rules: Rules
) -> PartitionSpec:
    """The mesh axes of one array, given the logical names of its axes.

    The rules are tried in order. One fits if its mesh axes are more than one device, divide the
    array's axis evenly and split no other axis of it. What no rule fits stays whole.
    """
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} logical axes {names} for an array of shape {shape}")
    spec: list[str | tuple[str, ...] | None] = [None] * len(names)
    undecided = set(range(len(names)))
    taken: set[str] = set()
    for name, axes in rules:
        wanted = {axes} if isinstance(axes, str) else set(axes or ())
        parts = math.prod(mesh.shape[a] for a in wanted)
        for i in sorted(i for i in undecided if names[i] == name):
            fits = parts > 1 and shape[i] % parts == 0 and not wanted & taken
            if axes is None or fits:
                undecided.remove(i)
            if fits:
                spec[i] = axes
                taken |= wanted
    return PartitionSpec(*spec)


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


def batch_shard(mesh: Mesh, process_index: int | None = None) -> tuple[int, int]:
    """(index, count): which of `count` equal parts of every batch a process reads, by default this.

    The devices along the data axes hold one block of rows each, those along other axes copies of
    it. Processes whose devices hold the same blocks have the same index: they read the same rows.
    Where processes share some of their blocks but not all, every process reads the whole batch.
    """
    process_index = jax.process_index() if process_index is None else process_index
    blocks = mesh.devices.reshape(batch_parts(mesh), -1)  # the data axes come first
    held: dict[int, list[int]] = {}
    for block, devices in enumerate(blocks):
        for process in {d.process_index for d in devices}:
            held.setdefault(process, []).append(block)
    parts = sorted({tuple(found) for found in held.values()})
    if len({len(part) for part in parts}) > 1 or sum(map(len, parts)) != len(blocks):
        return 0, 1
    return parts.index(tuple(held[process_index])), len(parts)


def batch_parts(mesh: Mesh) -> int:
    """Parts of a batch that lie on different devices."""
    return math.prod(mesh.shape[name] for name in BATCH_AXES)


def put_local_batch(batch: Batch, mesh: Mesh) -> Batch:
    """The rows that this process has read (`batch_shard`) -> their part of the global arrays.

    The rows keep their order where a process's blocks are neighbours. On a torus of TPUs they may
    not be: then the processes' rows alternate in the global batch.
    """
    sharding, count = batch_sharding(mesh), batch_shard(mesh)[1]
    arrays = {k: np.asarray(v) for k, v in batch.items()}
    return {k: jax.make_array_from_process_local_data(
                sharding, v, global_shape=(count * len(v), *v.shape[1:]))
            for k, v in arrays.items()}


def put_global_batch(batch: Batch, mesh: Mesh) -> Batch:
    """The same examples in every process -> global arrays (whole if they do not divide)."""
    size = len(next(iter(batch.values())))
    sharding = batch_sharding(mesh)
    if size % batch_parts(mesh):
        sharding = NamedSharding(mesh, PartitionSpec())
    arrays = {k: np.asarray(v) for k, v in batch.items()}
    # Not device_put: over several processes it compares all their copies first.
    return {k: jax.make_array_from_callback(v.shape, sharding, v.__getitem__)
            for k, v in arrays.items()}
