"""Which note-off ends which note-on, against slow definitions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.notes.pairing import NEVER, pair_notes


def pairs(events):
    """Pairs events (group, tick, is it an on?); returns for the ons their ends and if they are surplus."""
    group, tick, on = (np.array(c) for c in zip(*events, strict=True))
    end, surplus = pair_notes(group, tick, on.astype(bool))
    return end.tolist(), surplus.tolist()


ON, OFF = 1, 0


def test_first_in_first_out_where_counts_match():
    assert pairs([(0, 0, ON), (0, 1, ON), (0, 2, OFF), (0, 3, OFF)]) == ([2, 3], [False, False])


def test_groups_know_nothing_of_each_other():
    assert pairs([(5, 0, ON), (2, 0, ON), (2, 3, OFF), (5, 4, OFF)]) == ([3, 2], [False, False])
    assert pairs([(5, 0, ON), (2, 1, OFF), (5, 4, OFF)]) == ([2], [False])


def test_a_surplus_on_ends_at_the_next_on_and_shifts_nothing():
    events = [(0, 0, ON)] + [(0, 10 * k + d, s) for k in range(1, 4) for d, s in ((0, ON), (3, OFF))]
    assert pairs(events) == ([1, 2, 4, 6], [True, False, False, False])


def test_a_surplus_on_without_another_never_ends():
    assert pairs([(0, 0, ON), (0, 1, OFF), (0, 2, ON)]) == ([1, NEVER], [False, True])


def test_surplus_ons_of_one_tick_end_together():
    assert pairs([(0, 0, ON), (0, 0, ON), (0, 5, OFF)]) == ([2, 2], [True, False])
    assert pairs([(0, 0, ON), (0, 0, ON)]) == ([NEVER, NEVER], [True, True])


def test_within_a_tick_the_open_note_ends_before_the_next_begins():
    # The last off is missing; on and off of tick 5 are not a note of no length.
    assert pairs([(0, 0, ON), (0, 5, ON), (0, 5, OFF)]) == ([2, NEVER], [False, True])


def test_an_off_without_an_on_is_ignored():
    assert pairs([(0, 0, OFF), (0, 1, ON), (0, 2, OFF), (0, 3, OFF)]) == ([2], [False])


def test_nothing():
    end, surplus = pair_notes(np.zeros(0, int), np.zeros(0, int), np.zeros(0, bool))
    assert len(end) == len(surplus) == 0


draws = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans()), min_size=1, max_size=40)


def ordered(drawn):
    """Events from draws (group, wait, on) in order of time."""
    tick = np.cumsum([wait for _, wait, _ in drawn]).tolist()
    return [(g, t, on) for (g, _, on), t in zip(drawn, tick, strict=True)]


@settings(deadline=None)
@given(draws)
def test_matched_groups_are_queues_and_every_off_is_used_once(drawn):
    events = ordered(drawn)
    end, surplus = pairs(events) if any(e[2] for e in events) else ([], [])
    ons = [i for i, e in enumerate(events) if e[2]]
    for group in {e[0] for e in events}:
        queue, queued = [], {}
        for i, e in enumerate(events):
            if e[0] == group and e[2]:
                queue.append(i)
            elif e[0] == group and queue:
                queued[queue.pop(0)] = i
        mine = {i: (end[k], surplus[k]) for k, i in enumerate(ons) if events[i][0] == group}
        if not queue:
            assert mine == {i: (j, False) for i, j in queued.items()}
        # As many notes are surplus as a queue leaves open, unless more offs find a note in another order.
        assert sum(s for _, s in mine.values()) <= len(queue)
        used = [j for j, s in mine.values() if not s]
        assert len(used) == len(set(used)) and not any(events[j][2] for j in used)
        # No note ends before it begins.
        assert all(j == NEVER or events[j][1] >= events[i][1] for i, (j, _) in mine.items())


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12), st.data())
def test_a_note_whose_off_is_lost_costs_no_other_note(gaps, data):
    """Repeated notes that do not overlap; one off is left out: all others keep theirs."""
    events, now = [], 0
    for wait, length in gaps:
        events += [(0, now + wait, ON), (0, now + wait + length, OFF)]
        now += wait + length
    lost = data.draw(st.integers(0, len(gaps) - 1))
    del events[2 * lost + 1]
    end, surplus = pairs(events)
    begun = [i for i, e in enumerate(events) if e[2]]
    for k, i in enumerate(begun):
        assert surplus[k] == (k == lost)
        assert end[k] == (i + 1 if k != lost or k + 1 < len(begun) else NEVER)
