"""Who plays what: drawn among those that can."""

import collections

from music_diffusion.conditions.performances import Performance
from music_diffusion.evaluation.performance_plan import draw_performances

ALL = [Performance(name="trio", instruments=("Violin", "Cello", "Piano")),
       Performance(name="violin", instruments=("Violin",)), Performance(name="unknown"),
       Performance(name="piano", instruments=("Piano",))]


def test_only_those_who_have_the_instruments_play():
    drawn = draw_performances({"sonata": ("Violin", "Piano"), "solo": ("Violin",), "tuba": ("Tuba",)},
                              ALL, 3)
    assert set(drawn["sonata"]) == {"trio", "unknown"}
    assert set(drawn["solo"]) == {"trio", "violin", "unknown"}
    assert drawn["tuba"] == ("unknown",)
    assert draw_performances({"tuba": ("Tuba",)}, ALL[:2], 3) == {"tuba": ()}


def test_the_draw_is_of_the_piece_and_the_seed_alone():
    pieces = {f"p{i}": ("Violin",) for i in range(40)}
    drawn = draw_performances(pieces, ALL, 2, seed=1)
    assert draw_performances({"p7": ("Violin",)}, ALL[::-1], 2, seed=1)["p7"] == drawn["p7"]
    assert draw_performances(pieces, ALL, 2, seed=2) != drawn
    # Fewer are the first of more, and all are drawn about equally often.
    assert {p: d[:1] for p, d in drawn.items()} == draw_performances(pieces, ALL, 1, seed=1)
    times = collections.Counter(name for chosen in drawn.values() for name in chosen)
    assert set(times) == {"trio", "violin", "unknown"} and min(times.values()) > 15
    assert all(len(set(chosen)) == 2 for chosen in drawn.values())
