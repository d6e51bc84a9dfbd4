"""Learning of one more performance, and nothing else: a model is left as it was for the others.

A model with R performances of D features becomes one of R + 1 and D + 1. The new feature is 1 for the
new performance and 0 for all others, so that the rows of FiLM's kernels which it meets are the new
performance's own: its FiLM is learned, not only its place among the others', and whatever these rows
become, the others do not see them.

Parameters of training: `base`, which is frozen, and `adapter`, the new row of each table and the new
row of each kernel. `merged` makes one model of the two.

Where the notes themselves have performances (`networks.note_timbre`), their rows are learned first, with
the map that a denoiser is given (`models.note_map.MapModel`): a network that draws notes need not then
be part of every step of the denoiser's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.partitioning import AxisMetadata
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.models.base import Metrics, Model, ModelBase, Variables
from music_diffusion.models.performance import FILM, PERFORMANCE_TABLE, widened
from music_diffusion.types import Batch, Params, StepProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptationModel(ModelBase):
    """Trains the adapter of `model`; implements `models.base.Model`."""

    model: Model  # of R + 1 performances (`Model.one_more_performance`)
    begin_with: int = 0  # row of the performance whose features the new one begins with

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns patterns of parameters that training leaves alone."""
        return ("base/.*",)

    @property
    def feature_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Returns the shapes that `init` needs."""
        return self.model.feature_shapes

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        variables = self.model.init(rng, shapes)
        adapter = new_rows(variables["params"], self.begin_with)
        axes = {name: AxisMetadata(names=(None,) * value.ndim) for name, value in
                flatten_dict(adapter, sep="/").items()}
        marked = {tuple(f"{name}_axes".split("/")): axis for name, axis in axes.items()}
        return {"params": {"base": variables["params"], "adapter": adapter},
                "params_axes": {"base": variables["params_axes"], "adapter": unflatten_dict(marked)}}

    def adopt(self, params: Params, stored: Params) -> Params:
        """Takes the parameters of the model before it was grown as frozen ones; or those of a training."""
        if set(stored) == {"base", "adapter"}:
            return stored
        base = widened(params["base"], stored)
        return {"base": base, "adapter": new_rows(base, self.begin_with)}

    def merged(self, params: Params) -> dict[str, Any]:
        """Returns the grown model's own parameters."""
        rows = flatten_dict(dict(params["adapter"]), sep="/")
        whole = flatten_dict(dict(params["base"]), sep="/")
        for name, row in rows.items():
            old = whole[name]
            if name.endswith(PERFORMANCE_TABLE):
                row = jnp.append(row, jnp.ones((1,), row.dtype))
            whole[name] = jnp.concatenate([old[:-1], row[None].astype(old.dtype)])
        return unflatten_dict(whole, sep="/")

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the model's own training loss."""
        return self.model.loss_fn(self.merged(params), batch, rng)

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """The model's own."""
        return self.model.eval_fn(self.merged(params), batch, rng)

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> jax.Array:
        """The model's own."""
        return self.model.predict_batch(self.merged(params), batch, rng, progress=progress)


def new_rows(params: Params, begin_with: int) -> dict[str, Any]:
    """Returns the adapter's first values: another performance's features, and FiLM that does nothing yet.

    Those kernels have a new row whose last input is the performance's last feature.
    """
    rows: dict[str, Any] = {}
    for name, value in flatten_dict(dict(params), sep="/").items():
        if name.endswith(PERFORMANCE_TABLE):
            rows[name] = jnp.asarray(value)[begin_with, :-1]
        elif name.endswith(FILM):
            rows[name] = jnp.zeros((np.shape(value)[1],), jnp.float32)
    return unflatten_dict(rows, sep="/")


def losses_of(model: Model, params: Params, batch: Batch, count: int, rng: PRNGKeyArray
              ) -> Float[np.ndarray, " R"]:
    """Returns the loss of a batch with each of `count` performances, with the same noise."""
    size = len(np.asarray(batch["targets"]))

    @jax.jit
    def loss(params, batch, number):
        return model.eval_fn(params, {**batch, "performance": jnp.full((size,), number)}, rng)[0]

    return np.array([float(loss(params, batch, i)) for i in range(count)])
