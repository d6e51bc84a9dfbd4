"""Rematerialisation: the gradient computes a block's values again instead of keeping them.

Three modes, from most memory to least:

==== =======================================================================
none everything that the gradient needs is kept
dots matrix products with parameters and the results of attention are kept
full only the inputs of a block are kept
==== =======================================================================

Parameters, losses and gradients are the same in all; so is all that is not differentiated.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from music_diffusion.networks.attention import KEPT

_policies = jax.checkpoint_policies
POLICIES = {
    "none": _policies.everything_saveable,
    "dots": _policies.save_from_both_policies(
        _policies.dots_with_no_batch_dims_saveable, _policies.save_only_these_names(KEPT)),
    "full": _policies.nothing_saveable,
}


def rematerialized(mode: str, module: nn.Module, *arrays: Any, **options: Any) -> Any:
    """`module(*arrays, **options)`, differentiated as `mode` says; only `arrays` have gradients."""
    if mode == "none":
        return module(*arrays, **options)

    def call(module: nn.Module, *arrays: Any) -> Any:
        return module(*arrays, **options)

    return nn.remat(call, policy=POLICIES[mode])(module, *arrays)
