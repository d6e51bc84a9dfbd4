"""Denoisers of a spectrogram, or a latent of it, that should sound like a recording.

`StyleDenoiserConfig` is a U-Net over positions, each of several frames, that sees which pitches should be
heard: what sounds is given by the content, how it sounds by the style (`networks.style`).
`PictureStyleDenoiserConfig` is that of Prioteasa & Stempel-Hauburger 2025 (section 2.1.3) over the cells of
a latent's picture, which sees the style alone: its content is the noised latent that sampling begins with.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.autoencoder import TransposedConv
from music_diffusion.networks.conv import Conv
from music_diffusion.networks.film import sinusoid
from music_diffusion.networks.layers import Dense, MultiHeadAttention
from music_diffusion.networks.patches import PatchStatistics, folded
from music_diffusion.networks.pitch_colours import PITCHES, PitchColours
from music_diffusion.networks.style import (
    FrameStyleConfig,
    FrameStyleEncoder,
    PictureStyleConfig,
    PictureStyleEncoder,
)
from music_diffusion.networks.unet1d import UNet1D, UNet1DConfig

Condition = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleDenoiserConfig:
    """Sizes; `unet.output` is that of a position, `unet.memories` the number of the style's maps."""

    unet: UNet1DConfig = UNet1DConfig(widths=(384, 384), heads=6, output=512, memories=2)
    style: FrameStyleConfig = FrameStyleConfig()
    step: int = 4  # frames of a position
    content: int = 177  # E, features of a frame that say what should be heard (`conditions.style`)
    # Of the mel in which the content is drawn as the style sounds; None: the U-Net sees activations alone.
    codec: MelCodec | None = MelCodec()
    frame_features: int = 160  # of a frame's content, as the U-Net sees it

    def __post_init__(self):
        if self.step < 1 or self.content < 1 or self.frame_features < 1:
            raise ValueError(f"{self.step=}, {self.content=} and {self.frame_features=} should be at least "
                             "1")
        if self.codec is not None and self.content != 2 * PITCHES + 1:
            raise ValueError(f"{self.content=} should be {2 * PITCHES + 1}, activations and a level, to be "
                             "drawn")
        if self.unet.memories != self.style.maps:
            raise ValueError(f"{self.unet.memories=} should be the {self.style.maps=}")

    @property
    def multiple(self) -> int:
        """Frames must be a multiple of this."""
        return self.step * self.unet.frame_multiple


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureStyleDenoiserConfig:
    """Sizes of the paper's: 8,153,760 parameters with 32 features a cell, without the style encoder's."""

    latent: int = 32  # features of a cell
    features: tuple[int, ...] = (64, 128, 256, 512)  # of the levels; each but the first halves both axes
    style: PictureStyleConfig = PictureStyleConfig()
    heads: int = 4
    time_features: int = 128  # of the noise level, which is added where a level has as many
    # Whether what is attended to is added to a level's features; the authors put it in their place.
    adds: bool = True
    step: int = 8  # frames of a cell
    content: int = 0  # it has none

    def __post_init__(self):
        if self.time_features not in self.features:
            raise ValueError(f"{self.time_features=} should be the features of a level, {self.features}")
        if len(self.features) <= self.style.maps:
            raise ValueError(f"{self.features=} should be more levels than the {self.style.maps=}")
        if any(size % self.heads for size in self.features[-self.style.maps:]):
            raise ValueError(f"{self.heads=} should divide {self.features[-self.style.maps:]}")

    @property
    def multiple(self) -> int:
        """Frames must be a multiple of this."""
        return self.step * 2 ** (len(self.features) - 1)


AnyStyleDenoiserConfig = StyleDenoiserConfig | PictureStyleDenoiserConfig


class StyleDenoiser(nn.Module):
    """Conditions once a segment (`condition`), denoising at every step (`denoise`)."""

    config: StyleDenoiserConfig

    def setup(self) -> None:
        c = self.config
        self.style = FrameStyleEncoder(c.style)
        self.frame = Dense(c.frame_features, axes=("embed", "mlp"))
        self.unet = UNet1D(c.unet)
        self.statistics = PatchStatistics(c.unet.output)
        if c.codec is not None:
            self.colours = PitchColours(c.codec)

    def condition(self, content: Float[Array, "B T E"], style: Float[Array, "B S F"],
                  keep_content: Float[Array, " B"], keep_style: Float[Array, " B"]) -> Condition:
        """Returns what `denoise` needs; a `keep` of 0 drops an example's content or style.

        And `map`, the content drawn in the style, scaled [B, T, F], where there is a codec.
        """
        keep = keep_content[:, None, None]
        seen = self.style(style)
        vector = jnp.concatenate([seen.vector, jnp.ones((len(style), 1))], axis=-1) * keep_style[:, None]
        told = [content * keep, jnp.broadcast_to(keep, (*content.shape[:2], 1))]
        made = {"memories": seen.maps, "vector": vector, "style": keep_style}
        if self.config.codec is not None:
            made["map"] = self.colours(vector, content)
            told.append(made["map"] * keep)
        return {"features": self.frame(jnp.concatenate(told, axis=-1)), **made}

    def denoise(self, u: Float[Array, "B N D"], time: Float[Array, " B"], cond: Condition
                ) -> Float[Array, "B N D"]:
        """Returns what the loss asks for, of positions; `time` in [0, 1]."""
        features = folded(cond["features"], self.config.step)
        return self.unet(u, time, features, cond["vector"], cond["memories"], cond["style"] > 0)

    def __call__(self, u, time, content, style, keep_content, keep_style):
        """All at once; creates every parameter."""
        self.statistics()
        return self.denoise(u, time, self.condition(content, style, keep_content, keep_style))


class PictureStyleDenoiser(nn.Module):
    """The paper's, by the same methods."""

    config: PictureStyleDenoiserConfig

    def setup(self) -> None:
        c = self.config
        self.style = PictureStyleEncoder(c.style)
        self.time = [Dense(c.time_features, axes=("embed", "mlp"), use_bias=True) for _ in range(2)]
        self.down = [Conv(size, (3, 3), stride=(1, 1) if i == 0 else (2, 2))
                     for i, size in enumerate(c.features)]
        self.middle = Conv(c.features[-1], (3, 3))
        self.up = [TransposedConv(size) for size in reversed(c.features[:-1])]
        self.output = Conv(c.latent, (3, 3))
        attention = [functools.partial(MultiHeadAttention, size, c.heads, size // c.heads)
                     for size in c.features[-c.style.maps:]]
        self.down_memory = [make() for make in attention]
        self.up_memory = [make() for make in attention]

    def condition(self, content: Float[Array, "B T E"] | None, style: Float[Array, "B S F"],
                  keep_content: Float[Array, " B"], keep_style: Float[Array, " B"]) -> Condition:
        """Returns the maps; content plays no part."""
        del content, keep_content
        return {"memories": self.style(style).maps, "style": keep_style}

    def denoise(self, u: Float[Array, "B N D"], time: Float[Array, " B"], cond: Condition
                ) -> Float[Array, "B N D"]:
        """Returns the noise, of positions whose values are those of all cells above each other."""
        c = self.config
        levels, memories = len(c.features), c.style.maps

        def reminded(x: Array, level: int, attentions: list[MultiHeadAttention]) -> Array:
            place = level - (levels - memories)
            if place < 0:
                return x
            cells, memory = x.reshape(len(x), -1, x.shape[-1]), cond["memories"][place]
            mask = jnp.broadcast_to((cond["style"] > 0)[:, None], memory.shape[:2])
            attention = attentions[place]
            y = attention.attend(cells, *attention.keys_values(memory), mask).reshape(x.shape)
            return x + y if c.adds else y

        embedded = sinusoid(1000 * time, c.time_features, 1e4)
        embedded = self.time[1](nn.gelu(self.time[0](embedded), approximate=False))
        x = u.reshape(*u.shape[:2], -1, c.latent)
        skips = []
        for level, conv in enumerate(self.down):
            x = nn.relu(conv(x))
            if x.shape[-1] == c.time_features:
                x = x + embedded[:, None, None]
            x = reminded(x, level, self.down_memory)
            skips.append(x)
        x = nn.relu(self.middle(x))
        x = reminded(x, levels - 1, self.up_memory)
        for place, conv in enumerate(self.up):
            level = levels - 2 - place
            x = nn.relu(conv(x)) + skips[level]
            x = reminded(x, level, self.up_memory)
        return self.output(x).reshape(u.shape)

    def __call__(self, u, time, content, style, keep_content, keep_style):
        """All at once; creates every parameter."""
        return self.denoise(u, time, self.condition(content, style, keep_content, keep_style))


def style_denoiser(config: AnyStyleDenoiserConfig) -> StyleDenoiser | PictureStyleDenoiser:
    """Returns the network of a configuration."""
    if isinstance(config, StyleDenoiserConfig):
        return StyleDenoiser(config)
    return PictureStyleDenoiser(config)
