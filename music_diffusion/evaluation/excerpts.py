"""Excerpts of recordings, and noise like them, to compare samples of a generator with.

    DST/CLASS/excerpt_0001.flac …   in the folders of their recordings
    DST/excerpts.csv                file, source, seconds at which it begins there

Noise is what a model must at least be better than. PHASES keeps an excerpt's own spectrum over its whole
length and draws the phases; SPECTRUM is noise of the mean spectrum of all excerpts.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.loudness import normalize
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import AUDIO, find_files
from music_diffusion.evaluation.sounds import SILENCE, read_start
from music_diffusion.files import atomic_write
from music_diffusion.types import StepProgress

TABLE, COLUMNS = "excerpts.csv", ("file", "source", "seconds")
PHASES, SPECTRUM = "phases", "spectrum"
MOST_SECONDS = 600.0  # of the start of a recording, from which is drawn
TRIES = 20  # places, of which the first is taken that is not silent
BINS = 512  # of the mean spectrum: what is finer belongs to single excerpts

Samples = Float[np.ndarray, " S"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExcerptPlan:
    """Plan of what is cut."""

    source: str  # folder of recordings, or of a folder of them for each class
    seconds: float = 10.24  # of an excerpt
    count: int = 100  # excerpts in all, as many of each folder
    noise: str | None = None  # PHASES or SPECTRUM
    sample_rate: int = 16000
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class _Place:
    """A place in a recording."""

    file: pathlib.PurePath  # within the source
    draw: float  # 0..1, from its first place to its last


def write_excerpts(plan: ExcerptPlan, destination: str, progress: StepProgress = lambda i, n: None
                   ) -> dict[str, int]:
    """Writes excerpts as loud as renderings are, or noise like them, with their table.

    Returns the number of excerpts of each folder.

    Raises UserError: no recordings of that length, or all of them silent; an unknown noise; a folder
    with other files.
    """
    if plan.noise not in (None, PHASES, SPECTRUM):
        raise UserError(f"--noise {plan.noise}: choose {PHASES} or {SPECTRUM}")
    folder = pathlib.Path(destination)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{destination}: is there already; give another folder")
    by_file: dict[pathlib.PurePath, list[tuple[int, _Place]]] = {}
    for number, place in enumerate(_places(plan)):
        by_file.setdefault(place.file, []).append((number, place))
    cut: dict[int, tuple[pathlib.PurePath, float, Samples]] = {}
    rng = np.random.default_rng([plan.seed, 1])
    for k, (file, places) in enumerate(by_file.items()):
        parts = _cut(plan, file, [place for _, place in places], rng)
        cut |= {number: (file, begin, samples)
                for (number, _), (begin, samples) in zip(places, parts, strict=False)}
        progress(k + 1, len(by_file))
    if not cut:
        raise UserError(f"{plan.source}: no recording of {plan.seconds:g} s or more that is not silent")
    sounds = [samples for _, _, samples in cut.values()]
    if plan.noise == PHASES:
        sounds = [with_random_phases(samples, rng) for samples in sounds]
    elif plan.noise == SPECTRUM:
        spectrum = mean_spectrum(sounds)
        sounds = [noise_of_spectrum(spectrum, len(samples), rng) for samples in sounds]
    rows, counts = [], dict.fromkeys(sorted(file.parent.as_posix() for file, _, _ in cut.values()), 0)
    for (file, begin, _), samples in zip(cut.values(), sounds, strict=True):
        parent = file.parent.as_posix()
        counts[parent] += 1
        path = folder / parent / f"excerpt_{counts[parent]:04d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, normalize(Waveform(samples, plan.sample_rate)))
        rows.append((path.relative_to(folder).as_posix(), file.as_posix(), f"{begin:.6f}"))
    with atomic_write(folder / TABLE) as part, open(part, "w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([COLUMNS, *sorted(rows)])
    return counts


def with_random_phases(samples: Samples, rng: np.random.Generator) -> Samples:
    """Returns noise of the same spectrum, over the whole length: what is a note becomes a held sound."""
    spectrum = scipy.fft.rfft(samples)
    turned = np.abs(spectrum) * np.exp(1j * rng.uniform(0, 2 * np.pi, len(spectrum)))
    return scipy.fft.irfft(turned, len(samples)).astype(np.float32)


def mean_spectrum(sounds: Sequence[Samples]) -> Float[np.ndarray, " F"]:
    """Returns the mean power of BINS frequencies, from 0 to half the rate."""
    total = np.zeros(BINS)
    for samples in sounds:
        power = np.square(np.abs(scipy.fft.rfft(samples))) / len(samples)
        edges = np.linspace(0, len(power), BINS + 1).astype(int)
        total += np.add.reduceat(power, edges[:-1]) / np.diff(edges)
    return total / len(sounds)


def noise_of_spectrum(spectrum: Float[np.ndarray, " F"], length: int, rng: np.random.Generator) -> Samples:
    """Returns Gaussian noise of `mean_spectrum`, in samples."""
    noise = scipy.fft.rfft(rng.normal(size=length))
    centres = (np.arange(len(spectrum)) + 0.5) / len(spectrum) * (len(noise) - 1)
    power = np.interp(np.arange(len(noise)), centres, spectrum)
    return scipy.fft.irfft(noise * np.sqrt(power), length).astype(np.float32)


def _places(plan: ExcerptPlan) -> list[_Place]:
    """Draws recordings, as often of every folder; and of these the one after the other, in turns."""
    rng = np.random.default_rng(plan.seed)
    found, _ = find_files(plan.source, AUDIO, "audio")
    folders: dict[pathlib.PurePath, list[pathlib.PurePath]] = {}
    for audio in found.values():
        path = pathlib.PurePath(audio).relative_to(plan.source)
        folders.setdefault(path.parent, []).append(path)
    places = []
    orders = [[files[i] for i in rng.permutation(len(files))] for _, files in sorted(folders.items())]
    for number in range(plan.count):
        turn, which = divmod(number, len(orders))
        places.append(_Place(orders[which][turn % len(orders[which])], float(rng.random())))
    return places


def _cut(plan: ExcerptPlan, file: pathlib.PurePath, places: Sequence[_Place], rng: np.random.Generator
         ) -> list[tuple[float, Samples]]:
    """Returns where excerpts of a recording begin, and their samples; fewer where it is short or silent."""
    wave, _ = read_start(str(pathlib.Path(plan.source) / file), MOST_SECONDS)
    samples = wave.resample(plan.sample_rate).samples
    length = round(plan.seconds * plan.sample_rate)
    last = len(samples) - length
    if last < 0:
        return []
    found = []
    for place in places:
        for draw in (place.draw, *rng.random(TRIES)):
            first = round(draw * last)
            part = samples[first:first + length]
            if np.abs(part).max() >= SILENCE:
                found.append((first / plan.sample_rate, part))
                break
    return found
