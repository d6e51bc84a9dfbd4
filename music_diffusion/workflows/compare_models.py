"""Copies of one model compared: what they make of the same notes, and whether any figure moves.

A difference counts where it is larger than the figure's own error, which is for spectra that between two
takes (of a generator) or of the model itself (of an inverter), for embeddings the distance from one
window to the next, and for scores the half width of their 95 % interval over the pieces.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.bootstrap import bootstrap_interval
from music_diffusion.evaluation.embeddings import TaggerEmbedder
from music_diffusion.evaluation.pairing import NOTES, find_files
from music_diffusion.evaluation.reconstruction import reconstruction_distance
from music_diffusion.evaluation.scoring import cut_notes
from music_diffusion.evaluation.spectral import log_mel_distance
from music_diffusion.evaluation.transcription import NoteCounts, note_scores
from music_diffusion.models.base import Generator, Invertible, Tagging, Transcribing
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.models.weights import WEIGHTS, weight_files
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.hub import find, load, load_inverter, load_trained, load_transcriber
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Params, Progress
from music_diffusion.workflows.benchmark.piece import piece
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import CompareRequest

SCORES = ("onset", "offset", "full", "frame", "drum_onset")  # of `NoteScores`: counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """Figure of both copies. NaN where there is none."""

    name: str
    difference: float  # of the copy; 0 or more
    error: float = math.nan  # of the figure itself; NaN: it has none, or one piece does not say
    values: tuple[float, float] | None = None  # of the model and of its copy, where each has its own

    @property
    def moved(self) -> bool:
        """Returns whether the difference is beyond the error."""
        return self.difference > self.error

    def facts(self) -> dict[str, Any]:
        """Returns all of it, for machines."""
        numbers = {"difference": self.difference, "error": self.error,
                   **dict(zip(("model", "copy"), self.values or (), strict=False))}
        return {"name": self.name, "moved": self.moved,
                **{k: None if math.isnan(v) else round(v, 6) for k, v in numbers.items()}}

    def line(self) -> str:
        """Returns all of it, for people."""
        values = "" if self.values is None else "{:.4g} and {:.4g}, ".format(*self.values)
        error = "" if math.isnan(self.error) else f", its error {self.error:.3g}"
        return f"{self.name}: {values}difference {self.difference:.3g}{error}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Figures of a model and its copy."""

    model: str
    other: str
    pieces: int
    figures: tuple[Figure, ...]

    @property
    def same(self) -> bool:
        """Returns whether no figure moves beyond its error."""
        return not any(figure.moved for figure in self.figures)

    def facts(self) -> dict[str, Any]:
        """Returns all of it, for machines."""
        return {"model": self.model, "copy": self.other, "pieces": self.pieces, "same": self.same,
                "figures": [figure.facts() for figure in self.figures]}


def compare_models(request: CompareRequest, monitor: Monitor = SILENT) -> Compared:
    """Lets two copies of a model play, invert or listen to the same pieces.

    Models that listen, and inverters, get the pieces as the package's default model plays them.

    Raises UserError: no such model or notes, models of different kinds, or mir_eval is not installed.
    """
    opened: Any = load_trained(request.model, object, "model"), load_trained(request.other, object, "model")
    (_, model, params), (_, other, copied) = opened
    if type(model) is not type(other):
        raise UserError(f"{request.other}: is a {type(other).__name__}, and {request.model} a "
                        f"{type(model).__name__}; give two copies of one model")
    pieces = [piece(request.seconds)]
    if request.notes is not None:
        files, _ = find_files(request.notes, NOTES, "MIDI")
        pieces = [cut_notes(read_midi(path), request.seconds) for path in files.values()]
    figures = [_sizes(request), _weights(params, copied)]
    with monitor.bar(f"comparing {request.other}") as progress:
        figures += _kind(model)(request, pieces, progress)
    return Compared(model=request.model, other=request.other, pieces=len(pieces), figures=tuple(figures))


def _kind(model: Any) -> Any:
    """Returns the function that compares models of this kind."""
    for kind, compared in ((Invertible, _inverters), (Transcribing, _transcribers), (Tagging, _taggers),
                           (Generator, _generators)):
        if isinstance(model, kind):
            return compared
    raise UserError(f"a {type(model).__name__} makes nothing that could be compared")


def _sizes(request: CompareRequest) -> Figure:
    sizes = [sum(path.stat().st_size for path in weight_files(find(name) / WEIGHTS)) / 1e6
             for name in (request.model, request.other)]
    return Figure(name="size of the weights (MB)", difference=abs(sizes[1] - sizes[0]),
                  values=(sizes[0], sizes[1]))


def _weights(params: Params, copied: Params) -> Figure:
    """Returns |w - w'| / |w| over all weights."""
    import jax

    squares = jax.tree.map(lambda a, b: np.array([np.square(a - b, dtype=np.float64).sum(),
                                                  np.square(a, dtype=np.float64).sum()]), params, copied)
    difference, size = functools.reduce(operator.add, jax.tree.leaves(squares))
    return Figure(name="weights, relative", difference=math.sqrt(difference / size) if size else math.nan)


def _generators(request: CompareRequest, pieces: Sequence[Notes], progress: Progress) -> list[Figure]:
    """Compares renderings: with one seed, against those with another; and the notes heard in them."""
    first, second = load(request.model), load(request.other)
    transcriber = load_transcriber()
    apart, takes, heard = [], [], []
    for i, notes in enumerate(pieces):
        mel = [_rendered(who, notes, seed) for who, seed in (
            (first, request.seed), (second, request.seed), (first, request.seed + 1))]
        apart.append(_mean_difference(mel[0], mel[1]))
        takes.append(_mean_difference(mel[0], mel[2]))
        heard.append([_notes_in(transcriber, first.inverter, x) for x in mel[:2]])
        progress((i + 1) / len(pieces))
    return [Figure(name="log-mel (nat; error: another seed)", difference=float(np.mean(apart)),
                   error=float(np.mean(takes))),
            *_scores(pieces, heard)]


def _inverters(request: CompareRequest, pieces: Sequence[Notes], progress: Progress) -> list[Figure]:
    """Compares audio of the same spectrograms; the error is its distance from them."""
    synthesizer, transcriber = load(), load_transcriber()
    inverters = load_inverter(request.model), load_inverter(request.other)
    codec = inverters[0].codec
    synthesizer.codec.check_same(codec)
    apart, own, heard = [], [], []
    for i, notes in enumerate(pieces):
        mel = _rendered(synthesizer, notes, request.seed)
        audio = [inverter.invert(mel) for inverter in inverters]
        apart.append(log_mel_distance(codec, *audio))
        own.append([_mean_difference(codec.encode(x)[:len(mel)], mel) for x in audio])
        heard.append([_heard(transcriber, x, codec.sample_rate) for x in audio])
        progress((i + 1) / len(pieces))
    values = np.mean(own, axis=0)
    return [Figure(name="log-mel of the audio (nat; error: from the spectrogram)",
                   difference=float(np.mean(apart)), error=float(values[0])),
            Figure(name="log-mel from the spectrogram (nat)", values=(float(values[0]), float(values[1])),
                   difference=float(abs(values[1] - values[0])),
                   error=_half_width([row[:1] for row in np.array(own)])),
            *_scores(pieces, heard)]


def _transcribers(request: CompareRequest, pieces: Sequence[Notes], progress: Progress) -> list[Figure]:
    """Compares the notes that are heard in the same audio with the score, and with each other."""
    synthesizer = load()
    transcribers = load_transcriber(request.model), load_transcriber(request.other)
    heard = []
    for i, notes in enumerate(pieces):
        audio = synthesizer.synthesize(notes, seed=request.seed)
        heard.append([_heard(each, audio.samples, audio.sample_rate) for each in transcribers])
        progress((i + 1) / len(pieces))
    alike = functools.reduce(operator.add, (note_scores(a, b) for a, b in heard))
    return [Figure(name="notes that both hear, 1 - onset F1", difference=1 - alike.onset_f1),
            *_scores(pieces, heard)]


def _taggers(request: CompareRequest, pieces: Sequence[Notes], progress: Progress) -> list[Figure]:
    """Compares embeddings of the same audio; the error is their distance from one window to the next."""
    synthesizer = load()
    opened: Any = [load_trained(name, Tagging, "tagger")[1:] for name in (request.model, request.other)]
    embedders = [TaggerEmbedder(model, params) for model, params in opened]
    found: list[list[np.ndarray]] = []
    presence = 0.0
    for i, notes in enumerate(pieces):
        audio = Waveform(np.asarray(synthesizer.synthesize(notes, seed=request.seed).samples),
                         synthesizer.codec.sample_rate).resample(embedders[0].sample_rate).samples
        found.append([embedder(audio) for embedder in embedders])
        said = [model.presence(params)(audio) for model, params in opened]
        presence = max(presence, float(np.abs(said[0] - said[1]).max()))
        progress((i + 1) / len(pieces))
    first, second = (np.concatenate(side).astype(np.float64) for side in zip(*found, strict=True))
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    steps = [reconstruction_distance(a[1:], a[:-1]) for a, _ in found if len(a) > 1]
    return [Figure(name="embeddings, distance (error: from window to window)",
                   difference=reconstruction_distance(second, first),
                   error=float(np.mean(steps)) if steps else math.nan),
            Figure(name="embeddings, 1 - cosine", difference=float(
                1 - np.mean((first * second).sum(1) / np.maximum(lengths, 1e-12)))),
            Figure(name="probability of an instrument, greatest", difference=presence)]


def _scores(pieces: Sequence[Notes], heard: Sequence[Sequence[Notes]]) -> list[Figure]:
    """Returns F1 against the score, where the score has anything of the kind."""
    scored = [[note_scores(notes, each) for each in both]
              for notes, both in zip(pieces, heard, strict=True)]
    figures = []
    for name in SCORES:
        # Per piece: matched, reference and estimate of each copy.
        counts = [np.array([dataclasses.astuple(getattr(s, name)) for s in both]) for both in scored]
        known = [both[:1] for both in counts if both[0, 1]]  # of the others a draw may have no score
        if known:
            first, second = map(_f1, np.sum(counts, axis=0))
            error = _half_width(known, lambda rows: _f1(rows.sum(0)))
            figures.append(Figure(name=f"{name.replace('_', ' ')} F1", values=(first, second),
                                  difference=abs(second - first), error=error))
    return figures


def _f1(counts: np.ndarray) -> float:
    return NoteCounts(matched=int(counts[0]), reference=int(counts[1]), estimate=int(counts[2])).f1


def _half_width(pieces: Sequence[np.ndarray], statistic: Any = np.mean) -> float:
    """Returns half of the 95 % interval of a statistic over pieces, each [1, D] or [1]."""
    interval = bootstrap_interval(lambda rows: float(statistic(rows)), pieces)
    return (interval.high - interval.low) / 2


def _rendered(synthesizer: Synthesizer, notes: Notes, seed: int) -> np.ndarray:
    return np.concatenate(list(synthesizer.stream_mel(notes, RenderSettings(seed=seed))))


def _notes_in(transcriber: Transcriber, inverter: Inverter, mel: np.ndarray) -> Notes:
    return _heard(transcriber, inverter.invert(mel), inverter.codec.sample_rate)


def _heard(transcriber: Transcriber, samples: np.ndarray, sample_rate: int) -> Notes:
    wave = Waveform(samples, sample_rate).mono().resample(transcriber.sample_rate)
    return transcriber.transcribe(wave.samples).notes


def _mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    size = min(len(a), len(b))
    return float(np.abs(a[:size] - b[:size]).mean())
