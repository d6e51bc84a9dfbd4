"""Performances of zoo members: their feature, and parameters that grow with the table.

Feature of a batch (R rows of the table, see `networks.performance`):

==================== ========= ==================================================
performance          B         int32, number of each example's performance; or
                     B R       weights of all of them, as for a mixture
==================== ========= ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from music_diffusion.models.base import require_features
from music_diffusion.networks.performance import FEATURE, PERFORMANCE_TABLE, PerformanceConfig
from music_diffusion.types import Batch, Params

FILM = "DenseGeneral_0/kernel"
INPUT = "unet/input/taps/kernel"  # of a U-Net over frames, which reads TAPS of them side by side
FRAME = "frame/kernel"  # of a U-Net over patches: what it sees of the conditions of a frame
TAPS = 3


def performance_weights(batch: Batch, config: PerformanceConfig | None,
                        keep: Float[Array, " B"] | None = None) -> Float[Array, "B R"] | None:
    """Returns the batch's performances as weights of the table's rows; None where the model has no table.

    Args:
      batch: with the feature, if there is a table.
      config: the table.
      keep: 0 drops an example's performance, 1 keeps it; None keeps all.

    Raises:
      UserError: the feature is missing.
    """
    if config is None:
        return None
    require_features(batch, (FEATURE,))
    given = jnp.asarray(batch[FEATURE])
    weights = jax.nn.one_hot(given, config.count) if given.ndim == 1 else given.astype(jnp.float32)
    if weights.shape[-1] != config.count:
        raise ValueError(f"{weights.shape[-1]} weights for a table of {config.count} performances")
    return weights if keep is None else weights * keep[:, None]


def widened(fresh: Params, stored: Params) -> dict[str, Any]:
    """Returns parameters of a model without performances, or with fewer, as those of one with more.

    FiLM layers, and the layer by which a U-Net sees features of frames, get rows of zeros for new
    ones, so that the model begins as it was: whatever a new feature's value, it adds nothing yet.
    What `stored` does not have (the table, the FiLM of the attention) stays fresh. Rows and
    features that the table already had keep their values; the features that are new are
    0 in the rows that are not, which later training of FiLM's new rows leaves alone.

    Args:
      fresh: of the larger model.
      stored: of the smaller one, nested dicts.
    """
    new, old = (flatten_dict(dict(tree), sep="/") for tree in (fresh, stored))
    result: dict[str, Any] = {}
    for name, value in new.items():
        kept = old.pop(name, None)
        if kept is None:
            result[name] = value
            continue
        kept, shape = np.asarray(kept), np.shape(value)
        if (name.endswith(FILM) or name == FRAME) and kept.shape[0] < shape[0]:
            kept = np.pad(kept, [(0, shape[0] - kept.shape[0]), (0, 0)])
        elif name == INPUT and kept.shape[0] < shape[0] and kept.shape[1] == shape[1]:
            taps = kept.reshape(TAPS, -1, kept.shape[1])
            more = (shape[0] - kept.shape[0]) // TAPS
            kept = np.pad(taps, [(0, 0), (0, more), (0, 0)]).reshape(shape)
        elif name.endswith(PERFORMANCE_TABLE) and kept.shape != shape:
            table = np.array(value)
            table[:kept.shape[0]] = np.pad(kept, [(0, 0), (0, shape[1] - kept.shape[1])])
            kept = table
        result[name] = kept
    return unflatten_dict({**result, **old}, sep="/")


def one_more(sizes: Any) -> Any:
    """Returns a network's configuration with one more performance, which has a feature of its own.

    `sizes` is a dataclass with `performances`, and perhaps a `timbre` that may have some, too.
    """
    own: PerformanceConfig = sizes.performances
    larger = dataclasses.replace(own, count=own.count + 1, features=own.features + 1)
    timbre = {f.name: getattr(sizes, f.name) for f in dataclasses.fields(sizes)}.get("timbre")
    parts = {} if timbre is None or timbre.performances is None else {"timbre": one_more(timbre)}
    return dataclasses.replace(sizes, performances=larger, **parts)


def narrowed(params: Params, rows: Sequence[int]) -> dict[str, Any]:
    """Returns parameters of a model with performances as those of one that knows only some of them."""
    flat = flatten_dict(dict(params), sep="/")
    of_rows = {name: np.asarray(value)[list(rows)]
               for name, value in flat.items() if name.endswith(PERFORMANCE_TABLE)}
    return unflatten_dict(flat | of_rows, sep="/")
