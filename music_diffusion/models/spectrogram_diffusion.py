"""Spectrogram diffusion: note tokens (and the previous segment) → mel spectrogram.

Hawthorne et al. 2022, "Multi-instrument music synthesis with spectrogram
diffusion", arXiv 2206.05408. With performances, Maman et al. 2024, "Performance
conditioning for diffusion-based multi-instrument music synthesis", arXiv 2309.12283.

Features of a batch (see types.py for axes):

==================== ========= ==================================================
inputs               B N       int32 note tokens, 0 for padding
targets              B T F     scaled mel in [-1, 1] (not needed to predict)
targets_context      B T F     scaled mel of the previous segment (with context)
targets_context_mask B T       1 for its valid frames; all 0 for a first segment
performance          B         with `config.performances`: see `models.performance`
==================== ========= ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.diffusion.guidance import Guidance
from music_diffusion.diffusion.losses import diffusion_loss, l1, uniform_times
from music_diffusion.diffusion.parameterizations import DenoiseFn, Epsilon, Parameterization
from music_diffusion.diffusion.sampling import TimeGrid, UniformTime, sample
from music_diffusion.diffusion.schedules import CosineSchedule, Schedule
from music_diffusion.diffusion.solvers import DDPM, Solver
from music_diffusion.errors import UserError
from music_diffusion.models.base import (
    CONTEXT,
    OVERLAP,
    SEPARATE,
    DiffusionBase,
    Metrics,
    SegmentLength,
    Variables,
    require_features,
)
from music_diffusion.models.buckets import Loss, bucket_of, switch_loss
from music_diffusion.models.performance import one_more, performance_weights, widened
from music_diffusion.models.regions import keeping
from music_diffusion.models.spaces import MelSpace
from music_diffusion.networks.performance import FEATURE, PerformanceConfig
from music_diffusion.networks.positions import POSITION_TABLE
from music_diffusion.networks.transformer import Encoded, SpectrogramTransformer, T5Config
from music_diffusion.notes.vocabulary import EventConfig
from music_diffusion.types import Batch, Params, StepProgress

CONDITIONS = ("inputs", "targets_context", "targets_context_mask")  # of the notes and what was before


def drop_conditions(batch: Batch, keep: Bool[Array, " B"]) -> dict[str, Any]:
    """Returns the batch with ids, context and mask of the examples not kept set to zero."""
    dropped = dict(batch)
    for name in CONDITIONS:
        if name in batch:
            x = jnp.asarray(batch[name])
            kept = jnp.expand_dims(keep, tuple(range(1, x.ndim)))
            dropped[name] = jnp.where(kept, x, jnp.zeros_like(x))
    return dropped


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramDiffusionModel(DiffusionBase):
    """The zoo member; implements `models.base.Generator`. Defaults are the paper's."""

    config: T5Config  # sizes; its `context` decides which features a batch has
    codec: MelCodec = MelCodec()  # of the spectrograms
    events: EventConfig = EventConfig()  # of the note tokens
    schedule: Schedule = CosineSchedule()
    parameterization: Parameterization = Epsilon()
    distance: Callable[[Array, Array], Array] = l1  # elementwise, between output and target
    training_times: Callable[[PRNGKeyArray, int], Array] = uniform_times  # noise times of a batch
    condition_dropout: float = 0.1  # share of training examples without notes and context; in [0, 1]
    performance_dropout: float = 0.1  # … without their performance, drawn independently
    # Ascending lengths below that of `inputs`: a training step cuts off the padding that all of its
    # examples have beyond one of them. Each length is compiled by itself.
    token_buckets: tuple[int, ...] = ()
    solver: Solver = DDPM(log_variance=1.0)
    times: TimeGrid = UniformTime()  # where the sampler evaluates the network
    num_steps: int = 1000  # sampling steps, from 1
    guidance_weight: float = 2.0  # 1: as learned; above: follows the notes more closely
    performance_guidance: float = 1.0  # … the performance
    passes: int = 1  # how often each step is done where a part is given; see `models.regions`

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "performance_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} = {getattr(self, name)} must be from 0 to 1")
        self._check_sampling()
        if list(self.token_buckets) != sorted({n for n in self.token_buckets if n >= 1}):
            raise UserError(f"{self.token_buckets=} must be ascending lengths from 1")
        Guidance(weights=(self.guidance_weight, self.performance_guidance))  # checks them
        if self.codec.mels != self.config.mel_bins:
            raise UserError(f"{self.config.mel_bins=} must be the codec's {self.codec.mels}")

    @property
    def space(self) -> MelSpace:
        """Returns the space, scaled mel."""
        return MelSpace(codec=self.codec)

    @property
    def segment(self) -> SegmentLength:
        """Returns the length that was learned."""
        return SegmentLength(frames=self.config.frames)

    @property
    def joinings(self) -> tuple[str, ...]:
        """Returns context if the model reads it, overlap (Maman et al. 2024) if it has performances."""
        if self.config.context:
            return CONTEXT, OVERLAP
        return (SEPARATE, OVERLAP) if self.performances is None else (OVERLAP, SEPARATE)

    @property
    def performances(self) -> PerformanceConfig | None:
        """Returns the table of performances."""
        return self.config.performances

    @property
    def conditions(self) -> NoteTokens:
        """Returns conditions of note tokens, and of the segment before where the network reads it."""
        return NoteTokens(events=self.events, tokens=self.config.max_tokens, context=self.config.context)

    def one_more_performance(self) -> SpectrogramDiffusionModel:
        """Returns the model with a larger table; see `models.base.Model`."""
        if self.performances is None:
            return super().one_more_performance()
        return dataclasses.replace(self, config=one_more(self.config))

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the features of one example, for `init`."""
        c = self.config
        shapes = {"inputs": (1, c.max_tokens), "targets": (1, c.frames, c.mel_bins)}
        if c.context:
            shapes |= {"targets_context": (1, c.context_frames, c.mel_bins),
                       "targets_context_mask": (1, c.context_frames)}
        if c.performances is not None:
            shapes[FEATURE] = (1,)
        return shapes

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns patterns of parameters that training leaves alone: the position tables."""
        return (f"{POSITION_TABLE}/embedding",)

    @property
    def network(self) -> SpectrogramTransformer:
        """Returns the Linen module."""
        return SpectrogramTransformer(self.config)

    @property
    def _condition_names(self) -> tuple[str, ...]:
        names = CONDITIONS if self.config.context else CONDITIONS[:1]
        return names if self.config.performances is None else (*names, FEATURE)

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        require_features(shapes, (*self._condition_names, "targets"))
        # Parameters do not depend on the batch size; one example is the cheapest.
        zeros = {name: jnp.zeros((1, *shape[1:])) for name, shape in shapes.items()}

        def init(rng):
            table = self.config.performances
            return self.network.init(rng, zeros["targets"], jnp.zeros((1,)), *self._inputs(zeros),
                                     performance=None if table is None else jnp.zeros((1, table.count)))

        return jax.jit(init)(rng)

    def adopt(self, params: Params, stored: Params) -> Params:
        """Returns parameters of a model with fewer performances, or none, as this one's; see `widened`."""
        return widened(params, stored)

    def _inputs(self, batch: Batch) -> tuple[Array, ...]:
        """Returns what the encoders read: ids, and context and mask where there is context."""
        require_features(batch, self._condition_names)
        tokens, *context = (jnp.asarray(batch[name]) for name in self._condition_names
                            if name in CONDITIONS)
        return (tokens.astype(jnp.int32), *context)

    def loss_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the training loss (equation 1 of the paper, w_t = 1), dropping features and conditions.

        Args:
          params: as from `init`.
          batch: all features of the module's docstring.
          rng: draws noise times, noise, and what is dropped.
        """
        require_features(batch, (*self._condition_names, "targets"))
        rng_loss, rng_keep, rng_dropout = jax.random.split(rng, 3)
        batch_size = jnp.shape(batch["inputs"])[0]
        keep = jax.random.bernoulli(rng_keep, 1.0 - self.condition_dropout, (batch_size,))
        dropped = drop_conditions(batch, keep)
        if self.config.performances is not None:
            keep = jax.random.bernoulli(jax.random.fold_in(rng_keep, 1),
                                        1.0 - self.performance_dropout, (batch_size,))
            dropped[FEATURE] = performance_weights(batch, self.config.performances,
                                                   keep.astype(jnp.float32))
        return self._loss(params, dropped, rng_loss, rng_dropout)

    def eval_fn(
        self, params: Params, batch: Batch, rng: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of the conditional prediction without any dropout."""
        return self._loss(params, batch, rng, None)

    def _loss(
        self, params: Params, batch: Batch, rng: PRNGKeyArray, rng_dropout: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Metrics]:
        """Computes the loss at the shortest length of `token_buckets` that holds all note tokens."""
        require_features(batch, (*self._condition_names, "targets"))
        tokens = jnp.asarray(batch["inputs"])
        size = tokens.shape[1]
        lengths = (*(n for n in self.token_buckets if n < size), size)

        def at(length: int) -> Loss:
            def loss(params, data):
                batch, rng, rng_dropout = data
                cut = {**batch, "inputs": batch["inputs"][:, :length]}
                return self._loss_of_all(params, cut, rng, rng_dropout)
            return loss

        data = ({**batch, "inputs": tokens}, rng, rng_dropout)
        if len(lengths) == 1:
            return at(size)(params, data)
        place = jnp.arange(1, size + 1, dtype=jnp.int32)
        longest = jnp.max(jnp.where(tokens > 0, place[None], 0))
        return switch_loss(tuple(map(at, lengths)), bucket_of(longest, lengths), params, data)

    def _loss_of_all(
        self, params: Params, batch: Batch, rng: PRNGKeyArray, rng_dropout: PRNGKeyArray | None
    ) -> tuple[Float[Array, ""], Metrics]:
        def denoise(z, logsnr):
            return self.network.apply(
                {"params": params},
                z,
                self.schedule.inverse(logsnr),
                *self._inputs(batch),
                performance=performance_weights(batch, self.config.performances),
                deterministic=rng_dropout is None,
                rngs=None if rng_dropout is None else {"dropout": rng_dropout},
            )

        return diffusion_loss(
            denoise,
            jnp.asarray(batch["targets"]),
            rng,
            schedule=self.schedule,
            parameterization=self.parameterization,
            distance=self.distance,
            times=self.training_times,
        )

    def denoiser(self, params: Params, batch: Batch) -> DenoiseFn:
        """Returns (z [B T F], logsnr [B]) → guided raw output for the batch's conditions.

        The conditions are encoded here, once, down to the keys and values of every
        cross-attention; the evaluation without notes has no cross-attention.
        """
        apply: Callable[..., Any] = partial(self.network.apply, {"params": params})
        inputs = self._inputs(batch)
        weights = performance_weights(batch, self.config.performances)

        def described(weights: Array | None) -> tuple[Encoded, Array | None]:
            rows = None if weights is None else apply(weights, method="performance_rows")
            return apply(*inputs, performance=rows, method="encode"), rows

        def denoise(z: Array, logsnr: Array, cond: tuple[Encoded | None, Array | None]) -> Array:
            encoded, rows = cond
            return apply(z, self.schedule.inverse(logsnr), encoded, performance=rows, method="decode")

        full = described(weights)
        guidance, conditions = [self.guidance_weight], [full, (None, full[1])]
        if weights is not None:
            guidance.append(self.performance_guidance)
            conditions.append(full if self.performance_guidance == 1.0
                              else described(jnp.zeros_like(weights)))
        # One after the other: without notes there is no cross-attention.
        return Guidance(weights=tuple(guidance), stack=False)(denoise, conditions)

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B T F"], rng: PRNGKeyArray,
               *, x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel from given unit noise; `x0_hook` as in `diffusion.sampling.sample`.

        What the batch's `region` has stays as it is given (`models.regions`).
        """
        return sample(self.denoiser(params, batch), z_T, rng, schedule=self.schedule,
                      parameterization=self.parameterization, solver=self.solver,
                      num_steps=self.num_steps, times=self.times, x0_hook=keeping(batch, x0_hook),
                      passes=self.passes, progress=progress)

    def predict_batch(
        self, params: Params, batch: Batch, rng: PRNGKeyArray, *, progress: StepProgress | None = None
    ) -> Float[Array, "B T F"]:
        """Samples scaled mel in [-1, 1], one segment per example.

        Args:
          params: as from `init`.
          batch: the conditions. Tokens may be shorter than `max_tokens`: padding
            at the end changes nothing but the time it takes.
          rng: draws the starting noise and the solver's.
          progress: called on the host after each step with (steps done, steps in all).
        """
        rng_start, rng_solver = jax.random.split(rng)
        batch_size = jnp.shape(batch["inputs"])[0]
        shape = (batch_size, self.config.frames, self.config.mel_bins)
        return self.sample(params, batch, jax.random.normal(rng_start, shape), rng_solver,
                           progress=progress)
