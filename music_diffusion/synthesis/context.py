"""Token models: segment after segment, each with the one before as context.

Hawthorne et al. 2022 (arXiv 2206.05408), section 3.2: the first segment has no
context, later ones the spectrogram that was predicted before.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.notes.events import encode_segment, pad
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.joining import CONTEXT, SEPARATE, Progress, for_windows
from music_diffusion.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContextJoining:
    """A `joining.Joining` for `SpectrogramDiffusionModel`.

    A model without context renders its segments independently.
    """

    def name(self, model: SpectrogramDiffusionModel) -> str:
        """context, or separate."""
        return CONTEXT if model.config.context else SEPARATE

    def stream(self, model: SpectrogramDiffusionModel, params: Params, notes: Notes, frames: int,
               seed: int, progress: Progress | None = None, *,
               performance: Float[np.ndarray, " R"] | None = None) -> Iterator[np.ndarray]:
        """Yields scaled mel [t, F], `frames` in all; see `joining.Joining`.

        Raises:
          UserError: a segment has more events than the model takes.
        """
        size, mels = model.config.frames, model.config.mel_bins
        before, mask = np.zeros((1, size, mels), np.float32), np.zeros((1, size), np.float32)
        segments = -(-frames // size)
        key = jax.random.key(seed)
        for i in range(segments):
            batch = {"inputs": self.tokens(model, notes, i)} | for_windows(performance, 1)
            if model.config.context:
                batch |= {"targets_context": before, "targets_context_mask": mask}
            x0 = np.asarray(_predict(model, params, batch, jax.random.fold_in(key, i)))
            before, mask = x0, np.ones_like(mask)
            yield x0[0, :frames - i * size]
            if progress is not None:
                progress((i + 1) / segments)

    def tokens(self, model: SpectrogramDiffusionModel, notes: Notes, segment: int) -> np.ndarray:
        """Token ids [1, N] of one segment."""
        return tokens_from(model, notes, segment * model.config.frames)


def tokens_from(model: SpectrogramDiffusionModel, notes: Notes, first: int) -> np.ndarray:
    """Token ids [1, N] of the segment that begins at a frame.

    Raises UserError: more events than the model takes, or a frame between two steps of its tokens.
    """
    seconds = model.config.frames / model.codec.frame_rate
    start = first / model.codec.frame_rate
    steps = start * model.events.steps_per_second
    if abs(steps - round(steps)) > 1e-4:
        raise UserError(f"segments that begin at {start:g} s: this model's notes are told in steps of "
                        f"1/{model.events.steps_per_second} s; take another --overlap")
    ids = encode_segment(notes, start, start + seconds, config=model.events)
    if len(ids) > model.config.max_tokens:
        raise UserError(f"{len(ids)} events between {start:.2f} and {start + seconds:.2f} s; this "
                        f"model takes {model.config.max_tokens}: thin out the notes there")
    return pad([ids], model.config.max_tokens)[0]


@functools.partial(jax.jit, static_argnums=0)
def _predict(model: SpectrogramDiffusionModel, params: Params, batch, key) -> jax.Array:
    return model.predict_batch(params, {k: jnp.asarray(v) for k, v in batch.items()}, key)
