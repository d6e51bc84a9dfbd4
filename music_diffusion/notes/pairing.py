"""Pairs of note-ons and the note-offs that end them."""

from __future__ import annotations

from collections import deque

import numpy as np

NEVER = -1  # no event: nothing ends the note


def pair_notes(group: np.ndarray, tick: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the end of every note-on.

    Note-offs end note-ons of their group, first in, first out, where every
    note-on has its note-off. Where some lack one, those are surplus that no
    later note-off can belong to, read as brackets are; the pairs of the others
    do not shift. A surplus note ends when its key is struck again (with the
    other one if both are struck at one tick), or never. A note-off without a
    note-on is ignored.

    Args:
      group: [E] integers, the same for events that belong together: one key of
        one channel, between two messages that end all notes.
      tick: [E] int64, ascending; events of one tick are in the order of the file.
      on: [E] bool, note-ons and note-offs.

    Returns:
      For the N note-ons, in order, the event that ends each, NEVER without an
      end, and whether it is surplus.
    """
    order = np.argsort(group, kind="stable")
    sorted_on = on[order]
    new = np.diff(group[order], prepend=-1) != 0
    segment = np.cumsum(new) - 1
    known, unbalanced = _balance(segment, sorted_on)
    end = np.full(len(on), NEVER, np.int64)
    surplus = np.zeros(len(on), bool)
    matched = ~unbalanced[segment]
    ons = order[np.flatnonzero(sorted_on & matched)]
    end[ons] = order[np.flatnonzero(known & matched)]
    first = np.append(np.flatnonzero(new), len(on))
    for k in np.flatnonzero(unbalanced).tolist():
        _pair_segment(order[first[k]:first[k + 1]].tolist(), tick, on, end, surplus)
    return end[on], surplus[on]


def _balance(segment: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the open notes of each segment.

    Returns [E] whether an event is a note-off that finds an open note, and [S]
    whether notes of a segment stay open.
    """
    if not len(on):
        return np.zeros(0, bool), np.zeros(0, bool)
    level = np.cumsum(np.where(on, 1, -1))
    first = np.flatnonzero(np.diff(segment, prepend=-1))
    before = np.append(0, level)[first]  # of the segment
    level -= before[segment]
    # The lowest level so far, 0 at most: every new low is a note-off that finds nothing open. Each
    # segment is moved below all earlier ones, so that their lows do not count.
    shift = segment * (2 * len(on) + 1)
    low = np.minimum.accumulate(np.minimum(level, 0) - shift) + shift
    so_far = np.append(0, low[:-1])
    so_far[first] = 0
    last = np.append(first[1:], len(on)) - 1
    return ~on & (low == so_far), level[last] > low[last]


def _pair_segment(events: list[int], tick: np.ndarray, on: np.ndarray, end: np.ndarray,
                  surplus: np.ndarray) -> None:
    """Pairs the events of one group where note-offs are missing; writes into `end` and `surplus`."""
    ticks, ons = tick[events].tolist(), on[events].tolist()
    order = _offs_first(ticks, ons)
    open_notes: list[int] = []
    offs = []
    for i in order:
        if ons[i]:
            open_notes.append(i)
        elif open_notes:
            open_notes.pop()
            offs.append(i)
    left = set(open_notes)
    waiting = deque(i for i in order if ons[i] and i not in left)
    ends = {waiting.popleft(): i for i in offs}
    struck = [i for i in order if ons[i]]
    for i, after in zip(reversed(struck), [None, *reversed(struck[1:])], strict=True):
        if i in left:
            surplus[events[i]] = True
            if after is None:
                ends[i] = NEVER
            else:
                ends[i] = after if ticks[after] > ticks[i] else ends[after]
        end[events[i]] = NEVER if ends[i] == NEVER else events[ends[i]]


def _offs_first(ticks: list[int], ons: list[bool]) -> list[int]:
    """Orders events so that, within a tick, a note that is open already ends before another begins."""
    order: list[int] = []
    depth = at = 0
    while at < len(ticks):
        stop = at
        while stop < len(ticks) and ticks[stop] == ticks[at]:
            stop += 1
        early = [i for i in range(at, stop) if not ons[i]][:depth]
        taken = set(early)
        late = [i for i in range(at, stop) if i not in taken]
        order += early + late
        depth -= len(early)
        for i in late:
            depth = depth + 1 if ons[i] else max(depth - 1, 0)
        at = stop
    return order
