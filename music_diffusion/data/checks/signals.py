"""Checks of the sound alone, and of what plays when: empty, silent, clipped, of a wrong rate."""

from __future__ import annotations

import math
import os

import numpy as np
import scipy.ndimage

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.checks.findings import (
    CLIPPED,
    EMPTY,
    MISALIGNED,
    RATE,
    SILENT,
    VELOCITY,
    Finding,
    clock,
    percent,
)
from music_diffusion.data.checks.hearing import FRAME, QUIET, SPECTRUM, Hearing, Signal, levels
from music_diffusion.data.checks.hearing import RATE as HEARD_RATE
from music_diffusion.notes.notes import Notes

SHORTEST = 0.1  # seconds; less is no audio
SILENT_SHARE = 0.98  # of the frames, where no notes say when it should sound
UNHEARD_SHARE = 0.5  # of the notes
ATTACK = 0.5  # seconds after its onset that a note must be heard in
CLIPPED_SHARE = 5e-4  # of the samples; fewer are single peaks that touch the highest value
SQUARE_SHARE = 0.4  # of the samples; so many flat tops are a square wave
FEWEST_RUNS = 20  # flat tops
OUTSIDE_SHARE = 0.1  # of the notes
# A mean spectrum falls so far (dB) at an edge, from the band below it to all above it.
EDGE_DB = 30.0
LOWEST_EDGE = 1500.0  # Hz
EDGE_OF_NYQUIST = 0.6  # above this share of half the sample rate codecs and filters end it, too
FEWEST_VELOCITIES = 10  # notes


def check_empty(item: str, hearing: Hearing, notes: Notes | None) -> list[Finding]:
    """Finds that there are no samples, no notes, or only notes that begin after the audio's end."""
    if hearing.seconds < SHORTEST:
        return [Finding(item=item, kind=EMPTY, measured=f"its audio lasts {hearing.seconds:.2f} s")]
    if notes is None:
        return []
    if not len(notes):
        return [Finding(item=item, kind=EMPTY, measured="it has no notes")]
    outside = float((notes.start >= hearing.seconds).mean())
    if outside == 1:
        return [Finding(
            item=item, kind=EMPTY,
            measured=f"all its notes lie beyond the audio's end: they begin at "
                     f"{clock(float(notes.start.min()))}, the audio ends at {clock(hearing.seconds)}")]
    return []


def check_outside(item: str, hearing: Hearing, notes: Notes) -> list[Finding]:
    """Finds notes that begin after the audio's end, with half a second of grace."""
    outside = float((notes.start >= hearing.seconds + 0.5).mean())
    if outside < OUTSIDE_SHARE:
        return []
    return [Finding(item=item, kind=MISALIGNED,
                    measured=f"{percent(outside)} of its notes begin after the end of the audio, which "
                             f"lasts {hearing.seconds:.1f} s",
                    advice="find the whole recording, or cut the notes where the audio ends")]


def check_silent(item: str, hearing: Hearing, notes: Notes | None) -> list[Finding]:
    """Finds that nothing is heard, or nothing where notes begin."""
    level = [(part.start, levels(part.samples)) for part in hearing.parts]
    quiet = np.concatenate([values < QUIET for _, values in level])
    share = float(quiet.mean()) if len(quiet) else 1.0
    loudest = f"its loudest sample is at {_decibel(hearing.peak)}"
    if share == 1 or (notes is None and share >= SILENT_SHARE):
        return [Finding(item=item, kind=SILENT,
                        measured=f"{percent(share)} of it is below -60 dBFS; {loudest}")]
    if notes is None:
        return []
    heard = [_heard(values, start, notes) for start, values in level]
    counted = np.concatenate(heard)
    unheard = float(1 - counted.mean()) if len(counted) else 0.0
    if unheard < UNHEARD_SHARE:
        return []
    return [Finding(item=item, kind=SILENT,
                    measured=f"{percent(unheard)} of its notes begin where the audio is below "
                             f"-60 dBFS, as {percent(share)} of it is")]


def _heard(level: np.ndarray, start: float, notes: Notes) -> np.ndarray:
    """Returns for each note that begins in these frames whether one of the frames after it is loud."""
    at = np.floor((notes.start - start) * HEARD_RATE / FRAME).astype(int)
    span = max(1, round(ATTACK * HEARD_RATE / FRAME))
    # origin: the filter looks from its place to the right
    highest = scipy.ndimage.maximum_filter1d(level, span, origin=-(span // 2), mode="constant")
    return highest[at[(at >= 0) & (at < len(level))]] >= QUIET


def check_clipped(item: str, signals: tuple[Signal, ...]) -> list[Finding]:
    """Finds flat tops, at full scale or below."""
    for signal in signals:
        share = signal.flat_samples / max(signal.samples * signal.channels, 1)
        if signal.flat_runs >= FEWEST_RUNS and CLIPPED_SHARE <= share <= SQUARE_SHARE:
            of = "" if len(signals) == 1 else f" of {os.path.basename(signal.name)}"
            return [Finding(
                item=item, kind=CLIPPED,
                measured=f"{percent(share)} of the samples{of} lie in {signal.flat_runs} flat tops at "
                         f"{_decibel(signal.flat_top)}, of {signal.flat_samples / signal.flat_runs:.0f} "
                         "equal samples each")]
    return []


def check_rate(item: str, signals: tuple[Signal, ...], codec: MelCodec) -> list[Finding]:
    """Finds a sample rate below the codec's, or above what the audio holds."""
    for signal in signals:
        if signal.sample_rate < codec.sample_rate:
            return [Finding(
                item=item, kind=RATE,
                measured=f"its sample rate is {signal.sample_rate} Hz, below the {codec.sample_rate} "
                         f"Hz of the codec: nothing is heard above {signal.sample_rate / 2000:g} kHz",
                advice="get it at a higher rate, leave it out, or prepare all with a lower codec")]
    for signal in signals:
        edge = cutoff(signal)
        if edge is not None and edge < 0.95 * codec.fmax:
            return [Finding(
                item=item, kind=RATE,
                measured=f"it is stored at {signal.sample_rate} Hz and holds nothing above "
                         f"{edge / 1000:.1f} kHz: it was resampled from about {2 * edge / 1000:.0f} "
                         "kHz, or coded at a low bitrate",
                advice="get the original, or leave it out: models learn the missing treble")]
    return []


def cutoff(signal: Signal) -> float | None:
    """Returns the Hz of a steep edge far below half the rate above which there is only a floor; or None.

    Tones without noise between them have gaps, too: below the edge the gaps must lie above the
    floor, in the whole half octave.
    """
    nyquist = signal.sample_rate / 2
    level = signal.spectrum
    hertz = np.arange(len(level)) * signal.sample_rate / SPECTRUM
    best: tuple[float, float] | None = None
    for edge in np.geomspace(LOWEST_EDGE, max(EDGE_OF_NYQUIST * nyquist, LOWEST_EDGE), 80):
        above = level[(hertz > 1.06 * edge) & (hertz < 0.97 * nyquist)]
        below = level[(hertz > 0.7 * edge) & (hertz < 0.94 * edge)]
        if len(above) < 8 or len(below) < 8:
            continue
        fall = float(np.percentile(below, 10) - np.percentile(above, 95))
        if fall >= EDGE_DB and (best is None or fall > best[0]):
            best = fall, float(edge)
    if best is None:
        return None
    floor = np.percentile(level[(hertz > 1.06 * best[1]) & (hertz < 0.97 * nyquist)], 95)
    return float(hertz[(level > floor + EDGE_DB / 2) & (hertz < 0.97 * nyquist)].max(initial=best[1]))


def check_velocity(item: str, notes: Notes) -> list[Finding]:
    """Finds that all notes have one velocity, in a data set that says it has velocities."""
    if len(notes) < FEWEST_VELOCITIES or len(np.unique(notes.velocity)) > 1:
        return []
    return [Finding(item=item, kind=VELOCITY,
                    measured=f"all {len(notes)} notes have the velocity {int(notes.velocity[0])}")]


def _decibel(amplitude: float) -> str:
    return f"{20 * math.log10(amplitude):.1f} dBFS" if amplitude > 0 else "silence"
