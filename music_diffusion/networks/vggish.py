"""VGGish: a VGG network over log-mel patches, whose last layer is an embedding of sound.

Hershey et al. 2017, "CNN architectures for large-scale audio classification"
(arXiv:1609.09430), in the size that was published with AudioSet: configuration
A of VGG (arXiv:1409.1556) with four groups of convolutions and an embedding of
128. A smaller configuration is a network of one's own.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.networks.conv import Conv
from music_diffusion.networks.layers import Dense

# He et al. 2015 (arXiv:1502.01852): keeps the variance through layers with ReLU.
he_init = nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGGishConfig:
    """Sizes of the network; the defaults are the published ones (72,141,184 parameters)."""

    frames: int = 96  # T of a patch; divisible by 2 to the number of groups
    mels: int = 64  # F of a patch; divisible by 2 to the number of groups
    # Features of the convolutions of every group; 2×2 max pooling follows a group.
    channels: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512))
    hidden: tuple[int, ...] = (4096, 4096)  # features of the fully connected layers
    embedding: int = 128  # D
    # ReLU after the embedding. TF-Hub's vggish/1 and the TF-Slim model of today have none; the
    # TF-Slim model as first published had it, and torchvggish has it. The weights are the same.
    final_activation: bool = False

    def __post_init__(self):
        sizes = [*(size for group in self.channels for size in group), *self.hidden]
        if not all(self.channels) or not all(size >= 1 for size in [*sizes, self.embedding]):
            raise ValueError(f"{self.channels=}, {self.hidden=} and {self.embedding=} should be "
                             "positive, and no group empty")
        shrink = 2 ** len(self.channels)
        if min(self.frames, self.mels) < 1 or self.frames % shrink or self.mels % shrink:
            raise ValueError(f"{self.frames=} and {self.mels=} should be divisible by {shrink}, "
                             f"2 to the number of groups of {self.channels=}")

    @property
    def flat(self) -> int:
        """Features that enter the first fully connected layer: positions × channels."""
        shrink = 2 ** len(self.channels)
        last = self.channels[-1][-1] if self.channels else 1
        return (self.frames // shrink) * (self.mels // shrink) * last


class VGGish(nn.Module):
    """Groups of 3×3 convolutions, ReLU and 2×2 max pooling; fully connected layers; embedding.

    The maps are flattened time first, then frequency, then channels. Products
    are computed in `dtype`; the embedding is float32.

    Raises:
      ValueError: the patches are not [B, config.frames, config.mels].
    """

    config: VGGishConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, patches: Float[Array, "B T F"]) -> Float[Array, "B D"]:
        c = self.config
        if patches.shape[1:] != (c.frames, c.mels):
            raise ValueError(f"patches {patches.shape} should be [B, {c.frames}, {c.mels}]")
        x = patches[..., None].astype(self.dtype)
        for g, group in enumerate(c.channels):
            for i, size in enumerate(group):
                x = nn.relu(Conv(size, (3, 3), kernel_init=he_init, name=f"conv_{g}_{i}")(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        for i, size in enumerate(c.hidden):
            x = nn.relu(Dense(size, axes=("embed", "mlp"), use_bias=True, kernel_init=he_init,
                              dtype=self.dtype, name=f"hidden_{i}")(x))
        x = Dense(c.embedding, axes=("embed", "mlp"), use_bias=True, dtype=self.dtype,
                  name="embedding")(x).astype(jnp.float32)
        return nn.relu(x) if c.final_activation else x
