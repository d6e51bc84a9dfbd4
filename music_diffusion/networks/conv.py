"""Convolutions over one or two axes, channels last, zero padded."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.networks.layers import Initializer, fan_in_init, linear

AXES = ("conv", "conv_2")  # logical names of the kernel's taps; one name cannot stand twice
DIMENSIONS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


class Conv(nn.Module):
    """Every output sees the kernel centred on its `stride` inputs: n → ceil(n / stride) positions.

    Raises:
      ValueError: a kernel is smaller than its stride, so that inputs would be skipped; `products` of
        another kernel than they are for.
    """

    features: int
    kernel: tuple[int, ...]  # taps along each axis
    stride: tuple[int, ...] | None = None  # along each axis; None for 1
    dilation: int = 1  # positions from tap to tap, along all axes
    groups: int = 1  # channels are convolved in so many separate groups
    # Computes a 3 x 3 kernel of stride 1 as matrix products, which CPUs do many times faster.
    products: bool = False
    kernel_init: Initializer = fan_in_init

    @nn.compact
    def __call__(self, x: Float[Array, "B *N C"]) -> Float[Array, "B *M D"]:
        axes, channels = len(self.kernel), x.shape[-1]
        stride = self.stride or (1,) * axes
        if self.products and (self.kernel != (3, 3) or stride != (1, 1)
                              or self.dilation != 1 or self.groups != 1):
            raise ValueError("products are for kernels of 3 x 3 without stride, dilation and groups")
        if any(s > k for k, s in zip(self.kernel, stride, strict=True)):
            raise ValueError(f"{self.kernel=} should not be smaller than {self.stride=}")
        kernel = param_with_axes(
            "kernel", self.kernel_init, (*self.kernel, channels // self.groups, self.features),
            jnp.float32, axes=(*AXES[:axes], "embed", "mlp")).astype(x.dtype)
        bias = param_with_axes("bias", nn.initializers.zeros, (self.features,), jnp.float32,
                               axes=("mlp",)).astype(x.dtype)
        padding = [self._padding(*sizes)
                   for sizes in zip(x.shape[1:-1], self.kernel, stride, strict=True)]
        if self.products:
            y = nine_taps(x, kernel)
        elif axes == 1 and stride[0] > 1 and self.groups == self.dilation == 1:
            y = fold_stride(x, kernel, stride[0], padding[0])
        else:
            y = jax.lax.conv_general_dilated(
                x, kernel, stride, padding, rhs_dilation=(self.dilation,) * axes,
                dimension_numbers=DIMENSIONS[axes], feature_group_count=self.groups)
        return y + jnp.expand_dims(bias, tuple(range(axes + 1)))

    def _padding(self, size: int, taps: int, stride: int) -> tuple[int, int]:
        """Zeros before and after an axis of `size`."""
        reach = (taps - 1) * self.dilation + 1
        before = (reach - stride) // 2
        return before, (-(-size // stride) - 1) * stride + reach - size - before


def nine_taps(x: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C D"]) -> Float[Array, "B H W D"]:
    """Returns the convolution as three matrix products over copies that are shifted along W."""
    rows, columns, channels, features = kernel.shape
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    beside = jnp.concatenate([padded[:, :, j:j + width] for j in range(columns)], axis=-1)
    taps = kernel.reshape(rows, columns * channels, features)
    parts = [linear(beside[:, i:i + height], taps[i]) for i in range(rows)]
    return parts[0] + parts[1] + parts[2]


def fold_stride(
    x: Float[Array, "B N C"], kernel: Float[Array, "K C D"], stride: int, padding: tuple[int, int]
) -> Float[Array, "B M D"]:
    """A strided convolution as one of stride 1 over blocks of `stride` positions.

    The same result; XLA:CPU computes its gradient about three times faster. N and its
    padding together should be (M - 1) * stride + K, so that the last tap falls on the last input.
    """
    taps, channels, features = kernel.shape
    blocks = -(-taps // stride)
    spare = blocks * stride - taps
    kernel = jnp.pad(kernel, ((0, spare), (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride * channels, features)
    x = jnp.pad(x, ((0, 0), (padding[0], padding[1] + spare), (0, 0)))
    x = x.reshape(x.shape[0], -1, stride * channels)
    return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=DIMENSIONS[1])
