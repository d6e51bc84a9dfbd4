"""Map of what is heard in a recording, drawn in another sound, for a denoiser to begin with.

How surely every pitch is heard says which harmonics sound; the recording's own level says how loud. A
network that has to learn from a roll where a pitch's harmonics lie takes far longer than one that sees them
drawn.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.networks.layers import Dense, RMSNorm
from music_diffusion.networks.note_timbre import harmonic_comb

PITCHES, LOWEST_PITCH = 88, 21  # that are heard
FAINT = 0.01  # energy of activations, of a frame in which hardly anything is heard


def drawn(strength: Float[Array, "B T P"], colour: Float[Array, "B P F"], loud: Float[Array, "B T 1"],
          codec: MelCodec) -> Float[Array, "B T F"]:
    """Returns scaled mel of energy L Σₚ sₚ cₚ(f) / (Σₚ sₚ + 0.01).

    Args:
      strength: s, of pitches.
      colour: c, energy of each pitch over the bins, 1 in all.
      loud: L, energy of each frame.
      codec: of the mel.
    """
    energy = strength @ colour * loud / (jnp.sum(strength, axis=-1, keepdims=True) + FAINT)
    return codec.scale(0.5 * jnp.log(jnp.maximum(energy, codec.clip_min**2)))


class PitchColours(nn.Module):
    """Frames of every pitch in a style, at its onset and as it goes on, and what is heard drawn with them.

    A harmonic comb with an envelope, and noise, as of `networks.note_timbre`.
    """

    codec: MelCodec
    width: int = 320  # features
    layers: int = 2  # residual blocks

    @nn.compact
    def __call__(self, style: Float[Array, "B D"], content: Float[Array, "B T E"]
                 ) -> Float[Array, "B T F"]:
        """Returns the scaled mel of what is heard (`conditions.style.content_features`), drawn."""
        codec, width = self.codec, self.width
        keys = param_with_axes("keys", nn.initializers.normal(0.5), (PITCHES, width), jnp.float32,
                               axes=("vocab", "embed"))
        h = Dense(width, axes=("features", "embed"), use_bias=True, name="style")(style)
        h = h[:, None] + keys[None]
        for i in range(self.layers):
            x = RMSNorm(name=f"norm_{i}")(h)
            x = Dense(width, axes=("embed", "mlp"), use_bias=True, name=f"wi_{i}")(x)
            h = h + Dense(width, axes=("mlp", "embed"), use_bias=True, name=f"wo_{i}")(nn.gelu(x))
        out = Dense(2 * (2 * codec.mels + 1), axes=("embed", "mel"), use_bias=True, name="output")(
            RMSNorm(name="norm")(h))
        out = jnp.swapaxes(out.reshape(*out.shape[:2], 2, -1), 1, 2)  # B 2 P 2F+1
        harmonic, noise, strength = jnp.split(4.0 * out, [codec.mels, 2 * codec.mels], axis=-1)
        comb = jnp.asarray(harmonic_comb(codec)[LOWEST_PITCH:LOWEST_PITCH + PITCHES])
        mel = jnp.logaddexp(harmonic + comb[None, None], noise - 6.0)
        colour = nn.softmax(2 * mel, axis=-1).reshape(len(out), 2 * PITCHES, codec.mels)
        gain = jnp.exp(strength).reshape(len(out), 1, 2 * PITCHES)
        sure, level = content[..., :2 * PITCHES], content[..., 2 * PITCHES:]
        loud = codec.mels * jnp.exp(2 * codec.unscale(level))
        return drawn(jnp.square(sure) * gain, colour, loud, codec)
