"""Recordings as they are scored: the start of a file, in mono, at the rate that is asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from music_diffusion.audio.io import AudioReader
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import ItemFiles, Problem

SILENCE = 1e-4  # peak amplitude, -80 dBFS; below it a recording is silent
LENGTH_SHARE, LENGTH_SECONDS = 0.1, 1.0  # the lengths of a pair may differ by less than either


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFacts:
    """Facts about a recording that are known without hearing it."""

    seconds: float  # of the part that counts
    sample_rate: int  # Hz, of the file
    channels: int
    peak: float  # largest amplitude of the mono mix of that part
    cut: bool  # whether the file goes on after that part

    @property
    def silent(self) -> bool:
        return self.peak < SILENCE


def read_start(path: str, seconds: float) -> tuple[Waveform, AudioFacts]:
    """Reads at most the first `seconds` of a file, mixed to mono.

    Raises:
      UserError: missing, not audio, damaged, or without a sample.
    """
    with AudioReader(path) as reader:
        limit, parts, count = round(seconds * reader.sample_rate), [], 0
        for block in reader.mono_blocks():
            parts.append(block)
            count += len(block)
            if count > limit:
                break
        if not count:
            raise UserError(f"{path}: has no samples")
        samples = np.concatenate(parts)[:limit]
        wave = Waveform(samples, reader.sample_rate)
        return wave, AudioFacts(
            seconds=wave.duration, sample_rate=reader.sample_rate, channels=reader.channels,
            peak=float(np.abs(samples).max(initial=0.0)), cut=count > limit)


class LazySound:
    """Samples that are decoded and resampled when they are first asked for."""

    def __init__(self, key: str, load: Callable[[], Waveform]):
        self.key = key  # the same key means the same samples
        self._load = load
        self._waves: dict[int, Waveform] = {}  # by rate
        self._source: Waveform | None = None

    def at(self, sample_rate: int) -> np.ndarray:
        """Returns samples [S] in mono."""
        if sample_rate not in self._waves:
            if self._source is None:
                self._source = self._load().mono()
            self._waves[sample_rate] = self._source.resample(sample_rate)
        return self._waves[sample_rate].samples


def problems_of(item: ItemFiles, facts: dict[str, AudioFacts], min_seconds: float) -> list[Problem]:
    """Returns the problems that the facts of an item's sides show; see `usable`."""
    problems = []
    for side, found in facts.items():
        path = getattr(item, side)
        if found.channels > 1:
            problems.append(Problem(kind="stereo", file=path, what=f"has {found.channels} channels",
                                    advice="they were mixed to one"))
        if found.seconds < min_seconds:
            problems.append(Problem(
                kind="too_short", file=path, what=f"lasts {found.seconds:.3f} s",
                advice=f"it is not scored; give at least {min_seconds:g} s"))
        elif found.silent:
            level = f"peaks at {20 * math.log10(found.peak):.0f} dBFS" if found.peak > 0 else "is all zeros"
            problems.append(Problem(
                kind="silent", file=path, what=level,
                advice="it is scored as it is, and the scores say so" if side == "generated" else
                "nothing can be compared with silence; it is not scored"))
    if len(facts) == 2:
        problems += _of_pair(item, facts["generated"], facts["reference"])
    return problems


def _of_pair(item: ItemFiles, a: AudioFacts, b: AudioFacts) -> list[Problem]:
    path, problems = item.generated or "", []
    if a.sample_rate != b.sample_rate:
        problems.append(Problem(
            kind="sample_rate", file=path,
            what=f"has {a.sample_rate} Hz and its reference {b.sample_rate} Hz",
            advice="both were resampled; what only the higher rate can hold may differ"))
    gap = abs(a.seconds - b.seconds)
    if gap > LENGTH_SECONDS or gap > LENGTH_SHARE * b.seconds:
        problems.append(Problem(
            kind="length", file=path,
            what=f"lasts {a.seconds:.2f} s and its reference {b.seconds:.2f} s",
            advice="they are compared as far as both go; check that they are the same excerpt"))
    return problems


def usable(side: str, facts: AudioFacts, min_seconds: float) -> bool:
    """Returns whether a recording is scored. A silent generated one is: silence is a bad result."""
    return facts.seconds >= min_seconds and not (side == "reference" and facts.silent)
