"""The map that a frame diffusion model gives its denoiser, as a model: fitted to what is recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.types import Batch, Params, StepProgress

if TYPE_CHECKING:
    from music_diffusion.models.frame_diffusion import FrameDiffusionModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapModel(ModelBase):
    """The map of a model; implements `models.base.Model`.

    Batches have slots, and tails where the model has some (`models.frame_diffusion`).
    """

    model: FrameDiffusionModel

    @property
    def performances(self) -> PerformanceConfig | None:
        """Returns the table of the whole network, to which the parameters belong."""
        return self.model.performances

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes` of the whole network."""
        return self.model.init(rng, shapes)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean absolute error of the map in nat."""
        del rng
        error = jnp.abs(self._map(params, batch) - jnp.asarray(batch["targets"]))
        codec = self.model.codec
        loss = 0.5 * (codec.log_max - codec.log_min) * jnp.mean(error)
        return loss, {"loss": loss}

    eval_fn = loss_fn

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Returns scaled maps."""
        del rng, progress
        return self._map(params, batch)

    def _map(self, params: Params, batch: Batch) -> Float[Array, "B T F"]:
        require_features(batch, ("slot_program",))
        given = without_maps(batch)
        keep = jnp.ones(jnp.shape(batch["slot_program"])[:1])
        # Its rows are looked up by products, whose gradients are fast.
        return dataclasses.replace(self.model, train_timbre=True).condition(params, given, keep)["map"]


def without_maps(batch: Batch) -> Batch:
    """Returns the batch without its maps, which are then drawn from its slots."""
    return {k: v for k, v in batch.items() if k not in ("maps", "base_maps")}
