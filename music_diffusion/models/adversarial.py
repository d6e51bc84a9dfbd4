"""Adversarial losses: hinge and feature matching, and how gradients flow through them.

SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), equations 1 to 3. A
discriminator gives a list of logits, one array for each sub-discriminator, high
for real audio, and for each a list of inner activations, its features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from music_diffusion.types import Params

Judgement = tuple[list[jax.Array], list[list[jax.Array]]]  # (logits, features)
Judge = Callable[[Params, jax.Array], Judgement]  # (its parameters, samples [B, S])


def discriminator_hinge(real: Sequence[Array], fake: Sequence[Array]) -> Float[Array, ""]:
    """Returns equation 1: mean over sub-discriminators of mean max(0, 1 − real) + mean max(0, 1 + fake)."""
    terms = [jnp.mean(jax.nn.relu(1 - r)) + jnp.mean(jax.nn.relu(1 + f))
             for r, f in zip(real, fake, strict=True)]
    return sum(terms, jnp.zeros(())) / len(terms)


def generator_hinge(fake: Sequence[Array]) -> Float[Array, ""]:
    """Returns equation 2: mean over sub-discriminators of mean max(0, 1 − fake)."""
    terms = [jnp.mean(jax.nn.relu(1 - f)) for f in fake]
    return sum(terms, jnp.zeros(())) / len(terms)


def feature_matching(
    real: Sequence[Sequence[Array]], fake: Sequence[Sequence[Array]]
) -> Float[Array, ""]:
    """Returns equation 3, relative: mean over all layers of mean |real − fake| / mean |real|.

    The division is that of EnCodec (Défossez et al. 2022, arXiv:2210.13438, section 3.4),
    so that no layer counts more for its scale, which is the discriminator's choice.
    """
    terms = [jnp.mean(jnp.abs(r - f)) / jnp.maximum(jnp.mean(jnp.abs(r)), 1e-6)
             for rs, fs in zip(real, fake, strict=True) for r, f in zip(rs, fs, strict=True)]
    return sum(terms, jnp.zeros(())) / len(terms)


class AdversarialLosses(NamedTuple):
    """Scalars of a batch."""

    adversarial: Float[Array, ""]  # of the generator: how much fakes are seen as such
    feature: Float[Array, ""]  # of the generator
    discriminator: Float[Array, ""]  # of the discriminator
    d_real: Float[Array, ""]  # mean logit of real audio
    d_fake: Float[Array, ""]  # mean logit of generated audio


def adversarial_losses(
    judge: Judge, params: Params, real: Float[Array, "B S"], fake: Float[Array, "B S"]
) -> AdversarialLosses:
    """Returns both players' losses, for one backward pass of their sum.

    `adversarial` and `feature` have a gradient with respect to `fake` and none
    to `params`; `discriminator` the other way round. So the gradient of any
    weighted sum is for each player that of its own losses alone. (The two
    passes over `fake` compute the same; XLA merges what they share.)
    """
    seen_logits, seen_features = judge(jax.lax.stop_gradient(params), fake)
    real_logits, real_features = judge(params, real)
    fake_logits, _ = judge(params, jax.lax.stop_gradient(fake))
    return AdversarialLosses(
        adversarial=generator_hinge(seen_logits),
        feature=feature_matching(jax.lax.stop_gradient(real_features), seen_features),
        discriminator=discriminator_hinge(real_logits, fake_logits),
        d_real=_mean_logit(real_logits), d_fake=_mean_logit(fake_logits))


def _mean_logit(logits: Sequence[Array]) -> Float[Array, ""]:
    means = [jnp.mean(x) for x in logits]
    return jax.lax.stop_gradient(sum(means, jnp.zeros(())) / len(means))
