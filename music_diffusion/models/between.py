"""Weights between those that training began with and those that it ended with.

Where training went on with other data, a mean of both keeps more of what the first weights could than the
last ones do, at no cost (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models").
"""

from __future__ import annotations

import jax
import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.models.base import Model
from music_diffusion.models.weights import load_safetensors
from music_diffusion.types import Params


def weights_between(model: Model, params: Params, start: str, share: float) -> Params:
    """Returns (1 - share) params + share start; what the first weights did not have stays as it is.

    Args:
      model: of `params`.
      params: trained.
      start: safetensors of what training began with, of this model or a smaller one (`Model.adopt`).
      share: of them, from 0 to 1.

    Raises UserError: a share out of its range, a file that cannot be read, or weights of another network.
    """
    if not 0 <= share <= 1:
        raise UserError(f"--start-share {share}: must be from 0 to 1")
    stored, shapes = load_safetensors(start), jax.tree.map(np.shape, params)
    nothing = jax.tree.map(lambda x: np.zeros(np.shape(x), np.float32), params)
    first = model.adopt(nothing, stored)
    known = model.adopt(nothing, jax.tree.map(lambda x: np.ones(np.shape(x), np.float32), stored))
    if jax.tree.map(np.shape, first) != shapes:
        raise UserError(f"--start {start}: not weights that this model's training can begin with")
    return jax.tree.map(lambda own, other, there: np.asarray(own) + share * there * (
        np.asarray(other) - np.asarray(own)), params, first, known)
