"""Compact fingerprints of audio and of notes, and the pairs of items that share them.

Audio: constellations of spectral peaks (Wang 2003, "An industrial-strength audio search
algorithm"), here three peaks a hash on a log-frequency axis. They survive another level, sample
rate or codec, and a shift. Notes: the intervals between a dozen notes that follow each other,
which survive transposition, shifts and another tempo. Of either the smallest hashes are kept, so
that what two items share can be estimated from what was kept (Broder 1997, "On the resemblance
and containment of documents").
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import scipy.ndimage
from jaxtyping import Float

from music_diffusion.data.checks.hearing import Hearing
from music_diffusion.data.checks.maps import HOP, Spectrum
from music_diffusion.notes.notes import Notes

KEPT = 512  # hashes of an item
PEAK_FRAMES, PEAK_BINS = 15, 9  # a peak is the highest of so many around it
PEAK_RANGE = 2.0  # nat below the loudest peaks, at most
FANOUT = 5  # peaks after one that it is joined with, two at a time
NEAREST, FARTHEST = 2, 80  # frames between joined peaks
TIME_STEP = 3  # frames; finer distances count as equal
ALIGNED = 0.15  # seconds by which hashes of one shift may differ
NEIGHBOURS = 6  # items that one is compared with for each hash they share
FEWEST = 12  # hashes that must be shared
PHRASE = 12  # notes of a hash
DISTINCT = 4  # intervals that a phrase must have: scales and trills are everywhere


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sketch:
    """The smallest hashes of an item."""

    hashes: np.ndarray  # [k] uint64, ascending, k <= KEPT
    times: np.ndarray  # [k] float32, seconds where each begins
    whole: bool  # there were no more

    @property
    def limit(self) -> int:
        """Returns the value up to which all hashes of the item are kept."""
        return 2 ** 64 - 1 if self.whole else int(self.hashes[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Two items that share hashes."""

    first: int  # positions of the items
    second: int
    share: float  # of the hashes of the one that has fewer
    shift: float  # seconds, the second's time less the first's


def sketch(hashes: np.ndarray, times: np.ndarray) -> Sketch:
    """Keeps the smallest hashes; of equal ones the first."""
    mixed, at = np.unique(_mix(hashes), return_index=True)
    return Sketch(hashes=mixed[:KEPT], times=times[at[:KEPT]].astype(np.float32),
                  whole=len(mixed) <= KEPT)


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): makes the smallest a fair sample."""
    x = x.astype(np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sketch_audio(spectra: Sequence[Spectrum]) -> Sketch:
    """Returns the sketch of all parts of a sound that are examined."""
    hashes, times = [np.zeros(0, np.uint64)], [np.zeros(0)]
    for spectrum in spectra:
        frame, pitch = _peaks(spectrum.log)
        found, at = _constellations(frame, pitch)
        hashes.append(found)
        times.append(spectrum.start + at * HOP)
    return sketch(np.concatenate(hashes), np.concatenate(times))


def _peaks(log: Float[np.ndarray, "T bins"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (frame, bin) of the peaks, in order of time."""
    highest = scipy.ndimage.maximum_filter(log, (PEAK_FRAMES, PEAK_BINS), mode="nearest")
    frame, pitch = np.nonzero((log == highest) & (log > log.min() + 1.0))
    if not len(frame):
        return frame, pitch
    value = log[frame, pitch]
    loud = value > np.percentile(value, 95) - PEAK_RANGE
    return frame[loud], pitch[loud]


def _constellations(frame: np.ndarray, pitch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns hashes of three peaks [n], and the frame of their first."""
    hashes, times = [np.zeros(0, np.uint64)], [np.zeros(0)]
    # Peaks that are near enough in time, then two of the next FANOUT of these.
    following = np.searchsorted(frame, frame + NEAREST)
    index = np.arange(len(frame))
    for a in range(FANOUT):
        for b in range(a + 1, FANOUT):
            second, third = following + a, following + b
            ok = third < len(frame)
            i, j, k = index[ok], second[ok], third[ok]
            near = frame[k] - frame[i] <= FARTHEST
            i, j, k = i[near], j[near], k[near]
            parts = (pitch[i], pitch[j], pitch[k], (frame[j] - frame[i]) // TIME_STEP,
                     (frame[k] - frame[i]) // TIME_STEP)
            code = np.zeros(len(i), np.uint64)
            for part in parts:
                code = code * np.uint64(512) + part.astype(np.uint64)
            hashes.append(code)
            times.append(frame[i])
    return np.concatenate(hashes), np.concatenate(times)


def sketch_notes(notes: Notes) -> Sketch:
    """Returns the sketch of melodic notes; drums are left out."""
    notes = notes[~notes.is_drum]
    order = np.lexsort((notes.pitch, notes.start))
    pitch, start = notes.pitch[order], notes.start[order]
    if len(pitch) < PHRASE + 1:
        return sketch(np.zeros(0, np.uint64), np.zeros(0))
    steps = np.lib.stride_tricks.sliding_window_view(np.diff(pitch), PHRASE - 1)
    ordered = np.sort(steps, axis=1)
    varied = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1) >= DISTINCT
    code = np.zeros(len(steps), np.uint64)
    for column in steps.T:  # intervals are within ±127
        code = _mix(code * np.uint64(256) + (column + 128).astype(np.uint64))
    return sketch(code[varied], start[:len(steps)][varied])


def digest(hearing: Hearing) -> str | None:
    """Returns a digest that is equal for equal samples at any level; None for silence."""
    peak = hearing.peak
    if not peak:
        return None
    state = hashlib.blake2b(digest_size=16)
    for part in hearing.parts:
        state.update(np.round(part.samples * (2 ** 11 / peak)).astype(np.int16).tobytes())
    return state.hexdigest()


def matches(sketches: Sequence[Sketch], shifted: bool) -> list[Match]:
    """Finds pairs that share hashes: candidates by a sorted list of all, then compared one by one.

    Args:
      sketches: of all items.
      shifted: hashes count that lie at one shift; False: all do.
    """
    if not sketches:
        return []
    owner = np.repeat(np.arange(len(sketches)), [len(s.hashes) for s in sketches])
    hashes = np.concatenate([s.hashes for s in sketches])
    order = np.lexsort((owner, hashes))
    owner, hashes = owner[order], hashes[order]
    counts: collections.Counter[tuple[int, int]] = collections.Counter()
    for step in range(1, NEIGHBOURS + 1):
        same = hashes[step:] == hashes[:-step]
        pairs, number = np.unique(np.stack([owner[:-step][same], owner[step:][same]]), axis=1,
                                  return_counts=True)
        counts.update(dict(zip(map(tuple, pairs.T.tolist()), number.tolist(), strict=True)))
    found = (_match(a, b, sketches[a], sketches[b], shifted)
             for (a, b), n in sorted(counts.items()) if n >= FEWEST // 2)
    return [match for match in found if match is not None]


def _match(first: int, second: int, a: Sketch, b: Sketch, shifted: bool) -> Match | None:
    limit = min(a.limit, b.limit)  # both have all their hashes up to here, and share none above
    _, i, j = np.intersect1d(a.hashes, b.hashes, assume_unique=True, return_indices=True)
    difference = b.times[j] - a.times[i]
    fewer = min(int((a.hashes <= limit).sum()), int((b.hashes <= limit).sum()))
    if not len(difference) or fewer < FEWEST:
        return None
    shift = _most_common(difference) if shifted else float(np.median(difference))
    count = int((np.abs(difference - shift) <= ALIGNED).sum()) if shifted else len(difference)
    if count < FEWEST:
        return None
    return Match(first=first, second=second, share=count / fewer, shift=shift)


def _most_common(values: np.ndarray) -> float:
    """Returns the value that most others are near to."""
    ordered = np.sort(values)
    near = (np.searchsorted(ordered, ordered + ALIGNED, side="right")
            - np.searchsorted(ordered, ordered - ALIGNED))
    return float(ordered[near.argmax()])
