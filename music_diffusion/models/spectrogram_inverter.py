"""Spectrogram inverter: log-mel → waveform, by a generator that discriminators train.

Hawthorne et al. 2022 (arXiv:2206.05408), section 3.3; the losses are those of
SoundStream (arXiv:2107.03312, equation 6): spectral reconstruction, adversarial
and feature matching.

Features of a batch (see types.py for axes):

===== ====== ==================================================
audio B S    samples; the spectrogram is made of them
mel   B T F  nat, instead of audio to predict
===== ====== ==================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.codec_jax import encode_jax
from music_diffusion.audio.spectral_loss import LinearSpectralLoss, SpectralLoss
from music_diffusion.errors import UserError
from music_diffusion.models.adversarial import adversarial_losses
from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.models.neural_inverter import NeuralInverter, generator_input
from music_diffusion.networks.discriminators import Discriminators, DiscriminatorsConfig
from music_diffusion.networks.istft_head import ISTFTHead, ISTFTHeadConfig
from music_diffusion.networks.seanet import SEANet, SEANetConfig
from music_diffusion.types import Batch, Params, StepProgress

GeneratorConfig = SEANetConfig | ISTFTHeadConfig


def build_generator(config: GeneratorConfig) -> nn.Module:
    """Makes the Linen module of a configuration: scaled mel [B, T, F] → samples [B, T * hop]."""
    if isinstance(config, SEANetConfig):
        return SEANet(config)
    return ISTFTHead(config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrogramInverterModel(ModelBase):
    """The zoo member; implements `models.base.Model` and `Invertible`.

    Parameters have two parts, `generator` and `discriminator`, each with an own
    optimizer (`training.optimizers.by_part`).
    """

    training_only: ClassVar[Mapping[str, Any]] = {"discriminators": None}

    codec: MelCodec = MelCodec()
    generator: GeneratorConfig = ISTFTHeadConfig()
    discriminators: DiscriminatorsConfig | None = None  # None: spectral reconstruction alone
    spectral: SpectralLoss = LinearSpectralLoss()
    spectral_weight: float = 1.0
    adversarial_weight: float = 1.0
    feature_weight: float = 1.0
    # Frames at each edge of a segment that no loss sees, since the generator lacks their
    # neighbours; None: as many as it can see.
    trim_frames: int | None = None

    def __post_init__(self) -> None:
        for name in ("hop", "mels"):
            its, codecs = getattr(self.generator, name), getattr(self.codec, name)
            if its != codecs:
                raise UserError(f"the generator's {name}={its} is not the codec's {codecs}")
        window = getattr(self.generator, "codec_window", self.codec.window)
        if window != self.codec.window:
            raise UserError(f"the generator's codec_window={window} is not the codec's "
                            f"window={self.codec.window}")
        if self.trim_frames is not None and self.trim_frames < 0:
            raise UserError(f"{self.trim_frames=} must be at least 0, or None")
        for name in ("spectral_weight", "adversarial_weight", "feature_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0")

    @property
    def network(self) -> nn.Module:
        """Returns the generator's Linen module; its parameters are `params["generator"]`."""
        return build_generator(self.generator)

    @property
    def trim(self) -> int:
        """Returns the number of frames at each edge of a segment that no loss sees."""
        return self.generator.context_frames if self.trim_frames is None else self.trim_frames

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        rng_generator, rng_discriminator = jax.random.split(rng)
        parts = {"generator": jax.jit(self.network.init)(
            rng_generator, jnp.zeros((1, 1, self.codec.mels)))}
        if self.discriminators is not None:
            stft = self.discriminators.stft
            samples = max(stft.windows) if stft is not None else 1024
            parts["discriminator"] = jax.jit(Discriminators(self.discriminators).init)(
                rng_discriminator, jnp.zeros((1, samples)))
        return {collection: {name: dict(part[collection]) for name, part in parts.items()}
                for collection in ("params", "params_axes")}

    def inverter(self, params: Params) -> NeuralInverter:
        """Returns the inverter that a trained or released model's parameters make of it."""
        return NeuralInverter(codec=self.codec, generator=self.network, params=params["generator"])

    def released_params(self, params: Params) -> Params:
        """Returns what rendering needs of a training run's parameters: those of the generator."""
        return {"generator": params["generator"]}

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum of both players' losses; each has only the gradient of its own."""
        del rng
        real, fake = self._compared(params, batch)
        spectral = self.spectral(real, fake, sample_rate=self.codec.sample_rate)
        loss = self.spectral_weight * spectral
        if self.discriminators is None:
            return loss, {"spectral": spectral}
        judges = Discriminators(self.discriminators)
        terms = adversarial_losses(lambda p, samples: judges.apply({"params": p}, samples),
                                   params["discriminator"], real, fake)
        loss = (loss + self.adversarial_weight * terms.adversarial
                + self.feature_weight * terms.feature + terms.discriminator)
        return loss, {"spectral": spectral, **terms._asdict()}

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the spectral reconstruction loss, the only one that later runs can be compared by."""
        del rng
        spectral = self.spectral(*self._compared(params, batch), sample_rate=self.codec.sample_rate)
        return spectral, {"spectral": spectral}

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B S"]:
        """Returns samples [B, T * hop] of the batch's `mel` (nat), or of its `audio`'s."""
        del rng, progress
        if "mel" not in batch:
            require_features(batch, ("audio",))
            return self.generate(params, encode_jax(self.codec, jnp.asarray(batch["audio"])))
        return self.generate(params, jnp.asarray(batch["mel"], jnp.float32))

    def generate(self, params: Params, mel: Float[Array, "B T F"]) -> Float[Array, "B S"]:
        """Returns samples [B, T * hop] of spectrograms in nat."""
        return self.network.apply({"params": params["generator"]}, generator_input(self.codec, mel))

    def _compared(self, params, batch):
        """Returns real and generated samples, where the generator saw all that it can see (or `trim`)."""
        require_features(batch, ("audio",))
        audio, codec, trim = jnp.asarray(batch["audio"]), self.codec, self.trim
        # Frames whose windows end in the segment; later ones would mix sound with padding.
        frames = (audio.shape[-1] - codec.window) // codec.hop + 1
        if frames <= 2 * trim:
            raise UserError(f"segments of {audio.shape[-1]} samples have {max(frames, 0)} frames, of "
                            f"which {trim} are trimmed at each edge: use longer segments "
                            "(SAMPLES) or set SpectrogramInverterModel.trim_frames")
        mel = encode_jax(codec, audio)[:, :frames]
        part = slice(trim * codec.hop, (frames - trim) * codec.hop)
        return audio[:, part], self.generate(params, mel)[:, part]
