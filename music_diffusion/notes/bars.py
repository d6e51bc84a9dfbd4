"""Bars of a MIDI file: from its time signatures to seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes import smf
from music_diffusion.notes.channels import Events

MOST = 100_000  # bars that are counted; a file with more has no music in them


def bar_starts(events: Events, division: int, seconds_of: Callable[[np.ndarray], np.ndarray], end: float
               ) -> tuple[float, ...]:
    """Returns the seconds at which bars begin, from 0 to the first at or behind `end`.

    A time signature begins a new bar where it stands; without any, bars have four quarter notes. A file
    that is timed in SMPTE frames has no bars.
    """
    if division & 0x8000:
        return ()
    changes = [(0, 4 * division)]  # tick, ticks of a bar from there on
    for i in np.flatnonzero((events.kind == smf.META) & (events.first == smf.TIME_SIGNATURE)).tolist():
        payload, tick = events.data[i], int(events.tick[i])
        if len(payload) < 2 or not payload[0] or payload[1] > 6:
            continue
        if tick == changes[-1][0]:
            changes.pop()
        changes.append((tick, max(1, 4 * division * payload[0] // 2 ** payload[1])))
    ends = [*(tick for tick, _ in changes[1:]), int(events.tick.max(initial=0)) + 1]
    begun: list[int] = []
    for (tick, size), until in zip(changes, ends, strict=True):
        begun += range(tick, min(until, tick + size * (MOST - len(begun))), size)
    ticks = np.array(begun)
    # Notes may end behind the file's last event; from there on all bars are equal.
    size = changes[-1][1]
    last, following = seconds_of(np.array([ticks[-1], ticks[-1] + size]))
    more = min(max(0, int(np.ceil((end - last) / max(following - last, 1e-9)))), MOST - len(ticks))
    times = seconds_of(np.concatenate([ticks, ticks[-1] + size * (1 + np.arange(more))]))
    return tuple(times[:int(np.searchsorted(times, end)) + 1].tolist())


def parse_bars(text: str, starts: tuple[float, ...]) -> tuple[float, float]:
    """Reads `5` or `5:6`, bars from 1, the last one included → seconds of beginning and end.

    Raises UserError: no numbers, bars that the piece does not have, or a file without bars.
    """
    if len(starts) < 2:
        raise UserError(f"--bars {text}: this file has no bars; give --anew BEGIN:END in seconds")
    first, _, last = text.partition(":")
    try:
        begin, end = int(first), int(last or first)
    except ValueError:
        raise UserError(f"--bars {text}: write a bar or two, such as 5 or 5:6") from None
    if not 1 <= begin <= end < len(starts):
        raise UserError(f"--bars {text}: the piece has bars 1 to {len(starts) - 1}")
    return starts[begin - 1], starts[end]
