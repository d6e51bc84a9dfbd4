"""Standard MIDI files as bytes: chunks, events and their ticks.

Reads what can be read. Damage costs the events that it touches, not the file,
and is said in `Smf.warnings`: wrong lengths and counts of tracks, chunks of
other kinds, data bytes above 127, events that are none, bytes that are missing
at the end. What the events mean as notes is in `midi`.
"""

from __future__ import annotations

import array
import dataclasses
from collections.abc import Iterable

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.smf_container import unwrap

META, SYSEX, ESCAPE = 0xFF, 0xF0, 0xF7  # status bytes of events that have a length
# Types of meta events.
DEVICE_NAME, PORT, END_OF_TRACK, TEMPO, TIME_SIGNATURE = 0x09, 0x21, 0x2F, 0x51, 0x58
KEPT = (DEVICE_NAME, PORT, TEMPO, TIME_SIGNATURE)  # the meta events that say how notes are played
MAX_TRACKS = 65_535  # what a header can announce
END = bytes((META, END_OF_TRACK, 0))
HEADER_BYTES = 14

# After damage: candidates for the start of the next event are tried by reading ahead.
AHEAD = 64  # bytes that are read ahead from a candidate
WINDOW = 48  # candidates that are compared
TRIALS = 30_000  # candidates in a file; then the rest of a damaged track is left out
LONGEST_DELTA = 0x3FFF  # ticks that are believed after damage: two bytes' worth
USUAL_PACE = 240.0  # ticks between the events of a track that raise no doubt
LOWEST_KEY, HIGHEST_KEY = 12, 119  # of instruments
ODD_KEY_TICKS = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Track:
    """The channel messages, system exclusive messages and `KEPT` meta events of a track, in order."""

    tick: np.ndarray  # [E] int64, since the start of the track
    message: np.ndarray  # [E, 3] uint8: status and data (0: none); FF, type, 0; F0, 0, 0
    data: dict[int, bytes]  # index of a meta or exclusive event → its bytes, without the length
    end: int  # tick of End of Track, or of the last event


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smf:
    """A standard MIDI file."""

    format: int  # as in the header: 0, 1 or 2, or something else
    division: int  # 16 bits as in the header: ticks per quarter note, or SMPTE frames and ticks
    tracks: tuple[Track, ...]
    warnings: tuple[str, ...]  # what is wrong with the file, a sentence each


def parse_smf(data: bytes, name: str) -> Smf:
    """Reads the bytes of a MIDI file, also one that is gzipped or wrapped in RIFF.

    Args:
      data: the whole file.
      name: of the file, for errors.

    Raises:
      UserError: it is empty, ends within the header, or is no MIDI file.
    """
    data, warnings = unwrap(data, name)
    if len(data) < HEADER_BYTES:
        raise UserError(f"{name}: the file is truncated; export or download it again")
    length = int.from_bytes(data[4:8], "big")
    kind, count, division = (int.from_bytes(data[i:i + 2], "big") for i in (8, 10, 12))
    reader = _Reader(data, warnings)
    # Longer headers are allowed; a length that leads nowhere is a damaged one.
    reader.read(8 + length if length >= 6 and reader.is_chunk(8 + length) else HEADER_BYTES)
    if reader.found != count:
        warnings.append(f"the header announces {count} tracks, but there are {reader.found}")
    return Smf(format=kind, division=division, tracks=tuple(reader.tracks), warnings=tuple(warnings))


class _Reader:
    """Walks the chunks of a file."""

    def __init__(self, data: bytes, warnings: list[str]):
        self.data, self.warnings = data, warnings
        self.tracks: list[Track] = []
        self.found = 0  # tracks, the empty ones too
        self.trials = TRIALS

    def is_chunk(self, at: int) -> bool:
        """Does a chunk begin here, or does the file end?"""
        data = self.data
        if at == len(data) or data[at:at + 4] in (b"MTrk", b"MThd"):
            return True
        after = at + 8 + int.from_bytes(data[at + 4:at + 8], "big")
        return data[at:at + 4].isalnum() and (
            after == len(data) or data[after:after + 4] in (b"MTrk", b"MThd"))

    def read(self, at: int) -> None:
        """Reads all tracks from here to the end."""
        data = self.data
        while at < len(data) and self.found < MAX_TRACKS:
            name, length = data[at:at + 4], int.from_bytes(data[at + 4:at + 8], "big")
            if name == b"MTrk" and at + 8 <= len(data):
                at = self._track(at + 8, at + 8 + length)
            elif name == b"MThd":
                self.warnings.append("another MIDI file follows in the same file; it is not read")
                return
            elif self.is_chunk(at):
                at += 8 + length  # of another kind, which the standard allows
            else:
                found = data.find(b"MTrk", at)
                if found < 0:
                    return  # what follows the last track is nobody's
                self.warnings.append(f"{found - at} bytes between the tracks are not MIDI")
                at = found

    def _track(self, body: int, nominal: int) -> int:
        """Reads a track that should end at `nominal`; returns where the next chunk may begin."""
        data = self.data
        self.found += 1
        limit, trusted = nominal, self.is_chunk(nominal)
        if not trusted:
            limit = data.find(b"MTrk", body)
            limit = len(data) if limit < 0 else limit
        events = _Events(data[body:limit], self.trials)
        read = body + events.read()
        self.trials = events.trials
        where = f"track {self.found}"
        if events.dropped or events.clipped:
            said = [f"damaged events left out: {events.dropped}"] * bool(events.dropped) + [
                f"values above 127 lowered to it: {events.clipped}"] * bool(events.clipped)
            self.warnings.append(f"{where}: {', '.join(said)}")
        if events.given_up:
            self.warnings.append(f"{where}: too damaged to be read beyond byte {read}")
        elif events.short:
            self.warnings.append(f"{where}: bytes are missing at its end"
                                 + (": the file is truncated" if limit == len(data) else ""))
        elif trusted and any(data[read:nominal]):
            self.warnings.append(f"{where}: {nominal - read} bytes after its end are not read")
        elif not trusted and read != nominal:
            self.warnings.append(f"{where}: its length in the file is wrong")
        if len(events.ticks):
            self.tracks.append(events.track())
        return nominal if trusted else read


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Reads a variable-length quantity of at most four bytes; returns it (-1: longer) and its end."""
    value = 0
    for i in range(at, at + 4):
        value = value << 7 | data[i] & 127
        if data[i] < 128:
            return value, i + 1
    return -1, at


class _Events:
    """Reads the events of one track."""

    def __init__(self, data: bytes, trials: int):
        self.data, self.trials = data, trials
        self.ticks = array.array("q")
        self.packed = array.array("I")  # status << 16 | data 1 << 8 | data 2
        self.payloads: dict[int, bytes] = {}
        self.dropped = self.clipped = self.now = self.running = 0
        self.short = self.given_up = False

    def track(self) -> Track:
        packed = np.frombuffer(self.packed, np.uint32)
        message = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], 1).astype(np.uint8)
        return Track(tick=np.frombuffer(self.ticks, np.int64), message=message, data=self.payloads,
                     end=self.now)

    def read(self) -> int:
        """Reads all events; returns where the track ends."""
        at = 0
        while True:
            at, whole = self.run(at)
            if whole:
                return at
            if self.short and END not in self.data[at + 1:]:
                return len(self.data)  # nothing is damaged, the rest is not there
            self.short = False
            resumed = self._recover(at)
            if resumed is None:
                self.given_up = True
                return at
            at = resumed

    def run(self, at: int) -> tuple[int, bool]:
        """Reads until the end of the track, or up to an event that is damaged.

        Returns where it stopped, and whether that is the end. `short` says that
        the bytes do not suffice for the event.
        """
        data, running, now = self.data, self.running, self.now
        add_tick, add = self.ticks.append, self.packed.append
        size, start = len(data), at
        try:
            while at < size:
                start = at
                delta = data[at]
                at += 1
                if delta > 127:
                    delta, at = _number(data, start)
                    if delta < 0:
                        return start, False
                status = data[at]
                if status > 127:
                    at += 1
                else:  # running status, which survives meta events in many files
                    status = running
                if status < 0xF0:
                    first = data[at]
                    if 0xC0 <= status < 0xE0:
                        second = 0
                        at += 1
                    else:
                        second = data[at + 1]
                        at += 2
                    if first > 127 or second > 127 or status < 128:
                        return start, False
                    running = status
                    now += delta
                    add_tick(now)
                    add(status << 16 | first << 8 | second)
                    continue
                kind = 0
                if status == META:
                    kind = data[at]
                    at += 1
                elif status != SYSEX and status != ESCAPE:
                    return start, False
                length, at = _number(data, at)
                at += length
                if length < 0 or kind > 127:
                    return start, False
                if at > size:
                    self.short = True
                    return start, False
                now += delta
                if kind == END_OF_TRACK:
                    return at, True
                if status != META or kind in KEPT:
                    self._keep(status, kind, now, data[at - length:at])
            return at, True
        except IndexError:
            self.short = True
            return start, False
        finally:
            self.running, self.now = running, now

    def _keep(self, status: int, kind: int, now: int, payload: bytes) -> None:
        last = len(self.ticks) - 1
        if status == ESCAPE:  # the next packet of an exclusive message, or bytes for other devices
            if last in self.payloads and self.packed[last] == SYSEX << 16 \
                    and not self.payloads[last].endswith(b"\xf7"):
                self.payloads[last] += payload
            return
        self.ticks.append(now)
        self.packed.append(status << 16 | kind << 8)
        self.payloads[last + 1] = payload

    def _recover(self, start: int) -> int | None:
        """Goes past a damaged event; returns where to read on, None: the search is too long."""
        data = self.data
        try:
            delta, at = _number(data, start)
            explicit = data[at] > 127
            status = data[at] if explicit else self.running
            at += explicit
            first, second = data[at], 0 if 0xC0 <= status < 0xE0 else data[at + 1]
            at += 1 if 0xC0 <= status < 0xE0 else 2
        except IndexError:
            delta, explicit, status, first, second = 0, False, 0, 0, 0
        delta = delta if 0 <= delta <= LONGEST_DELTA else 0
        pace = self._pace(at) if 128 <= status < 0xF0 else None
        if pace is not None and pace < (LONGEST_DELTA if explicit else USUAL_PACE):
            self.now += delta
            if first > 127:
                self.dropped += 1
            else:  # a value such as a velocity: the largest one is meant
                self.clipped += 1
                self.running = status
                self.ticks.append(self.now)
                self.packed.append(status << 16 | first << 8 | min(second, 127))
            return at
        self.dropped += 1
        self.now += delta
        return self._resume(start + 1)

    def _resume(self, at: int) -> int | None:
        """Finds the next place from which the bytes read as events of a likely pace."""
        while at < len(self.data):
            paces = {q: pace for q in range(at, min(at + WINDOW, len(self.data)))
                     if (pace := self._pace(q)) is not None}
            if paces:
                # Out of step, status bytes are taken for long waits.
                best = max(2 * min(paces.values()), USUAL_PACE)
                return next(q for q, pace in paces.items() if pace <= best)
            if self.trials <= 0:
                return None
            at += WINDOW
        return len(self.data)

    def _pace(self, at: int) -> float | None:
        """Reads ahead; returns the mean ticks of an event, None: there is damage.

        Keys that hardly any instrument has count as long waits: out of step, with
        running status, velocities and waits are taken for keys.
        """
        self.trials -= 1
        ahead = _Events(self.data[at:at + AHEAD], 0)
        ahead.running = self.running
        _, whole = ahead.run(0)
        if self.trials < 0 or not (whole or ahead.short):
            return None
        if len(ahead.ticks) < 2:  # a text or an end, which anything may look like
            return float(LONGEST_DELTA)
        notes = [packed >> 8 & 255 for packed in ahead.packed if packed >> 21 == 4]
        odd = sum(not LOWEST_KEY <= key <= HIGHEST_KEY for key in notes)
        return (ahead.now + odd * ODD_KEY_TICKS) / len(ahead.ticks)


def format_smf(tracks: Iterable[Iterable[tuple[int, bytes]]], division: int) -> bytes:
    """Returns the bytes of a format 1 file.

    Args:
      tracks: of each track its events in order: (tick, bytes), where the bytes
        are a channel message, or FF, type, length and data of a meta event.
        End of Track is added.
      division: ticks per quarter note, 1..32767.
    """
    chunks = [_track_bytes(events) for events in tracks]
    header = b"".join(n.to_bytes(2, "big") for n in (1, len(chunks), division))
    return b"".join(name + len(body).to_bytes(4, "big") + body
                    for name, body in [(b"MThd", header), *((b"MTrk", c) for c in chunks)])


def _track_bytes(events: Iterable[tuple[int, bytes]]) -> bytes:
    body, now, running = bytearray(), 0, None
    for tick, event in events:
        delta = tick - now
        if not 0 <= delta < 1 << 28:
            raise ValueError(f"{delta} ticks between two events; the format has 0..{(1 << 28) - 1}")
        for shift in (21, 14, 7):
            if delta >> shift:
                body.append(128 | delta >> shift & 127)
        body.append(delta & 127)
        body += event[event[0] == running:]  # a status byte that repeats is left out
        now, running = tick, event[0] if event[0] < SYSEX else None
    return bytes(body) + b"\0" + END
