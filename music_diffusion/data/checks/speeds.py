"""Other speeds and pitches at which a recording may play its notes, and large shifts.

They are looked for on coarse maps, because they are many.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

from music_diffusion.data.checks import alignment, maps
from music_diffusion.data.checks.alignment import Correlation
from music_diffusion.data.checks.maps import Spectrum
from music_diffusion.notes.notes import Notes

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)  # Hz
TRIED_SECONDS = 30.0  # of audio that changes are tried on: half a percent is in time there
POOL = 4  # frames of a coarse map (0.1 s)
FAR = 60.0  # seconds, reach of the search for large shifts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A way in which a recording may differ from its notes."""

    ratio: float = 1.0  # the audio lasts that many times as long
    semitones: float = 0.0  # the audio sounds that much higher

    @property
    def thirds(self) -> int:
        """Returns the change of pitch in thirds of a semitone."""
        return round(maps.THIRDS * self.semitones)


def change(notes: Notes, ratio: float) -> Notes:
    """Returns the notes of a recording that lasts `ratio` times as long."""
    return dataclasses.replace(notes, start=notes.start * ratio, end=notes.end * ratio)


def true_rate(change: Change, label: int) -> int | None:
    """Returns the sample rate in use that a header with `label` Hz hides, if it is one."""
    return next((rate for rate in RATES if abs(change.ratio * label / rate - 1) < 0.004), None)


@functools.cache
def changes() -> tuple[Change, ...]:
    """Returns the changes that are tried: wrong sample rates, tape speeds, tempi and transpositions.

    Some instruments are written an octave from where they sound: that is no fault.
    """
    found: dict[float, Change] = {}
    for true, label in itertools.permutations(RATES, 2):
        ratio = true / label
        if 0.3 < ratio < 3.4:
            found.setdefault(round(ratio, 2), Change(ratio=ratio, semitones=-12 * math.log2(ratio)))
    tape = [Change(ratio=1 + 0.01 * k, semitones=-12 * math.log2(1 + 0.01 * k))
            for k in range(-6, 7) if k]
    tempo = [Change(ratio=1 + 0.01 * k) for k in range(-10, 11) if k]
    return (*found.values(), *tape, *tempo, *(Change(semitones=float(d)) for d in range(-11, 12) if d))


def beginning(spectra: Sequence[Spectrum]) -> Spectrum:
    """Returns the first stretch: another speed is in time with its notes there."""
    first, frames = spectra[0], round(TRIED_SECONDS / maps.HOP)
    return dataclasses.replace(first, log=first.log[:frames], flux=first.flux[:frames])


def likeliest(notes: Notes, spectra: Sequence[Spectrum]) -> Change:
    """Returns the change at which notes and audio fit best, however well that is."""
    tried = beginning(spectra)

    @functools.cache
    def heard(thirds: int):
        return [(tried.start, maps.heard_map(tried.log, thirds, POOL))]

    def fit(candidate: Change) -> float:
        return alignment.correlate_pitches(
            heard(candidate.thirds), change(notes, candidate.ratio), hop=POOL * maps.HOP).best[0]

    return max(changes(), key=fit)


def far(notes: Notes, spectra: Sequence[Spectrum]) -> Correlation:
    """Correlates notes and audio at lags of up to a minute, in tenths of a second."""
    pieces = [piece for s in spectra
              for piece in alignment.segments(s.start, maps.heard_map(s.log, 0, POOL), POOL * maps.HOP)]
    return alignment.correlate_pitches(pieces, notes, FAR, POOL * maps.HOP)
