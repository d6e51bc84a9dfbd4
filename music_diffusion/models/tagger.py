"""Tagger: what a clip sounds like, by a small VGGish; its embedding serves Fréchet distances.

The network and its front end are those of VGGish (Hershey et al. 2017,
arXiv:1609.09430), smaller. It learns to name the instruments that play, the
SoundFont and the room, so its embedding holds timbre, recording and space. With
`contrast_weight` it also learns that patches of one recording lie near each other,
whatever is played, and those of others apart (supervised contrast, Khosla et al.
2020, arXiv:2004.11362, equation 2, of distances as they enter a Fréchet distance).

Features of a batch: audio [B, S] samples, of which `heard` patches are learned from;
instruments [B, 35] 0 or 1, or [B, heard, 35] of each patch; font and room int32 [B],
-1 where not known.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.networks.layers import Dense
from music_diffusion.networks.vggish import VGGish, VGGishConfig
from music_diffusion.notes.frames import NUM_CLASSES
from music_diffusion.types import Batch, Params, StepProgress

ROOMS = ("dry", "small room", "room", "hall")


class Tags(nn.Module):
    """Patches → embedding, and logits of the tags read from it."""

    config: VGGishConfig
    fonts: int

    @nn.compact
    def __call__(self, patches: Float[Array, "B T F"]) -> dict[str, jax.Array]:
        embedding = VGGish(self.config, name="vggish")(patches)
        hidden = nn.relu(embedding)

        def head(name: str, size: int):
            return Dense(size, ("embed", "vocab"), use_bias=True, name=name)(hidden)

        return {"embedding": embedding, "instruments": head("instruments", NUM_CLASSES),
                "font": head("font", self.fonts), "room": head("room", len(ROOMS))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerModel(ModelBase):
    """A model of `models.base`."""

    fonts: tuple[str, ...]  # names, in the order of the labels
    front: VGGishMel = VGGishMel()
    network: VGGishConfig = VGGishConfig(
        channels=((16,), (32,), (64, 64), (128, 128), (256,)), hidden=(512,), embedding=128)
    font_weight: float = 1.0  # of the losses, relative to that of instruments
    room_weight: float = 0.5
    contrast_weight: float = 0.0  # of which patches are of one recording
    heard: int = 1  # patches of a crop that are learned from: its first, its last, evenly between
    level_db: float = 0.0  # greatest difference in level between patches of a crop, in training

    def __post_init__(self):
        if not self.fonts:
            raise UserError("TaggerModel.fonts must name at least one SoundFont")
        if (self.network.frames, self.network.mels) != (self.front.patch_frames, self.front.mels):
            raise UserError("VGGishConfig.frames and mels must be those of VGGishMel")
        if self.heard < 1 or (self.contrast_weight and self.heard < 2):
            raise UserError(f"TaggerModel.heard = {self.heard}: recordings are told apart by two "
                            "patches of each or more; without contrast_weight one is enough")

    @property
    def tags(self) -> Tags:
        """Returns the Linen module."""
        return Tags(self.network, len(self.fonts))

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes
        return dict(jax.jit(self.tags.init)(
            rng, jnp.zeros((1, self.network.frames, self.network.mels))))

    def hear(self, params: Params, audio: Float[Array, "B S"]) -> dict[str, Float[Array, "B n D"]]:
        """Returns {embedding, and logits of instruments, font and room} of all n patches."""
        patches = self.front.patches(audio)
        batch, count = patches.shape[:2]
        flat = self.tags.apply({"params": params}, patches.reshape(-1, *patches.shape[2:]))
        return {k: v.reshape(batch, count, -1) for k, v in flat.items()}

    def embed(self, params: Params, audio: Float[Array, "B S"]) -> Float[Array, "B n D"]:
        """Returns embeddings of all patches, n of them, 0.96 s apart."""
        return self.hear(params, audio)["embedding"]

    def presence(self, params: Params) -> Presence:
        """Returns what these parameters hear of instruments."""
        return Presence(model=self, params=params)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns cross-entropies of the tags and of recordings; a tag of -1 is not learned from."""
        audio = self._heard(batch)
        decibel = self.level_db * jax.random.uniform(rng, (*audio.shape[:2], 1), minval=-1.0)
        return self._loss(params, batch, audio * 10 ** (decibel / 20))

    def eval_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Returns the loss of patches at the levels that they have; nothing in it is random."""
        del rng
        return self._loss(params, batch, self._heard(batch))

    def _heard(self, batch: Batch) -> Float[Array, "B H s"]:
        """Returns the patches of crops that are learned from."""
        require_features(batch, ("audio", "instruments", "font", "room"))
        audio, size = jnp.asarray(batch["audio"]), self.front.patch_samples
        if self.heard > 1 and audio.shape[1] < size:
            raise UserError(f"crops of {audio.shape[1]} samples hold no {self.heard} patches; give "
                            f"RecordingSource.samples = {self.heard * size} or more")
        starts = np.linspace(0, max(0, audio.shape[1] - size), self.heard).astype(int)
        return jnp.stack([audio[:, start:start + size] for start in starts], axis=1)

    def _loss(self, params: Params, batch: Batch, audio: Float[Array, "B H s"]
              ) -> tuple[Float[Array, ""], Metrics]:
        said = {k: v[:, 0] for k, v in self.hear(params, audio.reshape(-1, audio.shape[-1])).items()}
        patches = audio.shape[0] * audio.shape[1]
        true = jnp.asarray(batch["instruments"])
        if true.ndim == 2:
            true = jnp.repeat(true[:, None], self.heard, axis=1)
        if true.shape[1] != self.heard:
            raise UserError(f"tags of {true.shape[1]} patches for {self.heard} that are heard; give "
                            "TagTargets.patches and TaggerModel.heard the same number")
        true = true.reshape(patches, -1)
        logits = said["instruments"]
        instruments = (jnp.maximum(logits, 0) - logits * true
                       + jnp.log1p(jnp.exp(-jnp.abs(logits)))).sum(-1).mean()
        font, font_accuracy = _named(said["font"], jnp.repeat(jnp.asarray(batch["font"]), self.heard))
        room, room_accuracy = _named(said["room"], jnp.repeat(jnp.asarray(batch["room"]), self.heard))
        loss = instruments + self.font_weight * font + self.room_weight * room
        best = jnp.take_along_axis(true, logits.argmax(-1)[:, None], axis=-1).mean()
        metrics = {"instruments": instruments, "font": font, "room": room,
                   "instrument_accuracy": best, "font_accuracy": font_accuracy,
                   "room_accuracy": room_accuracy}
        if self.contrast_weight:
            recording = np.repeat(np.arange(audio.shape[0]), self.heard)
            contrast, nearest = _contrast(said["embedding"], recording)
            loss = loss + self.contrast_weight * contrast
            metrics |= {"contrast": contrast, "nearest_accuracy": nearest}
        return loss, metrics

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B n D"]:
        """Returns embeddings."""
        del rng, progress
        require_features(batch, ("audio",))
        return self.embed(params, jnp.asarray(batch["audio"]))


def _named(logits: Float[Array, "B K"], label: Float[Array, " B"]) -> tuple[jax.Array, jax.Array]:
    """Returns (cross-entropy, accuracy) over the examples whose label is not -1."""
    known = (label >= 0).astype(jnp.float32)
    total = jnp.maximum(known.sum(), 1.0)
    log = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log, jnp.maximum(label, 0)[:, None], axis=-1)[:, 0]
    right = (logits.argmax(-1) == label).astype(jnp.float32)
    return -(known * picked).sum() / total, (known * right).sum() / total


def _contrast(embedding: Float[Array, "N D"], recording: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns how well patches of a recording differ from those of others by their distances.

    The likelihood of a patch is exp(-10 times its squared distance), in units of the mean squared
    distance between patches of different recordings: so the scale of the embedding does not matter.

    Returns the mean of -log p of the recording's other patches, and the share of patches whose nearest
    is one of these.
    """
    square = jnp.square(embedding).sum(-1)
    distance = jnp.maximum(square[:, None] + square[None] - 2 * embedding @ embedding.T, 0.0)
    same = jnp.asarray(recording[:, None] == recording[None], jnp.float32)
    itself = jnp.eye(len(recording))
    apart = (distance * (1 - same)).sum() / jnp.maximum((1 - same).sum(), 1.0)
    score = -10 * distance / jnp.maximum(apart, 1e-9) - 1e9 * itself
    log = jax.nn.log_softmax(score, axis=-1)
    own = same - itself
    loss = -((own * log).sum(-1) / own.sum(-1)).mean()
    nearest = jnp.take_along_axis(own, score.argmax(-1)[:, None], axis=-1).mean()
    return loss, nearest


BLOCK = 32  # patches heard at once
REACH = 4  # patches on each side of a patch over which presence is averaged


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Presence:
    """Hears who plays when, by a trained tagger; it helps models that name instruments badly."""

    model: TaggerModel
    params: Params

    @property
    def seconds(self) -> float:
        """Returns the seconds from patch to patch."""
        return self.model.front.patch_hop * self.model.front.hop / self.model.front.sample_rate

    def __call__(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n K"]:
        """Probability of each of the 35 classes in the patches that the audio reaches, n >= 1."""
        stream = PresenceStream(self)
        return np.concatenate([stream.push(samples), stream.finish()])


class PresenceStream:
    """`Presence` of samples that come in parts."""

    def __init__(self, presence: Presence):
        self._presence, front = presence, presence.model.front
        self._step = front.patch_hop * front.hop
        self._size = (BLOCK - 1) * self._step + front.patch_samples  # samples heard at once
        self._held = np.zeros(0, np.float32)
        self._samples = self._patches = 0  # so far

    def push(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n K"]:
        """Takes the next samples; returns the patches that are known."""
        self._held = np.concatenate([self._held, samples.astype(np.float32)])
        self._samples += len(samples)
        parts = [np.zeros((0, NUM_CLASSES), np.float32)]
        while len(self._held) >= self._size:
            parts.append(self._next())
        return np.concatenate(parts)

    def finish(self) -> Float[np.ndarray, "n K"]:
        """The remaining patches. Call once, at the end."""
        count, parts = max(1, -(-self._samples // self._step)), [np.zeros((0, NUM_CLASSES), np.float32)]
        while self._patches < count:
            left = count - self._patches
            parts.append(self._next()[:left])
        return np.concatenate(parts)

    def _next(self) -> np.ndarray:
        block = np.pad(self._held[:self._size], (0, max(0, self._size - len(self._held))))
        self._held = self._held[BLOCK * self._step:]
        self._patches += BLOCK
        return np.asarray(_presence(self._presence.model, self._presence.params, block))


class PresenceWeights:
    """Weights of who plays around a patch: means over it and REACH patches on each side that there are."""

    def __init__(self, presence: Presence):
        self._stream = PresenceStream(presence)
        self._heard = np.zeros((REACH, NUM_CLASSES), np.float32)  # from `_first` - REACH on
        self._first = self._end = 0  # patches that can still be asked for; that were heard
        self.known = 0  # patches whose weights are known

    def push(self, samples: Float[np.ndarray, " S"]) -> None:
        """Takes the next samples."""
        self._add(self._stream.push(samples))
        self.known = max(0, self._end - REACH)

    def finish(self) -> None:
        """Takes the end of the samples."""
        self._add(self._stream.finish())
        self._heard = np.pad(self._heard, ((0, REACH), (0, 0)))
        self.known = self._end

    def _add(self, heard: np.ndarray) -> None:
        self._end += len(heard)
        self._heard = np.concatenate([self._heard, heard])

    def around(self, patch: np.ndarray) -> Float[np.ndarray, "R K"]:
        """Weights of patches in ascending order, none before those of the last call; behind the end
        those of the last patch."""
        patch = np.minimum(patch, self._end - 1)
        self._heard, self._first = self._heard[patch[0] - self._first:], int(patch[0])
        rows = np.arange(self._first, patch[-1] + 1)
        total = sum(self._heard[k:k + len(rows)] for k in range(2 * REACH + 1))
        count = np.minimum(rows + REACH, self._end - 1) - np.maximum(rows - REACH, 0) + 1
        return (total / count[:, None])[patch - self._first]


@functools.partial(jax.jit, static_argnums=0)
def _presence(model: TaggerModel, params: Params, samples: Float[Array, " S"]
              ) -> Float[Array, "n K"]:
    return jax.nn.sigmoid(model.hear(params, samples[None])["instruments"][0])
