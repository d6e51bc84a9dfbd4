"""The pedals by hand-made cases, and against a slow event-by-event simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.notes.notes import Notes
from music_diffusion.notes.sustain import Pedal, apply_pedals


def make(rows):
    """Notes from rows (start, end, pitch) or (start, end, pitch, is_drum)."""
    rows = [(*r, False)[:4] for r in rows]
    n = len(rows)
    start, end, pitch, drum = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Notes(start, end, pitch, np.full(n, 80), np.zeros(n), drum)


def pedal(rows):
    """A pedal from rows (time, value) or (time, value, channel)."""
    rows = [(*r, 0)[:3] for r in rows]
    time, value, channel = zip(*rows, strict=True) if rows else ((), (), ())
    return Pedal(time, channel, value)


def ends(rows, sustain, channel=None, sostenuto=()):
    """Ends after movements of the pedals; every note on channel 0."""
    channel = np.zeros(len(rows), int) if channel is None else np.array(channel)
    return list(apply_pedals(make(rows), channel, pedal(sustain), pedal(sostenuto)).end)


@pytest.mark.parametrize("rows, pedals, expected", [
    # no pedal, and pedal only after the release
    ([(0, 1, 60)], [], [1]),
    ([(0, 1, 60)], [(2, 127), (3, 0)], [1]),
    # released while down: until the pedal goes up
    ([(0, 1, 60)], [(0.5, 127), (3, 0)], [3]),
    # the pedal goes up before the key: nothing to hold
    ([(0, 4, 60)], [(0.5, 127), (3, 0)], [4]),
    # 64 is down, 63 is up
    ([(0, 1, 60)], [(0, 63), (3, 0)], [1]),
    ([(0, 1, 60)], [(0, 64), (3, 63)], [3]),
    # still down: a second "down" or a value in between changes nothing
    ([(0, 1, 60)], [(0, 127), (2, 100), (3, 0)], [3]),
    # the same pitch struck again ends the first note; another pitch does not
    ([(0, 1, 60), (2, 3, 60)], [(0, 127), (5, 0)], [2, 5]),
    ([(0, 1, 60), (2, 3, 61)], [(0, 127), (5, 0)], [5, 5]),
    # struck again at the very time of the release
    ([(0, 1, 60), (1, 2, 60)], [(0, 127), (5, 0)], [1, 5]),
    # pedal events at the very time of the release come first
    ([(0, 1, 60)], [(1, 127), (3, 0)], [3]),
    ([(0, 1, 60)], [(0, 127), (1, 0)], [1]),
    # lifted and pressed at one time: old notes end there, later ones are held
    ([(0, 1, 60), (1, 3, 62)], [(0, 127), (2, 0), (2, 127), (4, 0)], [2, 4]),
    # never lifted: until the last event
    ([(0, 1, 60), (5, 6, 62)], [(0, 127)], [6, 6]),
    # a note of zero length is held too
    ([(1, 1, 60)], [(0, 127), (3, 0)], [3]),
    # drums are left alone
    ([(0, 1, 38, True)], [(0, 127), (3, 0)], [1]),
    # pedal events in any order
    ([(0, 1, 60)], [(3, 0), (0.5, 127)], [3]),
    # overlapping notes of one pitch are not shortened
    ([(0, 3, 60), (1, 2, 60)], [(0, 127), (5, 0)], [5, 5]),
])
def test_hand_cases(rows, pedals, expected):
    assert ends(rows, pedals) == expected


def test_each_channel_has_its_own_pedal_and_repeats():
    rows = [(0, 1, 60), (0, 1, 62), (2, 3, 60)]
    # Sorted by start then pitch: 60, 62, then the late 60 which plays on channel 1.
    assert ends(rows, [(0, 127, 0), (4, 0, 0)], channel=[0, 1, 1]) == [4, 1, 3]


def test_nothing_to_do():
    assert len(apply_pedals(Notes.empty(), np.zeros(0, int), pedal([(0, 127)]))) == 0
    with pytest.raises(ValueError, match="channel"):
        apply_pedals(make([(0, 1, 60)]), np.zeros(2, int), pedal([(0, 127)]))
    with pytest.raises(ValueError, match="value"):
        Pedal([0.0], [0], [127, 0])


DOWN, UP = 127, 0


@pytest.mark.parametrize("rows, sustain, sostenuto, expected", [
    # a key that is down when the pedal goes down is caught, a later one is not
    ([(0, 1, 60), (0.7, 1.5, 62)], [], [(0.5, DOWN), (4, UP)], [4, 1.5]),
    # a key that was released before is not caught
    ([(0, 1, 60)], [], [(2, DOWN), (4, UP)], [1]),
    # one that sounds by the other pedal is caught, and goes on when that is lifted
    ([(0, 1, 60)], [(0, DOWN), (3, UP)], [(2, DOWN), (6, UP)], [6]),
    # caught, released, and held by the other pedal that was pressed in the meantime
    ([(0, 1, 60)], [(3, DOWN), (8, UP)], [(0.5, DOWN), (4, UP)], [8]),
    # in turn, many times
    ([(0, 1, 60)], [(3, DOWN), (5, UP), (7, DOWN), (9, UP)], [(0.5, DOWN), (4, UP), (4.5, DOWN), (8, UP)],
     [9]),
    # not caught: the sostenuto pedal was down before the key; sustain alone counts
    ([(1, 2, 60)], [(1.5, DOWN), (3, UP)], [(0.5, DOWN), (6, UP)], [3]),
    # struck again
    ([(0, 1, 60), (2, 3, 60)], [], [(0.5, DOWN), (6, UP)], [2, 3]),
    # lifted and pressed again at one time: what it held ends there
    ([(0, 1, 60)], [], [(0.5, DOWN), (3, UP), (3, DOWN), (5, UP)], [3]),
    ([(0, 1, 60)], [(0.5, DOWN), (3, UP), (3, DOWN), (5, UP)], [(9, DOWN)], [3]),
    # never lifted: until the last event; drums are left alone
    ([(0, 1, 60), (0, 7, 62)], [], [(0.5, DOWN)], [7, 7]),
    ([(0, 1, 38, True)], [], [(0.5, DOWN), (4, UP)], [1]),
])
def test_sostenuto_by_hand(rows, sustain, sostenuto, expected):
    assert ends(rows, sustain, sostenuto=sostenuto) == expected


def simulate_both(rows, sustain, sostenuto):
    """Every moment in turn: who is held by what; times are integers."""
    last = max([r[1] for r in rows] + [p[0] for p in sustain + sostenuto])
    sounding: dict[int, set] = {}  # note → what holds it: "key", "sustain", "sostenuto"
    ended: dict[int, int] = {}
    down = {"sustain": False, "sostenuto": False}

    def let_go(now, name, notes):
        for i in notes:
            sounding[i].discard(name)
            if not sounding[i]:
                ended[i] = now
                del sounding[i]

    for now in range(last + 1):
        for i, row in enumerate(rows):
            if row[0] == now:
                sounding[i] = {"key"}
        for name, moves in (("sustain", sustain), ("sostenuto", sostenuto)):
            for value in (p[1] for p in moves if p[0] == now):
                if value < 64:
                    let_go(now, name, list(sounding))
                elif not down[name]:  # whatever sounds is held
                    for holds in sounding.values():
                        holds.add(name)
                down[name] = value >= 64
        if down["sustain"]:
            for holds in sounding.values():
                holds.add("sustain")
        let_go(now, "key", [i for i in sounding if rows[i][1] == now])
    return [ended.get(i, last) for i in range(len(rows))]


def moves(first):
    """Movements of a pedal at every other time."""
    return st.lists(st.tuples(st.integers(0, 9).map(lambda t: 2 * t + first), st.sampled_from([0, 127])),
                    max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), min_size=1, max_size=8),
       moves(0), moves(1))
def test_both_pedals_equal_a_simulation(drawn, sustain, sostenuto):
    # Every note has a pitch of its own; the two pedals never move at the same time.
    rows = sorted((s, s + d) for s, d in drawn)
    rows = [(s, e, 40 + i) for i, (s, e) in enumerate(rows)]
    assert ends(rows, sustain, sostenuto=sostenuto) == simulate_both(rows, sustain, sostenuto)


def simulate(rows, pedals, channel):
    """One note at a time, scanning every event: the definition, without cleverness."""
    last = max([r[1] for r in rows] + [p[0] for p in pedals])
    result = []
    for i, (start, end, pitch) in enumerate(rows):
        mine = sorted((p for p in pedals if p[2] == channel[i]), key=lambda p: p[0])
        before = [p for p in mine if p[0] <= end]
        if not before or before[-1][1] < 64:
            result.append(end)
            continue
        stops = [p[0] for p in mine if p[0] > end and p[1] < 64][:1]
        stops += [r[0] for j, r in enumerate(rows)
                  if j != i and channel[j] == channel[i] and r[2] == pitch
                  and (r[0] > end or (r[0] == end and start < end))]
        result.append(max(end, min([*stops, last])))
    return result


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.integers(60, 62),
                       st.integers(0, 1)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 18), st.sampled_from([0, 63, 64, 127]),
                       st.integers(0, 1)), min_size=1, max_size=10),
)
def test_equals_simulation(drawn, pedals):
    drawn.sort(key=lambda r: (r[0], r[2]))
    rows = [(s, s + d, p) for s, d, p, _ in drawn]
    channel = [r[3] for r in drawn]
    assert ends(rows, pedals, channel) == simulate(rows, pedals, channel)
