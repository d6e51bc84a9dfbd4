"""The SEANet / MelGAN generator: log-mel frames → waveform, by transposed convolutions.

Hawthorne et al. 2022 (arXiv:2206.05408), section 3.3; its parts are those of
MelGAN (Kumar et al. 2019, arXiv:1910.06711) and SEANet (Tagliasacchi et al.
2020, arXiv:2009.02095).
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import Dense

INPUT_KERNEL, UNIT_KERNEL, OUTPUT_KERNEL = 3, 3, 7  # taps
# Without weight norm: E[ELU(x)²] = 0.645 for x ~ N(0, 1), so this keeps the variance of 1 ...
elu_init = nn.initializers.variance_scaling(1 / 0.645, "fan_in", "truncated_normal")
# ... a fresh residual unit adds a tenth to it, and the output is about as loud as music (0.1).
unit_init = nn.initializers.variance_scaling(0.1 / 0.645, "fan_in", "truncated_normal")
output_init = nn.initializers.variance_scaling(0.01 / 0.645, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SEANetConfig:
    """Sizes of the generator."""

    channels: int = 512  # after the input convolution; every block halves them
    strides: tuple[int, ...] = (8, 5, 4, 2)  # upsampling of each block
    dilations: tuple[int, ...] = (1, 3, 9)  # of each block's residual units
    mels: int = 128  # F
    # MelGAN's output. It cannot clip, but ±1 is out of reach of useful gradients (tanh is 1 from
    # about 9 on, and bends everything above 0.5), so full scale needs the linear output.
    tanh: bool = False

    def __post_init__(self):
        if not self.strides or min(self.strides) < 1 or min(self.dilations, default=1) < 1:
            raise ValueError(f"{self.strides=} should not be empty, they and {self.dilations=} >= 1")
        if self.channels < 1 or self.channels % 2 ** len(self.strides):
            raise ValueError(f"{self.channels=} should be a multiple of {2 ** len(self.strides)}: "
                             "every block halves them")

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return math.prod(self.strides)

    @property
    def context_frames(self) -> int:
        """Frames on each side that the samples of a frame depend on; the nearest exact bound.

        Follows the samples of frame 0 back through the network: of what layer
        below it they need positions first ... last.
        """
        reach = OUTPUT_KERNEL // 2
        first, last = -reach, self.hop - 1 + reach
        for stride in reversed(self.strides):
            reach = UNIT_KERNEL // 2 * sum(self.dilations)
            first, last = first - reach, last + reach
            # `Upsample` makes output j from inputs (j + stride // 2) // stride - 1 and the next.
            first, last = (first + stride // 2) // stride - 1, (last + stride // 2) // stride
        reach = INPUT_KERNEL // 2
        return max(reach - first, last + reach)


class Upsample(nn.Module):
    """Transposed convolution with a kernel of 2 * stride: T → T * stride positions.

    Around every boundary of two inputs lie `stride` outputs that see both and
    no others: one matrix product, no scatter.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T C"]) -> Float[Array, "B S D"]:
        batch, count, _ = x.shape
        pairs = jnp.concatenate([jnp.pad(x, ((0, 0), (1, 0), (0, 0))),
                                 jnp.pad(x, ((0, 0), (0, 1), (0, 0)))], axis=-1)
        y = Dense(self.stride * self.features, axes=("embed", "mlp"), kernel_init=elu_init,
                  name="pairs")(pairs)
        y = y.reshape(batch, (count + 1) * self.stride, self.features)
        bias = param_with_axes("bias", nn.initializers.zeros, (self.features,), jnp.float32,
                               axes=("mlp",))
        before = self.stride // 2
        return y[:, before:before + count * self.stride] + bias[None, None]


class ResidualUnit(nn.Module):
    """x + pointwise(ELU(dilated convolution(ELU(x))))."""

    dilation: int

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        y = Conv(x.shape[-1], (UNIT_KERNEL,), dilation=self.dilation, kernel_init=elu_init,
                 name="dilated")(nn.elu(x))
        return x + Dense(x.shape[-1], axes=("mlp", "embed"), use_bias=True, kernel_init=unit_init,
                         name="pointwise")(nn.elu(y))


class SEANet(nn.Module):
    """A generator: mel in the model range → samples, T frames to T * hop samples."""

    config: SEANetConfig

    @nn.compact
    def __call__(self, mel_scaled: Float[Array, "B T F"]) -> Float[Array, "B S"]:
        c = self.config
        x = Conv(c.channels, (INPUT_KERNEL,), name="input")(mel_scaled)
        for i, stride in enumerate(c.strides):
            x = Upsample(c.channels // 2 ** (i + 1), stride, name=f"up_{i}")(nn.elu(x))
            for j, dilation in enumerate(c.dilations):
                x = ResidualUnit(dilation, name=f"unit_{i}_{j}")(x)
        x = Conv(1, (OUTPUT_KERNEL,), kernel_init=output_init, name="output")(nn.elu(x))[..., 0]
        return jnp.tanh(x) if c.tanh else x
