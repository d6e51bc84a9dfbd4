"""Decides from correlations whether notes and audio belong together, and how they are apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from music_diffusion.data.checks import alignment, maps, speeds
from music_diffusion.data.checks.alignment import NEAR, Correlation, Path
from music_diffusion.data.checks.findings import MISALIGNED, RATE, Finding, clock, seconds
from music_diffusion.data.checks.maps import Spectrum
from music_diffusion.data.checks.speeds import Change
from music_diffusion.notes.notes import Notes

# Coefficients. Of 5 recordings the lowest was 0.55, of 380 renders (solos and orchestras, dry and in
# rooms) 0.18; with the notes of another piece half were below 0.05, nine in ten below 0.075, and
# the highest, a piece of the same author, was 0.2.
FITS = 0.14  # nothing is said where notes and audio fit so well as they are
FOREIGN = 0.1  # below it they do not fit
CLAIM = 0.2  # another way must fit so well
SURE = 0.3  # where one fits less, all others are tried, too
# The same for onsets, which agree by chance where the metre is the same.
ONSETS_FIT, ONSETS_FOREIGN = 0.4, 0.25
SHARE = 0.7  # of the best coefficient: what has more is as good
PROMINENT = 5.0  # standard deviations, of the best lag
FREE = 0.04  # of the coefficient, that a jump gains by chance
FEWEST = 8  # moments at which notes begin, below which nothing is said
TELLING = 0.13  # energy of the promised map in a frame: less, and what it promises hardly changes
DRIFT = 0.25  # seconds, between the first and the last segment
AS_THEY_ARE = Change()
NOT_ITS_NOTES = "check that the notes belong to this recording; leave it out if they do not"


def compare(item: str, notes: Notes, spectra: Sequence[Spectrum], sample_rate: int) -> list[Finding]:
    """Compares notes with audio; returns at most one finding.

    Args:
      item: its name.
      notes: in seconds of the sound.
      spectra: of the parts that are examined, one at least.
      sample_rate: Hz, from the audio's header.
    """
    spans = [(s.start, s.start + len(s.log) * maps.HOP) for s in spectra]
    examined = np.zeros(len(notes), bool)
    for first, last in spans:
        examined |= (notes.start < last) & (notes.end > first)
    melodic = ~notes.is_drum & ~np.isin(notes.program, list(alignment.PITCHLESS))
    onsets = alignment.correlate_onsets(
        [piece for s in spectra for piece in alignment.segments(
            s.start, maps.contrast(s.flux)[:, None])], notes)
    if _moments(notes[examined & melodic]) >= FEWEST:
        return _by_pitch(item, notes[melodic], spectra, onsets, sample_rate)
    if _moments(notes[examined]) >= FEWEST:
        return _by_onsets(item, onsets)
    return []


def _moments(notes: Notes) -> int:
    return len(np.unique(np.round(notes.start / 0.1)))


def _by_onsets(item: str, c: Correlation) -> list[Finding]:
    best, lag = c.best
    if (best >= ONSETS_FIT and abs(lag) > NEAR and c.here < 0.5 * best
            and c.prominence() >= PROMINENT + 1):
        return [_shifted(item, lag, f"of onsets, {_evidence(best, c)}")]
    return []


def _by_pitch(item: str, notes: Notes, spectra: Sequence[Spectrum], onsets: Correlation,
              sample_rate: int) -> list[Finding]:
    c = _correlation(notes, spectra)
    if c.promised[c.reach] < TELLING * c.frames:
        return _by_onsets(item, onsets)
    found, fits = _near(item, c)
    if fits >= SURE or (fits >= FITS and not found):
        return found
    # Nothing near fits well: another speed or pitch, a large shift, or another piece.
    change = speeds.likeliest(notes, spectra)
    changed = _correlation(notes, [speeds.beginning(spectra)], change)
    if _found(changed, fits):
        return [_changed(item, change, changed.best[0], c.here, sample_rate)]
    return _elsewhere(item, notes, spectra, c, onsets, fits) or found


def _near(item: str, c: Correlation) -> tuple[list[Finding], float]:
    """Returns what a small shift, a drift or a jump explains, and the coefficient with it."""
    best, lag = c.best
    drift, jump = alignment.drifting(c), alignment.jumping(c)
    moving = max(drift.coefficient, jump.coefficient - FREE)
    if moving >= CLAIM and moving > best / SHARE:
        return _moving(item, drift, jump, c.here), moving
    if best < CLAIM or c.prominence() < PROMINENT:
        return [], c.here
    if abs(lag) <= NEAR or c.here >= SHARE * best:
        return [], best
    return [_shifted(item, lag, _evidence(best, c))], best


def _evidence(there: float, c: Correlation) -> str:
    return f"correlation {there:.2f} there, {c.here:.2f} as they are"


def _shifted(item: str, lag: float, evidence: str) -> Finding:
    late = "later" if lag > 0 else "earlier"
    return Finding(item=item, kind=MISALIGNED,
                   measured=f"the audio is {abs(lag):.2f} s {late} than its notes ({evidence})",
                   advice=f"move the notes by {seconds(lag)}, or cut the audio accordingly")


def _moving(item: str, drift: Path, jump: Path, here: float) -> list[Finding]:
    even = drift.coefficient + FREE >= jump.coefficient
    path = drift if even else jump
    if abs(path.last - path.first) < DRIFT:
        return []
    how = ("drifts evenly" if even or path.jump is None
           else f"jumps at about {clock(path.jump)}")
    return [Finding(
        item=item, kind=MISALIGNED,
        measured=f"the audio is {seconds(path.first)} apart from its notes at the start and "
                 f"{seconds(path.last)} at the end: it {how} (correlation {path.coefficient:.2f} "
                 f"along that way, {here:.2f} as they are)",
        advice="align the notes again over the whole length, or use the edition that the notes "
               "were made for")]


def _elsewhere(item: str, notes: Notes, spectra: Sequence[Spectrum], c: Correlation,
               onsets: Correlation, fits: float) -> list[Finding]:
    """Returns the finding of a large shift, or of another piece."""
    far = speeds.far(notes, spectra)
    if _found(far, fits):
        coarse = far.best[1]
        fine, lag = _correlation(notes.shift(coarse), spectra).best
        return [_shifted(item, coarse + lag, _evidence(fine, c))]
    best = c.best[0]
    # Where the pitches are others, it may still begin its notes when they do.
    if best < FOREIGN and onsets.best[0] < ONSETS_FOREIGN:
        return [Finding(
            item=item, kind=MISALIGNED,
            measured=f"no shift fits: the notes are not what is heard (correlation {best:.2f} at most, "
                     "and no other speed or pitch fits)", advice=NOT_ITS_NOTES)]
    return []


def _found(c: Correlation, otherwise: float) -> bool:
    return c.best[0] >= max(CLAIM, 1.5 * otherwise) and c.prominence() >= PROMINENT


def _correlation(notes: Notes, spectra: Sequence[Spectrum], change: Change = AS_THEY_ARE
                 ) -> Correlation:
    pieces = [piece for s in spectra
              for piece in alignment.segments(s.start, maps.heard_map(s.log, change.thirds))]
    return alignment.correlate_pitches(pieces, speeds.change(notes, change.ratio))


def _changed(item: str, change: Change, value: float, here: float, sample_rate: int) -> Finding:
    evidence = f"correlation {value:.2f} so, {here:.2f} as they are"
    higher = f"{abs(change.semitones):.2f} semitones {'higher' if change.semitones > 0 else 'lower'}"
    if change.ratio == 1:
        return Finding(
            item=item, kind=RATE,
            measured=f"it sounds {higher} than its notes, at their speed ({evidence}): it is "
                     "transposed, or tuned so",
            advice=f"transpose the notes by {change.semitones:+.0f}, or find the edition that is "
                   "played")
    slower = f"{change.ratio:.3f} times as long as its notes"
    if change.semitones == 0:
        return Finding(item=item, kind=MISALIGNED,
                       measured=f"it lasts {slower}, at their pitch ({evidence}): another tempo",
                       advice="align the notes again over the whole length")
    measured = f"it sounds {higher} and lasts {slower} ({evidence})"
    rate = speeds.true_rate(change, sample_rate)
    if rate is None:
        return Finding(item=item, kind=RATE, measured=f"{measured}: it was played back at another "
                       "speed", advice="resample it by that factor, or find the original")
    return Finding(item=item, kind=RATE,
                   measured=f"{measured}: it is at {rate} Hz, and its header says {sample_rate}",
                   advice=f"write {rate} Hz into its header; do not resample it")
