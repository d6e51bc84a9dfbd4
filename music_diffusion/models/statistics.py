"""Statistics of patches among a model's parameters; estimated by `data.patch_statistics`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.models.weights import load_safetensors
from music_diffusion.networks.patches import STATISTICS
from music_diffusion.types import Params

FROZEN = f"^{STATISTICS}/"  # pattern of what training leaves alone


def with_statistics(params: Params, path: str | None, patch: int) -> dict[str, Any]:
    """Returns fresh parameters, those of the part from a file.

    Args:
      params: of a network.
      path: safetensors that `models statistics` wrote; None: parameters are as they were.
      patch: frames of a patch, for the message.

    Raises UserError: the file cannot be read, or is of other patches.
    """
    if path is None:
        return dict(params)
    stored = load_safetensors(path)
    wanted = jax.tree.map(jnp.shape, {STATISTICS: dict(params.get(STATISTICS, {}))})
    if jax.tree.map(jnp.shape, stored) != wanted:
        raise UserError(f"{path}: not the statistics of patches of {patch} frames; make them by `models "
                        "statistics DATA FILE --patch N`")
    return {**params, **stored}


def adopted(params: Params, stored: Params, path: str | None) -> dict[str, Any]:
    """Returns stored parameters, with the statistics of fresh ones where those are of a file.

    Args:
      params: fresh, as of `with_statistics`.
      stored: of the weights that training begins with.
      path: as in `with_statistics`.

    Raises UserError: the file's axes are not those along which the stored network works.
    """
    if path is None or STATISTICS not in stored:
        return dict(stored)
    own, theirs = params[STATISTICS], stored[STATISTICS]
    # Weights are stored in 8 or 16 bits, axes with them.
    axes, stored_axes = (np.asarray(x["axes"]) for x in (own, theirs))
    if axes.shape != stored_axes.shape or np.abs(axes - stored_axes).max() > 0.05:
        raise UserError(f"{path}: its axes are not those of INIT_FROM, whose network works along them; "
                        "give its weights to `models statistics --axes`")
    return {**stored, STATISTICS: own}


def require_statistics(model: str, path: str | None, patch: int) -> None:
    """Raises UserError where fresh parameters of a model of patches would know nothing of them.

    Args:
      model: its name in recipes.
      path: as in `with_statistics`.
      patch: frames of a patch; 0 for a model without.
    """
    if patch and path is None:
        raise UserError(f"{model}.statistics is None: make them by `models statistics DATA FILE --patch "
                        f"{patch}`, and give the file (--gin.STATISTICS), or weights to begin with "
                        "(--gin.INIT_FROM)")
