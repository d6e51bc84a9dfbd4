"""System exclusive messages that change what notes sound like: GM, GM2, GS and XG.

From the specifications: GM system messages and master volume, tuning (MIDI 1.0,
universal exclusive), Roland GS (address 40 1x 15: use for rhythm part) and
Yamaha XG (system on, part mode).
"""

from __future__ import annotations

import enum
import typing

DRUM_CHANNEL = 9  # channel 10 counted from one


class Mode(enum.Enum):
    """The standard that a file asks for."""

    NONE = "none"
    GM = "GM"
    GM2 = "GM2"
    GS = "GS"
    XG = "XG"


class Reset(typing.NamedTuple):
    """Puts all channels into the initial state of a standard."""

    mode: Mode


class RhythmPart(typing.NamedTuple):
    """Makes a channel (0..15) one of drums, or of melody."""

    channel: int
    drums: bool


class Asked(typing.NamedTuple):
    """A setting of the whole device that nothing here plays."""

    kind: str  # as in `MidiFile.ignored`
    default: bool  # it is what a device does anyway


Effect = Reset | RhythmPart | Asked

_GM = {1: Mode.GM, 2: Mode.NONE, 3: Mode.GM2}
# Addresses → (kind, the data that change nothing), of GS and XG.
_GS_SETTINGS = {(0x40, 0, 0): ("tuning", (0, 4, 0, 0)), (0x40, 0, 4): ("volume", (127,)),
                (0x40, 0, 5): ("tuning", (64,))}
_XG_SETTINGS = {(0, 0, 0): ("tuning", (0, 4, 0, 0)), (0, 0, 4): ("volume", (127,)),
                (0, 0, 6): ("tuning", (64,))}
_MASTER = {1: ("volume", (127, 127)), 3: ("tuning", (0, 64)), 4: ("tuning", (0, 64))}


def decode(message: bytes) -> Effect | None:
    """Reads an exclusive message (without its F0); None for what concerns no note.

    Checksums are not compared: devices of the time differ in what they accept,
    and the addresses leave no doubt.
    """
    body = tuple(message.removesuffix(b"\xf7"))
    if len(body) < 4:
        return None
    if body[0] == 0x7E and body[2] == 9:
        return Reset(_GM[body[3]]) if body[3] in _GM else None
    if body[0] in (0x7E, 0x7F) and body[2] == 8:
        return Asked("tuning", False)
    if body[0] == 0x7F and body[2] == 4 and body[3] in _MASTER and len(body) >= 6:
        # Of a master volume the upper seven bits are what is heard.
        kind, default = _MASTER[body[3]]
        return Asked(kind, body[5] == default[1] and (kind == "volume" or body[4] == default[0]))
    if body[0] == 0x41 and body[2:4] == (0x42, 0x12) and len(body) >= 8:
        return _gs(body[4:7], body[7:])
    if body[0] == 0x43 and body[1] & 0xF0 == 0x10 and body[2] == 0x4C and len(body) >= 7:
        return _xg(body[3:6], body[6:])
    return None


def _gs(address: tuple[int, ...], data: tuple[int, ...]) -> Effect | None:
    """data: with the checksum at its end, if it is there."""
    if address in ((0x40, 0, 0x7F), (0, 0, 0x7F)):
        return Reset(Mode.GS)
    if address[0] == 0x40 and address[1] & 0xF0 == 0x10 and address[2] == 0x15:
        part = address[1] & 15  # 0 is channel 10, 1..9 are channels 1..9, then 11..16
        channel = DRUM_CHANNEL if part == 0 else part - (part < 10)
        return RhythmPart(channel, data[0] > 0)
    return _setting(_GS_SETTINGS, address, data)


def _xg(address: tuple[int, ...], data: tuple[int, ...]) -> Effect | None:
    if address in ((0, 0, 0x7E), (0, 0, 0x7F)):
        return Reset(Mode.XG)
    if address[0] == 8 and address[1] < 16 and address[2] == 7:
        return RhythmPart(address[1], data[0] > 0)
    return _setting(_XG_SETTINGS, address, data)


def _setting(table: dict, address: tuple[int, ...], data: tuple[int, ...]) -> Asked | None:
    if address not in table:
        return None
    kind, default = table[address]
    return Asked(kind, data[:len(default)] == default)
