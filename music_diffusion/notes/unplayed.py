"""Requests of a MIDI file that notes alone do not play, counted by kind."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from music_diffusion.notes import channels as ch
from music_diffusion.notes.channels import Events, States
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.sysex import Asked

RESET_CONTROLLERS, MONO, POLY = 121, 126, 127  # channel mode messages
DATA_MSB, DATA_LSB = 6, 38  # of the parameter that is selected
BEND_CENTRE = 8192


@dataclasses.dataclass(frozen=True)
class Control:
    """A controller that is heard while its value is another than usual."""

    kind: str  # name in `MidiFile.ignored`; several controllers may share one
    usual: int  # value after a reset of the device
    switch: bool = False  # on from 64, off below; `usual` is off then
    cleared: bool = False  # by Reset All Controllers, which leaves the mix and the sound alone


# Controller → how it counts. Usual values are those of General MIDI 2.
CONTROLS = {
    1: Control("modulation", 0, cleared=True),
    2: Control("breath", 0, cleared=True),
    4: Control("foot", 0, cleared=True),
    7: Control("volume", 100),
    8: Control("balance", 64),
    10: Control("pan", 64),
    11: Control("expression", 127, cleared=True),
    65: Control("portamento", 0, switch=True, cleared=True),
    67: Control("soft pedal", 0, switch=True, cleared=True),
    68: Control("legato", 0, switch=True, cleared=True),
    69: Control("hold 2", 0, switch=True, cleared=True),
    **{number: Control("sound control", 64) for number in range(71, 80)},
    91: Control("reverb", 40),
    92: Control("tremolo", 0),
    93: Control("chorus", 0),
    94: Control("celeste", 0),
    95: Control("phaser", 0),
}
# Registered parameters (101, 100) → kind and usual value of 14 bits. The range of bends is none:
# it is heard by bends alone, which count themselves.
PARAMETERS = {1: ("tuning", 8192), 2: ("tuning", 8192), 3: ("tuning", 0), 4: ("tuning", 0)}
UNREGISTERED = "unregistered parameter"


NONE = np.zeros(0, np.int64)


def count_unplayed(events: Events, time: np.ndarray, notes: Notes, channel: np.ndarray,
                   states: States, state_of_note: np.ndarray, resets: np.ndarray,
                   asked: dict[int, Asked]) -> dict[str, int]:
    """Counts the messages that would be heard, by kind, the most frequent first.

    A message counts if its value is another than the usual one and a note of
    its channel sounds before the next message of its kind.

    Args:
      events: of the whole file.
      time: [E] seconds of the events.
      notes: [N] as they are played.
      channel: [N] of the notes.
      states: what `channels.follow` returns, as are `resets` and `asked`.
      state_of_note: [N] of the notes.
    """
    count = _Count(events, time, notes, channel, resets)
    clears = events.control(RESET_CONTROLLERS)
    first, second = events.first.astype(np.int64), events.second.astype(np.int64)
    control = events.kind == ch.CONTROL
    for number in np.flatnonzero(np.bincount(events.first[control], minlength=128)).tolist():
        if number in CONTROLS:
            rule, index = CONTROLS[number], events.control(number)
            value = second[index]
            count.add(rule.kind, index, value >= 64 if rule.switch else value != rule.usual,
                      clears if rule.cleared else NONE)
    index = np.flatnonzero(events.kind == ch.BEND)
    count.add("pitch bend", index, (first[index] | second[index] << 7) != BEND_CENTRE, clears)
    index = np.flatnonzero(events.kind == ch.PRESSURE)
    count.add("aftertouch", index, first[index] > 0, clears)
    index = np.flatnonzero(events.kind == ch.POLY_PRESSURE)
    count.add("aftertouch", index, second[index] > 0, clears)
    index = np.flatnonzero(control & ((events.first == MONO) | (events.first == POLY)))
    count.add("mono mode", index, first[index] == MONO)
    _count_parameters(count, events)
    _count_states(count, states, state_of_note)
    for i, setting in asked.items():
        count.counts[setting.kind] += not setting.default and notes.duration > time[i]
    return {kind: int(n) for kind, n in count.counts.most_common() if n}


class _Count:
    """Counts messages by kind."""

    def __init__(self, events: Events, time: np.ndarray, notes: Notes, channel: np.ndarray,
                 resets: np.ndarray):
        self.events, self.time, self.resets = events, time, resets
        self.counts: collections.Counter[str] = collections.Counter()
        self.starts_ends = {}  # of the notes of a channel, each ascending
        for c in np.unique(channel).tolist():
            mine = channel == c
            self.starts_ends[c] = np.sort(notes.start[mine]), np.sort(notes.end[mine])

    def add(self, kind: str, index: np.ndarray, unusual: np.ndarray, ends: np.ndarray = NONE,
            *, replaced: bool = True) -> None:
        """Counts those of some messages that are unusual and heard.

        Args:
          kind: name of the count.
          index: [M] events, ascending.
          unusual: [M] bool.
          ends: events of other kinds after which the usual value holds again.
          replaced: each of the messages ends the effect of the one before it.
        """
        if not unusual.any():
            return
        channel = self.events.channel
        for c in self.starts_ends:
            mine = channel[index] == c
            since = index[mine & unusual]
            stops = np.sort(np.concatenate([
                index[mine] if replaced else NONE, ends[channel[ends] == c],
                self.resets[channel[self.resets] == c - c % 16]]))
            until = np.append(self.time[stops], np.inf)[np.searchsorted(stops, since, side="right")]
            since = self.time[since]
            self.counts[kind] += int((self.sounds(c, since, until) & (since < until)).sum())

    def sounds(self, channel: int, since: np.ndarray, until: np.ndarray) -> np.ndarray:
        """Returns [P] whether a note of the channel begins before `until` and ends after `since`."""
        start, end = self.starts_ends[channel]
        return np.searchsorted(start, until, "left") > np.searchsorted(end, since, "right")


def _count_parameters(count: _Count, events: Events) -> None:
    """Counts settings of registered and unregistered parameters (controllers 6, 38 and 98 to 101)."""
    numbers = (DATA_MSB, DATA_LSB, *range(98, 102))
    chosen = np.flatnonzero((events.kind == ch.CONTROL) & np.isin(events.first, numbers))
    selected: dict[int, list[int]] = {}  # channel → is it registered?, MSB, LSB
    values: dict[tuple[int, int], list[int]] = {}  # channel, parameter → its value's MSB and LSB
    rows: dict[int | None, list[tuple[int, bool]]] = {}
    columns = (chosen, events.channel[chosen], events.first[chosen], events.second[chosen])
    for i, channel, number, value in zip(*(c.tolist() for c in columns), strict=True):
        parameter = selected.setdefault(channel, [True, 127, 127])
        if number > DATA_LSB:
            registered = number >= 100
            if registered != parameter[0]:
                parameter[:] = registered, 127, 127
            parameter[1 if number % 2 else 2] = value
            continue
        registered, *address = parameter
        if address == [127, 127]:
            continue  # no parameter
        if not registered:
            rows.setdefault(None, []).append((i, number == DATA_MSB and value != 64))
        elif address[0] == 0 and address[1] in PARAMETERS:
            usual = PARAMETERS[address[1]][1]
            held = values.setdefault((channel, address[1]), [usual >> 7, usual & 127])
            held[number == DATA_LSB] = value
            rows.setdefault(address[1], []).append((i, held[0] << 7 | held[1] != usual))
    for which, found in rows.items():
        index, unusual = np.array(found, np.int64).T
        kind = UNREGISTERED if which is None else PARAMETERS[which][0]
        count.add(kind, index, unusual > 0, replaced=which is not None)


def _count_states(count: _Count, states: States, state_of_note: np.ndarray) -> None:
    """Counts choices of banks and kits that notes use, and programs that change under a note."""
    used = np.unique(state_of_note)
    drums, variation = states.drums[used], states.variation[used]
    count.counts["bank"] += int((variation & ~drums).sum())
    count.counts["drum kit"] += int((drums & (variation | (states.program[used] > 0))).sum())
    same = states.channel[1:] == states.channel[:-1]
    changed = (states.program[1:] != states.program[:-1]) | (states.drums[1:] != states.drums[:-1])
    for k in (np.flatnonzero(same & changed) + 1).tolist():
        c, now = int(states.channel[k]), count.time[states.event[k]:states.event[k] + 1]
        if c in count.starts_ends:
            count.counts["program change"] += int(count.sounds(c, now, now)[0])
