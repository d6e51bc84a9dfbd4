"""Notes ↔ MT3 event tokens, one sequence per segment of 5.12 s.

The vocabulary and the grammar of "MT3: Multi-Task Multitrack Music
Transcription" (Gardner et al., 2022, section 3.2), which Spectrogram Diffusion
(Hawthorne et al., 2022) reads as its input. A segment is

    [program pitch …] tie   notes that already sound at its start, then
    shift                   time in 10 ms steps since the start of the segment
    program velocity pitch  a note begins (velocity > 0) or ends (velocity 0)
    velocity drum           a drum is struck; drums have no end
    EOS

Shifts are absolute within the segment. Program and velocity are states: each
is written only where it changes, beginning afresh with every segment. Events
of one step are ordered ends before onsets, melodic before drums, then by
program and pitch. Like MT3, a note that ends exactly at the start of a segment
is tied into it and ends at its step 0, and a note that begins there does not
appear in the one before.

What a token sequence can hold is less than what `Notes` can: `quantize`
is that projection, and `decode(encode(notes)) == quantize(notes)`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import GRANULARITIES
from music_diffusion.notes.vocabulary import (
    EOS_ID,
    PAD_ID,
    EventConfig,
    bin_to_velocity,
    velocity_to_bin,
)


@dataclasses.dataclass(frozen=True)
class Segment:
    """The tokens of one stretch of time."""

    start: float  # seconds
    end: float  # seconds, > start
    ids: np.ndarray  # [n] int32, not padded


class _Table(typing.NamedTuple):
    """Quantised notes, sorted by (is_drum, program, pitch, start). All [N] int64 or bool."""

    start: np.ndarray  # steps
    end: np.ndarray  # steps, > start; drums: start + 1
    pitch: np.ndarray
    velocity: np.ndarray  # bin, >= 1
    program: np.ndarray
    is_drum: np.ndarray

    def take(self, index: np.ndarray) -> _Table:
        return _Table(*(column[index] for column in self))


def _quantize(notes: Notes, config: EventConfig) -> _Table:
    start = np.rint(notes.start * config.steps_per_second).astype(np.int64)
    end = np.rint(notes.end * config.steps_per_second).astype(np.int64)
    end = np.where(notes.is_drum, start + 1, np.maximum(end, start + 1))
    program = GRANULARITIES[config.granularity](notes.program)
    program = np.where(notes.is_drum, 0, program).astype(np.int64)
    velocity = velocity_to_bin(notes.velocity.astype(np.int64), config.velocity_bins)
    table = _Table(start, end, notes.pitch.astype(np.int64), velocity, program, notes.is_drum)
    table = table.take(np.lexsort((start, table.pitch, program, notes.is_drum)))
    if not len(start):
        return table
    # One voice per (instrument, pitch): notes struck together become the longest and loudest of
    # them, and a note that still sounds when the next one begins ends there.
    key = (table.is_drum * 128 + table.program) * 128 + table.pitch
    same = (np.diff(key) == 0) & (np.diff(table.start) == 0)
    first = np.flatnonzero(np.concatenate([[True], ~same]))
    end = np.maximum.reduceat(table.end, first)
    velocity = np.maximum.reduceat(table.velocity, first)
    table, key = table.take(first), key[first]
    next_start = np.append(table.start[1:], np.iinfo(np.int64).max)
    continues = np.append(key[1:] == key[:-1], False)
    end = np.where(continues, np.minimum(end, next_start), end)
    return table._replace(end=end, velocity=velocity)


def quantize(notes: Notes, config: EventConfig) -> Notes:
    """The notes that the tokens of `notes` stand for.

    Times are rounded to steps (half to even), with at least one step a note;
    programs and velocities are those of the granularity and bins; drums last
    one step. Of overlapping notes with one program and pitch the earlier ends
    where the later begins; of those that begin in one step one stays, with the
    largest end and velocity.
    """
    t = _quantize(notes, config)
    return Notes(t.start / config.steps_per_second, t.end / config.steps_per_second, t.pitch,
                 bin_to_velocity(t.velocity, config.velocity_bins), t.program, t.is_drum)


def encode_segment(notes: Notes, start: float, end: float, *, config: EventConfig) -> np.ndarray:
    """Tokens of the stretch [start, end) of a piece, whatever their number.

    Args:
      notes: [N] notes of the whole piece, at their own times.
      start: seconds, on the grid of steps.
      end: seconds, on the grid of steps, at most `segment_steps` later.
      config: the token format.

    Returns:
      [n] int32 ids; `max_length` is not looked at.
    """
    steps = np.array([start, end]) * config.steps_per_second
    first, last = np.rint(steps).astype(int)
    if np.abs(steps - [first, last]).max() > 1e-4:
        raise ValueError(f"{start=} and {end=} must be multiples of 1/{config.steps_per_second} s")
    if not 0 <= first < last <= first + config.segment_steps:
        raise ValueError(f"{start=}, {end=} must ascend by at most {config.segment_steps} steps")
    return _encode_steps(_quantize(notes, config), first, last, config)


def _encode_steps(table: _Table, first: int, last: int, config: EventConfig) -> np.ndarray:
    """Tokens of steps [first, last) → [n] int32."""
    id_of = config.vocabulary.first_ids
    with_programs = GRANULARITIES[config.granularity].has_program_events
    tied = ~table.is_drum & (table.start < first) & (table.end >= first)
    tie_rows = _columns(
        program=_changes(table.program[tied]) if with_programs else None,
        pitch=table.pitch[tied] + id_of["pitch"], program_id=id_of["program"])

    on = (table.start >= first) & (table.start < last)
    off = ~table.is_drum & (table.end >= first) & (table.end < last)
    n_off = int(off.sum())
    step = np.concatenate([table.end[off], table.start[on]]) - first
    is_on = np.arange(len(step)) >= n_off
    pitch, program, drum = (np.concatenate([column[off], column[on]])
                            for column in (table.pitch, table.program, table.is_drum))
    velocity = np.concatenate([np.zeros(n_off, np.int64), table.velocity[on]])
    order = np.lexsort((pitch, program, drum, is_on, step))
    step, pitch, program, drum, velocity = (
        a[order] for a in (step, pitch, program, drum, velocity))

    # Drums leave the program state alone; the state lasts from the tie section on.
    known = table.program[tied][-1:]
    program_event = np.full(len(step), -1, np.int64)
    program_event[~drum] = _changes(program[~drum], known)
    rows = _columns(
        shift=_changes(step, np.zeros(1, np.int64)), shift_id=id_of["shift"],
        program=program_event if with_programs else None, program_id=id_of["program"],
        velocity=_changes(velocity), velocity_id=id_of["velocity"],
        pitch=pitch + np.where(drum, id_of["drum"], id_of["pitch"]))
    ids = [tie_rows, [id_of["tie"]], rows, [EOS_ID] if config.add_eos else []]
    return np.concatenate(ids).astype(np.int32)


def _changes(values: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
    """`values` [n] where they differ from their forerunner, else -1; `before` is [0 or 1]."""
    before = np.full(1, -1) if before is None or not len(before) else before
    return np.where(np.diff(values, prepend=before) != 0, values, -1)


def _columns(*, pitch, shift=None, shift_id=0, program=None, program_id=0, velocity=None,
             velocity_id=0) -> np.ndarray:
    """Interleaves columns [n] of events, leaving out those of value -1 → [m] ids."""
    columns = [(shift, shift_id), (program, program_id), (velocity, velocity_id), (pitch, 0)]
    ids = np.stack([np.where(values < 0, -1, values + first) for values, first in columns
                    if values is not None], axis=1).ravel()
    return ids[ids >= 0]


def encode(notes: Notes, config: EventConfig, *, on_overflow: str = "error") -> list[Segment]:
    """Tokens of a whole piece.

    Args:
      notes: [N] notes.
      config: the token format.
      on_overflow: what to do with a segment of more than `max_length` tokens.
        `error` raises; `split` halves it, at a whole frame, until its parts
        fit, so that segments may be shorter than `segment_steps`.

    Returns:
      Segments that cover the piece from 0 to its last note without gaps; all
      but split ones are `segment_steps` long. No notes, no segments.

    Raises:
      UserError: a segment does not fit, or not even a single frame of it does.
    """
    if on_overflow not in ("error", "split"):
        raise ValueError(f"{on_overflow=} must be error or split")
    table = _quantize(notes, config)
    if not len(table.start):
        return []
    length = config.segment_steps
    last_step = int(table.end.max())
    # Every note belongs to the segments that it touches; its end counts as touching.
    low, high = table.start // length, np.minimum(table.end, last_step - 1) // length
    count = high - low + 1
    note = np.repeat(np.arange(len(low)), count)
    segment = np.arange(count.sum()) + np.repeat(low - (np.cumsum(count) - count), count)
    order = np.argsort(segment, kind="stable")
    note = note[order]
    bounds = np.searchsorted(segment[order], np.arange(-(-last_step // length) + 1))
    segments = []
    for i, (a, b) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        part = table.take(note[a:b])
        segments.extend(_fit(part, i * length, (i + 1) * length, config, on_overflow))
    return segments


def _fit(table: _Table, first: int, last: int, config: EventConfig,
         on_overflow: str) -> Iterator[Segment]:
    ids = _encode_steps(table, first, last, config)
    rate = config.steps_per_second
    if len(ids) <= config.max_length:
        yield Segment(first / rate, last / rate, ids)
        return
    frames = (last - first) // config.frame_steps
    if on_overflow == "error" or frames < 2:
        raise UserError(
            f"the notes from {first / rate:g} s to {last / rate:g} s need {len(ids)} tokens and "
            f"the model reads {config.max_length}; thin them out"
            + (" or let the segment be split" if frames > 1 else ""))
    middle = first + frames // 2 * config.frame_steps
    yield from _fit(table, first, middle, config, on_overflow)
    yield from _fit(table, middle, last, config, on_overflow)


class Decoded(typing.NamedTuple):
    notes: Notes
    invalid: int  # tokens that made no sense where they stood, and were skipped


def decode(segments: Iterable[Segment], config: EventConfig) -> Decoded:
    """Notes of token sequences in order of time, whoever wrote them.

    Nothing is an error: an id without meaning, a note-off or a tie of a note
    that does not sound, a time that runs backwards or past the segment, a
    silent drum are counted and skipped. Padding is skipped, and what follows
    EOS. Notes still sounding after the last segment end with it; notes last at
    least one step.
    """
    decoder = _Decoder(config)
    for segment in segments:
        decoder.segment(segment)
    return Decoded(decoder.finish(), decoder.invalid)


class _Decoder:
    """The state of decoding. All times are steps from the start of the piece."""

    def __init__(self, config: EventConfig):
        self.config = config
        self.events = [config.vocabulary.decode(i) for i in range(config.vocabulary.size)]
        self.handlers = dict(program=self._program, velocity=self._velocity, tie=self._tie,
                             pitch=self._pitch, drum=self._drum)
        self.sounding: dict[tuple[int, int], tuple[int, int]] = {}  # (program, pitch) → (on, vel)
        self.rows: list[tuple] = []
        self.invalid = 0
        self.end = 0

    def segment(self, segment: Segment) -> None:
        rate = self.config.steps_per_second
        self.start, self.end = round(segment.start * rate), round(segment.end * rate)
        self.time = self.start
        self.program, self.velocity = 0, self.config.velocity_bins
        self.tied: set | None = set()  # None after the tie section
        shift, shifting = 0, False
        for token in np.asarray(segment.ids).tolist():
            if token == EOS_ID:
                break
            if token == PAD_ID:
                continue
            event = self.events[token] if 0 <= token < len(self.events) else None
            if event is None:
                self.invalid += 1
            elif event.kind == "shift":
                # Shifts in a row add up, so that a segment may be longer than one shift.
                shift, shifting = (shift if shifting else 0) + event.value, True
                time = self.start + shift
            else:
                if shifting:
                    shifting = False
                    if self.time <= time <= self.end:
                        self.time = time
                    else:
                        self.invalid += 1
                if not self.handlers[event.kind](event.value):
                    self.invalid += 1

    # Handlers of one event each; False where it made no sense.

    def _program(self, value: int) -> bool:
        self.program = value
        return True

    def _velocity(self, value: int) -> bool:
        self.velocity = value
        return True

    def _tie(self, _: int) -> bool:
        if self.tied is None:
            return False
        for key in [k for k in self.sounding if k not in self.tied]:
            self._release(key, self.start)
        self.tied = None
        return True

    def _pitch(self, pitch: int) -> bool:
        key = (self.program, pitch)
        if self.tied is not None:
            valid = key in self.sounding and key not in self.tied
            self.tied.add(key)
            return valid
        if self.velocity == 0:
            return self._release(key, self.time)
        self._release(key, self.time)  # struck again while it sounds
        self.sounding[key] = (self.time, self.velocity)
        return True

    def _drum(self, key: int) -> bool:
        if self.velocity == 0:
            return False
        self.rows.append((self.time, self.time + 1, key, self.velocity, 0, True))
        return True

    def _release(self, key: tuple[int, int], time: int) -> bool:
        if key not in self.sounding:
            return False
        on, velocity = self.sounding.pop(key)
        self.rows.append((on, max(time, on + 1), key[1], velocity, key[0], False))
        return True

    def finish(self) -> Notes:
        for key in list(self.sounding):
            self._release(key, self.end)
        if not self.rows:
            return Notes.empty()
        start, end, pitch, velocity, program, drum = np.array(self.rows, np.int64).T
        rate = self.config.steps_per_second
        velocity = bin_to_velocity(velocity, self.config.velocity_bins)
        return Notes(start / rate, end / rate, pitch, velocity, program, drum)


def pad(sequences: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Stacks token sequences for a model.

    Args:
      sequences: B arrays of ids, each [n] with n <= length.
      length: N.

    Returns:
      ids [B, N] int32, padded with 0 at the end, and their mask [B, N] bool.

    Raises:
      ValueError: a sequence is longer than `length`; nothing is ever cut.
    """
    ids = np.full((len(sequences), length), PAD_ID, np.int32)
    for row, sequence in zip(ids, sequences, strict=True):
        if len(sequence) > length:
            raise ValueError(f"a sequence of {len(sequence)} tokens does not fit into {length}")
        row[:len(sequence)] = sequence
    return ids, ids != PAD_ID
