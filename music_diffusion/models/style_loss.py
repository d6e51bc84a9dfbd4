"""Terms of the loss of Prioteasa & Stempel-Hauburger 2025 beside that of diffusion (equations 9, 10, 12).

Every term has a gradient into what it should train: the reconstruction into the decoder, the style into
denoiser and style encoder through the decoder and the network that listens.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics, Variables
from music_diffusion.models.feature_loss import EARS, FROZEN, FeatureLoss
from music_diffusion.networks.autoencoder import Autoencoder, AutoencoderConfig
from music_diffusion.types import Params

AUTOENCODER = "autoencoder"  # name of the part of the parameters


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleTerms:
    """Weights of the terms, and the network that listens."""

    ears: FeatureLoss = FeatureLoss()
    diffusion: float = 1.0
    reconstruction: float = 1.0
    perceptual: float = 0.1  # of the reconstruction
    style: float = 0.1

    def __post_init__(self):
        for name in ("diffusion", "reconstruction", "perceptual", "style"):
            if not getattr(self, name) >= 0:
                raise UserError(f"StyleTerms.{name} = {getattr(self, name)} must be at least 0")

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns the names of its parts among the parameters."""
        return (EARS,)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns patterns of what training leaves alone."""
        return (FROZEN,)

    def init(self, rng: PRNGKeyArray) -> Variables:
        """Returns `params` and `params_axes` of its parts."""
        made = self.ears.init(rng)
        return {name: {EARS: dict(made[name])} for name in ("params", "params_axes")}

    def __call__(self, params: Params, codec: MelCodec, autoencoder: AutoencoderConfig,
                 targets: Float[Array, "B T F"], style: Float[Array, "B S F"],
                 latent: Float[Array, "B t C"], made: Float[Array, "B t C"]
                 ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the weighted sum of the terms, and each.

        Args:
          params: of the whole model.
          codec, autoencoder: of spectrograms and latents.
          targets: what the decoder should make of `latent`.
          style: what the decoded `made` should sound like; as long as the targets.
          latent: of the targets.
          made: what the denoiser predicts of the latent.

        Raises ValueError: the style is not as long as the targets.
        """
        if style.shape != targets.shape:
            raise ValueError(f"styles {style.shape} should be as long as targets {targets.shape}")
        own = {"params": params[AUTOENCODER]}

        def decoded(z: Array) -> Array:
            return Autoencoder(autoencoder).apply(own, z, method="decode")

        def heard(real: Array, sounds: Array) -> Array:
            return self.ears.perceptual(params[EARS], codec, real, sounds)

        again = decoded(latent)
        reconstruction = jnp.mean(jnp.square(again - targets)) + self.perceptual * heard(targets, again)
        metrics = {"reconstruction": reconstruction,
                   "style": heard(jax.lax.stop_gradient(style), decoded(made))}
        return self.reconstruction * reconstruction + self.style * metrics["style"], metrics
