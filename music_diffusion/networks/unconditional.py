"""A denoiser of spectrograms on nothing, on a class, or on a part of them that is known.

Either U-Net serves: `unet2d`, which takes the spectrogram for a picture, or `unet1d`, which takes mel bins
for the channels of a frame and is many times cheaper on a CPU. The class is a row of a table
(`networks.performance`), of which all weights 0 stand for none. What is known of the spectrogram is further
input beside the noise: its values, 0 where they are not known, and where that is.

With patches a position of `unet1d` is several frames, along the axes in which the data varies
(`diffusion.preconditioning.v_along`): fewer positions, of wider features, at the same cost of a frame.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.networks.layers import Dense
from music_diffusion.networks.patches import PatchStatistics
from music_diffusion.networks.performance import PerformanceConfig, PerformanceTable
from music_diffusion.networks.unet1d import UNet1D, UNet1DConfig
from music_diffusion.networks.unet2d import UNet2D, UNet2DConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnconditionalConfig:
    """Sizes of the denoiser."""

    unet: UNet1DConfig | UNet2DConfig = UNet1DConfig()
    classes: int = 0  # K, rows of the table; 0: there are no classes
    class_features: int = 64  # of a row
    regions: bool = False  # whether it sees what is known of the spectrogram
    # Frames of a patch, of `unet1d`, along the axes of the data's statistics; 0: frames as they are.
    patch: int = 0
    region_features: int = 256  # of what is known of a patch

    def __post_init__(self):
        if self.patch < 0 or self.patch and isinstance(self.unet, UNet2DConfig) or self.region_features < 1:
            raise ValueError(f"{self.patch=} must be at least 0, and 0 for a UNet2D; "
                             f"{self.region_features=} at least 1")
        if self.classes < 0 or self.class_features < 1:
            raise ValueError(f"{self.classes=} must be at least 0, {self.class_features=} 1")

    @property
    def multiple(self) -> int:
        """Frames (and bins, of a picture) must be multiples of this."""
        unet = self.unet
        if isinstance(unet, UNet2DConfig):
            return unet.multiple
        return unet.frame_multiple * max(self.patch, 1)


class UnconditionalDenoiser(nn.Module):
    """(noisy spectrogram, noise level, class, what is known) → what the loss asks for."""

    config: UnconditionalConfig

    @nn.compact
    def __call__(self, z: Float[Array, "B T F"], time: Float[Array, " B"], variance: Float[Array, " B"],
                 classes: Float[Array, "B K"] | None = None, known: Float[Array, "B T F"] | None = None,
                 region: Float[Array, "B T F"] | None = None, *, train: bool = False
                 ) -> Float[Array, "B T F"]:
        """One prediction.

        Args:
          z: noisy data; with patches [B, T / P, P F], along their axes.
          time: the schedule's time, in [0, 1]; for `unet1d`.
          variance: σ² of the noise; for `unet2d`.
          classes: weights of the classes, all 0 for none; with `config.classes`.
          known: the spectrogram where it is known, else 0; as `z`.
          region: 1 where it is known, else 0; patches of it are not along the axes.
          train: see `UNet2D`.
        """
        c = self.config
        told: Array | None = None
        beside: list[Array] = []
        if c.classes:
            table = PerformanceConfig(count=c.classes, features=c.class_features)
            told = PerformanceTable(table, name="classes")(classes)
        if c.regions:
            assert known is not None and region is not None
            beside = [known, region]
        if isinstance(c.unet, UNet2DConfig):
            pictures = jnp.stack(beside, axis=-1) if beside else None
            return UNet2D(c.unet, name="unet")(z, variance, pictures, told, train=train)
        condition = jnp.concatenate([z[..., :0], *beside], axis=-1)
        if c.patch:
            PatchStatistics(z.shape[-1], name="statistics")()
            if beside:
                condition = Dense(c.region_features, axes=("mel", "mlp"), name="known")(condition)
        return UNet1D(c.unet, name="unet")(z, time, condition, told)
