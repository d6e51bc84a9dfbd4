"""Frame-wise models: windows of a piece denoised together (`joining`)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.audio.tails import energy_tails, lead_frames
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.note_map import draw_note_maps
from music_diffusion.models.performance import FEATURE
from music_diffusion.notes.frames import FrameGrid, roll_features, warn_if_crowded
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import (
    OVERLAP,
    Progress,
    Windows,
    for_windows,
    overlapped,
)
from music_diffusion.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlapJoining:
    """A `joining.Joining` for `FrameDiffusionModel`."""

    grid: FrameGrid = FrameGrid()
    windows: Windows = Windows()

    def name(self, model: FrameDiffusionModel) -> str:
        """overlap."""
        return OVERLAP

    def stream(self, model: FrameDiffusionModel, params: Params, notes: Notes, frames: int, seed: int,
               progress: Progress | None = None, *,
               performance: Float[np.ndarray, " R"] | None = None) -> Iterator[np.ndarray]:
        """Yields scaled mel [t, F], `frames` in all; see `joining.Joining`."""
        if abs(self.grid.hop * model.codec.frame_rate - 1) > 1e-6:
            raise UserError(f"{self.grid.hop=} must be the codec's {1 / model.codec.frame_rate} s")
        windows = self.windows.for_length(frames)
        warn_if_crowded(notes, 0.0, frames, self.grid)
        draw = _GroupSampler(self.grid, model, params, notes, windows, performance)
        yield from overlapped(draw, windows, frames, model.codec.mels, seed, progress)


class _GroupSampler:
    """`joining.GroupSampler` for a frame-wise model and the notes of one piece."""

    def __init__(self, grid: FrameGrid, model: FrameDiffusionModel, params: Params, notes: Notes,
                 windows: Windows, performance: Float[np.ndarray, " R"] | None):
        self._grid, self._model, self._params = grid, model, params
        self._notes, self._windows = notes, windows
        self._weights, self._performance = performance, for_windows(performance, windows.group)

    def __call__(self, first, z_T, key, known, has_known):
        windows, grid, params = self._windows, self._grid, self._params
        hop = self._model.codec.hop / self._model.codec.sample_rate
        start = first * hop
        # Only a part of the piece is looked at, so a group costs the same in any piece.
        codec, decays = self._model.codec, self._model.config.tails
        lead = min(first, lead_frames(decays, codec)) if decays else 0  # what is before and still heard
        notes = self._notes.between(start - lead * hop - grid.tail - 1, start + windows.span * hop + 1)
        timbre = self._model.config.timbre
        maps = draw_note_maps(timbre, params["timbre"], notes, start - lead * hop, lead + windows.span,
                              grid, self._weights)
        batch = {"maps": maps[lead:], "roll": roll_features(notes, start, windows.span, grid)}
        if timbre.performances is not None and self._model.performance_guidance != 1.0:
            batch["base_maps"] = draw_note_maps(timbre, params["timbre"], notes, start, windows.span, grid)
        if decays:
            batch["tails"] = codec.scale(energy_tails(codec.unscale(maps[:, 0]), decays, codec))[lead:]
        batch |= self._performance
        return _sample(self._model, windows, params, batch, z_T, key, known, has_known)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _sample(model: FrameDiffusionModel, windows: Windows, params: Params, batch, z_T, key, known,
            has_known) -> jax.Array:
    """Scaled mel of one group's span."""
    cut = {k: jnp.asarray(v) if k == FEATURE else windows.cut(jnp.asarray(v)) for k, v in batch.items()}
    x0 = model.sample(params, cut, z_T, key, x0_hook=lambda x0: windows.fade(x0, known, has_known))
    return windows.join(x0)
