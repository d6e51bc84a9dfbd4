"""The performance as a condition: one row of a table for every recording that a network knows.

Maman et al. 2024 (arXiv 2309.12283), section 3.2: an integer stands for an ensemble in a room; its
representation is concatenated with that of the diffusion time, and FiLM layers of every block take
both. A condition is a weight for each row, so that one performance, a mixture of several, and none
(all weights 0) are the same thing to the network.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.errors import UserError
from music_diffusion.networks.layers import linear

FEATURE = "performance"  # of a batch: numbers [B], or weights of all rows [B, R]
PERFORMANCE_TABLE = "performances/embedding"  # of the parameters, below a network's own folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformanceConfig:
    """Number of the performances that a network knows, and size of their description."""

    count: int  # R, rows of the table
    features: int = 64  # D, of a row

    def __post_init__(self):
        if self.count < 1 or self.features < 1:
            raise UserError(f"PerformanceConfig: {self.count=} and {self.features=} must be at least 1")


class PerformanceTable(nn.Module):
    """Weights of the performances → their row, or the mixture of rows."""

    config: PerformanceConfig

    @nn.compact
    def __call__(self, weights: Float[Array, "B R"]) -> Float[Array, "B D"]:
        """All weights 0, the dropped condition, give zeros: FiLM without bias then adds nothing."""
        table = param_with_axes(
            "embedding", nn.initializers.normal(stddev=1.0),
            (self.config.count, self.config.features), jnp.float32, axes=("vocab", "embed"))
        # A product and not a gather, whose gradient is slow on CPUs and TPUs.
        return linear(weights.astype(jnp.float32), table)
