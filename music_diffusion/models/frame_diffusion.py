"""Frame-wise diffusion: note slots → mel spectrogram, the zoo's default.

A map of the score on the mel axis, drawn by a note timbre network, conditions
a 1-D U-Net (Maman et al. 2024, section 3.1, gives the U-Net and that notes
enter at its input layer) that diffuses what the map misses.

Features of a batch (see types.py for axes, `notes.frames` for their making):

==================== ========= ==================================================
targets              B T F     scaled mel in [-1, 1] (not needed to predict)
slot_program … (5)   B T P     note slots, for the map
roll                 B T C     onset, sounding and instrument class rolls
maps                 B T 2 F   the maps of `note_maps`, if made beforehand; then
                               the slots are not needed
base_maps            B T 2 F   those without performance, where `maps` were made beforehand
                               with it (`config.timbre.performances`) and it is dropped
performance          B         with `config.performances`: see `models.performance`
tails                B T K F   with `config.tails`: of the first map, scaled (`audio.tails`)
evidence             B T E     with `config.evidence`: see `conditions.heard`
wanted               B K       with `config.wanted`: programs of the instruments that should play, -1
                               for none
reference            B D       with `config.reference`: embedding of what it should sound like,
                               all 0 for none; dropped together with the performance
style                B S F     with `config.style`: scaled mel of what it should sound like; dropped
                               together with the performance
==================== ========= ==================================================
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.heard import HeardFrames
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.diffusion.guidance import Guidance
from music_diffusion.diffusion.losses import diffusion_loss, squared, stratified_times
from music_diffusion.diffusion.parameterizations import DenoiseFn, V
from music_diffusion.diffusion.preconditioning import unit_scale
from music_diffusion.diffusion.sampling import TimeGrid, UniformTime, noised, sample, tempered
from music_diffusion.diffusion.schedules import CosineSchedule, Schedule
from music_diffusion.diffusion.solvers import DDIM, Solver
from music_diffusion.errors import UserError
from music_diffusion.models.base import (
    DiffusionBase,
    Metrics,
    Sampling,
    SegmentLength,
    Variables,
    require_features,
)
from music_diffusion.models.moving_patches import moving
from music_diffusion.models.note_map import MapModel
from music_diffusion.models.performance import one_more, performance_weights, widened
from music_diffusion.models.regions import keeping
from music_diffusion.models.spaces import MelSpace
from music_diffusion.models.statistics import (
    FROZEN,
    adopted,
    require_statistics,
    with_statistics,
)
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import FEATURE, PerformanceConfig
from music_diffusion.networks.score_denoiser import (
    SLOT_FIELDS,
    Condition,
    ScoreDenoiser,
    ScoreDenoiserConfig,
)
from music_diffusion.notes.frames import ROLL_CHANNELS
from music_diffusion.types import Batch, Params, StepProgress

FRAMEWISE = ("map", "features")  # of a condition, [B, T, F]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameDiffusionModel(DiffusionBase):
    """The zoo member; implements `models.base.Generator`."""

    # Now among the weights.
    training_only: ClassVar[Mapping[str, Any]] = {"timbre_weights": None, "statistics": None}

    config: ScoreDenoiserConfig = ScoreDenoiserConfig()
    ring: float = 2.0  # seconds that the map and the rolls hear a note after its end
    # What the map misses is a sixth of the data's deviation, so the middle of the schedule
    # lies at that noise (e^-5/2) and not at the data's.
    schedule: Schedule = CosineSchedule(shift=5.0)
    distance: Callable[[Array, Array], Array] = squared  # elementwise, at unit variance
    training_times: Callable[[PRNGKeyArray, int], Array] = stratified_times  # noise times of a batch
    condition_dropout: float = 0.1  # share of training examples without notes; in [0, 1]
    performance_dropout: float = 0.1  # … without their performance, drawn independently
    evidence_dropout: float = 0.1  # … without the evidence of a recording
    style_frames: int = 256  # S, with `config.style`
    map_weight: float = 1.0  # … of the mean absolute error of the evidence drawn in the style; from 0
    timbre_weights: str | None = None  # safetensors with a note timbre network, to begin with
    statistics: str | None = None  # … with those of patches of what its map misses (`models statistics`)
    train_timbre: bool = False  # whether the note timbre network is trained too
    solver: Solver = DDIM(eta=0.0)
    times: TimeGrid = UniformTime()
    num_steps: int = 12  # sampling steps, from 1
    guidance_weight: float = 1.0  # 1: as learned; above: follows the notes more closely
    performance_guidance: float = 1.0  # … the performance
    evidence_guidance: float = 1.0  # … the evidence of a recording
    # Of models with evidence: share of the sampler's way, above 0, up to 1: below 1 it begins with the
    # noised recording instead of noise alone.
    strength: float = 1.0
    passes: int = 1  # how often each step is done where a part is given; see `models.regions`
    moves: bool = True  # whether patches begin elsewhere at every step; see `models.moving_patches`
    # Deviation of the starting noise, from 0. 1 samples what was learned. A deterministic solver
    # carries less noise to less of what the notes leave open: below 1 is closer to their mean.
    temperature: float = 1.0
    texture: float | None = None  # … of its fast part (`diffusion.sampling.tempered`); None: the same

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "performance_dropout", "evidence_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} = {getattr(self, name)} must be from 0 to 1")
        self._check_sampling()
        if not 0 < self.strength <= 1 or (self.strength < 1 and not self.config.evidence):
            raise UserError(f"{self.strength=} must be above 0 and at most 1, and 1 without evidence")
        for name in ("temperature", "texture", "map_weight"):
            if not (getattr(self, name) is None or getattr(self, name) >= 0):
                raise UserError(f"self.{name}={getattr(self, name)} must be at least 0")
        own = self.config.style
        if own is not None and (self.style_frames < 1 or self.style_frames % own.multiple):
            raise UserError(f"FrameDiffusionModel.style_frames = {self.style_frames} must be a multiple of "
                            f"{own.multiple}")
        Guidance(weights=(  # checks them
            self.guidance_weight, self.performance_guidance, self.evidence_guidance))

    @property
    def network(self) -> ScoreDenoiser:
        """Returns the Linen module."""
        return ScoreDenoiser(self.config)

    @property
    def codec(self) -> MelCodec:
        """Returns the codec of the spectrograms."""
        return self.config.codec

    @property
    def space(self) -> MelSpace:
        """Returns the space, scaled mel."""
        return MelSpace(codec=self.codec)

    @property
    def segment(self) -> SegmentLength:
        """Returns the lengths that the U-Net can halve."""
        return SegmentLength(multiple=self.config.multiple)

    @property
    def performances(self) -> PerformanceConfig | None:
        """The table of performances."""
        return self.config.performances

    @property
    def hears(self) -> bool:
        """Returns whether it changes recordings."""
        return self.config.evidence > 0

    @property
    def restyles(self) -> bool:
        """Returns whether it takes a style's recording."""
        return self.config.style is not None

    @property
    def likes(self) -> bool:
        """Returns whether it takes a recording's embedding."""
        return bool(self.config.reference)

    @property
    def _sounds(self) -> bool:
        """Returns whether something says what it should sound like."""
        return self.config.performances is not None or self.likes or self.restyles

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples; guidance is that of the style where it takes one."""
        own = super().sampling
        if self.hears:
            own = dataclasses.replace(own, strength=self.strength, content_guidance=self.evidence_guidance)
        return dataclasses.replace(own, guidance=self.performance_guidance) if self.restyles else own

    def sampled_by(self, sampling: Sampling) -> FrameDiffusionModel:
        """Returns the model that samples so; see `models.base.Generator.sampled_by`."""
        taken: dict[str, str] = {}  # of the sampling, and what it is here
        if self.hears:
            taken |= {"strength": "strength", "content_guidance": "evidence_guidance"}
        if self.restyles:
            taken |= {"guidance": "performance_guidance"}
        model = super().sampled_by(dataclasses.replace(sampling, **dict.fromkeys(taken)))
        return dataclasses.replace(model, **{
            own: value for name, own in taken.items() if (value := getattr(sampling, name)) is not None})

    @property
    def conditions(self) -> NoteFrames:
        """Returns conditions on frames, as the network takes them."""
        dropped = self.config.timbre.performances is not None and self.performance_guidance != 1.0
        hears = functools.partial(HeardFrames, wanted=self.config.wanted,
                                  style_frames=self.style_frames if self.restyles else 0)
        make = hears if self.config.evidence else NoteFrames
        return make(slots=0, ring=self.ring, tails=self.config.tails, timbre=self.config.timbre,
                    base_maps=dropped)

    def one_more_performance(self) -> FrameDiffusionModel:
        """Returns the model with a larger table, also of its notes; see `models.base.Model`."""
        if self.performances is None:
            return super().one_more_performance()
        return dataclasses.replace(self, config=one_more(self.config))

    def note_timbre(self, params: Params) -> tuple[NoteTimbreConfig, Params]:
        """Returns the network that draws the maps, and its parameters."""
        return self.config.timbre, params["timbre"]

    def map_model(self) -> MapModel:
        """Returns the map as a model of its own."""
        return MapModel(model=self)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns patterns of parameters that training leaves alone."""
        return (*(() if self.train_timbre else ("timbre/.*",)), *((FROZEN,) if self.config.patch else ()))

    def require_start(self) -> None:
        """Raises UserError where patches have no statistics."""
        require_statistics("FrameDiffusionModel", self.statistics, self.config.patch)

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        t = self.config.multiple
        slots = {f: jnp.zeros((1, t, 1), jnp.int32 if i < 3 else jnp.float32)
                 for i, f in enumerate(SLOT_FIELDS)}
        arguments = (jnp.zeros((1, t, self.codec.mels)), jnp.zeros((1,)), jnp.zeros((1,)),
                     slots, jnp.zeros((1, t, ROLL_CHANNELS)), jnp.ones((1,)),
                     performance_weights({FEATURE: jnp.zeros((1,), jnp.int32)},
                                         self.config.performances),
                     self._tails({"tails": jnp.zeros((1, t, len(self.config.tails), self.codec.mels))}),
                     self._evidence({"evidence": jnp.zeros((1, t, self.config.evidence))}),
                     self._reference({"reference": jnp.zeros((1, self.config.reference))}),
                     self._wanted({"wanted": jnp.zeros((1, self.config.wanted), jnp.int32)}),
                     self._style({"style": jnp.zeros((1, self.style_frames, self.codec.mels))}))
        variables = dict(jax.jit(self.network.init)(rng, *arguments))
        if self.timbre_weights is not None:
            stored = load_safetensors(self.timbre_weights)
            timbre = stored.get("timbre", stored)  # a frame diffusion model has one, too
            shapes = [jax.tree.map(jnp.shape, dict(t)) for t in (timbre, variables["params"]["timbre"])]
            if shapes[0] != shapes[1]:
                raise UserError(f"{self.timbre_weights}: not the weights of {self.config.timbre}")
            variables["params"] = {**variables["params"], "timbre": timbre}
        variables["params"] = with_statistics(variables["params"], self.statistics, self.config.patch)
        return variables

    def note_maps(self, params: Params, batch: Batch,
                  performance: Float[Array, "B R"] | None = None,
                  keep_performance: Float[Array, " B"] | None = None) -> Float[Array, "B T 2 F"]:
        """Returns the batch's `maps`, or the maps of its slots.

        Args:
          params, batch: as in `loss_fn`.
          performance: weights of the table's rows, if the timbre network has performances.
          keep_performance: 0 takes an example's `base_maps` instead, 1 its `maps`; None: all `maps`.
        """
        performed = self.config.timbre.performances is not None
        if "maps" in batch:
            maps = jnp.asarray(batch["maps"], jnp.float32)
            if not performed or keep_performance is None:
                return maps
            require_features(batch, ("base_maps",))
            keep = keep_performance[:, None, None, None] > 0
            return jnp.where(keep, maps, jnp.asarray(batch["base_maps"], jnp.float32))
        require_features(batch, tuple(f"slot_{f}" for f in SLOT_FIELDS))
        slots = {f: jnp.asarray(batch[f"slot_{f}"]) for f in SLOT_FIELDS}
        return self.network.apply({"params": params}, slots, performance if performed else None,
                                  one_hot=self.train_timbre, method="note_maps")

    def adopt(self, params: Params, stored: Params) -> Params:
        """Returns parameters of a model with fewer performances, or none, as this one's; see `widened`.

        Statistics of a file take the place of stored ones. Raises UserError: those are along other axes.
        """
        return adopted(params, widened(params, stored), self.statistics)

    def condition(self, params: Params, batch: Batch, keep: Float[Array, " B"],
                  keep_performance: Float[Array, " B"] | None = None,
                  keep_evidence: Float[Array, " B"] | None = None) -> Condition:
        """Computes what the denoiser needs of its conditions, once a segment.

        Args:
          params, batch: as in `loss_fn`; targets are not needed.
          keep: 0 drops an example's notes.
          keep_performance: 0 drops an example's performance, reference and style; None keeps all.
          keep_evidence: 0 drops an example's evidence; None keeps all.
        """
        require_features(batch, ("roll",))
        performance = performance_weights(batch, self.config.performances, keep_performance)
        return self.network.apply(
            {"params": params}, self.note_maps(params, batch, performance, keep_performance),
            jnp.asarray(batch["roll"], jnp.float32), keep, performance, self._tails(batch),
            self._evidence(batch, keep_evidence), self._reference(batch, keep_performance),
            self._wanted(batch), self._style(batch), keep_performance,
            method="condition")

    def _tails(self, batch: Batch) -> Array | None:
        """Returns the batch's tails, if the network wants them."""
        if not self.config.tails:
            return None
        require_features(batch, ("tails",))
        return jnp.asarray(batch["tails"], jnp.float32)

    def _evidence(self, batch: Batch, keep: Float[Array, " B"] | None = None) -> Array | None:
        """Returns the batch's evidence, if the network wants it, 0 where it is dropped."""
        if not self.config.evidence:
            return None
        require_features(batch, ("evidence",))
        evidence = jnp.asarray(batch["evidence"], jnp.float32)
        return evidence if keep is None else evidence * keep[:, None, None]

    def _reference(self, batch: Batch, keep: Float[Array, " B"] | None = None) -> Array | None:
        """Returns the batch's references, if the network wants them, 0 where they are dropped."""
        if not self.config.reference:
            return None
        require_features(batch, ("reference",))
        reference = jnp.asarray(batch["reference"], jnp.float32)
        return reference if keep is None else reference * keep[:, None]

    def _wanted(self, batch: Batch) -> Array | None:
        """Returns the programs that the recording is drawn on, if the network wants them."""
        if not self.config.wanted:
            return None
        require_features(batch, ("wanted",))
        return jnp.asarray(batch["wanted"], jnp.int32)

    def _style(self, batch: Batch) -> Array | None:
        """Returns the batch's styles, if the network wants them."""
        if not self.restyles:
            return None
        require_features(batch, ("style",))
        return jnp.asarray(batch["style"], jnp.float32)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the training loss, with dropout of the notes, the performance and the evidence."""
        require_features(batch, ("targets",))
        rng_loss, rng_keep = jax.random.split(rng)
        size = jnp.shape(batch["targets"])[0]

        def kept(rng, dropout):
            return jax.random.bernoulli(rng, 1.0 - dropout, (size,)).astype(jnp.float32)

        keep = kept(rng_keep, self.condition_dropout)
        keep_performance = keep_evidence = None
        if self._sounds:
            keep_performance = kept(jax.random.fold_in(rng_keep, 1), self.performance_dropout)
        if self.config.evidence:
            keep_evidence = kept(jax.random.fold_in(rng_keep, 2), self.evidence_dropout)
        return self._loss(params, batch, rng_loss, keep, keep_performance, keep_evidence)

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss with all conditions, and `map_l1`, the map's error in nat."""
        require_features(batch, ("targets",))
        return self._loss(params, batch, rng, jnp.ones((jnp.shape(batch["targets"])[0],)))

    def _loss(self, params, batch, rng, keep, keep_performance=None, keep_evidence=None):
        cond = self.condition(params, batch, keep, keep_performance, keep_evidence)
        targets = jnp.asarray(batch["targets"])
        s = self.network.apply({"params": params}, keep, method="deviation")

        def denoise(z, logsnr):
            return self._denoise(params, z, logsnr, cond)

        loss, metrics = diffusion_loss(
            denoise, targets, rng, schedule=self.schedule, parameterization=V(),
            distance=self.distance, times=self.training_times,
            output_scale=lambda logsnr: unit_scale(logsnr, s))
        nat = 0.5 * (self.codec.log_max - self.codec.log_min)

        def missed(made: Array, kept: Array | None) -> Array:
            kept = jnp.ones(len(targets)) if kept is None else kept
            error = jnp.abs(made - targets) * kept[:, None, None]
            return jnp.mean(error) / jnp.maximum(kept.mean(), 1e-6)

        metrics = {**metrics, "map_l1": nat * missed(cond["map"], keep)}
        if "drawn" in cond:
            error = missed(cond["drawn"], keep_evidence)
            loss = loss + self.map_weight * error
            metrics = {**metrics, "drawn_l1": nat * error, "loss": loss}
        return loss, metrics

    def _denoise(self, params, z, logsnr, cond):
        return self.network.apply({"params": params}, z, logsnr, self.schedule.inverse(logsnr),
                                  cond, method="denoise")

    def denoiser(self, params: Params, batch: Batch) -> DenoiseFn:
        """Returns (z [B, T, F], logsnr [B]) → guided v for the batch's conditions."""
        require_features(batch, ("roll",))
        on, off = (jnp.full(jnp.shape(batch["roll"])[:1], x, jnp.float32) for x in (1, 0))
        full = self.condition(params, batch, on)
        weights = [self.guidance_weight]
        without = [full if self.guidance_weight == 1.0 else self.condition(params, batch, off)]
        if self._sounds:
            weights.append(self.performance_guidance)
            without.append(full if self.performance_guidance == 1.0
                           else self.condition(params, batch, on, off))
        if self.config.evidence:
            weights.append(self.evidence_guidance)
            without.append(full if self.evidence_guidance == 1.0
                           else self.condition(params, batch, on, keep_evidence=off))
        denoise = moving(functools.partial(self._denoise, params),
                         self.times.logsnrs(self.schedule, self.num_steps, jnp.float32),
                         patch=self.config.patch if self.moves else 0, room=self.config.multiple,
                         framewise=FRAMEWISE)
        return Guidance(weights=tuple(weights))(denoise, (full, *without))

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B T F"], rng: PRNGKeyArray,
               *, x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel from given unit noise; `x0_hook` as in `diffusion.sampling.sample`.

        What the batch's `region` has stays as it is given (`models.regions`).
        """
        texture = self.temperature if self.texture is None else self.texture
        start, times = tempered(z_T, self.temperature, texture), self.times
        if self.strength < 1:
            recording = jnp.asarray(batch["evidence"], jnp.float32)[..., :self.codec.mels]
            times = times.begun(self.strength)
            start = noised(recording, start, self.schedule, times)
        denoise = dataclasses.replace(self, times=times).denoiser(params, batch)
        return sample(denoise, start, rng, schedule=self.schedule,
                      parameterization=V(), solver=self.solver, num_steps=self.num_steps,
                      times=times, x0_hook=keeping(batch, x0_hook), passes=self.passes, progress=progress)

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel in [-1, 1], one segment per example."""
        require_features(batch, ("roll",))
        rng_start, rng_solver = jax.random.split(rng)
        shape = (*jnp.shape(batch["roll"])[:2], self.codec.mels)
        return self.sample(params, batch, jax.random.normal(rng_start, shape), rng_solver,
                           progress=progress)
