"""Standard MIDI files ↔ notes.

Reads formats 0 and 1 with tempo maps, program changes, sustain pedal and
drums on channel 10. Parsing of the bytes is mido's; what the bytes mean as
notes is here, in seconds, because mido's own playback time loses nothing but
is too slow for hour-long files.
"""

from __future__ import annotations

import os
import pathlib
import warnings

import mido
import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.sustain import apply_sustain

DRUM_CHANNEL = 9  # channel 10 counted from one
MAX_SECONDS = 18 * 3600.0  # longer is a broken tempo, and more than a float WAV file holds
MIN_NOTE_SECONDS = 0.01  # one step of the event codec; shorter notes are lengthened to it
DEFAULT_TEMPO = 500_000  # microseconds per quarter note


def read_midi(path: str | os.PathLike) -> Notes:
    """Reads a MIDI file as notes.

    Args:
      path: a format 0 or 1 file.

    Returns:
      The notes in seconds, pedal applied; zero-length notes last 10 ms.

    Raises:
      UserError: the file is missing, empty, truncated, not MIDI, of format 2,
        timed in SMPTE frames, longer than 18 hours, or has no notes.
    """
    midi = _parse(pathlib.Path(path))
    seconds_of = _tempo_map(midi, path)
    notes, channel, pedal = _collect(midi, seconds_of)
    if not len(notes):
        raise UserError(f"{path}: the file has no notes; choose a MIDI file with at least one")
    if notes.duration > MAX_SECONDS:
        raise UserError(f"{path}: the last note ends after {notes.duration / 3600:.0f} hours; "
                        "check the file's tempo (18 hours at most)")
    notes = apply_sustain(notes, channel, *pedal)
    return Notes(notes.start, np.maximum(notes.end, notes.start + MIN_NOTE_SECONDS),
                 notes.pitch, notes.velocity, notes.program, notes.is_drum)


def write_midi(notes: Notes, path: str | os.PathLike, *, ticks_per_beat: int = 480,
               tempo: int = DEFAULT_TEMPO) -> None:
    """Writes notes as a format 1 file, one track per program, times rounded to ticks.

    Args:
      notes: any number of notes.
      path: where to write.
      ticks_per_beat: resolution; with the default tempo a tick is 1.04 ms.
      tempo: microseconds per quarter note.
    """
    midi = mido.MidiFile(type=1, ticks_per_beat=ticks_per_beat)
    head = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=tempo)])
    midi.tracks.append(head)
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
    for channel, program, mask in parts:
        midi.tracks.append(_track(notes[mask], channel, program, ticks, shared))
    midi.save(path)


def _track(notes: Notes, channel: int, program: int, ticks_per_second: float,
           shared: bool) -> mido.MidiTrack:
    start = np.round(notes.start * ticks_per_second).astype(int)
    end = np.maximum(np.round(notes.end * ticks_per_second).astype(int), start + 1)
    # Offs come before ons of the same tick, so that a repeated note is not cut by its forerunner.
    events = sorted([(int(e), 0, int(p), 0) for e, p in zip(end, notes.pitch, strict=True)]
                    + [(int(s), 1, int(p), int(v)) for s, p, v in
                       zip(start, notes.pitch, notes.velocity, strict=True)])
    track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program)])
    now = 0
    for tick, on, pitch, velocity in events:
        if on and shared:  # another track may have changed the channel's program since
            track.append(mido.Message("program_change", channel=channel, program=program,
                                      time=tick - now))
            now = tick
        track.append(mido.Message("note_on" if on else "note_off", channel=channel, note=pitch,
                                  velocity=velocity, time=tick - now))
        now = tick
    return track


def _parse(path: pathlib.Path) -> mido.MidiFile:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give one MIDI file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    with path.open("rb") as f:
        head = f.read(4)
    if head != b"MThd":
        raise UserError(f"{path}: not a MIDI file (it does not begin with MThd)")
    try:
        midi = mido.MidiFile(path, clip=True)
    except EOFError as e:
        raise UserError(f"{path}: the file is truncated; export or download it again") from e
    except Exception as e:  # mido raises many kinds on damaged bytes; all mean the same here
        raise UserError(f"{path}: damaged MIDI data ({type(e).__name__}: {_one_line(e)})") from e
    if midi.type == 2:
        raise UserError(f"{path}: MIDI format 2 holds independent patterns; export it as format 1")
    if midi.type not in (0, 1):
        raise UserError(f"{path}: unknown MIDI format {midi.type}")
    if not 0 < midi.ticks_per_beat < 32768:
        raise UserError(f"{path}: timed in SMPTE frames or zero ticks; export it in ticks per beat")
    return midi


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _tempo_map(midi: mido.MidiFile, path):
    """A vectorised function ticks → seconds."""
    ticks, tempos = [0], [DEFAULT_TEMPO]
    changes = []
    for track in midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type == "set_tempo":
                changes.append((now, message.tempo))
    for tick, tempo in sorted(changes, key=lambda c: c[0]):
        if tempo <= 0:
            raise UserError(f"{path}: a tempo of 0 microseconds per beat; set a tempo and export again")
        if tick == ticks[-1]:
            tempos[-1] = tempo
        else:
            ticks.append(tick)
            tempos.append(tempo)
    tick_at = np.array(ticks, np.float64)
    per_tick = np.array(tempos, np.float64) / 1e6 / midi.ticks_per_beat
    second_at = np.concatenate([[0.0], np.cumsum(np.diff(tick_at) * per_tick[:-1])])

    def seconds_of(tick: np.ndarray) -> np.ndarray:
        i = np.searchsorted(tick_at, tick, side="right") - 1
        return second_at[i] + (tick - tick_at[i]) * per_tick[i]

    return seconds_of


def _collect(midi: mido.MidiFile, seconds_of):
    """Pairs note-ons with note-offs over all tracks in order of time.

    Returns the notes (sorted as `Notes` sorts), the channel of each, and the
    pedal events (time, channel, value).
    """
    events = []
    for track in midi.tracks:
        now = 0
        for message in track:
            now += message.time
            if message.type in ("note_on", "note_off", "program_change", "control_change"):
                events.append((now, message))
    # Stable sort: within one tick the order of the file counts.
    events.sort(key=lambda e: e[0])
    last_tick = events[-1][0] if events else 0
    program = [0] * 16
    open_notes: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    rows, pedals = [], []
    for tick, m in events:
        if m.type == "program_change":
            program[m.channel] = m.program
        elif m.type == "control_change":
            if m.control == 64:
                pedals.append((tick, m.channel, m.value))
        elif m.type == "note_on" and m.velocity > 0:
            open_notes.setdefault((m.channel, m.note), []).append(
                (tick, m.velocity, program[m.channel]))
        else:
            waiting = open_notes.get((m.channel, m.note))
            if waiting:  # first in, first out
                start, velocity, prog = waiting.pop(0)
                rows.append((start, tick, m.note, velocity, prog, m.channel))
    for (channel, pitch), waiting in open_notes.items():  # never released: end with the file
        rows.extend((s, last_tick, pitch, v, p, channel) for s, v, p in waiting)
    table = np.array(rows, np.int64).reshape(-1, 6)
    start, end, pitch, velocity, prog, channel = table.T
    drum = channel == DRUM_CHANNEL
    start_s, end_s = seconds_of(start), seconds_of(end)
    prog = np.where(drum, 0, prog)
    order = np.lexsort((pitch, prog, drum, start_s))
    notes = Notes(start_s[order], end_s[order], pitch[order], velocity[order], prog[order], drum[order])
    pedal = np.array(pedals, np.int64).reshape(-1, 3)
    return notes, channel[order], (seconds_of(pedal[:, 0]), pedal[:, 1], pedal[:, 2])
