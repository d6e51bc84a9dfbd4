"""Logical axes to mesh axes, by literal cases."""

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from music_diffusion.errors import UserError
from music_diffusion.training.partitioning import DEFAULT_RULES, MeshConfig, partition_spec

MESH = AbstractMesh((2, 2, 4), ("data", "fsdp", "model"))


@pytest.mark.parametrize("names, shape, expected", [
    (("embed", "mlp"), (8, 16), ("fsdp", "model")),
    (("mlp", "embed"), (16, 8), ("model", "fsdp")),
    (("embed", "mlp"), (8, 18), ("fsdp", None)),  # 18 is no multiple of 4: stays whole
    (("embed", "heads", "kv"), (8, 4, 3), ("fsdp", "model", None)),
    (("mlp", "heads"), (8, 8), ("model", None)),  # a mesh axis is used once
    (("unheard_of",), (8,), (None,)),
    (("batch", "length"), (8, 3), (("data", "fsdp"), None)),
    (("batch", "length"), (6, 3), (None, None)),
])
def test_partition_spec(names, shape, expected):
    assert partition_spec(names, shape, MESH, DEFAULT_RULES) == PartitionSpec(*expected)


def test_names_must_fit_the_rank():
    with pytest.raises(ValueError, match="2 logical axes"):
        partition_spec(("embed", "mlp"), (8,), MESH, DEFAULT_RULES)


def test_mesh_sizes():
    count = jax.device_count()
    assert dict(MeshConfig().make_mesh().shape) == {"data": count, "fsdp": 1, "model": 1}
    with pytest.raises(UserError, match="does not fill"):
        MeshConfig(data=count, model=3).make_mesh()
    with pytest.raises(UserError, match="at most one is -1"):
        MeshConfig(data=-1, model=-1)
    with pytest.raises(UserError, match="positive"):
        MeshConfig(model=0)
