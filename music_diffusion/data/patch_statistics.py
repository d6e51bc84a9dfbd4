"""Mean and principal axes of patches of mel frames, around which a network predicts them.

See `diffusion.preconditioning.v_along`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.heard import HeardFrames
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.spectrograms import Nothing
from music_diffusion.data.examples import Examples
from music_diffusion.data.records import LISTENER, read_manifest
from music_diffusion.errors import UserError
from music_diffusion.types import Params, StepProgress

STRETCH = 128  # patches that are read at once
FLOOR = 0.003  # of a deviation, in scaled mel: below it, 0.01 nat or so, lies what storage rounds away


def patch_statistics(folder: str, codec: MelCodec, patch: int, *, around_maps: bool = False,
                     encode: Callable[[Float[np.ndarray, "T F"]], Float[np.ndarray, "t D"]] | None = None,
                     axes: Float[np.ndarray, "D D"] | None = None,
                     progress: StepProgress = lambda i, n: None) -> Params:
    """Estimates mean m [D], axes A [D, D] and deviations s [D] of patches of `patch` frames; D = patch × F.

    With `encode` of latents that stand for as many frames; D are the values of one.

    Of all training records; the columns of A are the eigenvectors of the covariance, the largest first,
    unless they are given: then s are the deviations along them.

    Args:
      folder: of records.
      codec: of their mel.
      patch: frames, from 1.
      around_maps: of what the records' note maps miss, instead of the spectrograms themselves.
      encode: from scaled mel of `patch` × STRETCH frames to latents.
      axes: orthonormal columns, such as those of a network that should go on learning with other data.
      progress: takes (segments read, segments in all).

    Returns:
      {"statistics": {"mean", "axes", "std"}}, part of the parameters of `models.unconditional`.

    Raises UserError: the folder cannot be read, or holds fewer patches than a covariance needs; axes are of
    other patches.
    """
    maps = HeardFrames if LISTENER in read_manifest(folder) else NoteFrames  # at one level, or as they are
    conditions = maps(slots=0) if around_maps else Nothing()
    examples = Examples(folder=folder, split="train", codec=codec, frames=patch * STRETCH,
                        conditions=conditions)
    features = patch * codec.mels
    count, total, square = 0, np.zeros(()), np.zeros(())
    for i, (record, first) in enumerate(examples.segments):
        example = examples.segment(record, first)
        mel = example["targets"] - example["maps"][:, 0] if around_maps else example["targets"]
        rows = (mel.reshape(-1, features) if encode is None else np.asarray(encode(mel))).astype(np.float64)
        count, total, square = count + len(rows), total + rows.sum(0), square + rows.T @ rows
        progress(i + 1, len(examples))
    if count < 2 * total.size:
        raise UserError(f"{folder}: {count} patches are too few for statistics of {total.size} features; "
                        "add recordings or take a smaller patch")
    mean = total / count
    covariance = square / count - np.outer(mean, mean)
    if axes is None:
        axes = np.linalg.eigh(covariance)[1][:, ::-1]
    if axes.shape != covariance.shape:
        raise UserError(f"axes of {len(axes)} features: patches of {patch} frames have {len(covariance)}")
    variance = np.einsum("da,de,ea->a", axes, covariance, axes, optimize=True)
    own = {"mean": mean, "axes": axes, "std": np.maximum(np.sqrt(np.maximum(variance, 0.0)), FLOOR)}
    return {"statistics": {name: np.ascontiguousarray(value, np.float32) for name, value in own.items()}}
