"""Generators without a network, and pieces that say only where their windows lie."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.diffusion.parameterizations import X0
from music_diffusion.diffusion.sampling import sample
from music_diffusion.diffusion.schedules import CosineSchedule
from music_diffusion.diffusion.solvers import DDIM, Solver
from music_diffusion.models.base import GeneratorBase
from music_diffusion.models.spaces import MelSpace

F = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """A piece whose windows know the numbers of their frames, and what was before them."""

    frames: int

    def windows(self, firsts, size, before=None):
        """`frame` [G, W], `before` [G, W, F] and `known` [G], 0 for nothing."""
        places = np.asarray(firsts, np.int32)[:, None] + np.arange(size, dtype=np.int32)
        before_or_zero = np.zeros((len(firsts), size, F), np.float32) if before is None else before
        return {"frame": places, "before": np.asarray(before_or_zero),
                "known": np.full(len(firsts), before is not None, np.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyGenerator(GeneratorBase):
    """What generators without training have in common."""

    @property
    def space(self):
        return MelSpace(codec=MelCodec(mels=F))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussian(ToyGenerator):
    """The exact denoiser of frames N(`params["mean"]`, 0.5²) that do not know each other."""

    solver: Solver = DDIM(eta=0.0)

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        mean = jnp.asarray(params["mean"])[batch["frame"]]

        def denoise(z, logsnr):
            alpha2 = jax.nn.sigmoid(logsnr)[:, None, None]
            gain = jnp.sqrt(alpha2) * 0.25 / (alpha2 * 0.25 + 1 - alpha2)
            return mean + gain * (z - jnp.sqrt(alpha2) * mean)

        return sample(denoise, z_T, rng, schedule=CosineSchedule(), parameterization=X0(),
                      solver=self.solver, num_steps=6, clip_x0=None, x0_hook=x0_hook)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dice(ToyGenerator):
    """What it is given to draw from: the starting noise, and noise of its key."""

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        return jnp.stack([z_T[..., 0], jax.random.normal(rng, z_T.shape[:2]), z_T[..., 2]], -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbered(ToyGenerator):
    """Predicts at its only step that every window is the number of its first frame."""

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        x0 = jnp.broadcast_to(batch["frame"][:, :1, None].astype(jnp.float32), z_T.shape)
        return x0 if x0_hook is None else x0_hook(x0)
