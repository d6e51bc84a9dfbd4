"""Many channels → one, without losing a sound whose channels cancel each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

# The mean of the channels is taken for cancelled where its power is below this share (-20 dB) of
# the channels' own: two channels at a correlation below about -0.98. Wide stereo is far above.
CANCELLED = 0.01
QUIET = 1e-8  # power of a block, -80 dBFS, below which it does not count
ENOUGH = 60.0  # seconds of sound that decide

Block = Float[np.ndarray, "n C"]


def polarity(blocks: Iterable[Block], sample_rate: int) -> Float[np.ndarray, " C"] | None:
    """Signs that the channels must be given before they are mixed; None: they mix as they are.

    One channel with its polarity inverted (a wrongly soldered cable, a "wide" effect) leaves of a
    stereo sound little or nothing in the mean. Then every channel whose correlation with the first
    loud one is negative is turned over: of a stereo file that gives half the difference.

    Args:
      blocks: from the start; only as many are taken as the first ENOUGH seconds of sound need.
      sample_rate: Hz.
    """
    total: np.ndarray | None = None  # [C, C] sums of products of channels
    left = ENOUGH * sample_rate
    for block in blocks:
        if block.shape[1] == 1:
            return None
        wide = block.astype(np.float64)
        products = wide.T @ wide
        if np.trace(products) <= QUIET * block.size:
            continue
        total = products if total is None else total + products
        left -= len(block)
        if left <= 0:
            break
    if total is None:
        return None
    channels = len(total)
    if total.sum() / channels**2 >= CANCELLED * np.trace(total) / channels:  # power of the mean
        return None
    power = np.diag(total)
    first = int(np.argmax(power >= 0.5 * power.max()))  # of equally loud ones the first, not one by chance
    return np.where(total[first] < 0, -1, 1).astype(np.float32)


def mix(block: Block, signs: Float[np.ndarray, " C"] | None = None) -> Float[np.ndarray, " n"]:
    """The mean of the channels, each with its sign; see `polarity`."""
    return block.mean(axis=1) if signs is None else (block * signs).mean(axis=1)
