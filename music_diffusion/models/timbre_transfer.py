"""DiffTransfer: the spectrogram of some music → the same music in one other timbre.

Comanducci et al. 2023 (arXiv 2307.04586): a 2-D U-Net takes slices of the target's noise off, with the
source's slice beside them as in Palette, and predicts the noise.

Features of a batch: `targets` and `source` [B, T, F], scaled mel in [-1, 1] (targets are not needed to
predict).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.spectrograms import SourceSpectrogram
from music_diffusion.diffusion.losses import diffusion_loss, l1, uniform_times
from music_diffusion.diffusion.parameterizations import DenoiseFn, Epsilon
from music_diffusion.diffusion.sampling import UniformTime, noised, sample
from music_diffusion.diffusion.schedules import Schedule, alpha_sigma, signal_rates
from music_diffusion.diffusion.solvers import DDIM, Solver
from music_diffusion.errors import UserError
from music_diffusion.models.base import (
    OVERLAP,
    SEPARATE,
    GeneratorBase,
    Metrics,
    Sampling,
    SegmentLength,
    Variables,
    require_features,
)
from music_diffusion.models.spaces import MelSpace
from music_diffusion.networks.layers import TRACKED, follow
from music_diffusion.networks.unet2d import UNet2D, UNet2DConfig
from music_diffusion.types import Batch, Params, StepProgress


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimbreTransferModel(GeneratorBase):
    """The zoo member; implements `models.base.Generator`."""

    config: UNet2DConfig = UNet2DConfig()
    codec: MelCodec = MelCodec()
    frames: int = 128  # of a slice
    same_noise: bool = True  # of all slices of a piece, or fresh noise for each
    # Whether each slice lies in [-1, 1] by its own least and greatest value. The target's are not known
    # when it is made: it is brought back by those of the source.
    slices_scaled: bool = True
    schedule: Schedule = signal_rates(lowest=0.02, highest=0.95)
    distance: Callable[[Array, Array], Array] = l1  # elementwise, of the noise
    training_times: Callable[[PRNGKeyArray, int], Array] = uniform_times  # noise times of a batch
    solver: Solver = DDIM(eta=0.0)
    num_steps: int = 20  # sampling steps, from 1
    # Time in 0..1, above 0, at which sampling begins: at 1 with noise, below with the noised source.
    strength: float = 1.0

    def __post_init__(self):
        for name, size in (("frames", self.frames), ("codec.mels", self.codec.mels)):
            if size < 1 or size % self.config.multiple:
                raise UserError(f"TimbreTransferModel.{name} = {size} must be a multiple of "
                                f"{self.config.multiple}, which the network halves")
        if self.num_steps < 1:
            raise UserError(f"{self.num_steps=} must be at least 1")
        if not 0 < self.strength <= 1:
            raise UserError(f"{self.strength=} must be above 0 and at most 1")

    @property
    def network(self) -> UNet2D:
        """Returns the Linen module."""
        return UNet2D(self.config)

    @property
    def conditions(self) -> SourceSpectrogram:
        """Returns the source as the only condition."""
        return SourceSpectrogram()

    @property
    def space(self) -> MelSpace:
        """Returns the space, scaled mel."""
        return MelSpace(codec=self.codec)

    @property
    def segment(self) -> SegmentLength:
        """Returns the slice, and whether all slices of a piece begin with the same noise."""
        return SegmentLength(frames=self.frames, multiple=self.config.multiple,
                             same_noise=self.same_noise)

    @property
    def joinings(self) -> tuple[str, ...]:
        """Returns slice after slice, as the authors join them; and overlaps."""
        return (SEPARATE, OVERLAP)

    @property
    def sampling(self) -> Sampling:
        """Returns how it samples."""
        return Sampling(steps=self.num_steps, solver=self.solver, strength=self.strength)

    def sampled_by(self, sampling: Sampling) -> TimbreTransferModel:
        """Returns the model that samples so. Raises UserError for a guidance: it has none."""
        super().sampled_by(dataclasses.replace(sampling, steps=None, solver=None, strength=None))
        changes: dict[str, Any] = {"num_steps": sampling.steps, "solver": sampling.solver,
                                   "strength": sampling.strength}
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        size = self.config.multiple
        picture = jnp.zeros((1, size, size))
        variables = jax.jit(self.network.init)(rng, picture, jnp.zeros((1,)), picture[..., None])
        return {name: variables[name] for name in ("params", "params_axes")}

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the L1 error of the noise (equation 3); running statistics follow the batch's."""
        sown = []

        def denoise(z, logsnr):
            output, state = self._apply(params, z, logsnr, source, train=True, mutable=[TRACKED])
            sown.append(state)
            return output

        source, _, _ = self._scaled(self._slices(batch, "source"))
        loss, metrics = self._loss(denoise, batch, rng)
        return loss + follow(sown), metrics

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the same loss with the running statistics."""
        source, _, _ = self._scaled(self._slices(batch, "source"))
        return self._loss(lambda z, logsnr: self._apply(params, z, logsnr, source), batch, rng)

    def _loss(self, denoise: DenoiseFn, batch: Batch, rng: PRNGKeyArray):
        targets, _, _ = self._scaled(self._slices(batch, "targets"))
        return diffusion_loss(denoise, targets, rng, schedule=self.schedule, parameterization=Epsilon(),
                              distance=self.distance, times=self.training_times)

    def _apply(self, params, z, logsnr, source, **options):
        _, sigma = alpha_sigma(logsnr)
        return self.network.apply({"params": params}, z, jnp.square(sigma), source[..., None], **options)

    def _slices(self, batch: Batch, name: str) -> Float[Array, "B T F"]:
        require_features(batch, (name,))
        return jnp.asarray(batch[name], jnp.float32)

    def _scaled(self, mel: Float[Array, "B T F"]) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns slices between -1 and 1, and what they are multiplied by and added to to be as before.

        Where all values are the same they become 0.
        """
        if not self.slices_scaled:
            return mel, jnp.ones((len(mel), 1, 1)), jnp.zeros((len(mel), 1, 1))
        low, high = mel.min((1, 2), keepdims=True), mel.max((1, 2), keepdims=True)
        half = 0.5 * (high - low)
        centre = 0.5 * (high + low)
        return (mel - centre) / jnp.maximum(half, 1e-6), half, centre

    def sample(self, params: Params, batch: Batch, z_T: Float[Array, "B T F"], rng: PRNGKeyArray,
               *, x0_hook: Callable[[Array], Array] | None = None,
               progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel from given unit noise; `x0_hook` sees it as it will be."""
        source, half, centre = self._scaled(self._slices(batch, "source"))
        as_it_will_be = x0_hook or (lambda x0: x0)

        def hook(x0: Array) -> Array:
            return (as_it_will_be(half * x0 + centre) - centre) / jnp.maximum(half, 1e-6)

        times = UniformTime(start=self.strength)
        start = z_T if self.strength == 1 else noised(source, z_T, self.schedule, times)
        x0 = sample(lambda z, logsnr: self._apply(params, z, logsnr, source), start, rng,
                    schedule=self.schedule, parameterization=Epsilon(), solver=self.solver,
                    num_steps=self.num_steps, times=times,
                    x0_hook=hook if x0_hook else None, progress=progress)
        return half * x0 + centre

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Samples scaled mel in [-1, 1], one slice per example, all from the same noise."""
        rng_start, rng_solver = jax.random.split(rng)
        shape = jnp.shape(self._slices(batch, "source"))
        noise = jnp.broadcast_to(jax.random.normal(rng_start, shape[1:]), shape)
        return self.sample(params, batch, noise, rng_solver, progress=progress)
