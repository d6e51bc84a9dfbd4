"""Token models: windows of a piece denoised together (`joining`), each with its own note tokens.

Maman et al. 2024, section 3.3, for the T5 of section 3.1: "performed solely at the sampling stage".
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.diffusion.sampling import sample
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.context import tokens_from
from music_diffusion.synthesis.joining import (
    OVERLAP,
    Progress,
    Windows,
    for_windows,
    overlapped,
)
from music_diffusion.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenOverlapJoining:
    """A `joining.Joining` for `SpectrogramDiffusionModel`; windows are as long as its segments.

    A model with context gets none: every window is to it the first of a piece.
    """

    overlap: int = 32  # frames that neighbouring windows share
    group: int = 4  # windows denoised together

    def name(self, model: SpectrogramDiffusionModel) -> str:
        """overlap."""
        return OVERLAP

    def windows(self, model: SpectrogramDiffusionModel) -> Windows:
        """How a piece is cut for a model. Raises UserError: an overlap that is too long."""
        return Windows(frames=model.config.frames, overlap=self.overlap, group=self.group)

    def stream(self, model: SpectrogramDiffusionModel, params: Params, notes: Notes, frames: int,
               seed: int, progress: Progress | None = None, *,
               performance: Float[np.ndarray, " R"] | None = None) -> Iterator[np.ndarray]:
        """Yields scaled mel [t, F], `frames` in all; see `joining.Joining`.

        Raises:
          UserError: a window has more events than the model takes.
        """
        windows = self.windows(model).for_length(frames)

        def draw(first, z_T, key, known, has_known):
            starts = [first + k * windows.stride for k in range(windows.group)]
            batch = {"inputs": np.concatenate([tokens_from(model, notes, s) for s in starts]),
                     **for_windows(performance, windows.group)}
            return _sample(model, windows, params, batch, z_T, key, known, has_known)

        yield from overlapped(draw, windows, frames, model.config.mel_bins, seed, progress)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(model: SpectrogramDiffusionModel, windows: Windows, params: Params, batch, z_T, key, known,
            has_known) -> jax.Array:
    """Scaled mel of one group's span; its windows are encoded once."""
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    if model.config.context:
        shape = (windows.group, model.config.context_frames)
        batch |= {"targets_context": jnp.zeros((*shape, model.config.mel_bins)),
                  "targets_context_mask": jnp.zeros(shape)}
    x0 = sample(model.denoiser(params, batch), z_T, key, schedule=model.schedule,
                parameterization=model.parameterization, solver=model.solver,
                num_steps=model.num_steps, times=model.times,
                x0_hook=lambda x0: windows.fade(x0, known, has_known))
    return windows.join(x0)
