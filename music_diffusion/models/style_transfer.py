"""Style transfer: what is heard in one recording, in the sound of another → spectrogram.

After Prioteasa & Stempel-Hauburger 2025 ("Musical style transfer using latent diffusion models"), whose
U-Net attends to maps of the style's spectrogram and samples a latent, and with what theirs lacks: it sees
which pitches should be heard, so that nothing of the content's sound has to be carried along. Both are this
model, by its network (`networks.style_denoiser`); it samples the latent of an autoencoder, or scaled mel.

Features of a batch (`conditions.style`): `targets` [B, T, F], scaled mel in [-1, 1] (not needed to
predict); `style` [B, S, F] and `content` [B, T, E], left out for none; and, to begin with a noised
recording, `source` [B, T, F].
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
from music_diffusion.conditions.style import CONTENT, CONTENT_MEL, STYLE_MEL, ContentAndStyle
from music_diffusion.diffusion.guidance import Guidance
from music_diffusion.diffusion.losses import diffusion_loss, squared, stratified_times
from music_diffusion.diffusion.parameterizations import DenoiseFn, Epsilon, V
from music_diffusion.diffusion.preconditioning import unit_scale, v_along, v_around
from music_diffusion.diffusion.sampling import TimeGrid, UniformTime, noised, sample
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
from music_diffusion.models.spaces import LatentSpace, MelSpace
from music_diffusion.models.statistics import FROZEN, require_statistics, with_statistics
from music_diffusion.models.style_loss import AUTOENCODER, StyleTerms
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.autoencoder import Autoencoder, AutoencoderConfig
from music_diffusion.networks.patches import PatchStatistics, folded
from music_diffusion.networks.style_denoiser import (
    AnyStyleDenoiserConfig,
    Condition,
    PictureStyleDenoiser,
    StyleDenoiser,
    StyleDenoiserConfig,
    style_denoiser,
)
from music_diffusion.types import Batch, Params, StepProgress

V_PREDICTION, NOISE = "v", "noise"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleTransferModel(DiffusionBase):
    """The zoo member; implements `models.base.Generator`."""

    # Now among the weights, or of training alone.
    training_only: ClassVar[Mapping[str, Any]] = {
        "statistics": None, "autoencoder_weights": None, "terms": None}

    config: AnyStyleDenoiserConfig = StyleDenoiserConfig()
    codec: MelCodec = MelCodec()
    autoencoder: AutoencoderConfig | None = None  # of the latent; None: it samples scaled mel
    autoencoder_weights: str | None = None  # safetensors of a released one, to begin with
    frames: int = 256  # of a segment
    style_frames: int = 256  # S
    predicts: str = V_PREDICTION  # or NOISE
    statistics: str | None = None  # safetensors with those of positions (`models statistics`)
    terms: StyleTerms | None = None  # of the loss, beside that of diffusion
    schedule: Schedule = CosineSchedule()
    distance: Callable[[Array, Array], Array] = squared  # elementwise
    map_weight: float = 1.0  # of the mean absolute error of the content drawn in the style; from 0
    training_times: Callable[[PRNGKeyArray, int], Array] = stratified_times  # noise times of a batch
    content_dropout: float = 0.1  # share of training examples without their content; in [0, 1]
    style_dropout: float = 0.1  # … without their style, drawn independently
    solver: Solver = DDIM(eta=0.0)
    times: TimeGrid = UniformTime()
    num_steps: int = 16  # sampling steps, from 1
    guidance_weight: float = 1.0  # of the style; 1: as learned, above: follows it more closely
    content_guidance: float = 1.0  # of the content
    performance_guidance: float = 1.0  # there are no performances
    # Share of the sampler's way, above 0, up to 1: below 1 it begins with the noised content, at 1 with
    # noise (of a network that sees no content with the content, noised as far as the schedule goes).
    strength: float = 1.0
    passes: int = 1  # of each step
    temperature: float = 1.0  # deviation of the starting noise, from 0; below 1 is closer to the mean
    moves: bool = True  # whether patches begin elsewhere at every step; see `models.moving_patches`

    def __post_init__(self):
        for name in ("content_dropout", "style_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name} = {getattr(self, name)} must be from 0 to 1")
        self._check_sampling()
        if self.predicts not in (V_PREDICTION, NOISE):
            raise UserError(f"StyleTransferModel.predicts = {self.predicts!r} must be {V_PREDICTION} or "
                            f"{NOISE}")
        if not 0 < self.strength <= 1:
            raise UserError(f"{self.strength=} must be above 0 and at most 1")
        for name in ("map_weight", "temperature"):
            if not getattr(self, name) >= 0:
                raise UserError(f"self.{name}={getattr(self, name)} must be at least 0")
        drawn = None if self._pictures else self.config.codec
        if drawn is not None:
            drawn.check_same(self.codec)
        if self.frames < 1 or self.frames % self.config.multiple:
            raise UserError(f"StyleTransferModel.frames = {self.frames} must be a multiple of "
                            f"{self.config.multiple}, which the network halves")
        if self.style_frames < 1 or self.style_frames % self.config.style.multiple:
            raise UserError(f"StyleTransferModel.style_frames = {self.style_frames} must be a multiple of "
                            f"{self.config.style.multiple}")
        own = self.autoencoder
        if own is not None and (own.step, own.mels) != (self.config.step, self.codec.mels):
            raise UserError(f"StyleTransferModel: an autoencoder of {own.step} frames of {own.mels} bins "
                            f"is not of the network's {self.config.step} and the codec's {self.codec.mels}")
        if own is None and (self._pictures or self.terms is not None):
            raise UserError("StyleTransferModel.autoencoder is None: this network, or its loss, needs one")
        if not self._pictures and self.config.unet.output != self._features:
            raise UserError(f"StyleTransferModel: UNet1DConfig.output = {self.config.unet.output} must be "
                            f"{self._features}")

    @property
    def _pictures(self) -> bool:
        """Returns whether the network sees pictures, and neither content nor statistics."""
        return not isinstance(self.config, StyleDenoiserConfig)

    @property
    def _features(self) -> int:
        """Returns the values of a position."""
        own = self.autoencoder
        return self.config.step * self.codec.mels if own is None else own.channels

    @property
    def _fold(self) -> int:
        """Returns how many frames of the space are one position; 0 where they are positions already."""
        return self.config.step if self.autoencoder is None else 0

    @property
    def network(self) -> StyleDenoiser | PictureStyleDenoiser:
        """Returns the Linen module."""
        return style_denoiser(self.config)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the statistics, and of the autoencoder what the loss does not train."""
        part = "" if self.terms is None else "encoder/"
        return (*((FROZEN,) if not self._pictures else ()),
                *((f"^{AUTOENCODER}/{part}",) if self.autoencoder is not None else ()),
                *(() if self.terms is None else self.terms.frozen))

    @property
    def conditions(self) -> ContentAndStyle:
        """Returns what is heard, and a style."""
        return ContentAndStyle(style_frames=self.style_frames)

    @property
    def space(self) -> MelSpace | LatentSpace:
        """Returns the autoencoder's latent, or scaled mel."""
        if self.autoencoder is None:
            return MelSpace(codec=self.codec)
        return LatentSpace(codec=self.codec, autoencoder=self.autoencoder)

    @property
    def segment(self) -> SegmentLength:
        """Returns the segment, in frames of the space."""
        step = self.space.step
        return SegmentLength(frames=self.frames // step, multiple=self.config.multiple // step)

    @property
    def hears(self) -> bool:
        """Returns that a content is heard before it is restyled."""
        return True

    @property
    def restyles(self) -> bool:
        """Returns that it takes a style's recording."""
        return True

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples."""
        return dataclasses.replace(super().sampling, strength=self.strength,
                                   content_guidance=self.content_guidance)

    def sampled_by(self, sampling: Sampling) -> StyleTransferModel:
        """Returns the model that samples so; see `models.base.Generator.sampled_by`."""
        model = super().sampled_by(dataclasses.replace(sampling, strength=None, content_guidance=None))
        changes: dict[str, Any] = {"strength": sampling.strength,
                                   "content_guidance": sampling.content_guidance}
        return dataclasses.replace(model, **{k: v for k, v in changes.items() if v is not None})

    def require_start(self) -> None:
        """Raises UserError where positions have no statistics, or the autoencoder no weights."""
        if not self._pictures:
            require_statistics("StyleTransferModel", self.statistics, self.config.step)
        if self.autoencoder is not None and self.autoencoder_weights is None:
            raise UserError("StyleTransferModel.autoencoder_weights is None: release a trained autoencoder "
                            "(recipes/autoencoder.gin), and give its weights.safetensors "
                            "(--gin.AUTOENCODER)")

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        c, rngs = self.config, jax.random.split(rng, 3)
        one, picture = jnp.ones((1,)), jnp.zeros((1, c.multiple, self.codec.mels))
        made = jax.jit(self.network.init)(
            rngs[0], jnp.zeros((1, c.multiple // c.step, self._features)), one,
            jnp.zeros((1, c.multiple, c.content)), jnp.zeros((1, c.style.multiple, self.codec.mels)),
            one, one)
        own, axes = dict(made["params"]), dict(made["params_axes"])
        if self.autoencoder is not None:
            made = jax.jit(Autoencoder(self.autoencoder).init)(rngs[1], picture)
            own[AUTOENCODER], axes[AUTOENCODER] = dict(made["params"]), dict(made["params_axes"])
            if self.autoencoder_weights is not None:
                stored = load_safetensors(self.autoencoder_weights).get(AUTOENCODER, {})
                if jax.tree.map(jnp.shape, dict(stored)) != jax.tree.map(jnp.shape, own[AUTOENCODER]):
                    raise UserError(f"{self.autoencoder_weights}: not the weights of {self.autoencoder}")
                own[AUTOENCODER] = stored
        if self.terms is not None:
            made = self.terms.init(rngs[2])
            own |= dict(made["params"])
            axes |= dict(made["params_axes"])
        return {"params": with_statistics(own, self.statistics, c.step), "params_axes": axes}

    def released_params(self, params: Params) -> Params:
        """Returns all but what listens to the loss."""
        return {k: v for k, v in params.items() if self.terms is None or k not in self.terms.parts}

    def _latent(self, params: Params, mel: Float[Array, "B T F"]) -> Float[Array, "B t C"]:
        """Returns the space's frames of scaled mel; no gradient passes."""
        if self.autoencoder is None:
            return mel
        made = Autoencoder(self.autoencoder).apply({"params": params[AUTOENCODER]}, mel, method="encode")
        return jax.lax.stop_gradient(made.mean)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the training loss, with dropout of content and style, and the further terms."""
        require_features(batch, ("targets",))
        size = jnp.shape(batch["targets"])[0]
        rng_loss, rng_content, rng_style = jax.random.split(rng, 3)
        keeps = [jax.random.bernoulli(key, 1.0 - share, (size,)).astype(jnp.float32)
                 for key, share in ((rng_content, self.content_dropout), (rng_style, self.style_dropout))]
        return self._loss(params, batch, rng_loss, *keeps)

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss with all content and style."""
        require_features(batch, ("targets",))
        ones = jnp.ones(jnp.shape(batch["targets"])[:1])
        return self._loss(params, batch, rng, ones, ones)

    def _loss(self, params: Params, batch: Batch, rng: PRNGKeyArray, keep_content: Float[Array, " B"],
              keep_style: Float[Array, " B"]) -> tuple[Float[Array, ""], Metrics]:
        targets = jnp.asarray(batch["targets"], jnp.float32)
        require_features(batch, (STYLE_MEL,) if self._pictures else (STYLE_MEL, CONTENT))
        cond = self._condition(params, batch, len(targets), targets.shape[1], keep_content, keep_style)
        seen: list[tuple[Array, Array, Array]] = []

        def denoise(z: Array, logsnr: Array) -> Array:
            seen.append((self._denoise(params, z, logsnr, cond), z, logsnr))
            return seen[-1][0]

        scale = None
        if self.predicts == V_PREDICTION and not self._pictures:
            scale = functools.partial(unit_scale, std=self._statistics(params)[-1])
        loss, metrics = diffusion_loss(
            denoise, self._latent(params, targets), rng, schedule=self.schedule,
            parameterization=self._parameterization, distance=self.distance, times=self.training_times,
            clip_x0=self._range, output_scale=scale)
        if "map" in cond:
            error = jnp.mean(jnp.abs(cond["map"] - targets) * keep_content[:, None, None])
            error = error / jnp.maximum(keep_content.mean(), 1e-6)
            loss = loss + self.map_weight * error
            nat = 0.5 * (self.codec.log_max - self.codec.log_min)
            metrics = {**metrics, "map_l1": nat * error}
        if self.terms is not None and self.autoencoder is not None:
            made = self._parameterization.to_x0(*seen[0])
            extra, more = self.terms(params, self.codec, self.autoencoder, targets,
                                     jnp.asarray(batch[STYLE_MEL]), self._latent(params, targets), made)
            loss, metrics = self.terms.diffusion * loss + extra, {**metrics, **more}
        return loss, {**metrics, "loss": loss}

    @property
    def _parameterization(self) -> Epsilon | V:
        return V() if self.predicts == V_PREDICTION else Epsilon()

    @property
    def _range(self) -> tuple[float, float] | None:
        """Returns the range of the data; None where it has none."""
        return (-1.0, 1.0) if self.autoencoder is None else None

    def _statistics(self, params: Params) -> tuple[Array, Array, Array]:
        """Returns (mean, axes, std)."""
        own = {"params": jax.lax.stop_gradient(params["statistics"])}
        return PatchStatistics(self._features).apply(own)

    def _condition(self, params: Params, batch: Batch, size: int, frames: int,
                   keep_content: Float[Array, " B"], keep_style: Float[Array, " B"]) -> Condition:
        """Returns what the network needs; of what the batch does not have nothing is kept."""
        content, style = batch.get(CONTENT), batch.get(STYLE_MEL)
        if content is None:
            content, keep_content = jnp.zeros((size, frames, self.config.content)), 0 * keep_content
        if style is None:
            style = jnp.zeros((size, self.style_frames, self.codec.mels))
            keep_style = 0 * keep_style
        return self.network.apply(
            {"params": params}, jnp.asarray(content, jnp.float32), jnp.asarray(style, jnp.float32),
            keep_content, keep_style, method="condition")

    def _denoise(self, params: Params, z: Float[Array, "B t C"], logsnr: Float[Array, " B"],
                 cond: Condition) -> Float[Array, "B t C"]:
        """Returns v or the noise."""
        time = self.schedule.inverse(logsnr)

        def network(u: Array) -> Array:
            return self.network.apply({"params": params}, u, time, cond, method="denoise")

        positions = folded(z, self._fold)
        if self.predicts == NOISE:
            return network(positions).reshape(z.shape)
        if self._pictures:
            return v_around(network, positions, logsnr, 0.0, 1.0).reshape(z.shape)
        return v_along(network, positions, logsnr, *self._statistics(params)).reshape(z.shape)

    def denoiser(self, params: Params, batch: Batch, size: int, frames: int) -> DenoiseFn:
        """Returns (z [B, t, C], logsnr [B]) → guided output for the batch's content and style.

        `size` and `frames` are B and T. What the batch does not have is not guided by.
        """
        on, off = jnp.ones((size,)), jnp.zeros((size,))

        def condition(keep_content: Array, keep_style: Array) -> Condition:
            return self._condition(params, batch, size, frames, keep_content, keep_style)

        full = condition(on, on)
        weights = (self.guidance_weight if STYLE_MEL in batch else 1.0,
                   self.content_guidance if CONTENT in batch and not self._pictures else 1.0)
        without = [full if weight == 1.0 else condition(*keeps)
                   for weight, keeps in zip(weights, ((on, off), (off, on)), strict=True)]
        denoise = moving(functools.partial(self._denoise, params),
                         self.times.logsnrs(self.schedule, self.num_steps, jnp.float32),
                         patch=self._fold if self.moves else 0, room=self.config.multiple,
                         framewise=("features",))
        return Guidance(weights=weights)(denoise, (full, *without))

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B t C"], rng: PRNGKeyArray,
               *, x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B t C"]:
        """Samples frames of the space from given unit noise, or from the noised content."""
        start, times = self.temperature * z_T, self.times
        # A network that sees no content begins with it at every strength.
        if self.strength < 1 or self._pictures and CONTENT_MEL in batch:
            require_features(batch, (CONTENT_MEL,))
            given = self._latent(params, jnp.asarray(batch[CONTENT_MEL], jnp.float32))
            times = times.begun(self.strength)
            start = noised(given, start, self.schedule, times)
        own = dataclasses.replace(self, times=times)
        denoise = own.denoiser(params, batch, len(z_T), z_T.shape[1] * self.space.step)
        return sample(denoise, start, rng, schedule=self.schedule, parameterization=self._parameterization,
                      solver=self.solver, num_steps=self.num_steps, times=times, clip_x0=self._range,
                      x0_hook=x0_hook, passes=self.passes, progress=progress)

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B t C"]:
        """Samples frames of the space, one segment for each example of `style` or `content`."""
        rng_start, rng_solver = jax.random.split(rng)
        arrays = [jnp.shape(batch[name]) for name in (CONTENT, CONTENT_MEL, STYLE_MEL) if name in batch]
        size = arrays[0][0] if arrays else 1
        frames = arrays[0][1] if CONTENT in batch or CONTENT_MEL in batch else self.frames
        space = self.space
        shape = (size, frames // space.step, space.channels)
        return self.sample(params, batch, jax.random.normal(rng_start, shape), rng_solver,
                           progress=progress)
