"""Activations and notes of a recording for models that change it: how surely, and on which instruments.

`HeardFrames` keeps the activations beside the decisions: a pitch that is no note may still be seen in
them. `recast` puts the notes on other instruments.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float, UInt8

from music_diffusion.notes.activations import NUM_CLASSES, NUM_PITCHES, Activations, SparseClasses
from music_diffusion.notes.decoding import DecodeConfig
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM

CHANNELS = 2 * NUM_PITCHES  # onsets, then sounding pitches
FRAME_THRESHOLD = 0.2  # from here on a pitch sounds, for models that can see whether it does


class HeardFrames:
    """Onset and frame activations at the frames of a spectrogram, 0..255, of a stream.

    Between the transcriber's frames they are interpolated; behind its last one they are 0.
    """

    def __init__(self, hop: float):
        """hop: seconds from frame to frame of the spectrogram; frame i is centred on (i + 1) * hop."""
        self._hop, self._done = hop, 0
        self._held = np.zeros((0, CHANNELS), np.float32)  # activations from `_first` on
        self._first, self._step = 0, 0.0

    def push(self, activations: Activations) -> UInt8[np.ndarray, "t 2P"]:
        """Takes the next activations; returns the frames that are known."""
        self._step = activations.frame_seconds
        values = np.concatenate([activations.onset, activations.frame], axis=1).astype(np.float32)
        self._held = np.concatenate([self._held, values])
        known = self._first + len(self._held)
        # Frame i lies between two activations, both of which have to be there.
        last = int(np.ceil((known - 0.5) * self._step / self._hop - 1 - 1e-9))
        return self._take(max(last - self._done, 0))

    def finish(self, frames: int) -> UInt8[np.ndarray, "t 2P"]:
        """Returns the remaining ones of so many frames. Call once, at the end."""
        self._held = np.concatenate([self._held, np.zeros((1, CHANNELS), np.float32)])
        self._step = self._step or 1.0
        return self._take(frames - self._done)

    def _take(self, count: int) -> np.ndarray:
        place = (self._done + np.arange(count) + 1) * self._hop / self._step - 0.5 - self._first
        place = np.clip(place, 0, len(self._held) - 1)
        first = place.astype(int)
        second = np.minimum(first + 1, len(self._held) - 1)
        share = (place - first).astype(np.float32)[:, None]
        mixed = (1 - share) * self._held[first] + share * self._held[second]
        self._done += count
        # The next frame lies behind this activation.
        oldest = max(int(((self._done + 1) * self._hop) / self._step - 0.5) - 1, self._first)
        self._held, self._first = self._held[oldest - self._first:], oldest
        return np.round(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


def heard_frames(activations: Activations, frames: int, hop: float) -> UInt8[np.ndarray, "T 2P"]:
    """Returns `HeardFrames` of a whole recording, T of them."""
    stream = HeardFrames(hop)
    parts = [stream.push(activations)[:frames]]
    return np.concatenate([*parts, stream.finish(frames)])[:frames]


def listening(decode: DecodeConfig) -> DecodeConfig:
    """Returns thresholds for models that see the recording beside its notes.

    Measured on 18 excerpts of 20 s (the six conversions of Comanducci et al. 2023, validation scores,
    FluidR3): onset F1 rises from 0.81 to 0.84 (single instruments) and from 0.83 to 0.86 (mixtures).
    """
    return dataclasses.replace(decode, frame_threshold=min(decode.frame_threshold, FRAME_THRESHOLD))


def only_classes(activations: Activations, classes: Collection[int]) -> Activations:
    """Returns activations in which only these instrument classes play; with none given, all do."""
    found = activations.classes
    if found is None or not classes:
        return activations
    kept = np.zeros(NUM_CLASSES, np.float32)
    kept[list(classes)] = 1
    if isinstance(found, SparseClasses):
        probability = (found.probability * kept).astype(found.probability.dtype)
        return dataclasses.replace(activations, classes=dataclasses.replace(found, probability=probability))
    if found.dtype == np.uint8:
        raise ValueError("the classes are targets, packed into bits; give what a transcriber says")
    return dataclasses.replace(activations, classes=(found * kept).astype(found.dtype))


def recast(notes: Notes, casting: Mapping[int, int], rest: int | None = None) -> Notes:
    """Returns the notes on other programs; drums stay drums.

    Args:
      notes: as they were heard.
      casting: from instrument class (`notes.programs.SLAKH_CLASSES`) to program.
      rest: program of all other classes; None: they stay on their own.
    """
    program = notes.program.copy()
    for number in np.unique(notes.program[~notes.is_drum]):
        target = casting.get(int(SLAKH_CLASS_OF_PROGRAM[number]), rest)
        if target is not None:
            program[~notes.is_drum & (notes.program == number)] = target
    return dataclasses.replace(notes, program=program)


def level(mel: Float[np.ndarray, "T F"]) -> float:
    """Returns the level of at least one frame of log-mel, nat: half of the logarithm of the mean energy."""
    energy = np.exp(2 * np.asarray(mel, np.float64)).sum(axis=1)
    return float(0.5 * np.log(energy.mean()))
