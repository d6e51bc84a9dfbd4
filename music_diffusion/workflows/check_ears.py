"""Asks embeddings for the order of sounds whose order is known; see `evaluation.ears`."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.signal
import soxr

from music_diffusion.data.degradations import Codec, Level, Noise
from music_diffusion.data.renderers import check_renderer, open_renderer
from music_diffusion.data.rooms import Room
from music_diffusion.errors import UserError
from music_diffusion.evaluation import ears
from music_diffusion.evaluation.embeddings import Embedder
from music_diffusion.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance
from music_diffusion.evaluation.pairing import AUDIO, NOTES, find_files, open_groups
from music_diffusion.evaluation.sounds import SILENCE, read_start
from music_diffusion.files import write_json
from music_diffusion.notes.midi import read_midi
from music_diffusion.types import Progress
from music_diffusion.workflows.embedders import load_embedder
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import EarsRequest

EARS_FILE = "ears.json"
RATE = 16000  # Hz, at which copies are made
LEAST_SECONDS = 8.0  # of a recording: a half must have some windows of every embedding
MOST_OTHERS = 4  # recordings of other groups, and of its own, that each is compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording, and who or what plays it, if a table says so."""

    path: str
    group: str | None


def check_ears(request: EarsRequest, output: str | None = None, monitor: Monitor = SILENT
               ) -> dict[str, Any]:
    """Measures how often embeddings put sounds in the order of an ear.

    Args:
      request: recordings, their notes and groups, and the embeddings.
      output: folder that gets ears.json; None: none.
      monitor: gets the progress, and what is left out.

    Returns for each embedding the fields of `ears.EarScores`.

    Raises UserError: no recordings of `LEAST_SECONDS`, no such embedding, notes that do not fit.
    """
    if (request.soundfont is None) != (request.notes is None):
        raise UserError("--soundfont and --notes go together: what the synthesizer plays are the notes of "
                        "the recordings")
    if request.soundfont is not None:
        check_renderer(request.soundfont)
    embedders = {name: load_embedder(name) for name in request.embeddings}
    recordings: list[Recording] = []
    heard: dict[str, list[dict[str, Gaussian]]] = {name: [] for name in embedders}
    # One recording after the other: of each only what the embeddings make of it stays in memory.
    with monitor.bar("listening") as progress:
        for recording, half, sounds in _read(request, monitor, progress):
            recordings.append(recording)
            for name, embedder in embedders.items():
                heard[name].append(_hear(embedder, recording, half, sounds))
    if not recordings:
        raise UserError(f"{request.reference}: no recording of {LEAST_SECONDS:g} s or more")
    if request.groups is None:
        monitor.say("without --groups no recording is compared with those of others")
    else:
        _check_groups(request.groups, recordings, monitor)
    if request.soundfont is None:
        monitor.say("without --soundfont and --notes no recording is compared with a synthesizer")
    facts: dict[str, Any] = {"recordings": len(recordings), "embeddings": {}}
    for name, each in heard.items():
        rows = [_distances(i, recordings, each) for i in range(len(recordings))]
        scores = dataclasses.asdict(ears.ear_scores(rows, request.seed))
        facts["embeddings"][name] = {k: v if not isinstance(v, float) or np.isfinite(v) else None
                                     for k, v in scores.items()}
    if output is not None:
        folder = pathlib.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / EARS_FILE, facts)
    return facts


def _check_groups(table: str, recordings: Sequence[Recording], monitor: Monitor) -> None:
    """Names recordings without a group. Raises UserError where none has one, or all the same."""
    groups = {recording.group for recording in recordings} - {None}
    if len(groups) < 2:
        raise UserError(f"{table}: {'one group' if groups else 'no row'} fits the recordings; name two "
                        "groups or more, or leave --groups out")
    for recording in recordings:
        if recording.group is None:
            monitor.say(f"{recording.path}: is in no row of {table}; not compared with others")


def _read(request: EarsRequest, monitor: Monitor, progress: Progress
          ) -> Iterator[tuple[Recording, np.ndarray, dict[str, np.ndarray]]]:
    """Yields recordings, each with the half [S] that is compared, and copies of its other half."""
    files, _ = find_files(request.reference, AUDIO, "audio")
    notes = {} if request.notes is None else find_files(request.notes, NOTES, "MIDI")[0]
    table = None if request.groups is None else open_groups(request.groups, request.group_column)
    for number, (name, path) in enumerate(files.items()):
        progress(number / len(files))
        wave, facts = read_start(path, 60 * request.max_minutes)
        samples = soxr.resample(wave.samples, wave.sample_rate, RATE, quality="HQ").astype(np.float32)
        middle = len(samples) // 2
        if facts.seconds < LEAST_SECONDS or np.abs(samples[:middle]).max() < SILENCE or (
                np.abs(samples[middle:]).max() < SILENCE):
            monitor.say(f"left out: {path}: is shorter than {LEAST_SECONDS:g} s or silent")
            continue
        sounds = copies(samples[middle:], request.seed)
        if request.soundfont is not None and name in notes:
            played = _played(request.soundfont, notes[name], middle / RATE, len(samples) - middle)
            if np.abs(played).max(initial=0.0) > SILENCE:
                sounds[ears.SYNTHESIZER] = _as_loud(played, samples[middle:])
        elif request.soundfont is not None:
            monitor.say(f"{path}: no MIDI file of its name; not compared with the SoundFont")
        group = None if table is None else table.of(path)
        yield Recording(path=path, group=group), samples[:middle], sounds


def _played(soundfont: str, path: str, start: float, size: int) -> np.ndarray:
    """Returns the notes of the second half by a SoundFont."""
    seconds = size / RATE
    notes = read_midi(path).between(start, start + seconds).shift(-start)
    clipped = dataclasses.replace(notes, start=np.maximum(notes.start, 0.0))
    return open_renderer(soundfont, RATE)(clipped, seconds).samples


def _as_loud(samples: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Brings samples to the power of others."""
    return (samples * np.sqrt(np.square(like).mean() / np.square(samples).mean())).astype(np.float32)


def copies(samples: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Returns copies of samples [S] at `RATE`, some that an ear hardly hears and some damaged."""
    def noisy(decibel: float) -> np.ndarray:
        return Noise(kind="white", snr_db=decibel, seed=seed)(samples, RATE)

    def low(hertz: float) -> np.ndarray:
        filter_ = scipy.signal.butter(8, hertz, fs=RATE, output="sos")
        return scipy.signal.sosfiltfilt(filter_, samples).astype(np.float32)

    return {
        ears.SAME: samples, ears.CODEC: Codec(kind="mp3", quality=0.5)(samples, RATE),
        ears.LEVEL: Level(db=-6.0)(samples, RATE),
        ears.ROOM: Room(rt60=0.8, wet_db=-6.0, seed=seed)(samples, RATE),
        ears.NOISE_40: noisy(40), ears.NOISE_20: noisy(20), ears.NOISE_0: noisy(0),
        ears.LOW_6K: low(6000), ears.LOW_2K: low(2000), ears.LOW_1K: low(1000)}


def _hear(embedder: Embedder, recording: Recording, half: np.ndarray, sounds: Mapping[str, np.ndarray]
          ) -> dict[str, Gaussian]:
    """Returns what an embedding makes of a recording's half ("") and of the sounds beside it."""
    return {name: fit_gaussian(_embedded(embedder, samples), recording.path)
            for name, samples in ({"": half} | dict(sounds)).items()}


def _embedded(embedder: Embedder, samples: np.ndarray) -> np.ndarray:
    if embedder.sample_rate != RATE:
        samples = soxr.resample(samples, RATE, embedder.sample_rate, quality="HQ")
    return embedder(samples)


def _distances(number: int, recordings: Sequence[Recording],
               heard: Sequence[Mapping[str, Gaussian]]) -> dict[str, list[float]]:
    """Returns the distances of a recording's half to its copies and to other recordings."""
    own = heard[number]
    found: dict[str, list[float]] = collections.defaultdict(list)
    for name, sound in own.items():
        if name:
            found[name].append(frechet_distance(own[""], sound))
    group = recordings[number].group
    for kind, alike in ((ears.FRIEND, True), (ears.OTHERS, False)):
        others = [i for i, r in enumerate(recordings)
                  if i != number and None not in (group, r.group) and (r.group == group) == alike]
        # Evenly over all of them, whatever their order.
        for i in np.linspace(0, len(others) - 1, min(MOST_OTHERS, len(others))).astype(int):
            found[kind].append(frechet_distance(own[""], heard[others[i]][ears.SAME]))
    return found
