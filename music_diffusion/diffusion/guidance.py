"""Classifier-free guidance over any number of conditions.

Ho & Salimans 2022 (https://arxiv.org/abs/2207.12598), written with the weight w
of Imagen, for one condition, where ε_c sees the condition and ε_u does not:

    ε = ε_u + w (ε_c − ε_u)  =  ε_c + (w − 1) (ε_c − ε_u)                  (1)

The second form extends to K conditions with a weight each, when training drops
them independently (two in Maman et al. 2024, notes and performance, 1.25 each):

    ε = ε_full + Σ_k (w_k − 1) (ε_full − ε_without_k)                      (2)

ε_full sees all conditions, ε_without_k all but the k-th. So w_k = 1 leaves
condition k as it was learned, and then ε_without_k need not be evaluated; with
all weights 1 the network runs once, as without guidance.

The coefficients of equation 2 sum to 1, and x0 and v are affine in ε at given
z: guiding raw outputs of any parameterization is guiding ε.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from music_diffusion.diffusion.parameterizations import DenoiseFn
from music_diffusion.errors import UserError
from music_diffusion.types import Denoiser


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guidance:
    """Equation 2 as a wrapper of a denoiser.

    ``Guidance(weights=(2.0,))(denoise, (cond, cond_without))`` is a function of
    (z, logsnr) for ``sampling.sample``.
    """

    weights: tuple[float, ...] = (2.0,)  # one per condition; 1: as learned, above: stronger
    stack: bool = True  # one evaluation on a batch of all variants; False: one after the other

    def __post_init__(self):
        if not all(math.isfinite(weight) for weight in self.weights):
            raise UserError(f"guidance {self.weights=} must be finite numbers; 1 is no guidance")

    def __call__(self, denoise: Denoiser, conditions: Sequence[Any]) -> DenoiseFn:
        """Binds the conditions.

        Args:
          denoise: (z [B, ...], logsnr [B], cond) -> raw output [B, ...].
          conditions: (full, without the first, without the second, ...), pytrees
            such as ``denoise`` takes; how a condition is dropped is the model's
            affair. With ``stack`` all have the same structure, and array leaves
            with the batch as first axis. Those of weight 1 are ignored.

        Returns:
          (z [B, ...], logsnr [B]) -> guided raw output [B, ...].
        """
        if len(conditions) != len(self.weights) + 1:
            raise UserError(
                f"{len(self.weights)} guidance weights need {len(self.weights) + 1} conditions "
                f"(full, and one without each), got {len(conditions)}")
        guided = [(weight, cond) for weight, cond in zip(self.weights, conditions[1:], strict=True)
                  if weight != 1.0]
        excesses = [weight - 1.0 for weight, _ in guided]
        variants = [conditions[0], *(cond for _, cond in guided)]
        if self.stack and guided:
            evaluate = _stacked(denoise, variants)
        else:
            def evaluate(z, logsnr):
                return [denoise(z, logsnr, cond) for cond in variants]

        def guided_denoise(z, logsnr):
            full, *withouts = evaluate(z, logsnr)
            output = full
            for excess, without in zip(excesses, withouts, strict=True):
                output = output + excess * (full - without)
            return output

        return guided_denoise


def classifier_free(
    denoise: Denoiser, conditions: Sequence[Any], weights: Sequence[float]
) -> DenoiseFn:
    """Equation 2; see ``Guidance``. For one condition, equation 1."""
    return Guidance(weights=tuple(weights))(denoise, conditions)


def _stacked(denoise: Denoiser, variants: Sequence[Any]):
    """Evaluates all variants as one batch; the conditions are joined once, not in every step."""
    n = len(variants)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=0), *variants)

    def evaluate(z, logsnr):
        z_all = jnp.concatenate([z] * n, axis=0)
        return jnp.split(denoise(z_all, jnp.concatenate([logsnr] * n), joined), n, axis=0)

    return evaluate
