"""Does an embedding put sounds in the order in which an ear would put them?

A check of judges. Of every recording one half is compared with sounds of which an ear
knows which is nearer: the recording's other half, that half through a codec or in a
room, its notes played by a synthesizer, recordings of others, damaged copies. A triple
(recording, nearer, farther) is right where the embedding's distance says so, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.evaluation.bootstrap import bootstrap_interval

# Sounds that a recording is compared with.
SAME, CODEC, LEVEL, ROOM = "other half", "codec", "softer", "room"
FRIEND, SYNTHESIZER, OTHERS = "own other recordings", "synthesizer", "others' recordings"
NOISE_40, NOISE_20, NOISE_0 = "noise at 40 dB", "noise at 20 dB", "noise at 0 dB"
LOW_6K, LOW_2K, LOW_1K = "below 6 kHz", "below 2 kHz", "below 1 kHz"
# (nearer, farther), as any ear puts them. What ears do not agree about (a synthesizer's violin or a
# true piano: which is nearer to a violin in a church?) is not asked.
ORDERS = (
    *((near, far) for near in (SAME, CODEC, LEVEL, FRIEND)
      for far in (SYNTHESIZER, OTHERS, NOISE_0, LOW_1K)),
    (ROOM, OTHERS), (ROOM, NOISE_0), (ROOM, LOW_1K), (SYNTHESIZER, OTHERS),
    (NOISE_40, NOISE_20), (NOISE_20, NOISE_0), (LOW_6K, LOW_2K), (LOW_2K, LOW_1K))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarScores:
    """Shares of triples that are in an ear's order."""

    share: float  # of all triples
    low: float  # 95 % interval over recordings; NaN with one recording
    high: float
    triples: int
    recordings: int
    by_order: Mapping[str, tuple[float, int]]  # "nearer < farther" → share and triples


def ear_scores(distances: Sequence[Mapping[str, Sequence[float]]], seed: int = 0) -> EarScores:
    """Compares distances with `ORDERS`.

    Args:
      distances: of each recording: sound → its distances to the recording, one for each such sound. A
        sound that is not there is in no triple.
      seed: of the resampling.

    Raises UserError: there is no triple.
    """
    rows = [_triples(one) for one in distances]
    every = np.array([right for row in rows for _, right in row], float)
    if not len(every):
        raise UserError("nothing to compare: give recordings of at least some seconds")
    clips = [np.array([right for _, right in row], float)[:, None] for row in rows if row]
    interval = bootstrap_interval(lambda x: float(x.mean()), clips, seed=seed, bounds=(0.0, 1.0))
    by_order = {}
    for near, far in ORDERS:
        found = [right for row in rows for order, right in row if order == (near, far)]
        if found:
            by_order[f"{near} < {far}"] = (math.fsum(found) / len(found), len(found))
    return EarScores(share=float(every.mean()), low=interval.low, high=interval.high, triples=len(every),
                     recordings=len(clips), by_order=by_order)


def _triples(distances: Mapping[str, Sequence[float]]) -> list[tuple[tuple[str, str], float]]:
    """Returns orders with 1 (right), 0, or a half where both are equally far."""
    return [((near, far), 0.5 * (1 + np.sign(b - a)))
            for near, far in ORDERS
            for a in distances.get(near, ()) for b in distances.get(far, ())]
