"""Transcriber and tagger as a `data.listening.Listener`, opened where they are needed."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import AudioReader
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import file_digest
from music_diffusion.models.base import Tagging
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
from music_diffusion.notes.activations import Activations
from music_diffusion.notes.decoding import decode_notes
from music_diffusion.notes.heard import level
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES
from music_diffusion.paths import shown
from music_diffusion.synthesis.hub import (
    DEFAULT_TAGGER,
    DEFAULT_TRANSCRIBER,
    find,
    load_trained,
    load_transcriber,
)
from music_diffusion.synthesis.reconstruct import resampled
from music_diffusion.types import Params

LEAST_SECONDS, REFERENCE_SECONDS = 1.0, 60.0  # of a reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ears:
    """Names or folders of a transcriber and a tagger; implements `data.listening.Listener`."""

    transcriber: str = DEFAULT_TRANSCRIBER
    tagger: str = DEFAULT_TAGGER

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate that they hear, Hz."""
        return _transcriber(self.transcriber).sample_rate

    def identity(self) -> dict[str, Any]:
        """Returns the contents of their files."""
        return {name: [file_digest(path) for folder in (find(name),)
                       for path in (folder / CONFIG, *weight_files(folder / WEIGHTS))]
                for name in (self.transcriber, self.tagger)}

    def activations(self, samples: Float[np.ndarray, " S"]) -> Activations:
        """Returns how surely notes are heard."""
        return _transcriber(self.transcriber).transcribe(samples).activations

    def notes(self, activations: Activations) -> Notes:
        """Returns the notes that activations stand for."""
        return decode_notes(activations, _transcriber(self.transcriber).model.decode)

    def likes(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        """Returns embeddings of the sound, one a patch of the tagger."""
        tagger, params = _tagger(self.tagger)
        return np.asarray(tagger.embed(params, jnp.asarray(samples)[None])[0])


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """Likeness of a recording: an embedding, and an instrument."""

    embedding: Float[np.ndarray, " D"]  # mean of the tagger's
    program: int  # of who plays most surely


def hear_likeness(path: str) -> Likeness:
    """Hears what a recording is like, of its first REFERENCE_SECONDS.

    Raises UserError for a file that cannot be read, is silent, or shorter than LEAST_SECONDS.
    """
    tagger, params = _tagger(DEFAULT_TAGGER)
    rate = tagger.presence(params).model.front.sample_rate
    with AudioReader(path) as reader:
        blocks = resampled((block[:, None] for block in reader.mono_blocks()), reader.sample_rate, rate)
        parts, count = [np.zeros(0, np.float32)], 0
        for block in blocks:
            parts.append(block[:, 0])
            count += len(block)
            if count >= REFERENCE_SECONDS * rate:
                break
    samples = np.concatenate(parts)[:round(REFERENCE_SECONDS * rate)]
    if len(samples) < LEAST_SECONDS * rate:
        raise UserError(f"{shown(path)}: lasts {len(samples) / rate:.2f} s; give a reference of "
                        f"{LEAST_SECONDS:g} s or more")
    if not np.abs(samples).max() > 1e-4:
        raise UserError(f"{shown(path)}: is silent; give a reference with sound")
    mel = MelCodec().encode(samples) if rate == MelCodec().sample_rate else None
    gain = 1.0 if mel is None else np.exp(LEVEL - level(mel))
    samples = (samples * gain).astype(np.float32)
    playing = tagger.presence(params)(samples)[:, :len(SLAKH_CLASSES)].mean(axis=0)
    embedding = np.asarray(tagger.embed(params, jnp.asarray(samples)[None])[0]).mean(axis=0)
    return Likeness(embedding=embedding, program=SLAKH_CLASSES[int(playing.argmax())].programs[0])


@functools.lru_cache(maxsize=2)
def _transcriber(name: str) -> Transcriber:
    return load_transcriber(name)


@functools.lru_cache(maxsize=2)
def _tagger(name: str) -> tuple[Tagging, Params]:
    _, model, params = load_trained(name, Tagging, "tagger")
    return model, params
