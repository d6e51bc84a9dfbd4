import math

import numpy as np
import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.ears import (
    FRIEND,
    NOISE_0,
    ORDERS,
    OTHERS,
    SAME,
    SYNTHESIZER,
    ear_scores,
)

EVERY = sorted({sound for order in ORDERS for sound in order})


def ranks():
    """Steps of every sound from the nearest, by the orders alone."""
    rank = dict.fromkeys(EVERY, 0)
    for _ in EVERY:
        for near, far in ORDERS:
            rank[far] = max(rank[far], rank[near] + 1)
    return rank


def test_the_orders_do_not_contradict_each_other():
    assert max(ranks().values()) < len(EVERY)
    assert all(ranks()[near] < ranks()[far] for near, far in ORDERS)


@pytest.mark.parametrize("sign, share", [(1, 1.0), (-1, 0.0), (0, 0.5)])
def test_an_ear_is_right_its_opposite_wrong_and_a_deaf_one_half_right(sign, share):
    one = {sound: [sign * float(rank)] for sound, rank in ranks().items()}
    scores = ear_scores([one] * 3)
    assert (scores.share, scores.triples, scores.recordings) == (share, 3 * len(ORDERS), 3)
    assert all(value == (share, 3) for value in scores.by_order.values())
    assert len(scores.by_order) == len(ORDERS)


def test_triples_are_all_pairs_of_sounds_and_what_is_not_there_is_in_none():
    scores = ear_scores([{SAME: [1.0], OTHERS: [2.0, 0.5, 3.0]}, {FRIEND: [1.0, 4.0], OTHERS: [2.0]},
                         {SYNTHESIZER: [1.0]}])
    assert (scores.triples, scores.recordings) == (5, 2)
    assert scores.share == pytest.approx(3 / 5)
    assert scores.by_order == {f"{SAME} < {OTHERS}": (2 / 3, 3), f"{FRIEND} < {OTHERS}": (0.5, 2)}


def test_the_interval_is_over_recordings():
    rng = np.random.default_rng(0)
    rows = [{SAME: [0.0], NOISE_0: [float(rng.choice([-1, 1], p=[0.2, 0.8]))] * 50} for _ in range(40)]
    scores = ear_scores(rows)
    spread = math.sqrt(0.2 * 0.8 / 40)  # not of 2000 triples
    assert scores.high - scores.low == pytest.approx(2 * 1.96 * spread, rel=0.3)
    assert scores.low < scores.share < scores.high
    assert math.isnan(ear_scores(rows[:1]).low)


def test_nothing_to_compare():
    with pytest.raises(UserError, match="nothing to compare"):
        ear_scores([{SAME: [1.0]}, {}])
