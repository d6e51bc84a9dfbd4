"""Discriminators of audio: one looks at short-time spectra, one at the waveform.

Each is a module from samples [B, S] to (logits, features): lists with one
entry for every resolution, high logits for real audio; features are all inner
activations, from fine to coarse, for the feature matching loss.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.codec_jax import frame
from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import Dense

Judgement = tuple[list[jax.Array], list[list[jax.Array]]]  # (logits, features)

SLOPE = 0.2  # of the leaky ReLU, for negative values
# E[leaky ReLU(x)²] = 0.52 for x ~ N(0, 1), so this keeps the variance of 1; a sum of two needs half.
leaky_init = nn.initializers.variance_scaling(1 / 0.52, "fan_in", "truncated_normal")
half_init = nn.initializers.variance_scaling(0.5 / 0.52, "fan_in", "truncated_normal")
QUIET = 1e-5  # magnitude below which `compression` is linear, so that silence has a gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class STFTDiscriminatorConfig:
    """Sizes; the defaults are the paper's (SoundStream, figure 4)."""

    windows: tuple[int, ...] = (1024,)  # samples, Hann window of each resolution; even
    hops: tuple[int, ...] = (256,)  # samples, of each resolution
    channels: tuple[int, ...] = (32, 64, 128, 128, 256, 256, 512)  # of the stem and every unit
    # Of every unit, in time and frequency.
    strides: tuple[tuple[int, int], ...] = ((1, 2), (2, 2), (1, 2), (2, 2), (1, 2), (2, 2))
    stem_kernel: tuple[int, int] = (7, 7)  # of the first convolution, in time and frequency
    stem_stride: tuple[int, int] = (1, 1)  # larger in frequency is much cheaper
    compression: float = 1.0  # exponent of the magnitudes; 0.3 shows quiet bins as the ear hears them

    def __post_init__(self):
        if not self.windows or len(self.windows) != len(self.hops):
            raise ValueError(f"{self.windows=} and {self.hops=} should have one entry a resolution")
        if any(w % 2 or not 0 < h <= w for w, h in zip(self.windows, self.hops, strict=True)):
            raise ValueError(f"{self.windows=} should be even and {self.hops=} within 1..window")
        if len(self.channels) != len(self.strides) + 1:
            raise ValueError(f"{self.channels=} should have one entry more than {self.strides=}")
        if not 0 < self.compression <= 1:
            raise ValueError(f"{self.compression=} should be in (0, 1]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaveDiscriminatorConfig:
    """Sizes; the defaults are the paper's (MelGAN, appendix A)."""

    scales: int = 3  # the audio itself, and at half, a quarter ... of its rate
    channels: tuple[int, ...] = (16, 64, 256, 1024, 1024)  # of the stem and the strided layers
    groups: tuple[int, ...] = (4, 16, 64, 256)  # of the strided layers; slow on CPUs unless 1
    kernel: int = 41  # taps of the strided layers
    stride: int = 4  # of the strided layers

    def __post_init__(self):
        if self.scales < 1:
            raise ValueError(f"{self.scales=} should be at least 1")
        if len(self.channels) != len(self.groups) + 1:
            raise ValueError(f"{self.channels=} should have one entry more than {self.groups=}")
        pairs = zip(self.channels, self.channels[1:], self.groups, strict=False)
        if any(c % g or d % g for c, d, g in pairs):
            raise ValueError(f"{self.groups=} should divide the {self.channels=} around them")
        if not 1 <= self.stride <= self.kernel:
            raise ValueError(f"{self.stride=} should be within 1..{self.kernel=}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorsConfig:
    """Sizes of the judges of audio; None leaves one out."""

    stft: STFTDiscriminatorConfig | None = STFTDiscriminatorConfig()
    wave: WaveDiscriminatorConfig | None = WaveDiscriminatorConfig()

    def __post_init__(self):
        if self.stft is None and self.wave is None:
            raise ValueError("at least one of stft and wave should be configured")


def leaky(x: Float[Array, "*B"]) -> Float[Array, "*B"]:
    return nn.leaky_relu(x, SLOPE)


def complex_spectra(
    samples: Float[Array, "B S"], *, window: int, hop: int, compression: float
) -> Float[Array, "B T K 2"]:
    """Real and imaginary parts of the whole windows in `samples`, K = window / 2 bins.

    White noise of variance 1 gives a variance of 1 a bin; the top bin (half
    the sample rate) is left out. A magnitude m becomes m^compression.
    """
    if samples.shape[-1] < window:
        raise ValueError(f"{samples.shape[-1]} samples are shorter than a window of {window}")
    frames = 1 + (samples.shape[-1] - window) // hop
    size = (frames - 1 + -(-window // hop)) * hop
    samples = jnp.pad(samples, ((0, 0), (0, max(0, size - samples.shape[-1]))))[:, :size]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    hann = jnp.asarray(hann / np.sqrt(np.sum(hann**2)), jnp.float32)[None, None]
    spectrum = jnp.fft.rfft(frame(samples, length=window, hop=hop) * hann)[..., :-1]
    parts = jnp.stack([spectrum.real, spectrum.imag], axis=-1)
    if compression == 1.0:
        return parts
    power = jnp.sum(jnp.square(parts), axis=-1, keepdims=True) + QUIET**2
    return parts * power ** (0.5 * (compression - 1.0))


class SpectrumUnit(nn.Module):
    """Two convolutions, the second strided, and a strided pointwise shortcut (SoundStream, fig. 4)."""

    features: int
    stride: tuple[int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "B T K C"]) -> Float[Array, "B U L D"]:
        time, frequency = self.stride
        y = leaky(Conv(x.shape[-1], (3, 3), kernel_init=leaky_init, name="inner")(x))
        y = Conv(self.features, (time + 2, frequency + 2), stride=self.stride,
                 kernel_init=half_init, name="strided")(y)
        return leaky(y + Dense(self.features, axes=("embed", "mlp"), kernel_init=half_init,
                               name="shortcut")(x[:, ::time, ::frequency]))


class SpectrumJudge(nn.Module):
    """Spectra [B, T, K, 2] → logits [B, U] over time, and features."""

    config: STFTDiscriminatorConfig

    @nn.compact
    def __call__(self, spectra: Float[Array, "B T K 2"]) -> tuple[jax.Array, list[jax.Array]]:
        c = self.config
        features = [leaky(Conv(c.channels[0], c.stem_kernel, stride=c.stem_stride,
                               name="stem")(spectra))]
        for i, (size, stride) in enumerate(zip(c.channels[1:], c.strides, strict=True)):
            features.append(SpectrumUnit(size, stride, name=f"unit_{i}")(features[-1]))
        # A convolution over all that is left of the frequencies, without padding.
        x = features[-1].reshape(*features[-1].shape[:2], -1)
        return Dense(1, axes=("embed", "logit"), use_bias=True, name="logits")(x)[..., 0], features


class STFTDiscriminator(nn.Module):
    """2-D convolutions over complex spectra (SoundStream, arXiv:2107.03312, section III.C)."""

    config: STFTDiscriminatorConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B S"]) -> Judgement:
        c = self.config
        logits: list[jax.Array] = []
        features: list[list[jax.Array]] = []
        for window, hop in zip(c.windows, c.hops, strict=True):
            spectra = complex_spectra(samples, window=window, hop=hop, compression=c.compression)
            judged, inner = SpectrumJudge(c, name=f"window_{window}_{hop}")(spectra)
            logits.append(judged)
            features.append(inner)
        return logits, features


class WaveJudge(nn.Module):
    """Samples → logits [B, U] over time, and features, at one rate."""

    config: WaveDiscriminatorConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B S"]) -> tuple[jax.Array, list[jax.Array]]:
        c = self.config
        features = [leaky(Conv(c.channels[0], (15,), name="stem")(samples[..., None]))]
        for i, (size, groups) in enumerate(zip(c.channels[1:], c.groups, strict=True)):
            features.append(leaky(Conv(size, (c.kernel,), stride=(c.stride,), groups=groups,
                                       kernel_init=leaky_init, name=f"strided_{i}")(features[-1])))
        features.append(leaky(Conv(c.channels[-1], (5,), kernel_init=leaky_init,
                                   name="last")(features[-1])))
        return Conv(1, (3,), name="logits")(features[-1])[..., 0], features


class WaveDiscriminator(nn.Module):
    """The same network, with own weights, at several rates (MelGAN, arXiv:1910.06711, section 2.2)."""

    config: WaveDiscriminatorConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B S"]) -> Judgement:
        logits: list[jax.Array] = []
        features: list[list[jax.Array]] = []
        for i in range(self.config.scales):
            if i:
                samples = halve_rate(samples)
            judged, inner = WaveJudge(self.config, name=f"scale_{2**i}")(samples)
            logits.append(judged)
            features.append(inner)
        return logits, features


def halve_rate(samples: Float[Array, "B S"]) -> Float[Array, "B H"]:
    """Means of four samples, every second one; at the ends of those that exist. H = S // 2."""
    return nn.avg_pool(samples[..., None], (4,), (2,), ((1, 1),), count_include_pad=False)[..., 0]


class Discriminators(nn.Module):
    """All that are configured: their lists, one after the other."""

    config: DiscriminatorsConfig

    @nn.compact
    def __call__(self, samples: Float[Array, "B S"]) -> Judgement:
        logits: list[jax.Array] = []
        features: list[list[jax.Array]] = []
        if self.config.stft is not None:
            judged, inner = STFTDiscriminator(self.config.stft, name="stft")(samples)
            logits, features = logits + judged, features + inner
        if self.config.wave is not None:
            judged, inner = WaveDiscriminator(self.config.wave, name="wave")(samples)
            logits, features = logits + judged, features + inner
        return logits, features
