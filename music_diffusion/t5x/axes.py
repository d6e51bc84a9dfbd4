"""Logical axes: of the optimizer's state, and of what t5x's mesh makes of the recipe's rules. Needs
no t5x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax.core import unfreeze
from flax.traverse_util import flatten_dict

from music_diffusion.training.partitioning import MeshConfig, Rules


def state_axes(state: Any, params: Mapping[str, Any], params_axes: Mapping[str, Any]) -> Any:
    """`state` with the axes of the parameter that each array belongs to, or None.

    An array belongs to a parameter if its path ends with the parameter's and its
    shape is the same: moments, averages. Factors, counters and placeholders have
    other shapes; they lie on every device.

    Args:
      state: a pytree of (possibly abstract) arrays.
      params: nested dict of (possibly abstract) arrays.
      params_axes: the same with a PartitionSpec of logical names for each.
    """
    names = flatten_dict(unfreeze(params_axes))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(unfreeze(params)).items()}

    def axes(path, leaf):
        keys = tuple(getattr(k, "key", None) for k in path)
        for first in range(len(keys)):
            if keys[first:] in names:
                return names[keys[first:]] if shapes[keys[first:]] == leaf.shape else None
        return None

    return jax.tree_util.tree_map_with_path(axes, state)


def t5x_rules(mesh: MeshConfig) -> Rules:
    """The recipe's rules on t5x's mesh, which has the axes 'data' and 'model'.

    What is spread over 'fsdp' is spread over all of 'data', since t5x has no third axis.
    """
    renamed = {"data": ("data",), "fsdp": ("data",) if mesh.fsdp != 1 else (), "model": ("model",)}
    rules: list[tuple[str, str | tuple[str, ...] | None]] = []
    for name, axes in mesh.rules:
        old = (axes,) if isinstance(axes, str) else axes or ()
        new = tuple(dict.fromkeys(n for o in old for n in renamed[o]))
        if axes is None or new:
            rules.append((name, new[0] if len(new) == 1 else new or None))
    return tuple(rules)
