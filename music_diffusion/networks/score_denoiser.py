"""The frame-wise denoiser: a note map on the mel axis, and a U-Net around what it misses.

The map says which frame the score should sound like; the U-Net denoises the difference
(`diffusion.preconditioning`: m is the map, s the deviation of the data from it).
Without its condition the map is the mean of all data and s their deviation.

A recording of the same music, if the network has one, is further `evidence` beside the notes, as it is and
drawn on the instruments that are `wanted`. With
performances (`networks.performance`), or the embedding of a `reference` recording, the map is drawn with
the performance's own notes if the timbre network has performances too, FiLM with the mel bins as features
gives it a performance's tone, gains on tails of its energy (`audio.tails`) a performance's room, and FiLM
in every block of the U-Net the rest. Of a `style`, a stretch of such a recording, the U-Net sees as
much as it attends to, and the evidence drawn in its colours.

With patches (`networks.patches`) a position of the U-Net is several frames, and what the map misses is
denoised along the axes in which it varies (`diffusion.preconditioning.v_along`).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.preconditioning import v_along, v_around
from music_diffusion.errors import UserError
from music_diffusion.networks.film import FiLMLayer
from music_diffusion.networks.layers import Dense
from music_diffusion.networks.note_timbre import NoteTimbre, NoteTimbreConfig, power_sum
from music_diffusion.networks.patches import PatchStatistics, folded
from music_diffusion.networks.performance import PerformanceConfig, PerformanceTable
from music_diffusion.networks.pitch_colours import LOWEST_PITCH, PITCHES, PitchColours, drawn
from music_diffusion.networks.style import FrameStyleConfig, FrameStyleEncoder
from music_diffusion.networks.unet1d import UNet1D, UNet1DConfig

Condition = dict[str, Any]
SLOT_FIELDS = ("program", "pitch", "velocity", "age", "release")
ONSET_SECONDS = 0.06  # a note is new for three frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreDenoiserConfig:
    """Sizes and the scales of the preconditioning, in the model's units (data in [-1, 1])."""

    timbre: NoteTimbreConfig = NoteTimbreConfig()
    unet: UNet1DConfig = UNet1DConfig()
    performances: PerformanceConfig | None = None  # None: one sound
    tails: tuple[float, ...] = ()  # decay times of rooms, seconds until 60 dB are lost; see `audio.tails`
    evidence: int = 0  # further features of a frame, beside the notes: of a recording of the music
    wanted: int = 0  # K, programs at most that evidence as of `conditions.heard` is drawn on
    reference: int = 0  # D, of the embedding of a recording that it should sound like
    reference_features: int = 64  # of what FiLM sees of it
    # Of a stretch of a recording that it should sound like, which the U-Net attends to, and in whose
    # colours the evidence is drawn; None: without.
    style: FrameStyleConfig | None = None
    residual_std: float = 0.08  # s: deviation of the data from the map
    data_mean: float = -0.45  # the map of the dropped condition
    data_std: float = 0.45  # s of the dropped condition
    # Frames of a patch, whose statistics are s of the kept condition; 0: frames as they are.
    patch: int = 0
    frame_features: int = 160  # of the conditions of a frame, in a patch

    def __post_init__(self):
        if self.patch < 0 or self.frame_features < 1:
            raise ValueError(f"{self.patch=} must be at least 0, {self.frame_features=} 1")
        if self.unet.output != self.codec.mels * max(self.patch, 1):
            raise ValueError(f"{self.unet.output=} must be {self.codec.mels=} times the frames of a patch")
        if self.tails and self.performances is None and not self.reference:
            raise ValueError(f"{self.tails=} are for performances and references, and there are none")
        own = self.timbre.performances
        if own is not None and (self.performances is None or own.count != self.performances.count):
            raise ValueError(f"{self.timbre.performances=} must be as many as {self.performances=}")
        if (self.wanted or self.style) and self.evidence < self.codec.mels + 2 * PITCHES:
            raise ValueError(f"{self.evidence=} has no activations to draw {self.wanted=} programs or "
                             f"{self.style=} by")
        if self.unet.memories != (self.style.maps if self.style else 0):
            raise ValueError(f"{self.unet.memories=} should be the maps of {self.style=}")
        if self.evidence < 0 or self.reference < 0 or self.reference_features < 1:
            raise ValueError(f"{self.evidence=} and {self.reference=} must be at least 0, "
                             f"{self.reference_features=} 1")
        if not (self.residual_std > 0 and self.data_std > 0):
            raise ValueError(f"{self.residual_std=} and {self.data_std=} must be > 0")

    @property
    def codec(self) -> MelCodec:
        return self.timbre.codec

    @property
    def multiple(self) -> int:
        """The number of frames must be a multiple of this."""
        return self.unet.frame_multiple * max(self.patch, 1)


# Of notes that a recording is drawn with, as they sound on: velocity, seconds since onset and note-off.
VELOCITY, AGE, RELEASE = 80.0, 0.2, -0.5

QUIET = -5.0  # nat, gain of a tail before it is learned
GAIN_SCALE = 8.0  # nat; the gains of a room are far from QUIET, and a step of training is small


class Reverberation(nn.Module):
    """Adds tails to a map: energies sum, with gains by tail and mel bin that a performance sets."""

    codec: MelCodec

    @nn.compact
    def __call__(self, note_map: Float[Array, "B T F"], tails: Float[Array, "B T K F"],
                 performance: Float[Array, "B D"], share: Float[Array, " B"]) -> Float[Array, "B T F"]:
        """Scaled map and scaled tails → scaled map; of the tails' energy a share, 0 for no performance."""
        count, mels = tails.shape[-2:]
        # The name of FiLM's kernels: as these it grows with the performance's features.
        dense = Dense(count * mels, axes=("embed", "mel"), kernel_init=nn.initializers.zeros,
                      name="DenseGeneral_0")
        gains = QUIET + GAIN_SCALE * dense(performance).reshape(-1, 1, count, mels)
        gains += 0.5 * jnp.log(jnp.maximum(share, 1e-30))[:, None, None, None]
        heard = self.codec.unscale(tails) + gains
        parts = jnp.concatenate([self.codec.unscale(note_map)[:, :, None], heard], -2)
        return self.codec.scale(0.5 * nn.logsumexp(2 * parts, axis=-2))


class Likeness(nn.Module):
    """Embedding of a recording → features for FiLM; 0, which stands for none, → 0."""

    features: int

    @nn.compact
    def __call__(self, reference: Float[Array, "B D"]) -> Float[Array, "B K"]:
        """The embedding's direction counts, and not its length."""
        size = jnp.sqrt(jnp.mean(jnp.square(reference), axis=-1, keepdims=True) + 1e-6)
        hidden = nn.swish(Dense(2 * self.features, axes=("embed", "mlp"), name="seen")(reference / size))
        return Dense(self.features, axes=("mlp", "embed"), name="told")(hidden)


class ScoreDenoiser(nn.Module):
    """Condition encoder and denoiser; `condition` once a segment, `denoise` at every step."""

    config: ScoreDenoiserConfig

    def setup(self) -> None:
        self.timbre = NoteTimbre(self.config.timbre)
        self.unet = UNet1D(self.config.unet)
        if self.config.performances is not None:
            self.performances = PerformanceTable(self.config.performances)
        if self.config.performances is not None or self.config.reference or self.config.style is not None:
            self.map_film = FiLMLayer(kernel_init=nn.initializers.zeros)
        if self.config.tails:
            self.reverberation = Reverberation(self.config.codec)
        if self.config.reference:
            self.likeness = Likeness(self.config.reference_features)
        if self.config.style is not None:
            self.style = FrameStyleEncoder(self.config.style)
            self.colours = PitchColours(self.config.codec)
        if self.config.patch:
            self.statistics = PatchStatistics(self.config.patch * self.config.codec.mels)
            self.frame = Dense(self.config.frame_features, axes=("embed", "mlp"))

    def note_maps(self, slots: dict[str, jax.Array], performance: jax.Array | None = None,
                  *, one_hot: bool = False) -> jax.Array:
        """Slots [B, T, P] (see `notes.frames.slot_features`) → scaled maps [B, T, 2, F].

        The first map holds all notes, the second those in their first frames. `performance`: weights
        [B, R], where the timbre network has performances.
        """
        used = (slots["program"] >= 0).astype(jnp.float32)
        program = jnp.maximum(slots["program"], 0)
        mel = self.timbre(program, *(slots[f] for f in SLOT_FIELDS[1:]), performance, one_hot=one_hot)
        new = used * (slots["age"] < ONSET_SECONDS)
        codec = self.config.codec
        return jnp.stack([codec.scale(power_sum(mel, w, codec.clip_min)) for w in (used, new)], -2)

    def heard_map(self, evidence: Float[Array, "B T E"], wanted: Int[Array, "B K"]
                  ) -> Float[Array, "B T F"]:
        """Draws what sounds in a recording as the wanted instruments would play it, scaled.

        Every pitch is as strong as it is heard, whether or not it became a note, and each frame as loud as
        the recording's; who plays which pitch is left open.

        Args:
          evidence: scaled mel, and activations of onsets and of sounding pitches (`conditions.heard`).
          wanted: programs; -1 for none.
        """
        codec, (batch, count) = self.config.codec, wanted.shape
        shape = (batch, count, PITCHES)
        program = jnp.broadcast_to(jnp.maximum(wanted, 0)[..., None], shape)
        pitch = jnp.broadcast_to(jnp.arange(LOWEST_PITCH, LOWEST_PITCH + PITCHES), shape)
        performance = None
        if self.config.timbre.performances is not None:
            performance = jnp.zeros((batch, self.config.timbre.performances.count))
        state = (jnp.full(shape, x) for x in (VELOCITY, AGE, RELEASE))
        mel = self.timbre(program, pitch, *state, performance)
        used = (wanted >= 0).astype(jnp.float32)[..., None, None]
        colour = jnp.sum(used * jnp.exp(2 * jax.lax.stop_gradient(mel)), axis=1)  # B P F
        colour = colour / (jnp.sum(colour, axis=-1, keepdims=True) + 1e-12)
        sure = jnp.square(evidence[..., codec.mels + PITCHES:codec.mels + 2 * PITCHES])
        loud = jnp.sum(jnp.exp(2 * codec.unscale(evidence[..., :codec.mels])), axis=-1, keepdims=True)
        return drawn(sure, colour, loud, codec)

    def condition(self, maps: Float[Array, "B T 2 F"], roll: Float[Array, "B T C"],
                  keep: Float[Array, " B"], performance: Float[Array, "B R"] | None = None,
                  tails: Float[Array, "B T K F"] | None = None,
                  evidence: Float[Array, "B T E"] | None = None,
                  reference: Float[Array, "B D"] | None = None,
                  wanted: Int[Array, "B K"] | None = None,
                  style: Float[Array, "B S F"] | None = None,
                  keep_style: Float[Array, " B"] | None = None) -> Condition:
        """Returns what `denoise` needs of its conditions.

        And `drawn`, the evidence drawn in the style's colours, scaled [B, T, F], where there is a style.

        Args:
          maps, roll: of the notes.
          keep: 0 drops the notes, 1 keeps them.
          performance: weights of the performances, all 0 to drop it; with `config.performances` only.
          tails: of the first map, scaled; with `config.tails` only.
          evidence: of the frames, all 0 where it is dropped; with `config.evidence` only.
          reference: embeddings, all 0 where there is none; with `config.reference` only.
          wanted: programs, -1 for none; with `config.wanted` only.
          style: scaled mel of a recording; with `config.style` only.
          keep_style: 0 drops an example's style; None keeps all.
        """
        c = self.config
        if (style is None) != (c.style is None):
            raise UserError(f"ScoreDenoiserConfig.style = {c.style}: the network "
                            f"{'takes no' if c.style is None else 'needs a'} style")
        for name, value in (("evidence", evidence), ("reference", reference), ("wanted", wanted)):
            size = 0 if value is None else value.shape[-1]
            if size != getattr(c, name):
                raise UserError(f"ScoreDenoiserConfig.{name} = {getattr(c, name)}: it was given {size}")
        given: Condition = {}
        if (performance is None) != (c.performances is None):
            verb = "takes no" if c.performances is None else "needs a"
            raise UserError(f"ScoreDenoiserConfig.performances = {c.performances}: the network {verb} "
                            "performance")
        told = [] if performance is None else [self.performances(performance)]
        share = 0.0 if performance is None else performance.sum(-1)
        if reference is not None:
            told.append(self.likeness(reference))
            share = jnp.maximum(share, jnp.any(reference != 0, axis=-1))
        if style is not None and evidence is not None:
            keep_style = jnp.ones(len(style)) if keep_style is None else keep_style
            seen = self.style(style)
            vector = jnp.concatenate([seen.vector, jnp.ones((len(style), 1))], axis=-1)
            vector = vector * keep_style[:, None]
            told.append(vector)
            share = jnp.maximum(share, keep_style)
            given |= {"memories": seen.maps, "style": keep_style, "drawn": self.colours(
                vector, self._content(evidence))}
        if told:
            given["performance"] = jnp.concatenate(told, axis=-1)
            size, frames = maps.shape[:2]
            both = jnp.swapaxes(maps, 1, 2).reshape(size, 2 * frames, -1)  # B 2T F
            both = self.map_film(both, given["performance"])
            maps = jnp.swapaxes(both.reshape(size, 2, frames, -1), 1, 2)
        whole = maps[:, :, 0]
        if c.tails and told:
            whole = self.reverberation(whole, tails, given["performance"], share)
        keep_Bx1x1 = keep[:, None, None]
        note_map = keep_Bx1x1 * whole + (1 - keep_Bx1x1) * c.data_mean
        features = jnp.concatenate([
            note_map, maps[:, :, 1] * keep_Bx1x1, roll * keep_Bx1x1,
            jnp.broadcast_to(keep_Bx1x1, (*roll.shape[:2], 1)),
            *([] if evidence is None else [evidence]),
            *([] if wanted is None or evidence is None else [self.heard_map(evidence, wanted)]),
            *([given["drawn"]] if "drawn" in given else [])], -1)
        if c.patch:
            features = self.frame(features)
        return {"map": note_map, "features": features, "keep": keep, **given}

    def _content(self, evidence: Float[Array, "B T E"]) -> Float[Array, "B T 2P+1"]:
        """Returns activations beside the scaled level, as of `conditions.style.content_features`."""
        codec = self.config.codec
        energy = jnp.mean(jnp.exp(2 * codec.unscale(evidence[..., :codec.mels])), axis=-1, keepdims=True)
        loud = codec.scale(0.5 * jnp.log(jnp.maximum(energy, codec.clip_min**2)))
        return jnp.concatenate([evidence[..., codec.mels:codec.mels + 2 * PITCHES], loud], axis=-1)

    def deviation(self, keep: Float[Array, " B"]) -> Float[Array, "B 1 D"]:
        """Returns s of each example, with its notes or without: one, or along each axis of a patch."""
        keep_Bx1x1 = keep[:, None, None]
        kept = self.statistics()[-1] if self.config.patch else self.config.residual_std
        return keep_Bx1x1 * kept + (1 - keep_Bx1x1) * self.config.data_std

    def denoise(self, z: Float[Array, "B T F"], logsnr: Float[Array, " B"],
                time: Float[Array, " B"], cond: Condition) -> Float[Array, "B T F"]:
        """Returns v; `time` is the schedule's time of `logsnr`."""
        patch, s = self.config.patch, self.deviation(cond["keep"])

        def network(u: Array) -> Array:
            memory = (cond["memories"], cond["style"] > 0) if "memories" in cond else ()
            return self.unet(u, time, folded(cond["features"], patch), cond.get("performance"), *memory)

        if not patch:
            return v_around(network, z, logsnr, cond["map"], s)
        mean, axes, _ = self.statistics()
        around = folded(cond["map"], patch) + cond["keep"][:, None, None] * mean
        return v_along(network, folded(z, patch), logsnr, around, axes, s).reshape(z.shape)

    def __call__(self, z, logsnr, time, slots, roll, keep, performance=None, tails=None, evidence=None,
                 reference=None, wanted=None, style=None):
        """All at once; creates every parameter."""
        own = performance if self.config.timbre.performances is not None else None
        cond = self.condition(self.note_maps(slots, own), roll, keep, performance, tails, evidence,
                              reference, wanted, style)
        return self.denoise(z, logsnr, time, cond)
