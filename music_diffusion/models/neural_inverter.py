"""A trained generator as an `Inverter`: any length, the same samples however it is cut."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from music_diffusion.audio.chunked import ChunkedStream, ChunkGrid
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import invert_by_stream
from music_diffusion.errors import UserError
from music_diffusion.types import Mel, Params


def generator_input(codec: MelCodec, mel: Float[Array, "*B T F"]) -> Float[Array, "*B T F"]:
    """nat → model range, as `codec.scale` but without its upper limit.

    Diffusion models keep within [-1, 1]; but recordings exceed it (a sine of
    amplitude 1 is 9 dB above +1), and what is limited there would come out quieter.
    """
    return 2.0 * (mel - codec.log_min) / (codec.log_max - codec.log_min) - 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class NeuralInverter:
    """An `Inverter` of a generator and its weights.

    Chunks of a fixed shape give the generator as many real frames on each side as
    its samples depend on. So the result is that of the whole piece at once,
    between silences, to rounding: independent of `chunk_frames`. Samples are not
    limited; silent frames give exact silence (`audio.silence`).
    """

    codec: MelCodec
    # Scaled mel [B, T, F] → samples [B, T * hop], with config.{hop, mels, context_frames}.
    generator: nn.Module
    params: Params  # of the generator
    chunk_frames: int = 256  # frames that a chunk adds; more are faster, less react sooner

    def __post_init__(self):
        config = self.generator.config
        for name in ("hop", "mels"):
            its, codecs = getattr(config, name), getattr(self.codec, name)
            if its != codecs:
                raise UserError(f"the inverter's generator has {name} {its}, its codec {codecs}; "
                                "use parts that were made with the same codec")
        if self.chunk_frames < 1:
            raise ValueError(f"{self.chunk_frames=} should be >= 1")

    def stream(self) -> ChunkedStream:
        """Begins a new piece."""
        grid = ChunkGrid(step_frames=self.chunk_frames,
                         context_frames=self.generator.config.context_frames)
        return ChunkedStream(self.codec, self._decode, grid)

    def invert(self, mel: Mel) -> np.ndarray:
        """[T, F] nat → [T * hop] float32. Raises UserError for NaN or another shape."""
        return invert_by_stream(self, mel)

    @functools.cached_property
    def _weights(self) -> Params:
        """The parameters on the device."""
        return jax.tree.map(jnp.asarray, self.params)

    def _decode(self, mel: Mel) -> np.ndarray:
        return np.asarray(_generate(self.codec, self.generator, self._weights, mel))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(codec: MelCodec, generator: nn.Module, params: Params, mel: Float[Array, "T F"]
              ) -> Float[Array, " S"]:
    # Accelerators' shorter formats round differently in chunks of different shapes.
    with jax.default_matmul_precision("float32"):
        return generator.apply({"params": params}, generator_input(codec, mel)[None])[0]
