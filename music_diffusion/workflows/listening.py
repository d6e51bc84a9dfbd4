"""Transcriber and tagger as a `data.listening.Listener`, opened where they are needed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.evaluation.cache import file_digest
from music_diffusion.models.base import Tagging
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
from music_diffusion.notes.activations import Activations
from music_diffusion.notes.decoding import HeardNotes, NoteDecoder
from music_diffusion.notes.heard import listening
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.parts import played_by
from music_diffusion.synthesis.hub import (
    DEFAULT_TAGGER,
    DEFAULT_TRANSCRIBER,
    find,
    load_trained,
    load_transcriber,
)
from music_diffusion.types import Params


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

    def notes(self, activations: Activations, casting: Mapping[int, int]) -> Notes:
        """Returns the notes that activations stand for, on the programs of the casting."""
        config = listening(_transcriber(self.transcriber).model.decode)
        decoder = NoteDecoder(config, activations.frame_seconds)
        heard = HeardNotes.concatenate([decoder.hear(activations), decoder.hear_rest()])
        return played_by(heard, casting, config) if casting else heard.notes(config)

    def likes(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        """Returns embeddings of the sound, one a patch of the tagger."""
        tagger, params = _tagger(self.tagger)
        return np.asarray(tagger.embed(params, jnp.asarray(samples)[None])[0])


@functools.lru_cache(maxsize=2)
def _transcriber(name: str) -> Transcriber:
    return load_transcriber(name)


@functools.lru_cache(maxsize=2)
def _tagger(name: str) -> tuple[Tagging, Params]:
    _, model, params = load_trained(name, Tagging, "tagger")
    return model, params
