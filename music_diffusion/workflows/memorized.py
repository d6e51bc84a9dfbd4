"""Does a model repeat what it learned from? Nearest neighbours of its samples in the training set."""

from __future__ import annotations

import csv
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.degradations import BandLimit, Chain, Codec, Level, Noise
from music_diffusion.errors import UserError
from music_diffusion.evaluation.memorization import WINDOW, Neighbour, Search, memorization
from music_diffusion.evaluation.pairing import AUDIO, find_files
from music_diffusion.evaluation.sounds import read_start
from music_diffusion.files import atomic_write, write_json
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import MemorizedRequest

FACTS, TABLE = "memorized.json", "memorized.csv"
CODEC = MelCodec()
MOST_MINUTES = 10.0  # of a file that are compared at once
# What a copy may have gone through, and still be one.
DEGRADED = (
    Level(db=-9.0), Codec(kind="mp3", quality=0.7), Noise(kind="pink", snr_db=20.0, seed=0),
    BandLimit(rate=8000),
    Chain(steps=(Level(db=6.0), Codec(kind="mp3", quality=0.9), Noise(kind="white", snr_db=25.0, seed=1))))


def memorized(request: MemorizedRequest, output: str | None = None, monitor: Monitor = SILENT
              ) -> dict[str, Any]:
    """Looks for copies of training music among samples.

    The null distribution is of held-out music, in excerpts as long as the samples. Copies of the training
    set, which were made softer, coded, noisy and dull, are planted to see whether they would be found.

    Args:
      request: folders of audio.
      output: folder that gets memorized.json and a table of every sample's neighbour; None: none.
      monitor: gets the progress.

    Returns the fields of `evaluation.memorization.Memorization`.

    Raises UserError: a folder without audio, or no file of a window's length.
    """
    folders = {name: getattr(request, name) for name in ("generated", "reference", "training")}
    files = {name: find_files(folder, AUDIO, "audio")[0] for name, folder in folders.items()}
    rng = np.random.default_rng(request.seed)
    with monitor.bar("reading") as progress:
        samples = {path: mel for path in files["generated"].values()
                   if len(mel := _encoded(_read(path))) >= WINDOW}
        progress(0.5)
        if not samples:
            raise UserError(f"{request.generated}: no file of {WINDOW / CODEC.frame_rate:g} s or more")
        size = int(np.median([len(mel) for mel in samples.values()]))
        null = [part for path in files["reference"].values()
                for part in _excerpts(_encoded(_read(path)), size)]
        if not null:
            raise UserError(f"{request.reference}: no file of {size / CODEC.frame_rate:g} s or more, as "
                            "the samples have")
    planted = [_encoded(copy) for copy in
               _copies(list(files["training"].values()), size, request.planted, rng)]
    everything = [*samples.values(), *null, *planted]
    search = Search(everything, CODEC.frame_rate)
    with monitor.bar("comparing") as progress:
        for k, path in enumerate(files["training"].values()):
            search.push(path, _encoded(_read(path)))
            progress((k + 1) / len(files["training"]))
    found = search.neighbours()
    for folder, part in ((request.training, found), (request.generated, found[:len(samples)]),
                         (request.reference, found[len(samples):len(samples) + len(null)])):
        if not any(part):
            raise UserError(f"{folder}: nothing to compare there: files are shorter than "
                            f"{WINDOW / CODEC.frame_rate:g} s, silent, or one held sound")
    ends = np.cumsum([len(samples), len(null)])
    groups = [[n.similarity for n in part if n is not None]
              for part in (found[:ends[0]], found[ends[0]:ends[1]], found[ends[1]:])]
    facts = {k: v if not isinstance(v, float) or math.isfinite(v) else None
             for k, v in dataclasses.asdict(memorization(*groups)).items()}
    if output is not None:
        folder = pathlib.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FACTS, facts)
        _write_table(folder / TABLE, list(samples), found[:ends[0]])
    return facts


def _read(path: str) -> Float[np.ndarray, " S"]:
    wave, _ = read_start(path, 60 * MOST_MINUTES)
    return Waveform(wave.samples, wave.sample_rate).resample(CODEC.sample_rate).samples


def _encoded(samples: Float[np.ndarray, " S"]) -> Float[np.ndarray, "T F"]:
    return CODEC.encode(samples)


def _excerpts(mel: Float[np.ndarray, "T F"], size: int) -> Iterator[Float[np.ndarray, "t F"]]:
    """Yields what lies one after the other, each of `size` frames."""
    for first in range(0, len(mel) - size + 1, size):
        yield mel[first:first + size]


def _copies(paths: list[str], size: int, count: int, rng: np.random.Generator
            ) -> Iterator[Float[np.ndarray, " S"]]:
    """Yields degraded excerpts of files, drawn."""
    length = size * CODEC.hop
    for k in range(count):
        samples = _read(paths[rng.integers(len(paths))])
        first = rng.integers(max(1, len(samples) - length))
        part = samples[first:first + length]
        if len(part) >= (WINDOW + 2) * CODEC.hop:
            yield np.asarray(DEGRADED[k % len(DEGRADED)](part, CODEC.sample_rate), np.float32)


def _write_table(path: pathlib.Path, samples: list[str], found: list[Neighbour | None]) -> None:
    """Writes every sample's nearest neighbour, the most similar first."""
    rows = sorted(((n, sample) for n, sample in zip(found, samples, strict=True) if n is not None),
                  key=lambda row: -row[0].similarity)
    with atomic_write(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["sample", "similarity", "seconds", "training", "training_seconds"])
        for n, sample in rows:
            table.writerow([sample, f"{n.similarity:.4f}", f"{n.at:.2f}", n.file, f"{n.file_at:.2f}"])
