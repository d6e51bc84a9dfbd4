"""Draws who plays what in an evaluation of performances (Maman et al. 2024, section 4.1)."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from music_diffusion.conditions.performances import Performance


def draw_performances(pieces: Mapping[str, Collection[str]], performances: Sequence[Performance],
                      count: int, seed: int = 0) -> dict[str, tuple[str, ...]]:
    """Draws for each piece the names of different performances.

    A piece's draw depends on its name, the seed and those that can play it alone, so that other pieces
    and another order of the list change nothing.

    Args:
      pieces: the instruments of each, as `Performance.instruments` names them.
      performances: to draw from; one plays a piece if it is heard with all its instruments, or
        if its instruments are not known.
      count: of performances for a piece; fewer where fewer can play it.
      seed: of the draw.

    Returns:
      The names for each piece, in the order of the draw; () where none can play it.
    """
    drawn = {}
    for piece, instruments in pieces.items():
        able = sorted(p.name for p in performances
                      if not p.instruments or set(instruments) <= set(p.instruments))
        rng = np.random.default_rng([seed, zlib.crc32(piece.encode())])
        drawn[piece] = tuple(able[i] for i in rng.permutation(len(able))[:count])
    return drawn
