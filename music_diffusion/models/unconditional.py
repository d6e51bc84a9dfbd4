"""Generation from noise: nothing, a class, or a part of a recording → spectrogram.

Pouya Mehr et al. ("Diffusion model for music synthesis") train a 2-D U-Net that predicts the noise of
spectrograms of 5.12 and 10.24 s, sampled by deterministic DDIM. What ships here is a U-Net over frames
(or patches of them) that predicts v, around the mean of all music, and sees what is known of the
spectrogram.

Features of a batch: `targets` [B, T, F], scaled mel in [-1, 1] (not needed to predict); with classes
`class`, numbers [B] or weights [B, K]; and, to predict, `given` and `region` [B, T, F]
(`conditions.regions`).
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
from music_diffusion.conditions.regions import CLASS, GIVEN, REGION, ClassAndRegion
from music_diffusion.diffusion.guidance import Guidance
from music_diffusion.diffusion.losses import diffusion_loss, squared, stratified_times
from music_diffusion.diffusion.parameterizations import DenoiseFn, Epsilon, V
from music_diffusion.diffusion.preconditioning import unit_scale, v_along, v_around
from music_diffusion.diffusion.sampling import TimeGrid, UniformTime, noised, sample
from music_diffusion.diffusion.schedules import CosineSchedule, Schedule, alpha_sigma
from music_diffusion.diffusion.solvers import DDIM, Solver
from music_diffusion.errors import UserError
from music_diffusion.models.base import (
    CONTEXT,
    OVERLAP,
    DiffusionBase,
    Metrics,
    Sampling,
    SegmentLength,
    Variables,
    require_features,
)
from music_diffusion.models.moving_patches import moving
from music_diffusion.models.regions import draw_regions, keeping
from music_diffusion.models.spaces import MelSpace
from music_diffusion.models.statistics import FROZEN, require_statistics, with_statistics
from music_diffusion.networks.layers import TRACKED, follow
from music_diffusion.networks.patches import PatchStatistics, folded
from music_diffusion.networks.unconditional import UnconditionalConfig, UnconditionalDenoiser
from music_diffusion.types import Batch, Params, StepProgress

Condition = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnconditionalModel(DiffusionBase):
    """The zoo member; implements `models.base.Generator`."""

    training_only: ClassVar[Mapping[str, Any]] = {"statistics": None}  # now among the weights

    config: UnconditionalConfig = UnconditionalConfig()
    codec: MelCodec = MelCodec()
    frames: int = 512  # of a segment
    context: int = 0  # frames of a segment that the one before gives it; 0: segments overlap instead
    classes: tuple[str, ...] = ()  # names, as many as the network has
    schedule: Schedule = CosineSchedule()
    distance: Callable[[Array, Array], Array] = squared  # elementwise
    training_times: Callable[[PRNGKeyArray, int], Array] = stratified_times  # noise times of a batch
    # Mean and deviation of the data, around which the network predicts v (`diffusion.preconditioning`). A
    # deviation of 0: it predicts the noise, as it is. Of a network of patches their statistics count.
    data_mean: float = -0.45
    data_std: float = 0.45
    statistics: str | None = None  # safetensors with those of patches (`models statistics`), to begin with
    class_dropout: float = 0.1  # share of training examples without their class; in [0, 1]
    region_dropout: float = 0.3  # … of which nothing is known
    solver: Solver = DDIM(eta=0.0)
    times: TimeGrid = UniformTime()
    num_steps: int = 50  # sampling steps, from 1
    guidance_weight: float = 1.0  # 1: as learned; above: follows the class more closely
    performance_guidance: float = 1.0  # there are no performances
    # Share of the sampler's way, above 0, up to 1: below 1 it begins with a noised recording.
    strength: float = 1.0
    passes: int = 1  # how often each step is done where a part is given; see `models.regions`
    moves: bool = True  # whether patches begin elsewhere at every step; see `models.moving_patches`
    sees: bool = True  # what is given; False: it is projected alone, as of a network without regions

    def __post_init__(self):
        if self.frames < 1 or self.frames % self.config.multiple:
            raise UserError(f"UnconditionalModel.frames = {self.frames} must be a multiple of "
                            f"{self.config.multiple}, which the network halves")
        if len(self.classes) != self.config.classes:
            raise UserError(f"UnconditionalModel.classes = {self.classes}: the network has "
                            f"{self.config.classes}; give as many names")
        if not 0 <= self.context < self.frames or self.context and not self.config.regions:
            raise UserError(f"UnconditionalModel.context = {self.context} must be at least 0, below "
                            f"{self.frames}, and 0 of a network without regions")
        for name in ("class_dropout", "region_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} = {getattr(self, name)} must be from 0 to 1")
        self._check_sampling()
        if not 0 < self.strength <= 1:
            raise UserError(f"{self.strength=} must be above 0 and at most 1")
        if not self.data_std >= 0:
            raise UserError(f"{self.data_std=} must be at least 0")
        if self.config.patch and (not self.data_std or self.config.unet.output != self._patch):
            raise UserError(f"UnconditionalModel: a network of patches of {self.config.patch} frames needs "
                            f"data_std above 0 and UNet1DConfig.output = {self._patch}")

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the statistics of patches, which are no trained parameters."""
        return (FROZEN,) if self.config.patch else ()

    @property
    def network(self) -> UnconditionalDenoiser:
        """Returns the Linen module."""
        return UnconditionalDenoiser(self.config)

    @property
    def conditions(self) -> ClassAndRegion:
        """Returns the class, and what is known."""
        return ClassAndRegion(classes=self.classes, context=self.context)

    @property
    def space(self) -> MelSpace:
        """Returns the space, scaled mel."""
        return MelSpace(codec=self.codec)

    @property
    def segment(self) -> SegmentLength:
        """Returns the segment, and how much of the one before is its context."""
        return SegmentLength(frames=self.frames, multiple=self.config.multiple, context=self.context)

    @property
    def joinings(self) -> tuple[str, ...]:
        """Returns segments that go on from the one before, where they see it; and overlaps."""
        return (CONTEXT, OVERLAP) if self.context else (OVERLAP,)

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples."""
        own = super().sampling
        return dataclasses.replace(own, strength=self.strength,
                                   guidance=own.guidance if self.classes else None)

    def sampled_by(self, sampling: Sampling) -> UnconditionalModel:
        """Returns the model that samples so; see `models.base.Generator.sampled_by`."""
        if sampling.guidance is not None and not self.classes:
            raise UserError(f"--guidance {sampling.guidance:g}: this model has no classes to follow; "
                            "leave it out")
        model = super().sampled_by(dataclasses.replace(sampling, strength=None))
        strength = sampling.strength
        return model if strength is None else dataclasses.replace(model, strength=strength)

    def require_start(self) -> None:
        """Raises UserError where patches have no statistics."""
        require_statistics("UnconditionalModel", self.statistics, self.config.patch)

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        picture = self._patches(jnp.zeros((1, self.config.multiple, self.codec.mels)))
        variables = jax.jit(self.network.init)(
            rng, picture, jnp.zeros((1,)), jnp.zeros((1,)), jnp.zeros((1, len(self.classes))),
            picture, picture)
        return {"params": with_statistics(variables["params"], self.statistics, self.config.patch),
                "params_axes": variables["params_axes"]}

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the training loss, with dropout of the class and of what is known.

        What is known of an example counts for nothing. Running statistics follow the batch's.
        """
        require_features(batch, ("targets",))
        rng_loss, rng_class, rng_region = jax.random.split(rng, 3)
        size = jnp.shape(batch["targets"])[0]
        keep = jax.random.bernoulli(rng_class, 1.0 - self.class_dropout, (size,)).astype(jnp.float32)
        sown: list[Any] = []
        loss, metrics = self._loss(params, batch, rng_loss, rng_region, keep, sown)
        return loss + follow(sown), metrics

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the same loss with every class, and regions as in training."""
        require_features(batch, ("targets",))
        rng_loss, rng_region = jax.random.split(rng)
        keep = jnp.ones(jnp.shape(batch["targets"])[:1])
        return self._loss(params, batch, rng_loss, rng_region, keep, None)

    def _loss(self, params: Params, batch: Batch, rng: PRNGKeyArray, rng_region: PRNGKeyArray,
              keep: Float[Array, " B"], sown: list[Any] | None) -> tuple[Float[Array, ""], Metrics]:
        """Computes the loss; with `sown` in training, whose states of the network it takes."""
        targets = jnp.asarray(batch["targets"], jnp.float32)
        cond = {"classes": self._classes(batch, len(targets)) * keep[:, None]}
        mask = None
        if self.config.regions:
            region = draw_regions(rng_region, targets.shape, self.region_dropout)
            cond |= {GIVEN: targets, REGION: region}
            mask = 1 - region

        def denoise(z: Array, logsnr: Array) -> Array:
            if sown is None:
                return self._denoise(params, z, logsnr, cond)
            states: list[Any] = []
            output = self._denoise(params, z, logsnr, cond, states)
            sown.extend(states)
            return output

        std = self._statistics(params)[-1] if self.config.patch else self.data_std
        scale = (lambda logsnr: unit_scale(logsnr, std)) if self.data_std else None
        return diffusion_loss(denoise, targets, rng, schedule=self.schedule,
                              parameterization=self._parameterization, distance=self.distance, mask=mask,
                              times=self.training_times, output_scale=scale)

    @property
    def _parameterization(self) -> Epsilon | V:
        return V() if self.data_std else Epsilon()

    def _classes(self, batch: Batch, size: int) -> Float[Array, "B K"]:
        """Returns weights of the classes of a batch."""
        if not self.classes:
            return jnp.zeros((size, 0))
        require_features(batch, (CLASS,))
        given = jnp.asarray(batch[CLASS])
        return jax.nn.one_hot(given, len(self.classes)) if given.ndim == 1 else given.astype(jnp.float32)

    def _denoise(self, params: Params, z: Array, logsnr: Array, cond: Condition,
                 states: list[Any] | None = None) -> Array:
        """Returns v, or the noise; `states` takes what the network sows in training."""
        _, sigma = alpha_sigma(logsnr)
        time, variance = self.schedule.inverse(logsnr), jnp.square(sigma)
        known = self._seen(params, cond[GIVEN], cond[REGION]) if self.config.regions else ()

        def network(u: Array) -> Array:
            arguments = ({"params": params}, u, time, variance, cond["classes"], *known)
            if states is None:
                return self.network.apply(*arguments)
            output, state = self.network.apply(*arguments, train=True, mutable=[TRACKED])
            states.append(state)
            return output

        if not self.data_std:
            return network(z)
        if not self.config.patch:
            return v_around(network, z, logsnr, self.data_mean, self.data_std)
        return v_along(network, self._patches(z), logsnr, *self._statistics(params)).reshape(z.shape)

    def _patches(self, x: Float[Array, "B T F"]) -> Float[Array, "B N D"]:
        """Returns a row for each patch, or frames as they are."""
        return folded(x, self.config.patch)

    @property
    def _patch(self) -> int:
        return self.config.patch * self.codec.mels

    def _statistics(self, params: Params) -> tuple[Array, Array, Array]:
        """Returns (mean, axes, std)."""
        return PatchStatistics(self._patch).apply({"params": jax.lax.stop_gradient(params["statistics"])})

    def _seen(self, params: Params, given: Float[Array, "B T F"], region: Float[Array, "B T F"]
              ) -> tuple[Array, Array]:
        """Returns what is known, and where, as the network sees it: patches along axes, of variance 1."""
        if not self.config.patch:
            return given * region, region
        mean, axes, std = self._statistics(params)
        away = (self._patches(given) - mean) * self._patches(region)
        return away @ axes * jax.lax.rsqrt(jnp.mean(jnp.square(std))), self._patches(region)

    def denoiser(self, params: Params, batch: Batch, shape: tuple[int, ...]) -> DenoiseFn:
        """Returns (z [B, T, F], logsnr [B]) → guided output for the batch's class and region."""
        cond = {"classes": self._classes(batch, shape[0])}
        if self.config.regions:
            nothing, seen = jnp.zeros(shape), batch if self.sees else {}
            cond |= {name: jnp.asarray(seen.get(name, nothing)) for name in (GIVEN, REGION)}
        without = cond | {"classes": jnp.zeros_like(cond["classes"])}
        weight = self.guidance_weight if self.classes else 1.0
        denoise = moving(functools.partial(self._denoise, params),
                         self.times.logsnrs(self.schedule, self.num_steps, jnp.float32),
                         patch=self.config.patch if self.moves else 0, room=self.config.multiple,
                         framewise=(GIVEN, REGION))
        return Guidance(weights=(weight,))(denoise, (cond, without))

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B T F"], rng: PRNGKeyArray,
               *, x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel from given unit noise; what the batch's region has stays as it is given."""
        start, times = z_T, self.times
        if self.strength < 1:
            require_features(batch, (GIVEN,))
            times = times.begun(self.strength)
            start = noised(jnp.asarray(batch[GIVEN]), z_T, self.schedule, times)
        denoise = dataclasses.replace(self, times=times).denoiser(params, batch, z_T.shape)
        return sample(denoise, start, rng, schedule=self.schedule,
                      parameterization=self._parameterization, solver=self.solver,
                      num_steps=self.num_steps, times=times, x0_hook=keeping(batch, x0_hook),
                      passes=self.passes, progress=progress)

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel in [-1, 1], one segment for each example of `class` or `region`."""
        rng_start, rng_solver = jax.random.split(rng)
        arrays = [jnp.shape(value) for value in batch.values()]
        shape = (arrays[0][0] if arrays else 1, self.frames, self.codec.mels)
        return self.sample(params, batch, jax.random.normal(rng_start, shape), rng_solver,
                           progress=progress)
