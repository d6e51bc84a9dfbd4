"""Transcriber: audio → notes with instruments and drums.

Onsets, sounding frames, velocities and instruments of every pitch, as in "Onsets
and Frames" (Hawthorne et al. 2018, arXiv:1710.11153), with onsets regressed as by
Kong et al. 2021 (arXiv:2010.01815); the network is `networks.pitch_net`.

Features of a batch (see types.py for axes; `notes.activations` makes them; here
T counts the transcriber's frames and P the 88 pitches from 21 on):

============================ ======== ==========================================
audio                        B S      samples
onset, frame, velocity       B T P    targets
classes                      B T P 5  instruments sounding a pitch, packed bits
drums                        B T 61   onsets by drum key
============================ ======== ==========================================
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from music_diffusion.audio.codec import check_mono
from music_diffusion.audio.log_frequency import LogFrequencyConfig, log_frequency
from music_diffusion.errors import UserError
from music_diffusion.models.base import Metrics, ModelBase, Variables, require_features
from music_diffusion.models.tagger import Presence, PresenceWeights
from music_diffusion.networks.pitch_net import PitchNet, PitchNetConfig
from music_diffusion.notes.activations import (
    LOWEST_PITCH,
    NUM_CLASSES,
    NUM_DRUMS,
    NUM_PITCHES,
    Activations,
    SparseClasses,
)
from music_diffusion.notes.decoding import DecodeConfig, NoteDecoder
from music_diffusion.notes.notes import Notes
from music_diffusion.types import Batch, Params, StepProgress

HEADS = ("onset", "frame", "velocity", "classes", "drums")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriberModel(ModelBase):
    """A model of `models.base`."""

    spectrum: LogFrequencyConfig = LogFrequencyConfig()
    network: PitchNetConfig = PitchNetConfig()
    decode: DecodeConfig = DecodeConfig()
    trim_frames: int = 6  # at each edge of a training crop, where what lies beyond is not seen
    onset_weight: float = 2.0  # of the losses, relative to that of frames
    velocity_weight: float = 1.0
    class_weight: float = 0.3
    drum_weight: float = 1.0

    def __post_init__(self):
        n, s = self.network, self.spectrum
        if (n.pitches, n.classes, n.drums) != (NUM_PITCHES, NUM_CLASSES, NUM_DRUMS):
            raise UserError(f"PitchNetConfig has {n.pitches} pitches, {n.classes} classes and {n.drums} "
                            f"drums; notes have {NUM_PITCHES}, {NUM_CLASSES} and {NUM_DRUMS}")
        if s.lowest_pitch != LOWEST_PITCH or s.bins_per_semitone != n.bins_per_semitone:
            raise UserError(f"LogFrequencyConfig must begin at pitch {LOWEST_PITCH} and have "
                            f"{n.bins_per_semitone} bins a semitone")

    def init(self, rng: PRNGKeyArray, shapes: Mapping[str, tuple[int, ...]]) -> Variables:
        """Returns fresh `params` and `params_axes`; see `models.base.Model.init`."""
        del shapes
        s = self.spectrum
        return dict(jax.jit(PitchNet(self.network).init)(
            rng, jnp.zeros((1, 1, len(s.windows), s.bins))))

    def logits(self, params: Params, audio: Float[Array, "B S"],
               sounding: Float[Array, "B U P"] | None = None) -> dict[str, jax.Array]:
        """Returns the logits of S // hop frames; see `PitchNet`, also for what `sounding` means."""
        spectrum = log_frequency(self.spectrum, audio)
        if sounding is not None:
            frames = spectrum.shape[1]
            sounding = sounding[:, :frames]
            sounding = jnp.pad(sounding, ((0, 0), (0, frames - sounding.shape[1]), (0, 0)))
        return PitchNet(self.network).apply({"params": params}, spectrum, sounding)

    def transcriber(self, params: Params, name: str, presence: Presence | None = None) -> Transcriber:
        """Returns the transcriber that these parameters make of it; see `models.base.Transcribing`."""
        if presence is not None and presence.model.front.sample_rate != self.spectrum.sample_rate:
            presence = None
        return Transcriber(model=self, params=params, name=name, presence=presence)

    def loss_fn(self, params: Params, batch: Batch, rng: PRNGKeyArray
                ) -> tuple[Float[Array, ""], Metrics]:
        """Sums cross-entropies of onsets, frames, drums and of the instruments of what sounds; squared
        error of velocities at onsets.

        Where audio and targets have different numbers of frames, those of both count. Raises
        UserError if none are left between the trimmed ones.
        """
        del rng
        require_features(batch, ("audio", *HEADS))
        logits = self.logits(params, jnp.asarray(batch["audio"]), jnp.asarray(batch["frame"]))
        frames = min(x.shape[1] for x in (logits["onset"], batch["onset"]))
        if frames <= 2 * self.trim_frames:
            raise UserError(f"a batch of {frames} frames, of which {self.trim_frames=} at each edge do "
                            "not count; give longer crops")
        inner = slice(self.trim_frames, frames - self.trim_frames)
        said = {k: v[:, inner] for k, v in logits.items()}
        true = {k: jnp.asarray(batch[k])[:, inner] for k in HEADS}
        # Sums over pitches, so that each frame counts alike whichever head speaks.
        onset = cross_entropy(said["onset"], true["onset"]).sum(-1).mean()
        frame = cross_entropy(said["frame"], true["frame"]).sum(-1).mean()
        drums = cross_entropy(said["drums"], true["drums"]).sum(-1).mean()
        at = true["onset"]
        velocity = (at * jnp.square(jax.nn.sigmoid(said["velocity"]) - true["velocity"])).sum() / (
            at.sum() + 1.0)
        bits = jnp.unpackbits(true["classes"], axis=-1, count=NUM_CLASSES).astype(jnp.float32)
        sounding = true["frame"]
        named = sounding * said["named"]
        classes = (named * cross_entropy(said["classes"], bits).sum(-1)).sum() / (named.sum() + 1.0)
        loss = (frame + self.onset_weight * onset + self.drum_weight * drums
                + self.velocity_weight * velocity + self.class_weight * classes)
        right = (jax.nn.sigmoid(said["frame"]) > self.decode.frame_threshold) == (sounding > 0.5)
        hits = (right * sounding).sum()
        f1 = 2 * hits / (2 * hits + (~right).sum() + 1e-9)
        return loss, {"onset": onset, "frame": frame, "drums": drums, "velocity": velocity,
                      "classes": classes, "frame_f1": f1}

    eval_fn = loss_fn  # nothing in it is random

    def predict_batch(self, params: Params, batch: Batch, rng: PRNGKeyArray, *,
                      progress: StepProgress | None = None) -> Float[Array, "B T D"]:
        """Returns activations 0..1, flattened: onset, frame, velocity, classes, drums."""
        del rng, progress
        require_features(batch, ("audio",))
        said = self.logits(params, jnp.asarray(batch["audio"]))
        flat = [said[k].reshape(*said[k].shape[:2], -1) for k in HEADS]
        return jax.nn.sigmoid(jnp.concatenate(flat, axis=-1))


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns -t log σ(l) - (1 - t) log(1 - σ(l)), elementwise; less the target's own entropy it would be 0
    for a perfect answer, which has the same gradient."""
    return jnp.maximum(logits, 0) - logits * targets + jnp.log1p(jnp.exp(-jnp.abs(logits)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcription:
    """Notes and activations that were heard in a recording."""

    notes: Notes
    activations: Activations

    @property
    def frames(self) -> Float[np.ndarray, "T P"]:
        """Frame activations 0..1 of pitches 21..108; frame i covers [i, i + 1) * frame_seconds."""
        return self.activations.frame

    @property
    def frame_seconds(self) -> float:
        return self.activations.frame_seconds


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Transcriber:
    """A trained model and its parameters: samples in, notes out, of any length.

    The audio is heard in chunks with as much around them as the network can
    see, so that the result does not depend on `chunk_frames`. `transcribe` keeps
    the activations, about 250 MB an hour; `notes` gives the same notes in memory
    that does not grow with the recording.
    """

    model: TranscriberModel
    params: Params
    name: str = "transcriber"
    presence: Presence | None = None  # weighs the instruments of notes by who plays at all
    chunk_frames: int = 1024  # frames that are transcribed at once

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate, Hz."""
        return self.model.spectrum.sample_rate

    def transcribe(self, samples: Float[np.ndarray, " S"], *, progress: StepProgress | None = None
                   ) -> Transcription:
        """Notes of mono samples at `sample_rate`. Raises UserError for another shape or NaN."""
        samples = check_mono(samples)
        count = max(1, -(-len(samples) // self.model.spectrum.hop))
        parts, done = [], 0
        for part in self.activations([samples]):
            parts.append(part)
            done += len(part)
            if progress:
                progress(done, count)
        return Transcription(notes=self._decoded(parts), activations=Activations.concatenate(parts))

    def notes(self, blocks: Iterable[Float[np.ndarray, " n"]]) -> Notes:
        """The notes of `transcribe`, of mono samples at `sample_rate` that come in blocks of any size.

        Raises UserError for blocks of another shape or NaN.
        """
        return self._decoded(self.activations(blocks))

    def _decoded(self, parts: Iterable[Activations]) -> Notes:
        decoder = NoteDecoder(self.model.decode, self.model.spectrum.frame_seconds)
        return Notes.concatenate([*(decoder.push(part) for part in parts), decoder.finish()])

    def compile(self) -> None:
        """Does beforehand what would make the first call slower."""
        self.transcribe(np.zeros(1, np.float32))

    def activations(self, blocks: Iterable[Float[np.ndarray, " n"]]) -> Iterator[Activations]:
        """Yields activations of onsets, frames, velocities, instruments and drums, as they are known.

        Joined, they are those of `transcribe`; memory does not grow with the recording. A part comes
        when what is around it has been heard: a chunk of frames, and the patches of `presence`, later.

        Args:
          blocks: mono samples at `sample_rate`, in blocks of any size.

        Raises UserError for blocks of another shape or NaN.
        """
        weights = None if self.presence is None else PresenceWeights(self.presence)
        waiting: list[dict[str, Any]] = []  # chunks about whose instruments nothing is known yet
        for said in self._chunks(blocks, weights):
            waiting.append(said)
            while waiting and (weights is None or weights.known > self._patches(
                    waiting[0]["end"] - 1, waiting[0]["end"])[0]):
                yield self._activations(waiting.pop(0), weights)
        if weights is not None:
            weights.finish()
        for said in waiting:
            yield self._activations(said, weights)

    def _chunks(self, blocks: Iterable[Float[np.ndarray, " n"]], weights: PresenceWeights | None
                ) -> Iterator[dict[str, Any]]:
        """Yields what the network says of the frames; `weights` hears the same samples."""
        hop, edge, size = self.model.spectrum.hop, self._edge, self.chunk_frames
        held = np.zeros(edge * hop, np.float32)  # from `edge` frames before `first` on
        first = total = 0
        for block in blocks:
            for at in range(0, len(block), size * hop):  # so that a long block is not heard at once
                samples = check_mono(block[at:at + size * hop]).astype(np.float32)
                total += len(samples)
                held = np.concatenate([held, samples])
                if weights is not None:
                    weights.push(samples)
                while len(held) >= (size + 2 * edge) * hop:
                    yield self._chunk(held, first, size)
                    held, first = held[size * hop:], first + size
        count = max(1, -(-total // hop))
        while first < count:
            yield self._chunk(held, first, min(size, count - first))
            held, first = held[size * hop:], first + size

    def _patches(self, first: int, end: int) -> np.ndarray:
        """The tagger's patches in which frames begin."""
        assert self.presence is not None
        seconds = np.arange(first, end) * self.model.spectrum.frame_seconds
        return (seconds / self.presence.seconds).astype(np.int64)

    def _activations(self, said: dict[str, Any], weights: PresenceWeights | None) -> Activations:
        """Returns a chunk's activations, with its instruments weighed by who plays at all.

        sqrt(p(class | cell)) * p(class plays around the cell's frame): the network knows which
        instruments play such pitches, the tagger which of them are here.
        """
        at, pitch, classes = said["at"], said["pitch"], said["classes"]
        first, end = said["first"], said["end"]
        if weights is not None:
            weight = weights.around(self._patches(first, end))[at - first, :NUM_CLASSES]
            classes = (np.sqrt(classes.astype(np.float32)) * weight).astype(np.float16)
        return Activations(
            **{k: said[k] for k in HEADS if k != "classes"},
            frame_seconds=self.model.spectrum.frame_seconds,
            classes=SparseClasses.gather(at - first, pitch, classes, end - first))

    def _chunk(self, heard: np.ndarray, first: int, frames: int) -> dict[str, Any]:
        """Returns what the network says of frames from `first` on; classes where a pitch may sound.

        Args:
          heard: samples from `_edge` frames before `first` on, as far as they go.
          first, frames: which.
        """
        edge, size = self._edge, (self.chunk_frames + 2 * self._edge) * self.model.spectrum.hop
        heard = np.pad(heard[:size], (0, max(0, size - len(heard))))
        said = {k: np.asarray(v[0, edge:edge + frames])
                for k, v in _activations(self.model, self._weights, heard[None]).items()}
        decode = self.model.decode
        at, pitch = np.nonzero((said["frame"] >= 0.5 * decode.frame_threshold)
                               | (said["onset"] >= 0.5 * decode.onset_threshold))
        return said | {"at": at + first, "pitch": pitch, "first": first, "end": first + frames,
                       "classes": said["classes"][at, pitch].astype(np.float16)}

    @property
    def _edge(self) -> int:
        """Returns the number of frames on each side that a frame depends on."""
        s = self.model.spectrum
        return self.model.network.context_frames + -(-s.reach // s.hop)

    @functools.cached_property
    def _weights(self) -> Params:
        """Returns the parameters on the device."""
        return jax.tree.map(jnp.asarray, self.params)


@functools.partial(jax.jit, static_argnums=0)
def _activations(model: TranscriberModel, params: Params, audio: Float[Array, "B S"]
                 ) -> dict[str, jax.Array]:
    said = model.logits(params, audio)
    return {k: jax.nn.sigmoid(said[k]) for k in HEADS}
