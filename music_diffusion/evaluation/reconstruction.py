"""Reconstruction embedding distance: how far a rendering is from its own recording."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.evaluation.frechet import check_embeddings


def reconstruction_distance(generated: Float[np.ndarray, "n D"],
                            reference: Float[np.ndarray, "n D"]) -> float:
    """Returns the mean over frames t of |generated_t - reference_t|, in float64.

    Hawthorne et al. 2022 (arXiv:2206.05408, section 5.1): the norm of the difference of the
    embeddings of both signals, "averaged over time frames". So the Frobenius norm is that of one
    frame, its Euclidean norm, as in the authors' code (music_spectrogram_diffusion/metrics.py),
    and not that of the whole matrix over n, which would shrink as 1 / √n. Their figures average
    this over clips.

    Args:
      generated, reference: embeddings of two signals of the same length, by the same network; row
        t of both belongs to the same time.

    Raises:
      UserError: no frames, different numbers of frames or dimensions, or values that are not finite.
    """
    a = check_embeddings(generated, "the generated embeddings")
    b = check_embeddings(reference, "the reference embeddings")
    if a.shape[1] != b.shape[1]:
        raise UserError(f"embeddings of {a.shape[1]} and of {b.shape[1]} dimensions cannot be "
                        "compared; use one embedding network for both")
    if len(a) != len(b):
        raise UserError(f"{len(a)} generated and {len(b)} reference embeddings cannot be compared "
                        "frame by frame; cut both signals to the same length")
    return float(np.linalg.norm(a.astype(np.float64) - b, axis=1).mean())
