"""Notes from what a transcriber says of every frame, in memory that does not grow with the recording."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from music_diffusion.notes.activations import (
    LOWEST_DRUM,
    LOWEST_PITCH,
    NUM_CLASSES,
    NUM_PITCHES,
    ONSET_HALF_WIDTH,
    Activations,
    SparseClasses,
)
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES

PROGRAMS = np.array([c.programs[0] for c in SLAKH_CLASSES], np.int32)  # the first of each class


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Settings of how activations become notes. Thresholds are the least values that count."""

    onset_threshold: float = 0.4
    frame_threshold: float = 0.5
    class_threshold: float = 0.5
    drum_threshold: float = 0.4
    min_seconds: float = 0.0  # shorter melodic notes are dropped
    gap_frames: int = 0  # a note goes on over so many frames below the threshold
    # A run of so many sounding frames begins a note even without an onset; 0: none does.
    frames_without_onset: int = 0
    velocity_without_onset: int = 64  # of such notes
    drum_velocity: int = 100
    drum_seconds: float = 0.05

    def __post_init__(self):
        for name in ("onset_threshold", "frame_threshold", "class_threshold", "drum_threshold"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        for name in ("min_seconds", "gap_frames", "frames_without_onset", "drum_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        for name in ("velocity_without_onset", "drum_velocity"):
            if not 1 <= getattr(self, name) <= 127:
                raise ValueError(f"{name} must be in 1..127, got {getattr(self, name)}")


def decode_notes(activations: Activations, config: DecodeConfig) -> Notes:
    """The notes that activations speak of.

    A note begins where `onset` has a local maximum in time, at the time that
    its neighbours tell (Kong et al., 2021, eq. 9-11). It ends at the edge of
    the first frame in which the pitch is silent, or where the pitch begins
    anew. Its class probabilities are averaged over its frames, weighted by
    `frame`; every class above the threshold plays it, else the likeliest one.
    The program is the first of the class, or 0 where classes are unknown.

    What is lost: two instruments that share a pitch share its onsets and its
    end, and onsets of one pitch within 50 ms of each other are one.

    Args:
      activations: T frames.
      config: thresholds.

    Returns:
      Notes in seconds from the beginning of frame 0.
    """
    decoder = NoteDecoder(config, activations.frame_seconds)
    return Notes.concatenate([decoder.push(activations), decoder.finish()])


class NoteDecoder:
    """`decode_notes` of activations that come in parts, which may be cut anywhere.

    What is kept are the latest frames, as many as a decision may look ahead, and of a note that is
    held its sums over the frames so far.
    """

    def __init__(self, config: DecodeConfig, frame_seconds: float):
        self._config, self._hop = config, frame_seconds
        # A peak of onsets is the largest of all frames that the triangle of one onset reaches.
        self._reach = max(1, int(ONSET_HALF_WIDTH / frame_seconds + 1e-6))
        self._parts: list[tuple[int, Activations]] = []  # each with its first frame
        self._end = 0  # frames that were pushed
        self._done = 0  # frames that are decided
        self._held: dict[int, _Run] = {}  # by pitch column, the run that goes on in frame `_done`

    def push(self, activations: Activations) -> Notes:
        """Takes the next frames; returns the notes whose end is known now."""
        return self.hear(activations).notes(self._config)

    def finish(self) -> Notes:
        """The remaining notes. Call once, at the end."""
        return self.hear_rest().notes(self._config)

    def hear(self, activations: Activations) -> HeardNotes:
        """Takes the next frames; returns notes whose end is known now, with who might play them."""
        if abs(activations.frame_seconds - self._hop) > 1e-12:
            raise ValueError(f"{activations.frame_seconds=} should be {self._hop}")
        if not len(activations):
            return HeardNotes.empty()
        self._parts.append((self._end, activations))
        self._end += len(activations)
        return self._decide(self._end - self._reach - self._config.gap_frames - 1)

    def hear_rest(self) -> HeardNotes:
        """Returns the remaining ones; see `finish`."""
        return self._decide(self._end)

    def _decide(self, until: int) -> HeardNotes:
        """The notes that end, and the drums that begin, in frames from `_done` to `until`."""
        begin, until = self._done, min(until, self._end)
        if until <= begin:
            return HeardNotes.empty()
        window = _Window(self._parts, max(0, begin - self._reach), begin, until)
        drum, _, start = window.peaks("drums", self._config.drum_threshold, self._reach, self._hop, until)
        count = len(drum)
        drums = Notes(start, start + self._config.drum_seconds, drum + LOWEST_DRUM,
                      np.full(count, self._config.drum_velocity), np.zeros(count), np.ones(count, bool))
        melodic = self._melodic(window)
        self._done = until
        oldest = until - self._reach
        self._parts = [(at, part) for at, part in self._parts if at + len(part) > oldest]
        return dataclasses.replace(melodic, drums=drums)

    def _melodic(self, window: _Window) -> HeardNotes:
        config, ahead = self._config, window.until + self._config.gap_frames + 1
        pitch, first, start = window.peaks("onset", config.onset_threshold, self._reach, self._hop, ahead)
        onsets = _by_pitch(pitch, first, start)
        active = window.values("frame", window.begin, ahead) >= config.frame_threshold
        active[first - window.begin, pitch] = True  # an onset sounds, if only for a frame
        ended: list[_Ended] = []
        for p in np.flatnonzero(active.any(axis=0) | np.isin(np.arange(NUM_PITCHES), list(self._held))):
            self._pitch(int(p), active[:, p], onsets.get(int(p), []), window, ended)
        return HeardNotes.of(ended)

    def _pitch(self, pitch: int, active: np.ndarray, onsets: list[tuple[int, float]], window: _Window,
               ended: list[_Ended]) -> None:
        """Follows the runs of one pitch: unbroken sound, but for gaps that are bridged."""
        frames = np.flatnonzero(active) + window.begin
        parts = np.split(frames, np.flatnonzero(np.diff(frames) - 1 > self._config.gap_frames) + 1)
        for part in parts:
            run = self._held.pop(pitch, None)
            first, end = int(part[0]), int(part[-1]) + 1
            if run is None:
                if first >= window.until:
                    return
                run = _Run(first, pitch, self._config, self._hop)
            else:
                first = window.begin
            last = min(end, window.until)
            run.go_on(first, last, [o for o in onsets if first <= o[0] < last], window, ended)
            if end <= window.until:
                run.stop(end, ended)
            else:
                self._held[pitch] = run
                return


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class HeardNotes:
    """N melodic notes with the probabilities of their instruments, as they end; and drums."""

    pitch: np.ndarray  # [N] MIDI
    start: np.ndarray  # [N] seconds
    end: np.ndarray
    velocity: np.ndarray  # [N]
    probability: np.ndarray  # [N, 34] of the classes; NaN where they are unknown
    drums: Notes

    @classmethod
    def empty(cls) -> HeardNotes:
        """Returns no notes."""
        return cls.of([])

    @classmethod
    def of(cls, ended: list[_Ended]) -> HeardNotes:
        """Returns melodic notes."""
        unknown = np.full(NUM_CLASSES, np.nan)
        pitch, start, end, velocity = (
            np.array([getattr(note, name) for note in ended], np.float64)
            for name in ("pitch", "start", "end", "velocity"))
        probability = [unknown if note.probability is None else note.probability for note in ended]
        return cls(pitch=pitch.astype(int) + LOWEST_PITCH, start=start, end=end, velocity=velocity,
                   probability=np.array(probability, np.float64).reshape(len(ended), NUM_CLASSES),
                   drums=Notes.empty())

    @classmethod
    def concatenate(cls, parts: Sequence[HeardNotes]) -> HeardNotes:
        """Returns all of at least one part."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts])
                  for name in ("pitch", "start", "end", "velocity", "probability")}
        return cls(**arrays, drums=Notes.concatenate([part.drums for part in parts]))

    def notes(self, config: DecodeConfig) -> Notes:
        """Returns every note on every instrument that plays it, with the drums; see `decode_notes`."""
        known = ~np.isnan(self.probability).any(axis=1)
        probability = np.where(known[:, None], self.probability, 0.0)
        plays = probability >= config.class_threshold
        likeliest = probability.argmax(axis=1)
        none = known & ~plays.any(axis=1)
        plays[none, likeliest[none]] = True
        plays[~known, 0] = True
        return self.played(plays, np.where(known[:, None], PROGRAMS[None], 0))

    def played(self, plays: np.ndarray, program: np.ndarray) -> Notes:
        """Returns the notes on other instruments, with the drums.

        Args:
          plays: [N, K] bool, which of K instruments play each note.
          program: [N, K] or [1, K], of the instruments.
        """
        which, kind = np.nonzero(plays)
        chosen = np.broadcast_to(program, plays.shape)[which, kind]
        melodic = Notes(self.start[which], self.end[which], self.pitch[which],
                        np.clip(self.velocity[which], 1, 127), chosen, np.zeros(len(which), bool))
        return Notes.concatenate([melodic, self.drums])


class _Window:
    """Frames `begin` to `until`, which are decided now, with some before and all that are known behind."""

    def __init__(self, parts: list[tuple[int, Activations]], start: int, begin: int, until: int):
        self._parts, self._start, self.begin, self.until = parts, start, begin, until
        self._known: dict[str, np.ndarray] = {}  # by name, from frame `start` on

    def all(self, name: str) -> np.ndarray:
        """Returns all frames from `start` on."""
        if name not in self._known:
            rows = [getattr(part, name)[max(0, self._start - at):] for at, part in self._parts]
            self._known[name] = rows[0] if len(rows) == 1 else np.concatenate(rows)
        return self._known[name]

    def values(self, name: str, first: int, last: int) -> np.ndarray:
        """Frames first to last, as far as there are so many."""
        return self.all(name)[first - self._start:last - self._start]

    def classes(self, pitch: int, first: int, last: int) -> np.ndarray | None:
        """[last - first, 34] of one pitch column."""
        rows = []
        for at, part in self._parts:
            if part.classes is None:
                return None
            a, b = max(first, at), min(last, at + len(part))
            if a < b:
                rows.append(_class_rows(part.classes, pitch, a - at, b - at))
        return np.concatenate(rows)

    def peaks(self, name: str, threshold: float, reach: int, hop: float, until: int
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Local maxima in frames `begin` to `until` → column, frame, seconds; by column, then frame."""
        column, frame, seconds = _peaks(self.all(name), threshold, reach, hop, self._start)
        here = (frame >= self.begin) & (frame < until)
        return column[here], frame[here], seconds[here]


@dataclasses.dataclass(frozen=True, eq=False)
class _Ended:
    """A melodic note."""

    pitch: int  # column
    start: float  # seconds
    end: float
    velocity: float
    probability: np.ndarray | None  # [34] of the classes


class _Sum:
    """Sums over the frames of a note: the same however they are parted, as frame is added to frame."""

    def __init__(self, start: float, velocity: float, place: int, hop: float):
        self.start, self.velocity, self._place = start, velocity, place
        # The frame of an onset behind its centre shows who played before.
        self._first = int(np.ceil(start / hop - 0.5))
        self._sums = np.zeros(2 * NUM_CLASSES + 2)  # of weight × class, class, weight, 1
        self._only: np.ndarray | None = None  # the same of frame `place` alone, where it is left out
        self._classes = True

    def add(self, pitch: int, first: int, last: int, window: _Window) -> None:
        if first >= last:
            return
        classes = window.classes(pitch, first, last)
        if classes is None:
            self._classes = False
            return
        weight = window.values("frame", first, last)[:, pitch].astype(np.float64)[:, None]
        classes = classes.astype(np.float64)
        rows = np.concatenate([weight * classes, classes, weight, np.ones_like(weight)], axis=1)
        skipped = min(max(0, self._first - first), len(rows))
        if skipped and first == self._place:
            self._only = rows[0]
        self._sums = np.add.reduce(np.concatenate([self._sums[None], rows[skipped:]]), axis=0)

    def mean(self) -> np.ndarray | None:
        """Class probabilities [34]."""
        if not self._classes:
            return None
        sums = self._sums if self._sums[-1] or self._only is None else self._only
        weighted, plain, (weight, count) = np.split(sums, (NUM_CLASSES, 2 * NUM_CLASSES))
        return weighted / weight if weight > 0 else plain / count


class _Run:
    """Unbroken sound of one pitch, from its first frame to the frame that is reached."""

    def __init__(self, first: int, pitch: int, config: DecodeConfig, hop: float):
        self._first, self._pitch, self._config, self._hop = first, pitch, config, hop
        # The note that sounds. Before an onset it is one only once it has lasted long enough.
        self._note: _Sum | None = None
        self._waiting = False
        if config.frames_without_onset:
            self._note, self._waiting = _Sum(first * hop, config.velocity_without_onset, first, hop), True

    def go_on(self, first: int, last: int, onsets: list[tuple[int, float]], window: _Window,
              ended: list[_Ended]) -> None:
        """Takes frames first to last, with the onsets (frame, seconds) among them."""
        for place, start in onsets:
            self._add(first, place, window)
            held = window.values("frame", place, place + 1)[0, self._pitch] >= self._config.frame_threshold
            # Where the sound goes on into the next onset, that is the end. An onset behind its frame's
            # centre may follow a rest: then the end is the edge of that frame.
            self._stop(start if held else place * self._hop, ended)
            velocity = window.values("velocity", place, place + 1)[0, self._pitch]
            self._note = _Sum(start, float(np.rint(np.float64(velocity) * 127)), place, self._hop)
            first = place
        self._add(first, last, window)

    def stop(self, end: int, ended: list[_Ended]) -> None:
        """The run ends before frame `end`."""
        self._stop(end * self._hop, ended)

    def _add(self, first: int, last: int, window: _Window) -> None:
        if self._note is not None:
            self._note.add(self._pitch, first, last, window)
        if last - self._first >= self._config.frames_without_onset:
            self._waiting = False

    def _stop(self, end: float, ended: list[_Ended]) -> None:
        note, waiting = self._note, self._waiting
        self._note, self._waiting = None, False
        if note is None or waiting:
            return
        end = max(end, note.start + self._hop / 2)  # a single frame whose onset lies at its end
        if end - note.start >= self._config.min_seconds:
            ended.append(_Ended(self._pitch, note.start, end, note.velocity, note.mean()))


def _by_pitch(pitch: np.ndarray, frame: np.ndarray, start: np.ndarray
              ) -> dict[int, list[tuple[int, float]]]:
    result: dict[int, list[tuple[int, float]]] = {}
    for p, f, s in zip(pitch.tolist(), frame.tolist(), start.tolist(), strict=True):
        result.setdefault(p, []).append((f, s))
    return result


def _peaks(values: np.ndarray, threshold: float, reach: int, frame_seconds: float, offset: int
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Local maxima in time of values [T, P] → column, frame, seconds; by column, then frame.

    A maximum is one among `reach` frames on each side; the first of `values` is frame `offset`.
    """
    frame, column = np.nonzero(values >= threshold)
    order = np.lexsort((frame, column))
    frame, column = frame[order], column[order]
    near = frame[:, None] + np.arange(-reach, reach + 1)
    value = values[np.clip(near, 0, len(values) - 1), column[:, None]].astype(np.float64)
    value[(near < 0) | (near >= len(values))] = -np.inf
    peak = value[:, reach]
    # Of equal values the first.
    is_peak = (peak > value[:, :reach].max(1)) & (peak >= value[:, reach + 1:].max(1))
    column, frame, peak, value = column[is_peak], frame[is_peak], peak[is_peak], value[is_peak]
    # A triangle that peaks d frames after the centre has, with the slope s per frame, the values
    # p - s d and p - s (1 ± d) beside it: d is half the difference of the neighbours over the
    # larger fall. Where there is no neighbour, its value is what the true slope makes it.
    beside = value[:, [reach - 1, reach + 1]]
    beside = np.where(np.isinf(beside), peak[:, None] - frame_seconds / ONSET_HALF_WIDTH, beside)
    fall = peak - beside.min(1)
    difference = beside[:, 1] - beside[:, 0]
    shift = np.divide(difference, 2 * fall, out=np.zeros_like(fall), where=fall > 0)
    frame = frame + offset
    return column, frame, (frame + 0.5 + shift) * frame_seconds


def _class_rows(classes: np.ndarray | SparseClasses, pitch: int, first: int, last: int
                ) -> np.ndarray:
    """[last - first, 34] of one pitch."""
    if isinstance(classes, SparseClasses):
        return classes.rows(pitch, first, last)
    rows = classes[first:last, pitch]
    return np.unpackbits(rows, axis=-1, count=NUM_CLASSES) if rows.dtype == np.uint8 else rows
