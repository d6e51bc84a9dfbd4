"""Autoencoder of spectrograms: the latent in which style is transferred, and others may sample.

Prioteasa & Stempel-Hauburger 2025, equation 10, with what it lacks: a posterior with a width, terms by what
an audio network hears and by a judge that learns to tell (Esser et al. 2021, https://arxiv.org/abs/2012.09841),
and a latent of unit variance.

Features of a batch: `targets` [B, T, F], scaled mel in [-1, 1], T a multiple of the latent's step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.losses import l1
from music_diffusion.errors import UserError
from music_diffusion.models.adversarial import adversarial_losses
from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.models.feature_loss import EARS, FROZEN, FeatureLoss
from music_diffusion.networks.autoencoder import (
    Autoencoder,
    AutoencoderConfig,
    FrameAutoencoderConfig,
    Posterior,
    sampled,
)
from music_diffusion.networks.discriminators import SpectrumJudge, STFTDiscriminatorConfig
from music_diffusion.networks.layers import TRACKED, follow
from music_diffusion.types import Batch, Params, StepProgress

PART = "autoencoder"  # names of parts of the parameters
JUDGE = "judge"


def divergence(posterior: Posterior) -> Float[Array, ""]:
    """Returns the mean Kullback-Leibler divergence from N(0, 1), in nat a value."""
    mean, logvar = posterior
    if logvar is None:
        raise UserError("divergence: this autoencoder's posterior has no width; take moments")
    return 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar)


def moments(posterior: Posterior) -> Float[Array, ""]:
    """Returns the regularisation of equation 10: mean of ½ (z² − 1 − ln(z² + ε)), least where |z| = 1."""
    square = jnp.square(posterior.mean)
    return 0.5 * jnp.mean(square - 1.0 - jnp.log(square + 1e-6))


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoencoderModel(ModelBase):
    """A model of `models.base`; parts of its parameters are `autoencoder`, `judge` and `ears`."""

    training_only: ClassVar[Mapping[str, Any]] = {"judge": None, "ears": None}

    config: AutoencoderConfig = FrameAutoencoderConfig()
    codec: MelCodec = MelCodec()
    frames: int = 128  # of a segment, in `init`
    distance: Callable[[Array, Array], Array] = l1  # elementwise, of scaled mel
    regularization: Callable[[Posterior], Array] = divergence
    kl_weight: float = 1e-4  # of the regularisation
    ears: FeatureLoss | None = None  # None: no perceptual term
    perceptual_weight: float = 0.1
    judge: STFTDiscriminatorConfig | None = None  # of pictures of spectrograms; None: no adversarial terms
    adversarial_weight: float = 0.02
    feature_weight: float = 0.02

    def __post_init__(self):
        if self.config.mels != self.codec.mels:
            raise UserError(f"AutoencoderModel: the network's {self.config.mels} bins are not the codec's "
                            f"{self.codec.mels}")
        if self.frames < 1 or self.frames % self.config.step:
            raise UserError(f"AutoencoderModel.frames = {self.frames} must be a multiple of "
                            f"{self.config.step}")
        for name in ("kl_weight", "perceptual_weight", "adversarial_weight", "feature_weight"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} must be at least 0")

    @property
    def network(self) -> Autoencoder:
        """Returns the Linen module; its parameters are `params["autoencoder"]`."""
        return Autoencoder(self.config)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the network that listens, which is given."""
        return (FROZEN,) if self.ears is not None else ()

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes  # parameters depend on the configuration alone
        rngs = jax.random.split(rng, 3)
        picture = jnp.zeros((1, self.frames, self.codec.mels))
        parts = {PART: jax.jit(self.network.init)(rngs[0], picture)}
        if self.judge is not None:
            parts[JUDGE] = jax.jit(SpectrumJudge(self.judge).init)(rngs[1], picture[..., None])
        if self.ears is not None:
            parts[EARS] = self.ears.init(rngs[2])
        return {collection: {name: dict(part[collection]) for name, part in parts.items()}
                for collection in ("params", "params_axes")}

    def released_params(self, params: Params) -> Params:
        """Returns the autoencoder's own."""
        return {PART: params[PART]}

    def encode(self, params: Params, scaled: Float[Array, "B T F"]) -> Float[Array, "B t C"]:
        """Returns the latent's mean."""
        return self.network.apply({"params": params[PART]}, scaled, method="encode").mean

    def decode(self, params: Params, latent: Float[Array, "B t C"]) -> Float[Array, "B T F"]:
        """Returns scaled mel."""
        return self.network.apply({"params": params[PART]}, latent, method="decode")

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the sum of all terms; each trains what it should, and nothing else."""
        targets = self._targets(batch)
        variables = {"params": params[PART]}
        posterior, seen = self.network.apply(variables, targets, train=True, mutable=[TRACKED],
                                             method="encode")
        made, sown = self.network.apply(variables, sampled(posterior, rng), train=True, mutable=[TRACKED],
                                        method="decode")
        loss, metrics = self._terms(targets, made, posterior)
        if self.ears is not None:
            metrics["perceptual"] = self.ears.perceptual(params[EARS], self.codec, targets, made)
            loss = loss + self.perceptual_weight * metrics["perceptual"]
        if self.judge is not None:
            judge = SpectrumJudge(self.judge)

            def judged(own: Params, pictures: Array):
                logits, features = judge.apply({"params": own}, pictures[..., None])
                return [logits], [features]

            terms = adversarial_losses(judged, params[JUDGE], targets, made)
            loss = (loss + self.adversarial_weight * terms.adversarial
                    + self.feature_weight * terms.feature + terms.discriminator)
            metrics |= terms._asdict()
        return loss + follow([seen, sown]), {"loss": loss, **metrics}

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the error of reconstruction from the mean, by which runs can be compared."""
        del rng
        targets = self._targets(batch)
        posterior = self.network.apply({"params": params[PART]}, targets, method="encode")
        made = self.decode(params, posterior.mean)
        _, metrics = self._terms(targets, made, posterior)
        return metrics["reconstruction"], {"loss": metrics["reconstruction"], **metrics}

    def _terms(self, targets: Array, made: Array, posterior: Posterior) -> tuple[Array, dict[str, Array]]:
        reconstruction = jnp.mean(self.distance(made, targets))
        regularization = self.regularization(posterior)
        nat = 0.5 * (self.codec.log_max - self.codec.log_min)
        return reconstruction + self.kl_weight * regularization, {
            "reconstruction": reconstruction, "kl": regularization,
            "l1_nat": nat * jnp.mean(jnp.abs(made - targets)),
            "latent_variance": jnp.mean(jnp.square(posterior.mean))}

    def _targets(self, batch: Batch) -> Float[Array, "B T F"]:
        require_features(batch, ("targets",))
        return jnp.asarray(batch["targets"], jnp.float32)

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T F"]:
        """Returns the batch's spectrograms, encoded and decoded."""
        del rng, progress
        return self.decode(params, self.encode(params, self._targets(batch)))
