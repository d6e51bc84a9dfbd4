"""The note timbre network as a model of its own, trained on frames of isolated notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.models.performance import performance_weights, widened
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig
from music_diffusion.networks.performance import FEATURE, PerformanceConfig
from music_diffusion.networks.score_denoiser import SLOT_FIELDS
from music_diffusion.types import Batch, Params, StepProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteTimbreModel(ModelBase):
    """Trains the note timbre network on frames of isolated notes (`data.note_renders`).

    Features: `SLOT_FIELDS` [B] and `mel` [B, F]; with performances [B, N], [B, N, F] and
    `performance`, N frames of one performance (`models.performance`).
    """

    config: NoteTimbreConfig = NoteTimbreConfig()

    @property
    def performances(self) -> PerformanceConfig | None:
        """The table of performances."""
        return self.config.performances

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`."""
        del shapes
        ids, seconds = jnp.zeros((1,), jnp.int32), jnp.zeros((1,))
        performance = performance_weights({FEATURE: ids}, self.config.performances)
        return jax.jit(NoteTimbre(self.config).init)(rng, ids, ids, ids, seconds, seconds, performance)

    def adopt(self, params: Params, stored: Params) -> Params:
        """Takes a network with fewer performances, or none, as this one; see `models.performance.widened`.

        `stored` may also be the parameters of a model that has a note timbre network.
        """
        return widened(params, stored.get("timbre", stored))

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the mean absolute error in nat; what both put below the codec's floor is right."""
        del rng
        mel = self._mel(params, batch, one_hot=True)
        target, floor = jnp.asarray(batch["mel"]), self.config.codec.log_min
        silent = (mel < floor) & (target < floor + 0.02)
        loss = jnp.mean(jnp.where(silent, 0.0, jnp.abs(mel - target)))
        return loss, {"loss": loss}

    eval_fn = loss_fn

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B F"]:
        """Returns log-mel in nat of every frame."""
        del rng, progress
        require_features(batch, SLOT_FIELDS)
        return self._mel(params, batch, one_hot=False)

    def _mel(self, params: Params, batch: Batch, one_hot: bool) -> Float[Array, "B F"]:
        fields = (jnp.asarray(batch[f]) for f in SLOT_FIELDS)
        performance = performance_weights(batch, self.config.performances)
        return NoteTimbre(self.config).apply({"params": params}, *fields, performance, one_hot=one_hot)
