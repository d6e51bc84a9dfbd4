"""Pairs as they are heard: the notes of a source on the instruments of its target, and all at one level.
A recording alone is its own source.

A listener hears sounds: pitches and instruments in the source, and what the target is like. It is given by
whoever builds, as the models that listen are above this package.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.data.items import Item, Sound
from music_diffusion.errors import UserError
from music_diffusion.notes.activations import Activations
from music_diffusion.notes.heard import heard_frames, level, only_classes
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM


class Listener(Protocol):
    """Hears recordings. Implementations are picklable."""

    @property
    def sample_rate(self) -> int:
        """Returns the sample rate that it hears, Hz."""
        ...

    def identity(self) -> dict[str, Any]:
        """Returns what its answers depend on, for JSON."""
        ...

    def activations(self, samples: Float[np.ndarray, " S"]) -> Activations:
        """Returns how surely notes are heard."""
        ...

    def notes(self, activations: Activations, casting: Mapping[int, int]) -> Notes:
        """Returns the notes that activations stand for, on other instruments.

        `casting` is from instrument class to program; empty: they stay on their own.
        """
        ...

    def likes(self, samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "n D"]:
        """Returns embeddings of the sound, evenly spread over it."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """Notes, levels and likeness of a pair, as they were heard."""

    notes: Notes  # of the source, on the target's instruments
    frames: np.ndarray  # [T, 2 P] uint8
    likes: Float[np.ndarray, "n D"]  # of the target
    target_gain: float  # to LEVEL
    source_gain: float

    def gains(self, tracks: int) -> list[float]:
        """Returns the gain of each track of a record: the target, its stems, and the source at the end."""
        return [self.target_gain] * (tracks - 1) + [self.source_gain]

    def part(self, first: int, frames: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a record that begins at frame `first`."""
        total = max(len(self.frames), 1)
        begin, end = (round(place / total * len(self.likes)) for place in (first, first + frames))
        heard = self.frames[first:first + frames]
        missing = frames - len(heard)
        return {"heard": np.pad(heard, ((0, missing), (0, 0))),
                "likes": self.likes[min(begin, len(self.likes) - 1):max(end, begin + 1)]}


def hear(listener: Listener, item: Item, codec: MelCodec) -> Heard:
    """Hears a pair, or a recording that is its own source.

    Raises UserError: either is silent.
    """
    pair = (item.audio,) if item.source is None else (item.source, item.audio)
    sounds = [_samples(sound, listener.sample_rate) for sound in pair]
    frames, gains = zip(*(gain_to_level(sound, codec) for sound in pair), strict=True)
    activations = listener.activations(sounds[0] * gains[0])
    casting = {} if item.casting is None else item.casting()
    classes = {int(SLAKH_CLASS_OF_PROGRAM[source]): target for source, target in casting.items()}
    notes = listener.notes(only_classes(activations, classes), classes)
    hop = codec.hop / codec.sample_rate
    return Heard(notes=notes, frames=heard_frames(activations, frames[0], hop),
                 likes=listener.likes(sounds[-1] * gains[-1]).astype(np.float16),
                 source_gain=gains[0], target_gain=gains[-1])


def _samples(sound: Sound, sample_rate: int) -> Float[np.ndarray, " S"]:
    return np.concatenate([np.zeros(0, np.float32), *sound.blocks(sample_rate)]).astype(np.float32)


def gain_to_level(sound: Sound, codec: MelCodec) -> tuple[int, float]:
    """Returns a sound's frames, and the gain that brings it to LEVEL. Raises UserError: it is silent."""
    stream = MelStream(codec)
    parts = [stream.push(block) for block in sound.blocks(codec.sample_rate)]
    mel = np.concatenate([*parts, stream.finish()])
    if not (mel > codec.log_min).any():
        raise UserError("silent; leave it out")
    return len(mel), float(np.exp(LEVEL - level(mel)))
