"""Jaccard distance of the pitches heard in generated music from those asked for.

The content measure of DiffTransfer (Comanducci et al., 2023, eq. 5), which is
that of "Self-supervised VQ-VAE for One-shot Music Style Transfer" (Cífka et
al., 2021): in every frame, the pitches of both sides, rounded to semitones,
are sets A and B with the distance 1 - |A ∩ B| / |A ∪ B|, and 0 where both are
empty; the piece's distance is the mean over frames. In the evaluation code of
both papers the pitches are Essentia's MultiPitchMelodia of both recordings,
and the generated one is first padded with silence, or cut, to the length of
the reference. Here the sets come from a transcriber or from notes, so figures
do not compare with the papers'.

Frames that are silent on both sides count as right: music with many rests gets
smaller distances.
"""

from __future__ import annotations

import math

import numpy as np

from music_diffusion.notes.activations import pitch_roll
from music_diffusion.notes.notes import Notes


def pitch_jaccard_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Returns the mean Jaccard distance of the pitch sets of frames.

    Args:
      reference: [T, P] bool, the pitches that should sound in each frame.
      estimate: [T', P] bool, those that do. It is continued by silence, or
        cut, to T frames. With T = T' the sides may be swapped.

    Returns:
      0 (the same) to 1 (nothing in common); NaN if T = 0.
    """
    reference, estimate = np.asarray(reference), np.asarray(estimate)
    for name, roll in (("reference", reference), ("estimate", estimate)):
        if roll.dtype != np.bool_ or roll.ndim != 2 or roll.shape[1] != reference.shape[1]:
            raise ValueError(f"{name} must be [T, P] bool (apply a threshold) with one P for both, "
                             f"got {list(roll.shape)} {roll.dtype}")
    if not len(reference):
        return math.nan
    estimate = estimate[:len(reference)]
    estimate = np.pad(estimate, ((0, len(reference) - len(estimate)), (0, 0)))
    common = np.count_nonzero(reference & estimate, axis=1)
    total = np.count_nonzero(reference | estimate, axis=1)
    return float(np.where(total > 0, 1 - common / np.maximum(total, 1), 0.0).mean())


def note_jaccard_distance(reference: Notes, estimate: Notes, *, seconds: float | None = None,
                          frame_seconds: float = 0.01) -> float:
    """Returns `pitch_jaccard_distance` of the pitches that notes sound at the centres of frames.

    Args:
      reference: notes that should sound; drums are left out on both sides.
      estimate: notes that do.
      seconds: length that is looked at; None takes the end of the last melodic reference note.
      frame_seconds: seconds from frame to frame.

    Returns:
      0..1; NaN if there are no frames.
    """
    frames = None if seconds is None else max(0, round(seconds / frame_seconds))
    roll = pitch_roll(reference, frame_seconds, frames)
    return pitch_jaccard_distance(roll, pitch_roll(estimate, frame_seconds, len(roll)))
