"""The events of a MIDI file in order of time, and the state of each channel at each of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from music_diffusion.notes import smf
from music_diffusion.notes.sysex import DRUM_CHANNEL, Asked, Mode, Reset, RhythmPart, decode

NOTE_OFF, NOTE_ON, POLY_PRESSURE, CONTROL = 0x80, 0x90, 0xA0, 0xB0
PROGRAM, PRESSURE, BEND = 0xC0, 0xD0, 0xE0
BANK_MSB, BANK_LSB = 0, 32
DRUM_BANKS = (120, 126, 127)  # GM2's rhythm channel; XG's SFX and drum kits
GM2_MELODY_BANK = 121


@dataclasses.dataclass(frozen=True, kw_only=True)
class Events:
    """E events of all tracks in order of time; within a tick in the order of the file.

    Channels are numbered over all ports: 16 · port + 0..15.
    """

    tick: np.ndarray  # [E] int64
    kind: np.ndarray  # [E] uint8: the status byte without its channel; F0, FF
    channel: np.ndarray  # [E] int32; of exclusive messages the first of their port
    first: np.ndarray  # [E] uint8, data byte 1; the type of meta events
    second: np.ndarray  # [E] uint8, data byte 2
    data: dict[int, bytes]  # index → bytes of meta and exclusive events
    channels: int  # of all ports
    end: int  # the last tick of any track

    def control(self, number: int) -> np.ndarray:
        """Returns the indices of the messages of a controller."""
        return np.flatnonzero((self.kind == CONTROL) & (self.first == number))


def merge(tracks: tuple[smf.Track, ...]) -> Events:
    """Orders the events of tracks that are played together."""
    ports, count = _ports(tracks)
    tick = np.concatenate([np.zeros(0, np.int64), *(t.tick for t in tracks)])
    message = np.concatenate([np.zeros((0, 3), np.uint8), *(t.message for t in tracks)])
    port = np.concatenate([np.zeros(0, np.int32), *ports])
    order = np.argsort(tick, kind="stable")
    status = message[order, 0]
    exclusive = status >= smf.SYSEX
    channel = 16 * port[order] + np.where(exclusive, 0, status & 15)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    data: dict[int, bytes] = {}
    base = 0
    for track in tracks:
        data.update((int(place[base + i]), payload) for i, payload in track.data.items())
        base += len(track.tick)
    return Events(tick=tick[order], kind=np.where(exclusive, status, status & 0xF0),
                  channel=channel, first=message[order, 1], second=message[order, 2], data=data,
                  channels=16 * count, end=max((t.end for t in tracks), default=0))


def _ports(tracks: tuple[smf.Track, ...]) -> tuple[list[np.ndarray], int]:
    """Returns the port of every event of each track, and the number of ports.

    A track's events belong to the port (meta 21) and device (meta 09) that the
    track names last before them, or else first. The first device that a file
    names is also that of tracks without a name.
    """
    devices: dict[bytes, int] = {}
    ports: dict[tuple[int, int], int] = {(0, 0): 0}
    result = []
    for track in tracks:
        device = port = 0
        named: list[tuple[int, int]] = []  # (index of the event, port)
        for i, payload in sorted(track.data.items()):
            kind = track.message[i, 1] if track.message[i, 0] == smf.META else None
            if kind == smf.DEVICE_NAME:
                device = devices.setdefault(payload, len(devices))
            elif kind == smf.PORT and payload:
                port = payload[0]
            else:
                continue
            now = ports.setdefault((device, port), len(ports))
            if named and (track.message[named[-1][0]:i, 0] >= smf.SYSEX).all():
                named.pop()  # name and port stand together
            named.append((i, now))
        of_events = np.zeros(len(track.tick), np.int32)
        for i, now in [(0, named[0][1]), *named[1:]] if named else []:
            of_events[i:] = now
        result.append(of_events)
    return result, len(ports)


@dataclasses.dataclass(frozen=True, kw_only=True)
class States:
    """The S times at which the sound of a channel is chosen, ordered by channel, then time.

    Every channel has one at its beginning.
    """

    key: np.ndarray  # [S] int64, ascending: channel · (E + 1) + 1 + index of the event
    channel: np.ndarray  # [S]
    event: np.ndarray  # [S] index of the event, -1 at the beginning
    program: np.ndarray  # [S] 0..127
    drums: np.ndarray  # [S] bool
    variation: np.ndarray  # [S] bool: the bank is another than that of General MIDI

    def at(self, events: Events, index: np.ndarray) -> np.ndarray:
        """Returns for events (notes, in the sense of their channel) the state that holds."""
        key = events.channel[index].astype(np.int64) * (len(events.tick) + 1) + 1 + index
        return np.searchsorted(self.key, key, side="right") - 1


def follow(events: Events) -> tuple[States, np.ndarray, dict[int, Asked]]:
    """Follows programs, banks and modes of all channels.

    Returns:
      The states of the channels; the events [R] that reset all channels of
      their port; and the settings of whole devices, by event.
    """
    bank = (events.kind == CONTROL) & ((events.first == BANK_MSB) | (events.first == BANK_LSB))
    chosen = np.flatnonzero(bank | (events.kind == PROGRAM) | (events.kind == smf.SYSEX))
    ports = [_Port(16 * p) for p in range(events.channels // 16)]
    rows: list[tuple[int, int, int, bool, bool]] = [row for port in ports for row in port.rows(-1)]
    resets, asked = [], {}
    columns = (chosen, events.kind[chosen], events.channel[chosen], events.first[chosen],
               events.second[chosen])
    for i, kind, channel, first, second in zip(*(c.tolist() for c in columns), strict=True):
        port = ports[channel // 16]
        if kind == smf.SYSEX:
            effect = decode(events.data[i])
            if isinstance(effect, Asked):
                asked[i] = effect
            elif isinstance(effect, Reset):
                resets.append(i)
                port.reset(effect.mode)
                rows += port.rows(i)
            elif isinstance(effect, RhythmPart):
                port.set_rhythm(effect)
                rows.append(port.row(effect.channel, i))
        elif kind == PROGRAM:
            port.choose(channel % 16, first)
            rows.append(port.row(channel % 16, i))
        else:
            port.banks[channel % 16][first == BANK_LSB] = second
    table = np.array(rows, np.int64)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    key = table[:, 0] * (len(events.tick) + 1) + 1 + table[:, 1]
    states = States(key=key, channel=table[:, 0], event=table[:, 1], program=table[:, 2],
                    drums=table[:, 3] > 0, variation=table[:, 4] > 0)
    return states, np.array(resets, np.int64), asked


class _Port:
    """Sixteen channels of one device."""

    def __init__(self, first: int):
        self.first = first
        self.reset(Mode.NONE)

    def reset(self, mode: Mode) -> None:
        self.mode = mode
        self.programs = [0] * 16
        self.banks = [[0, 0] for _ in range(16)]  # MSB and LSB, which count from the next program on
        self.rhythm = [c == DRUM_CHANNEL for c in range(16)]
        self.drums = list(self.rhythm)
        self.variations = [False] * 16
        if mode is Mode.XG:
            self.banks[DRUM_CHANNEL][0] = DRUM_BANKS[-1]

    def set_rhythm(self, part: RhythmPart) -> None:
        self.rhythm[part.channel] = self.drums[part.channel] = part.drums
        self.variations[part.channel] = False
        if self.mode is Mode.XG:
            self.banks[part.channel] = [DRUM_BANKS[-1] if part.drums else 0, 0]

    def choose(self, channel: int, program: int) -> None:
        """Chooses a program of the bank that was selected before."""
        self.programs[channel] = program
        most, least = self.banks[channel]
        if self.mode is Mode.XG:
            drums = most in DRUM_BANKS
        elif self.mode is Mode.GS:  # its banks 126 and 127 are of an older device's melodies
            drums = self.rhythm[channel]
        elif self.mode is Mode.GM2 and most == GM2_MELODY_BANK:
            drums = False
        else:
            drums = self.rhythm[channel] or most in DRUM_BANKS
        self.drums[channel] = drums
        plain = (0, GM2_MELODY_BANK, *DRUM_BANKS) if drums else (0, GM2_MELODY_BANK)
        self.variations[channel] = most not in plain or (least != 0 and not drums)

    def row(self, channel: int, event: int) -> tuple[int, int, int, bool, bool]:
        return (self.first + channel, event, self.programs[channel], self.drums[channel],
                self.variations[channel])

    def rows(self, event: int) -> list[tuple[int, int, int, bool, bool]]:
        return [self.row(channel, event) for channel in range(16)]
