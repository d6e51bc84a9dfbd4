"""Standard MIDI files ↔ notes.

`smf` reads the bytes and `channels` follows what each channel is set to; what
they mean as notes is here: which events make a note, and from when to when in
seconds. What a file asks for beyond notes is counted, not played.
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes import channels as ch
from music_diffusion.notes import smf
from music_diffusion.notes.bars import bar_starts
from music_diffusion.notes.channels import Events
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.pairing import NEVER, pair_notes
from music_diffusion.notes.smf_container import MAX_BYTES
from music_diffusion.notes.sustain import SOSTENUTO_CONTROL, SUSTAIN_CONTROL, Pedal, apply_pedals
from music_diffusion.notes.sysex import DRUM_CHANNEL
from music_diffusion.notes.unplayed import RESET_CONTROLLERS, count_unplayed

MAX_SECONDS = 18 * 3600.0  # longer is a broken tempo, and more than a float WAV file holds
MIN_NOTE_SECONDS = 0.01  # one step of the event codec; shorter notes are lengthened to it
# Of notes without a note-off, unless their key is struck again or all notes are ended before:
HANGING_SECONDS = 10.0  # at most
HANGING_LAST_SECONDS = 0.5  # at least, where the file ends first
HIT_SECONDS = 0.1  # a drum's
DEFAULT_TEMPO = 500_000  # microseconds per quarter note
ALL_SOUND_OFF = 120  # channel mode messages
ALL_NOTES_OFF = (ALL_SOUND_OFF, 123, 124, 125, 126, 127)  # the last four change omni and mono mode
SMPTE_RATES = {24: 24.0, 25: 25.0, 29: 30_000 / 1001, 30: 30.0}  # frames per second
TEMPO_RESET = bytes((smf.META, smf.TEMPO, 0))
GM_ON = b"\x7e\x7f\x09\x01\xf7"

Seconds = Callable[[np.ndarray], np.ndarray]  # ticks → seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class MidiFile:
    """The notes of a MIDI file, and what else is to be said about it."""

    path: str
    notes: Notes
    warnings: tuple[str, ...]  # what is wrong with the file, a sentence each
    ignored: dict[str, int]  # what it asks for and notes do not play → messages that would be heard
    bars: tuple[float, ...] = ()  # seconds at which bars begin, and the end of the last; (): it has none

    def report(self) -> tuple[str, ...]:
        """Returns lines for a person: the warnings, and what is not played in one line."""
        lines = [f"{self.path}: {warning}" for warning in self.warnings]
        if self.ignored:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in self.ignored.items())
            lines.append(f"{self.path}: the file asks for what is not played: {kinds}")
        return tuple(lines)


def read_midi(path: str | os.PathLike) -> Notes:
    """Reads the notes of a MIDI file; `read_midi_file` returns what else it asks for, too.

    What is wrong with the file, yet does not keep it from being read, is a Python warning.
    See `read_midi_file` for arguments, the meaning of the notes and errors.
    """
    file = read_midi_file(path)
    for warning in file.warnings:
        warnings.warn(f"{file.path}: {warning}", stacklevel=2)
    return file.notes


def read_midi_file(path: str | os.PathLike) -> MidiFile:
    """Reads a MIDI file as notes, with a report.

    Args:
      path: of the file, or of a pipe; see `smf` and `smf_container` for the
        forms it may have. Tracks of format 2 follow each other.

    Returns:
      The notes in seconds, pedals applied; zero-length notes last 10 ms. Notes
      keep the program that they begin with. Drums are the notes of channel 10
      and of those that the file makes drums by GS, XG or GM2 messages.

    Raises:
      UserError: the file is missing, empty, not MIDI, has no division of time,
        is longer than 18 hours, or has no notes.
    """
    name = str(path)
    file = smf.parse_smf(_read_bytes(path), name)
    said = list(file.warnings)
    tracks = file.tracks
    if file.format == 2 and len(tracks) > 1:
        said.append("its tracks are patterns (format 2), which are played one after another")
        tracks = _in_turn(tracks)
    elif file.format > 2:
        said.append(f"unknown MIDI format {file.format}, read as format 1")
    events = ch.merge(tracks)
    seconds_of = _tempo_map(events, file.division, name, said)
    states, resets, asked = ch.follow(events)
    notes, event, cut, surplus = _collect(events, states, resets, seconds_of)
    if not len(notes):
        why = f" ({said[0]})" if said else ""
        raise UserError(f"{name}: the file has no notes{why}; choose a MIDI file with at least one")
    if notes.duration > MAX_SECONDS:
        raise UserError(f"{name}: the last note ends after {notes.duration / 3600:.0f} hours; "
                        "check the file's tempo (18 hours at most)")
    if surplus:
        said.append(f"notes without a note-off: {surplus}; they end when their key is struck again, or "
                    f"after {HANGING_SECONDS:.0f} seconds")
    channel, time = events.channel[event], seconds_of(events.tick)
    notes = apply_pedals(notes, channel, _pedal(events, SUSTAIN_CONTROL, resets, time),
                         _pedal(events, SOSTENUTO_CONTROL, resets, time))
    end = np.maximum(np.minimum(notes.end, cut), notes.start + MIN_NOTE_SECONDS)
    notes = dataclasses.replace(notes, end=end)
    ignored = count_unplayed(events, time, notes, channel, states, states.at(events, event), resets, asked)
    return MidiFile(path=name, notes=notes, warnings=tuple(said), ignored=ignored,
                    bars=bar_starts(events, file.division, seconds_of, notes.duration))


def _read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file or pipe, once; no more than can be of use."""
    try:
        with open(path, "rb") as f:
            return f.read(MAX_BYTES + 1)
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file") from e
    except IsADirectoryError as e:
        raise UserError(f"{path}: is a folder; give one MIDI file") from e
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e


def _in_turn(tracks: tuple[smf.Track, ...]) -> tuple[smf.Track, ...]:
    """Moves tracks behind each other; each begins with the initial tempo and sounds."""
    moved, now = [], 0
    for track in tracks:
        head = {0: DEFAULT_TEMPO.to_bytes(3, "big"), 1: GM_ON}
        message = np.array([[smf.META, smf.TEMPO, 0], [smf.SYSEX, 0, 0]], np.uint8)
        moved.append(smf.Track(
            tick=np.append([now, now], track.tick + now), end=track.end + now,
            message=np.concatenate([message, track.message]),
            data=head | {i + 2: payload for i, payload in track.data.items()}))
        now += track.end
    return tuple(moved)


def _tempo_map(events: Events, division: int, name: str, said: list[str]) -> Seconds:
    """Returns a vectorised function; adds to `said` what is wrong with tempos."""
    if division & 0x8000:  # SMPTE: frames per second, negative, and ticks per frame
        rate, ticks = SMPTE_RATES.get(256 - (division >> 8)), division & 255
        if rate is None or not ticks:
            raise UserError(f"{name}: timed in SMPTE frames of no known rate; export it in ticks per beat")
        return lambda tick: tick / (rate * ticks)
    if division == 0:
        raise UserError(f"{name}: zero ticks per beat; export it again")
    tick_at, tempos, bad = [0], [DEFAULT_TEMPO], 0
    struck = np.flatnonzero((events.kind == ch.NOTE_ON) & (events.second > 0))
    last_note = struck[-1] if len(struck) else 0
    for i in np.flatnonzero((events.kind == smf.META) & (events.first == smf.TEMPO)).tolist():
        payload, tick = events.data[i][:3], int(events.tick[i])
        tempo = int.from_bytes(payload, "big") if len(payload) == 3 else 0
        if not tempo:
            bad += i < last_note
        elif tick == tick_at[-1]:
            tempos[-1] = tempo
        else:
            tick_at.append(tick)
            tempos.append(tempo)
    if bad:
        said.append(f"tempo events without a tempo: {bad}, ignored")
    since = np.array(tick_at, np.float64)
    per_tick = np.array(tempos, np.float64) / 1e6 / division
    second_at = np.concatenate([[0.0], np.cumsum(np.diff(since) * per_tick[:-1])])

    def seconds_of(tick: np.ndarray) -> np.ndarray:
        i = np.searchsorted(since, tick, side="right") - 1
        return second_at[i] + (tick - since[i]) * per_tick[i]

    return seconds_of


def _collect(events: Events, states: ch.States, resets: np.ndarray, seconds_of: Seconds):
    """Makes notes of note-ons and what ends them, over all tracks.

    Returns the notes (sorted as `Notes` sorts), the event that begins each, the
    seconds [N] at which all sound of its channel ends, and the number of notes
    (without drums) that nothing in the file ends.
    """
    index = np.flatnonzero((events.kind == ch.NOTE_ON) | (events.kind == ch.NOTE_OFF))
    on = (events.kind[index] == ch.NOTE_ON) & (events.second[index] > 0)
    stops = _Stops(events, ALL_NOTES_OFF, resets)
    group = (stops.after(index) * events.channels + events.channel[index]) * 128 + events.first[index]
    last, surplus = pair_notes(group, events.tick[index], on)
    end, index = seconds_of(events.tick[index[last]]), index[on]
    start, pitch = seconds_of(events.tick[index]), events.first[index].astype(np.int32)
    state = states.at(events, index)
    drums = states.drums[state]
    never = np.flatnonzero(last == NEVER)
    stop = stops.time(index[never], seconds_of)
    end[never] = np.minimum(stop, np.maximum(seconds_of(np.array([events.end])),
                                             start[never] + HANGING_LAST_SECONDS))
    longest = start + np.where(drums, HIT_SECONDS, HANGING_SECONDS)
    odd = surplus & ~drums
    odd[never] &= stop > longest[never]  # others end as they are asked to
    end = np.where(surplus, np.minimum(end, longest), end)
    program = np.where(drums, 0, states.program[state])
    # Among notes that are alike in these, those that end first come first.
    ended = np.where(last == NEVER, len(events.tick), last)
    order = np.lexsort((ended, pitch, program, drums, start))
    notes = Notes(start[order], end[order], pitch[order], events.second[index][order], program[order],
                  drums[order])
    cut = _Stops(events, (ALL_SOUND_OFF,), resets).time(index, seconds_of)
    return notes, index[order], cut[order], int(odd.sum())


class _Stops:
    """The messages that end the notes of a channel.

    They come before the notes of their own tick: many files set up their
    channels at the first one, in some track.
    """

    def __init__(self, events: Events, controls: tuple[int, ...], resets: np.ndarray):
        found = np.flatnonzero((events.kind == ch.CONTROL) & np.isin(events.first, controls))
        self.events = events
        index = np.concatenate([found, np.repeat(resets, 16)])
        channel = np.concatenate([
            events.channel[found], (events.channel[resets][:, None] + np.arange(16)).reshape(-1)])
        index = np.searchsorted(events.tick, events.tick[index])
        order = np.lexsort((index, channel))
        self.index, self.channel = index[order], channel[order]
        self.key = self._key(self.index, self.channel)

    def _key(self, index: np.ndarray, channel: np.ndarray) -> np.ndarray:
        return channel.astype(np.int64) * len(self.events.tick) + index

    def after(self, index: np.ndarray) -> np.ndarray:
        """Returns for events the number of the next stop, of their channel or of a later one."""
        return np.searchsorted(self.key, self._key(index, self.events.channel[index]), side="right")

    def time(self, index: np.ndarray, seconds_of: Seconds) -> np.ndarray:
        """Returns for events the seconds of the next stop of their channel; inf without one."""
        k = self.after(index)
        theirs = np.append(self.channel, -1)[k] == self.events.channel[index]
        time = np.append(seconds_of(self.events.tick[self.index]), np.inf)[k]
        return np.where(theirs, time, np.inf)


def _pedal(events: Events, control: int, resets: np.ndarray, time: np.ndarray) -> Pedal:
    """Gathers the movements of a pedal; resets lift it."""
    moved, cleared = events.control(control), events.control(RESET_CONTROLLERS)
    index = np.concatenate([moved, cleared, np.repeat(resets, 16)])
    channel = events.channel[index]
    channel[len(index) - 16 * len(resets):] += np.tile(np.arange(16), len(resets))
    value = np.where(np.arange(len(index)) < len(moved), events.second[index], 0)
    order = np.argsort(index, kind="stable")
    return Pedal(time[index][order], channel[order], value[order])


def write_midi(notes: Notes, path: str | os.PathLike, *, ticks_per_beat: int = 480,
               tempo: int = DEFAULT_TEMPO) -> None:
    """Writes notes as a format 1 file, one track per program, times rounded to ticks.

    Args:
      notes: any number of notes.
      path: where to write.
      ticks_per_beat: resolution; with the default tempo a tick is 1.04 ms.
      tempo: microseconds per quarter note.
    """
    head = bytes((smf.META, smf.TEMPO, 3)) + tempo.to_bytes(3, "big")
    tracks = [[(0, head)]]
    melodic = [p for p in np.unique(notes.program[~notes.is_drum])]
    channels = [c for c in range(16) if c != DRUM_CHANNEL]
    shared = len(melodic) > len(channels)
    if shared:
        warnings.warn(f"{len(melodic)} programs share 15 MIDI channels; where two of one channel "
                      "hold the same pitch, their ends may be exchanged", stacklevel=2)
    parts = [(channels[i % 15], int(p), ~notes.is_drum & (notes.program == p))
             for i, p in enumerate(melodic)]
    if notes.is_drum.any():
        parts.append((DRUM_CHANNEL, 0, notes.is_drum))
    ticks = 1e6 / tempo * ticks_per_beat
    tracks += [_track(notes[mask], channel, program, ticks, shared) for channel, program, mask in parts]
    data = smf.format_smf(tracks, ticks_per_beat)
    with open(path, "wb") as f:
        f.write(data)


def _track(notes: Notes, channel: int, program: int, ticks_per_second: float,
           shared: bool) -> list[tuple[int, bytes]]:
    start = np.round(notes.start * ticks_per_second).astype(int)
    end = np.maximum(np.round(notes.end * ticks_per_second).astype(int), start + 1)
    # Offs come before ons of the same tick, so that a repeated note is not cut by its forerunner.
    events = sorted([(int(e), 0, int(p), 0) for e, p in zip(end, notes.pitch, strict=True)]
                    + [(int(s), 1, int(p), int(v)) for s, p, v in
                       zip(start, notes.pitch, notes.velocity, strict=True)])
    chosen = bytes((ch.PROGRAM | channel, program))
    track = [(0, chosen)]
    for tick, on, pitch, velocity in events:
        if on and shared:  # another track may have changed the channel's program since
            track.append((tick, chosen))
        track.append((tick, bytes(((ch.NOTE_ON if on else ch.NOTE_OFF) | channel, pitch, velocity))))
    return track
