"""Logical axes to mesh axes, devices to meshes and rows to processes, by literal cases."""

import dataclasses
import math
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AbstractMesh, Mesh, PartitionSpec
from reference.devices import cpu_devices

import gin
from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.models.base import split_variables
from music_diffusion.training.partitioning import (
    DEFAULT_RULES,
    MeshConfig,
    batch_shard,
    partition_spec,
    put_global_batch,
    put_local_batch,
)

AXES = ("data", "fsdp", "model")
MESH = AbstractMesh((2, 2, 4), AXES)


@pytest.mark.parametrize("names, shape, expected", [
    (("embed", "mlp"), (8, 16), ("fsdp", "model")),
    (("mlp", "embed"), (16, 8), ("model", "fsdp")),
    (("embed", "mlp"), (8, 18), ("fsdp", None)),  # 18 is no multiple of 4: stays whole
    (("embed", "mlp"), (7, 18), (None, "fsdp")),  # … unless nothing else is split over fsdp
    (("embed", "heads", "kv"), (8, 4, 3), ("fsdp", "model", None)),
    (("mlp", "heads"), (8, 8), ("model", None)),  # a mesh axis is used once
    (("mel", "embed"), (8, 8), ("model", "fsdp")),
    (("conv", "embed", "mlp"), (3, 1, 8), (None, None, "model")),
    (("taps", "mlp"), (6, 8), ("fsdp", "model")),
    (("unheard_of",), (8,), (None,)),
    ((None, "embed"), (8, 8), (None, "fsdp")),
    (("batch", "length"), (8, 3), (("data", "fsdp"), None)),
    (("batch", "length"), (6, 3), (None, None)),
])
def test_partition_spec(names, shape, expected):
    assert partition_spec(names, shape, MESH, DEFAULT_RULES) == PartitionSpec(*expected)


def test_a_mesh_axis_of_one_device_leaves_the_array_to_another_rule():
    mesh = AbstractMesh((1, 8, 1), AXES)
    for names, shape, expected in ((("conv", "mlp"), (4, 8), (None, "fsdp")),
                                   (("embed", "mlp"), (8, 8), ("fsdp", None)),
                                   (("batch",), (8,), (("data", "fsdp"),))):
        assert partition_spec(names, shape, mesh, DEFAULT_RULES) == PartitionSpec(*expected)


def test_the_first_rule_that_fits_wins_and_none_means_whole():
    rules = (("embed", None), ("embed", "fsdp"), ("mlp", "fsdp"), ("mlp", "model"))
    assert partition_spec(("embed", "mlp"), (8, 8), MESH, rules) == PartitionSpec(None, "fsdp")


def test_names_must_fit_the_rank():
    with pytest.raises(ValueError, match="2 logical axes"):
        partition_spec(("embed", "mlp"), (8,), MESH, DEFAULT_RULES)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [
    "spectrogram_diffusion_small_context", "default", "inverter", "inverter_paper",
    "inverter_istft", "transcriber"])
def test_a_device_holds_its_share_of_the_parameters_of_zoo_members(recipe):
    with gin_setup.private_gin():
        gin_setup.parse([f"recipes/{recipe}.gin"])
        model = gin.query_parameter("train.model").scoped_configurable_fn()
    shapes = {"audio": (1, 1600)} | getattr(model, "feature_shapes", {})
    params, names = split_variables(
        jax.eval_shape(lambda: model.init(jax.random.key(0), shapes)))
    names = flatten_dict(names)
    for sizes, most in (((1, 8, 1), 1.01 / 8), ((2, 2, 2), 1.1 / 4)):
        mesh, held, total = AbstractMesh(sizes, AXES), 0, 0
        for path, leaf in flatten_dict(params).items():
            spec = partition_spec(tuple(names[path]), leaf.shape, mesh, DEFAULT_RULES)
            held += leaf.size / math.prod(mesh.shape[axis] for axis in spec if axis)
            total += leaf.size
        assert 1 / (sizes[1] * sizes[2]) <= held / total < most


def test_mesh_sizes():
    count = jax.device_count()
    assert dict(MeshConfig().make_mesh().shape) == {"data": count, "fsdp": 1, "model": 1}
    with pytest.raises(UserError, match="does not fill"):
        MeshConfig(data=count, model=3).make_mesh()
    with pytest.raises(UserError, match="at most one is -1"):
        MeshConfig(data=-1, model=-1)
    with pytest.raises(UserError, match="positive"):
        MeshConfig(model=0)


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh is arranged by."""

    id: int
    process_index: int
    platform: str = "cpu"
    device_kind: str = "cpu"
    slice_index: int = 0
    coords: tuple[int, ...] = ()
    core_on_chip: int = 0


def devices(processes, each):
    return [Device(i, i // each) for i in range(processes * each)]


def mesh_of(owners, sizes):
    """A mesh whose devices, in order, belong to these processes."""
    found = np.array([Device(i, p) for i, p in enumerate(owners)], object)
    return Mesh(found.reshape(sizes), AXES)


def tpu_slice(number, side=4):
    """A square of chips; each process has a square of four."""
    return [Device(id=(number * side + y) * side + x, platform="tpu", device_kind="TPU v5 lite",
                   process_index=number * side**2 // 4 + y // 2 * (side // 2) + x // 2,
                   slice_index=number, coords=(x, y, 0)) for y in range(side) for x in range(side)]


def test_model_axes_lie_within_processes():
    mesh = MeshConfig(data=2, fsdp=-1, model=2).make_mesh(devices(2, 4))
    assert mesh.devices.shape == (2, 2, 2) and mesh.axis_names == AXES
    assert [[d.id for d in row] for row in mesh.devices.reshape(-1, 2)] == [
        [0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("sizes, count", [
    ((16, 1, 1), 4), ((1, 16, 1), 4), ((2, 4, 2), 4), ((4, 1, 4), 2), ((2, 1, 8), 2)])
def test_meshes_of_a_tpu_slice_hold_every_chip_once(sizes, count):
    mesh = MeshConfig(**dict(zip(AXES, sizes, strict=True))).make_mesh(tpu_slice(0))
    assert mesh.devices.shape == sizes
    assert {d.id for d in mesh.devices.flat} == set(range(16))
    # However the torus is walked, no two processes read the same but those of one model axis.
    assert {batch_shard(mesh, p) for p in range(4)} == {(i, count) for i in range(count)}


@pytest.mark.parametrize("sizes, slices_of", [
    # What talks most stays within a slice; rows of slices by data index, or by fsdp index.
    ((2, 4, 4), [[0, 0, 0, 0], [1, 1, 1, 1]]), ((1, 2, 16), [[0, 1]]), ((1, 4, 8), [[0, 0, 1, 1]]),
    ((4, 8, 1), [[0] * 8, [0] * 8, [1] * 8, [1] * 8])])
def test_tpu_slices_are_joined_along_the_data_axes(sizes, slices_of):
    config = MeshConfig(**dict(zip(AXES, sizes, strict=True)))
    mesh = config.make_mesh([*tpu_slice(1), *tpu_slice(0)])
    found = [[{d.slice_index for d in model} for model in row] for row in mesh.devices]
    assert found == [[{s} for s in row] for row in slices_of]


def test_a_model_axis_over_tpu_slices_is_an_error():
    with pytest.raises(UserError, match="multiple of 2 TPU slices"):
        MeshConfig(data=1, model=32).make_mesh([*tpu_slice(0), *tpu_slice(1)])


@pytest.mark.parametrize("processes, each, sizes, expected", [
    (2, 4, (8, 1, 1), [0, 1]), (2, 4, (4, 1, 2), [0, 1]), (2, 4, (2, 1, 4), [0, 1]),
    (2, 4, (1, 8, 1), [0, 1]), (2, 4, (2, 2, 2), [0, 1]), (2, 4, (1, 2, 4), [0, 1]),
    (2, 4, (1, 1, 8), [0, 0]),  # both hold all rows
    (4, 2, (2, 1, 4), [0, 0, 1, 1]), (4, 2, (1, 2, 4), [0, 0, 1, 1]),
    (8, 1, (2, 2, 2), [0, 0, 1, 1, 2, 2, 3, 3]), (1, 8, (2, 2, 2), [0])])
def test_processes_read_the_rows_that_their_devices_hold(processes, each, sizes, expected):
    config = MeshConfig(**dict(zip(AXES, sizes, strict=True)))
    mesh = config.make_mesh(devices(processes, each))
    count = max(expected) + 1
    assert [batch_shard(mesh, p) for p in range(processes)] == [(i, count) for i in expected]


@pytest.mark.parametrize("owners, sizes, expected", [
    ([0, 1, 0, 1], (4, 1, 1), [(0, 2), (1, 2)]),  # alternating rows
    ([0, 1, 0, 1], (2, 1, 2), [(0, 1), (0, 1)]),
    ([0, 1, 1, 0], (2, 1, 2), [(0, 1), (0, 1)]),
    ([0, 0, 1, 1, 2, 2, 3, 3], (4, 2, 1), [(0, 4), (1, 4), (2, 4), (3, 4)]),
    ([0, 0, 0, 1], (4, 1, 1), [(0, 1), (0, 1)]),  # unequal parts: everyone reads all
    ([0, 1, 1, 2, 2, 0], (3, 1, 2), [(0, 1), (0, 1), (0, 1)]),  # overlapping parts
])
def test_other_arrangements(owners, sizes, expected):
    mesh = mesh_of(owners, sizes)
    assert [batch_shard(mesh, p) for p in sorted(set(owners))] == expected


@given(st.data())
def test_shards_hold_what_the_devices_need(data):
    sizes = data.draw(st.sampled_from([(8, 1, 1), (2, 2, 2), (4, 1, 2), (1, 4, 2), (2, 1, 4)]))
    each = data.draw(st.sampled_from([2, 4]))
    owners = data.draw(st.permutations([i // each for i in range(8)]))
    mesh = mesh_of(owners, sizes)
    needed = {p: {i for i, block in enumerate(mesh.devices.reshape(-1, sizes[2]))
                  if p in {d.process_index for d in block}} for p in owners}
    shards = {p: batch_shard(mesh, p) for p in owners}
    (count,) = {c for _, c in shards.values()}
    assert {i for i, _ in shards.values()} == set(range(count))
    blocks = sizes[0] * sizes[1]
    for p, q in ((p, q) for p in owners for q in owners):
        if count > 1:  # all that a process needs, and no more: one part of `count`
            assert len(needed[p]) * count == blocks
            assert (shards[p] == shards[q]) == (needed[p] == needed[q])
            assert needed[p] == needed[q] or not needed[p] & needed[q]


@pytest.mark.slow
@pytest.mark.optimized
def test_a_step_gathers_every_parameter_once_and_no_activations():
    environment = os.environ | cpu_devices(8) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = subprocess.run([sys.executable, "-m", "reference.sharded_step"], env=environment,
                             capture_output=True, text=True, check=True).stdout
    gathered = re.findall(r"= f32\[([\d,]+)\]\S* (?:all-gather|all-to-all)\(", program)
    # Positions, ids, two norms, the gated MLP and the output.
    assert sorted(gathered) == sorted(["4,16", "32,16", "16", "16", "16,24", "16,24", "24,16", "16,8"])
    assert not [line for line in program.splitlines() if "all-reduce(" in line and "[64," in line]


def test_batches_keep_their_values_on_one_process():
    mesh = MeshConfig().make_mesh()
    batch = {"x": np.arange(6 * mesh.size).reshape(-1, 3), "id": np.arange(2 * mesh.size)}
    for put in (put_local_batch, put_global_batch):
        placed = put(batch, mesh)
        for name, values in batch.items():
            np.testing.assert_array_equal(placed[name], values)
            assert placed[name].sharding.spec == PartitionSpec(("data", "fsdp"))
