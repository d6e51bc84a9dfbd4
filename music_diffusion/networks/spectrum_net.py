"""A network from a mel spectrogram to the magnitudes of a longer window on a finer time grid."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.networks.convnext import ConvNeXt, ConvNeXtConfig
from music_diffusion.networks.layers import Dense

LIMIT = 8.0  # nat, largest correction
CONTRAST_REACH = 6  # mel bins on each side whose mean a bin is compared with
CONTRAST_LIMIT = 4.0  # nat


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectrumNetConfig:
    """Sizes of the network."""

    trunk: ConvNeXtConfig = ConvNeXtConfig(dim=320, hidden=960, blocks=7)
    upsample: int = 2  # output frames a mel frame
    bins: int = 1025  # K of the output
    features: int = 128  # of the summary of the estimate

    def __post_init__(self):
        if min(self.upsample, self.bins, self.features) < 1:
            raise ValueError(f"{self.upsample=}, {self.bins=} and {self.features=} must be positive")

    @property
    def context_frames(self) -> int:
        """Mel frames on each side that an output frame depends on."""
        return self.trunk.context_frames


def contrast(mel: Float[Array, "B T F"]) -> Float[Array, "B T F"]:
    """Returns by how many nat each mel bin exceeds the mean of those around it.

    The frequency of a sinusoid is in the ratios of neighbours, which are small
    beside the range of the spectrogram.
    """
    bins, reach = mel.shape[-1], CONTRAST_REACH
    padded = jnp.pad(mel, ((0, 0), (0, 0), (reach, reach)), mode="edge")
    around = sum(padded[..., i:i + bins] for i in range(2 * reach + 1)) / (2 * reach + 1)
    return jnp.clip(mel - around, -CONTRAST_LIMIT, CONTRAST_LIMIT)


class SpectrumNet(nn.Module):
    """Corrections of log-magnitudes, and how phases advance; both near 0 at first."""

    config: SpectrumNetConfig

    @nn.compact
    def __call__(self, scaled: Float[Array, "B T F"], mel: Float[Array, "B T F"],
                 estimate: Float[Array, "B T K"]
                 ) -> tuple[Float[Array, "B upsample*T bins"], Float[Array, "B upsample*T bins"]]:
        """(nat; radians a frame beyond the advance of a bin's own frequency).

        Args:
          scaled: spectrogram in the model range.
          mel: the same in nat.
          estimate: log-magnitudes that it implies, nat.
        """
        c = self.config
        summary = Dense(c.features, ("mel", "embed"), use_bias=True, name="feat")(
            jnp.clip((estimate + 3) / 4, -3, 3))
        h = ConvNeXt(c.trunk, name="trunk")(jnp.concatenate([scaled, summary, contrast(mel)], -1))

        def head(name: str):
            y = Dense(c.upsample * c.bins, ("embed", "mel"), use_bias=True, name=name,
                      kernel_init=nn.initializers.normal(0.002))(h)
            return y.reshape(*y.shape[:-2], -1, c.bins)

        # The advance is scaled so that both heads learn at one rate.
        return jnp.clip(head("head"), -LIMIT, LIMIT), 3 * head("head_f")
