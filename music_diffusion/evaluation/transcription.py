"""Scores of how much of the notes asked for is heard: note, instrument, frame and drum F1.

Notes are matched by mir_eval (Raffel et al., 2014), one estimated note to at
most one reference note, by a maximum matching. It is an optional extra,
imported when scores are computed.

- onset: same pitch, onsets within 50 ms. The "note" F1 of performance-conditioned
  synthesis, and mir_eval's note F1 without offsets.
- offset: moreover, offsets within 50 ms or a fifth of the reference note's
  duration, whichever is more.
- instrument: as onset, and the same instrument: "note-with-instrument" F1.
- full: as offset, and the same instrument: "full" F1 of MT3 (Gardner et al., 2022,
  section 4), which Spectrogram Diffusion (Hawthorne et al., 2022) reports. MT3 counts
  drum onsets too: `full_with_drums`.
- frame, chroma: the same pitch, or pitch class, in the same frame. Instruments and
  octaves that double it count once.
- drum onset: the same drum key, onsets within 50 ms. Drums count nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import typing
from collections.abc import Iterator, Sequence

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.notes.activations import LOWEST_PITCH, NUM_PITCHES, pitch_roll
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import GRANULARITIES

ONSET_TOLERANCE = 0.05  # seconds; also the least tolerance of offsets
OFFSET_RATIO = 0.2  # of the reference note's duration
DECIMALS = 4  # of seconds, to which mir_eval rounds differences before it compares them
CHUNK = 256  # notes that mir_eval gets at a time: it keeps square matrices of them

# What an instrument is.
INSTRUMENTS = {
    "program": GRANULARITIES["full"],  # of 128
    "slakh_class": GRANULARITIES["slakh"],  # of 34, see notes/programs.py
    "family": GRANULARITIES["midi_class"],  # of 16
    "flat": GRANULARITIES["flat"],  # all one
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteCounts:
    """Counts of notes, or of sounding pitches in frames; counts of several pieces add up."""

    matched: int = 0
    reference: int = 0
    estimate: int = 0

    def __add__(self, other: NoteCounts) -> NoteCounts:
        return NoteCounts(matched=self.matched + other.matched,
                          reference=self.reference + other.reference,
                          estimate=self.estimate + other.estimate)

    # All three are NaN where the reference has nothing, and 0 where only the estimate has.

    @property
    def precision(self) -> float:
        if not self.reference:
            return math.nan
        return self.matched / self.estimate if self.estimate else 0.0

    @property
    def recall(self) -> float:
        return self.matched / self.reference if self.reference else math.nan

    @property
    def f1(self) -> float:
        if not self.reference:
            return math.nan
        return 2 * self.matched / (self.reference + self.estimate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameScores:
    """Counts by frame, of one piece or of several added up."""

    frame: NoteCounts = NoteCounts()
    chroma: NoteCounts = NoteCounts()

    def __add__(self, other: typing.Self) -> typing.Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name)
                             for f in dataclasses.fields(self)})

    @property
    def frame_f1(self) -> float:
        return self.frame.f1

    @property
    def chroma_f1(self) -> float:
        return self.chroma.f1

    def values(self) -> dict[str, float]:
        """The scores by name, 0..1 or NaN."""
        return dict(frame_f1=self.frame_f1, chroma_f1=self.chroma_f1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteScores(FrameScores):
    """Counts by note and by frame, of one piece or of several added up."""

    onset: NoteCounts = NoteCounts()
    offset: NoteCounts = NoteCounts()
    instrument: NoteCounts = NoteCounts()
    full: NoteCounts = NoteCounts()
    drum_onset: NoteCounts = NoteCounts()

    @property
    def onset_f1(self) -> float:
        return self.onset.f1

    @property
    def onset_precision(self) -> float:
        return self.onset.precision

    @property
    def onset_recall(self) -> float:
        return self.onset.recall

    @property
    def offset_f1(self) -> float:
        return self.offset.f1

    @property
    def instrument_f1(self) -> float:
        return self.instrument.f1

    @property
    def full_f1(self) -> float:
        return self.full.f1

    @property
    def full_with_drums_f1(self) -> float:
        return (self.full + self.drum_onset).f1

    @property
    def drum_onset_f1(self) -> float:
        return self.drum_onset.f1

    def values(self) -> dict[str, float]:
        """The scores by name, 0..1 or NaN."""
        names = ("onset_f1", "onset_precision", "onset_recall", "offset_f1", "instrument_f1",
                 "full_f1", "full_with_drums_f1", "frame_f1", "chroma_f1", "drum_onset_f1")
        return {name: getattr(self, name) for name in names}


def pooled_scores(pieces: Sequence[NoteScores]) -> dict[str, float]:
    """Returns scores of all notes of all pieces (micro average): a long piece counts for more."""
    return functools.reduce(operator.add, pieces, NoteScores()).values()


def mean_scores(pieces: Sequence[NoteScores]) -> dict[str, float]:
    """Returns means of the pieces' scores (macro average), each over the pieces where it is not NaN."""
    table = [piece.values() for piece in pieces]
    result = {}
    for name in NoteScores().values():
        known = [row[name] for row in table if not math.isnan(row[name])]
        result[name] = math.fsum(known) / len(known) if known else math.nan
    return result


def note_scores(reference: Notes, estimate: Notes, *, granularity: str = "slakh_class",
                merge_unisons: bool = True, frame_seconds: float = 0.01) -> NoteScores:
    """Compares two pieces note by note and frame by frame.

    Args:
      reference: what should be heard.
      estimate: what a transcriber heard.
      granularity: what counts as the same instrument: program, slakh_class,
        family or flat. Programs 96..127 belong to the nearest Slakh class.
      merge_unisons: on both sides, notes that are the same to a score and
        that begin within 50 ms of the first of them count as one, which lasts
        to the latest end. For scores that ignore instruments these are
        unisons of several instruments; for the others, of one instrument.
        Without it two violins in unison must be heard as two notes, as in MT3.
      frame_seconds: seconds from frame to frame for frame and chroma scores.

    Raises:
      UserError: mir_eval is not installed, or `granularity` is unknown.
    """
    if granularity not in INSTRUMENTS:
        known = ", ".join(INSTRUMENTS)
        raise UserError(f"unknown granularity {granularity!r}; take one of {known}")
    sides = (reference, estimate)
    melodic = [notes[~notes.is_drum] for notes in sides]
    kind = [INSTRUMENTS[granularity](notes.program).astype(np.int64) for notes in melodic]
    pitch = [_events(n, n.pitch, merge_unisons) for n in melodic]
    played = [_events(n, k * 128 + n.pitch, merge_unisons)
              for n, k in zip(melodic, kind, strict=True)]
    drums = [_events(n, n.pitch, merge_unisons) for n in (n[n.is_drum] for n in sides)]
    rolls = [pitch_roll(n, frame_seconds) for n in melodic]
    frames = _roll_scores(*rolls)
    return NoteScores(
        onset=_match(*pitch), offset=_match(*pitch, offsets=True), instrument=_match(*played),
        full=_match(*played, offsets=True), drum_onset=_match(*drums),
        frame=frames.frame, chroma=frames.chroma)


def frame_scores(reference: Notes, frames: np.ndarray, frame_seconds: float) -> FrameScores:
    """Compares notes with an estimate that is given frame by frame.

    Args:
      reference: what should be heard; drums are left out.
      frames: [T, 88] bool, which of the pitches 21..108 sound.
      frame_seconds: seconds from frame to frame; frame 0 begins at 0 s.

    Returns:
      Counts in which the shorter side is silent to the end of the longer; a
      reference note outside 21..108 is missed.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.bool_ or frames.ndim != 2 or frames.shape[1] != NUM_PITCHES:
        raise ValueError(f"frames must be [T, {NUM_PITCHES}] bool (apply a threshold), got "
                         f"{list(frames.shape)} {frames.dtype}")
    roll = np.zeros((len(frames), 128), bool)
    roll[:, LOWEST_PITCH:LOWEST_PITCH + NUM_PITCHES] = frames
    return _roll_scores(pitch_roll(reference, frame_seconds), roll)


def _roll_scores(reference: np.ndarray, estimate: np.ndarray) -> FrameScores:
    """Returns the scores of rolls [T, 128] and [T', 128]."""
    return FrameScores(frame=_roll_counts(reference, estimate),
                       chroma=_roll_counts(_chroma(reference), _chroma(estimate)))


def _roll_counts(reference: np.ndarray, estimate: np.ndarray) -> NoteCounts:
    both = min(len(reference), len(estimate))  # silence matches nothing
    return NoteCounts(matched=int(np.count_nonzero(reference[:both] & estimate[:both])),
                      reference=int(np.count_nonzero(reference)),
                      estimate=int(np.count_nonzero(estimate)))


def _chroma(roll: np.ndarray) -> np.ndarray:
    """Returns for [T, 128] pitches [T, 12] whether each pitch class sounds in some octave."""
    chroma = np.zeros((len(roll), 12), bool)
    for octave in range(0, 128, 12):
        part = roll[:, octave:octave + 12]
        chroma[:, :part.shape[1]] |= part
    return chroma


class _Events(typing.NamedTuple):
    """Notes for matching, sorted by key, then start. All [N]."""

    start: np.ndarray
    end: np.ndarray
    key: np.ndarray  # int64; only notes of one key match

    def take(self, index: np.ndarray) -> _Events:
        return _Events(*(column[index] for column in self))


def _events(notes: Notes, key: np.ndarray, merge_unisons: bool) -> _Events:
    events = _Events(notes.start, notes.end, key.astype(np.int64))
    events = events.take(np.lexsort((events.end, events.start, events.key)))
    return _merged(events) if merge_unisons else events


def _merged(events: _Events) -> _Events:
    """Merges notes of one key that begin within 50 ms of the first of them."""
    first = []  # indices of the notes that stay
    previous_key, begin = -1, 0.0
    for i, (start, key) in enumerate(zip(events.start.tolist(), events.key.tolist(), strict=True)):
        if key != previous_key or round(start - begin, DECIMALS) > ONSET_TOLERANCE:
            first.append(i)
            previous_key, begin = key, start
    if not first:
        return events
    end = np.maximum.reduceat(events.end, first)
    return events.take(np.array(first))._replace(end=end)


def _match(reference: _Events, estimate: _Events, *, offsets: bool = False) -> NoteCounts:
    """Returns the size of the largest matching; both notes of a pair have one key and close onsets."""
    match_notes = _mir_eval().match_notes
    matched = 0
    for ref, est in _chunks(reference, estimate):
        # mir_eval knows pitches instead of keys: give every key of the chunk a semitone.
        _, semitone = np.unique(np.concatenate([ref.key, est.key]), return_inverse=True)
        hertz = 440 * 2.0 ** (semitone / 12)
        matched += len(match_notes(
            _intervals(ref), hertz[:len(ref.key)], _intervals(est), hertz[len(ref.key):],
            onset_tolerance=ONSET_TOLERANCE, offset_ratio=OFFSET_RATIO if offsets else None,
            offset_min_tolerance=ONSET_TOLERANCE))
    return NoteCounts(matched=matched, reference=len(reference.key), estimate=len(estimate.key))


def _chunks(reference: _Events, estimate: _Events) -> Iterator[tuple[_Events, _Events]]:
    """Yields parts between which nothing can match, of about CHUNK notes, both sides in each."""
    key = np.concatenate([reference.key, estimate.key])
    start = np.concatenate([reference.start, estimate.start])
    side = np.repeat([0, 1], [len(reference.key), len(estimate.key)])
    index = np.concatenate([np.arange(len(reference.key)), np.arange(len(estimate.key))])
    order = np.lexsort((start, key))
    # A part may end where the key changes or onsets lie too far apart, whatever the rounding.
    far = np.diff(start[order]) > ONSET_TOLERANCE + 10.0 ** -DECIMALS
    ends = np.append(np.flatnonzero(far | (np.diff(key[order]) != 0)) + 1, len(order))
    begin = 0
    for end, next_end in zip(ends, np.append(ends[1:], ends[-1]), strict=True):
        if next_end - begin <= CHUNK and end < len(order):
            continue
        part = order[begin:end]
        begin = end
        ref, est = (index[part[side[part] == s]] for s in (0, 1))
        if len(ref) and len(est):
            yield reference.take(ref), estimate.take(est)


def _intervals(events: _Events) -> np.ndarray:
    """Returns [N, 2] seconds; mir_eval refuses notes without duration, so they last a microsecond."""
    return np.stack([events.start, np.maximum(events.end, events.start + 1e-6)], axis=1)


def _mir_eval() -> typing.Any:
    try:
        from mir_eval import transcription
    except ImportError as e:
        raise UserError("transcription scores need mir_eval; install it with: "
                        "pip install 'music-diffusion[evaluate]'") from e
    return transcription
