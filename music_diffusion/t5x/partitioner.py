"""t5x's partitioner with the recipe's mesh and rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from flax.traverse_util import empty_node, flatten_dict, unflatten_dict
from t5x import partitioning

from music_diffusion.errors import UserError
from music_diffusion.t5x.axes import t5x_rules
from music_diffusion.t5x.recipe import Recipe
from music_diffusion.training.partitioning import partition_spec


class RecipePartitioner(partitioning.PjitPartitioner):
    """Partitions as the built-in trainer does: an axis that has no rule, or does not divide evenly,
    stays whole."""

    def get_mesh_axes(self, train_state: Any) -> Any:
        """`train_state` with PartitionSpecs of mesh axes for its arrays, or None."""
        logical = self.get_logical_axes(train_state)
        arrays = _flat(train_state)

        def mesh_axes(path: str, names: Any) -> Any:
            if names is None or names is empty_node:
                return names
            return partition_spec(tuple(names), arrays[path].shape, self.mesh,
                                  self.logical_axis_rules)

        axes = {path: mesh_axes(path, names) for path, names in _flat(logical).items()}
        return logical.restore_state(unflatten_dict(axes, sep="/"))


def _flat(train_state: Any) -> dict[str, Any]:
    return flatten_dict(train_state.state_dict(), keep_empty_nodes=True, sep="/")


def partitioner(recipe: Recipe, model_parallel_submesh: Sequence[int] | None = None
                ) -> RecipePartitioner:
    """The partitioner of a recipe's `MeshConfig`.

    Args:
      recipe: its `mesh.model` devices split the model; the others split the batch.
      model_parallel_submesh: on TPUs, which neighbours those are, (x, y, z, core);
        None leaves it to t5x. See `t5x.partitioning.get_mesh`.

    Raises:
      UserError: the mesh does not fill the devices.
    """
    mesh = recipe.mesh
    sizes = dict(mesh.make_mesh().shape)  # all devices, or a UserError
    submesh = None if model_parallel_submesh is None else tuple(model_parallel_submesh)
    if submesh is None and jax.devices()[0].platform == "cpu":
        submesh = (1, sizes["model"], 1, 1)  # t5x ignores the number on CPUs
    elif submesh is not None and math.prod(submesh) != sizes["model"]:
        raise UserError(f"model_parallel_submesh={submesh} must have MeshConfig.model="
                        f"{sizes['model']} devices")
    return RecipePartitioner(num_partitions=None if submesh else sizes["model"],
                             model_parallel_submesh=submesh, logical_axis_rules=t5x_rules(mesh))
