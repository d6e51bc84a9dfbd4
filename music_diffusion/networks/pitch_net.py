"""Network of pitches: evidence that is gathered alike for all pitches, then weighed together.

A log-frequency spectrogram is stacked at the harmonics of each pitch (Bittner et
al. 2017, "Deep salience representations", section 3.1), so that all a pitch's
evidence lies in its channels; the same weights read it for every pitch, with the
frames around and with the pitches at musical intervals, whose partials coincide.
A trunk over whole frames sees all pitches at once and the attacks of drums, and
hands each pitch what it makes of them. Instruments are named at the few pitches of
a frame that sound, by a head that can so be wide and see far along each pitch.
Everything is a matrix product: on CPU convolutions over pitches and frames, and
gathers, are many times slower.
"""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.partitioning import param_with_axes
from jaxtyping import Array, Float

from music_diffusion.networks.convnext import ConvNeXt, ConvNeXtConfig, LayerNorm
from music_diffusion.networks.layers import Dense

# Semitones between pitches whose partials coincide, and the neighbours.
INTERVALS = (-24, -19, -12, -7, -1, 0, 1, 7, 12, 19, 24)
UNNAMED = -12.0  # logit of instruments where nothing is said of them: 6e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class PitchNetConfig:
    """Sizes of the network."""

    pitches: int = 88  # P
    bins_per_semitone: int = 3  # of the input, whose lowest pitch is the output's
    harmonics: tuple[float, ...] = (1 / 3, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
    channels: int = 32  # C, of a pitch
    shared: int = 16  # of them, to the pitches at musical intervals, and from the trunk
    told: int = 6  # channels of a pitch that the trunk sees
    hidden: int = 64  # channels from which the heads read
    frames: int = 5  # that a pitch sees at once, odd; twice
    trunk: ConvNeXtConfig = ConvNeXtConfig(dim=384, hidden=1152, blocks=5)
    classes: int = 34  # instruments
    drums: int = 61  # drum keys
    cells: int = 12  # K, pitches of a frame whose instruments are named: those that sound most surely
    timbre: int = 192  # channels of the head that names instruments
    timbre_frames: tuple[int, ...] = (-6, -3, 0, 3, 6)  # that it sees of a pitch

    def __post_init__(self):
        if self.frames < 1 or self.frames % 2 == 0:
            raise ValueError(f"{self.frames=} must be odd")
        if not 1 <= self.cells <= self.pitches or not self.timbre_frames:
            raise ValueError(f"{self.cells=} must be in 1..{self.pitches} and {self.timbre_frames=} not "
                             "empty")

    @property
    def context_frames(self) -> int:
        """Frames on each side that an output frame depends on."""
        return (2 * (self.frames // 2) + self.trunk.context_frames
                + max(abs(frame) for frame in self.timbre_frames))


def stack_harmonics(spectrum: Float[Array, "B T W bins"], *, pitches: int, bins_per_semitone: int,
                    harmonics: tuple[float, ...]) -> Float[Array, "B T P D"]:
    """Stacks for each pitch the bins around its harmonics: D = harmonics * W * bins_per_semitone.

    What lies beyond the spectrum is 0.
    """
    b, t, w, bins = spectrum.shape
    size = pitches * bins_per_semitone
    shifts = [round(12 * bins_per_semitone * math.log2(h)) for h in harmonics]
    below, above = max(0, -min(shifts)), max(0, max(shifts) + size - bins)
    padded = jnp.pad(spectrum, ((0, 0), (0, 0), (0, 0), (below, above)))
    parts = [padded[..., below + s:below + s + size].reshape(b, t, w, pitches, bins_per_semitone)
             for s in shifts]
    stacked = jnp.stack(parts, axis=-2)  # B T W P H b
    return stacked.transpose(0, 1, 3, 2, 4, 5).reshape(b, t, pitches, -1)


def shifted(x: Float[Array, "B T P C"], axis: int, by: tuple[int, ...]) -> Float[Array, "B T P D"]:
    """Returns what lies `by` steps further along an axis, as further channels; zeros beyond the ends."""
    before, after = max(0, -min(by)), max(0, max(by))
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, after)
    padded = jnp.pad(x, padding)
    size = x.shape[axis]
    return jnp.concatenate([jax.lax.slice_in_dim(padded, before + s, before + s + size, axis=axis)
                            for s in by], axis=-1)


def most(values: Float[Array, "B T P"], count: int) -> Float[Array, "B T K P"]:
    """Returns the places of the greatest values of each frame, greatest first, one hot; no gradient."""
    _, places = jax.lax.top_k(jax.lax.stop_gradient(values), count)
    return jax.nn.one_hot(places, values.shape[-1])


def chosen_at(x: Float[Array, "B T P C"], chosen: Float[Array, "B T K P"], by: tuple[int, ...]
              ) -> Float[Array, "B T K D"]:
    """Returns x at the chosen pitches of each frame, `by` frames further along, as further channels.

    The choices are moved to where they choose, so that x, which is many times larger, is read once.
    """
    count = chosen.shape[2]
    where = jnp.concatenate([shifted(chosen, 1, (-frame,)) for frame in by], axis=2)
    found = jnp.einsum("btkp,btpc->btkc", where, x)
    return jnp.concatenate([shifted(found[:, :, i * count:(i + 1) * count], 1, (frame,))
                            for i, frame in enumerate(by)], axis=-1)


class PitchNet(nn.Module):
    """Logits of onsets, sounding frames, velocities and instruments by pitch, and of drums."""

    config: PitchNetConfig

    @nn.compact
    def __call__(self, spectrum: Float[Array, "B T W bins"],
                 sounding: Float[Array, "B T P"] | None = None) -> dict[str, jax.Array]:
        """Reads log-frequency spectra.

        Args:
          spectrum: their bins, of W windows.
          sounding: 1 where a pitch sounds, if known: then instruments are named there before elsewhere.

        Returns onset, frame, velocity [B, T, P]; classes [B, T, P, classes], `UNNAMED` where a pitch is
        none of the `cells` of its frame; named [B, T, P], 1 where it is; drums [B, T, drums].
        """
        c = self.config
        evidence = self._evidence(spectrum)
        told = Dense(c.told, ("embed", "joined_kv"), use_bias=True, name="tell")(evidence)
        seen = jnp.concatenate([spectrum[:, :, -1], told.reshape(*told.shape[:2], -1)], axis=-1)
        frames = ConvNeXt(c.trunk, name="trunk")(seen)
        back = Dense(c.pitches * c.shared, ("embed", "joined_kv"), use_bias=True, name="back")(frames)
        back = back.reshape(*back.shape[:2], c.pitches, c.shared)
        h = jnp.concatenate([evidence, back], axis=-1)
        h = nn.relu(Dense(c.hidden, ("embed", "mlp"), use_bias=True, name="join")(h))
        near = nn.relu(Dense(c.shared, ("mlp", "joined_kv"), use_bias=True, name="near")(h))
        reach = c.frames // 2
        h = jnp.concatenate([h, shifted(near, 1, tuple(range(-reach, reach + 1)))], axis=-1)
        h = nn.relu(Dense(c.hidden, ("embed", "mlp"), use_bias=True, name="out")(h))
        heads = Dense(3, ("embed", "vocab"), use_bias=True, name="heads",
                      kernel_init=nn.initializers.normal(0.02))(h)
        drums = Dense(c.drums, ("embed", "vocab"), use_bias=True, name="drums",
                      kernel_init=nn.initializers.normal(0.02))(frames)
        surely = jax.nn.sigmoid(jnp.maximum(heads[..., 0], heads[..., 1]))
        cells = most(surely if sounding is None else surely + sounding, c.cells)
        classes, named = self._classes(h, frames, cells)
        return {"onset": heads[..., 0], "frame": heads[..., 1], "velocity": heads[..., 2],
                "classes": classes, "named": named, "drums": drums}

    def _classes(self, h: Float[Array, "B T P C"], frames: Float[Array, "B T D"],
                 chosen: Float[Array, "B T K P"]) -> tuple[Float[Array, "B T P N"], Float[Array, "B T P"]]:
        """Returns the logits of instruments at the chosen pitches, and 1 where these are."""
        c = self.config
        near = chosen_at(h, chosen, c.timbre_frames)
        place = param_with_axes("pitch_timbre", nn.initializers.normal(0.02), (c.pitches, c.timbre),
                                axes=("length", "embed"))
        x = Dense(c.timbre, ("embed", "mlp"), use_bias=True, name="timbre")(near)
        x = x + Dense(c.timbre, ("embed", "mlp"), name="around")(frames)[:, :, None]
        x = nn.relu(LayerNorm(name="timbre_norm")(x + chosen @ place))
        x = x + nn.relu(Dense(c.timbre, ("embed", "mlp"), use_bias=True, name="timbre_again")(x))
        said = Dense(c.classes, ("embed", "vocab"), use_bias=True, name="classes",
                     kernel_init=nn.initializers.normal(0.02))(x)
        named = chosen.sum(axis=2)
        spread = jnp.einsum("btkp,btkn->btpn", chosen, said)
        return spread + UNNAMED * (1 - named)[..., None], named

    def _evidence(self, spectrum: Float[Array, "B T W bins"]) -> Float[Array, "B T P C"]:
        """Returns the evidence for each pitch, by the same weights for all."""
        c = self.config
        x = stack_harmonics(spectrum, pitches=c.pitches, bins_per_semitone=c.bins_per_semitone,
                            harmonics=c.harmonics)
        x = LayerNorm(name="norm")(Dense(c.channels, ("mel", "embed"), use_bias=True,
                                         name="harmonics")(x))
        # Pitches differ in how their harmonics look: low ones blur, high ones have fewer.
        place = param_with_axes("place", nn.initializers.normal(0.02), (c.pitches, c.channels),
                                axes=("length", "embed"))
        x = nn.relu(x + place[None, None])
        reach = c.frames // 2
        near = shifted(x, 1, tuple(range(-reach, reach + 1)))
        x = x + nn.relu(Dense(c.channels, ("mel", "embed"), use_bias=True, name="frames")(near))
        related = Dense(c.shared, ("embed", "joined_kv"), use_bias=True, name="share")(x)
        related = shifted(related, 2, INTERVALS)
        return x + nn.relu(Dense(c.channels, ("mel", "embed"), use_bias=True, name="intervals")(related))
