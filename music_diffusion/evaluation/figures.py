"""Rows of the headline table, each with what is needed to judge it."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from music_diffusion.evaluation.bootstrap import bootstrap_interval
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import (
    GENERATED,
    INVERTED,
    REFERENCE,
    UNRELATED,
    FileResult,
)
from music_diffusion.evaluation.set_metrics import set_metrics
from music_diffusion.evaluation.tools import Tools
from music_diffusion.evaluation.transcription import NoteScores

STAND_IN = "this project's own"
SECTIONS = ("Sets", "Groups", "Pairs", "Notes", "Speed")  # of the headline table
Amounts = dict[str, dict[str, float]]  # by side: files, minutes

# Names of figures: label, whether more is better, what it is.
SET_LABELS = {
    "fad": ("FAD", "Fréchet audio distance of the sets"),
    "fad_infinity": ("FAD∞", "FAD extrapolated to infinitely many generated embeddings"),
    "kad": ("KAD", "unbiased kernel distance of the sets; around 0 for equal distributions"),
}
DISTANCES = {
    "log_mel_distance": ("Log-mel distance (nat)", "mean |Δ log-mel|, bins of 128 mel, hop 20 ms"),
    "fine_spectral_distance": ("Time-fine spectral distance (nat)",
                               "mean |Δ log magnitude|, windows of 16 ms every 4 ms"),
    "pitch_jaccard_distance": ("Pitch Jaccard distance",
                               "pitches heard in the generated audio against those heard in the reference"),
}
# Of timbre transfer: label, what it is, whether more is better.
TRANSFER_LABELS = {
    "target_named": ("Target named", "share of wanted instruments among as many that are heard most surely",
                     "higher"),
    "source_named": ("Source named", "the same of the source's instruments", "lower"),
    "envelope_correlation": ("Envelope correlation", "of the levels in dB with the source's", "higher"),
    "style_distance": ("Style distance", "norm of the difference of mean embeddings from those of what it "
                       "should sound like", "lower"),
}
NOTE_LABELS = {
    "onset_f1": ("Note F1", "pitch and onset within 50 ms"),
    "onset_precision": ("Note precision", "share of heard notes that were asked for"),
    "onset_recall": ("Note recall", "share of asked notes that are heard"),
    "offset_f1": ("Note-with-offset F1", "and the end within a fifth of the duration or 50 ms"),
    "instrument_f1": ("Note-with-instrument F1", "pitch, onset and instrument class"),
    "full_f1": ("Full F1", "pitch, onset, offset and instrument class"),
    "full_with_drums_f1": ("Full F1 with drums", "MT3's and Spectrogram Diffusion's “Full”"),
    "frame_f1": ("Frame F1", "pitches in frames of 10 ms"),
    "chroma_f1": ("Chroma F1", "pitch classes in frames of 10 ms"),
    "drum_onset_f1": ("Drum onset F1", "drum key and onset within 50 ms"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bound:
    """A value to compare a figure with."""

    value: float
    of: str  # whose value it is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A number of the headline table."""

    key: str  # e.g. fad:tagger, onset_f1
    label: str
    what: str  # explanation
    section: str
    better: str  # lower, higher, or none
    value: float
    low: float = math.nan  # interval
    high: float = math.nan
    median: float = math.nan  # over files
    pooled: float = math.nan  # score of all notes together
    floors: tuple[Bound, ...] = ()
    ceilings: tuple[Bound, ...] = ()
    files: int = 0  # that it is from
    minutes: float = 0.0
    reference_files: int = 0
    reference_minutes: float = 0.0
    note: str = ""  # e.g. why there is no value


def tool_label(name: str, stand_in: bool) -> str:
    """Returns the name of a network in figures."""
    return f"{name} ({STAND_IN})" if stand_in else name


def bounds(*pairs: tuple[float, str]) -> tuple[Bound, ...]:
    """Returns a bound for each pair (value, of what) whose value is known."""
    return tuple(Bound(value=value, of=of) for value, of in pairs if not math.isnan(value))


def amount_fields(amounts: Amounts) -> dict[str, Any]:
    """Returns how much audio a figure of all files is from."""
    made, real = amounts[GENERATED], amounts[REFERENCE]
    return dict(files=int(made["files"]), minutes=made["minutes"],
                reference_files=int(real["files"]), reference_minutes=real["minutes"])


def _clips(results: Sequence[FileResult], embedder: str, side: str) -> list[np.ndarray]:
    return [r.embeddings[embedder][side] for r in results if side in r.embeddings[embedder]]


def set_figures(plan: EvaluationPlan, name: str, label: str, results: Sequence[FileResult],
                amounts: Amounts) -> list[Figure]:
    """Returns distances of the sets in one embedding; none if a side is empty."""
    made, real, inverted = (_clips(results, name, side) for side in (GENERATED, REFERENCE, INVERTED))
    if not made or not real:
        return []
    fewest, dim = min(sum(map(len, made)), sum(map(len, real))), made[0].shape[1]
    figures = []
    whose = f"reference through {plan.inverter}"
    for key, metric in set_metrics(made, real, inverted, plan).items():
        title, what = SET_LABELS[key]
        note = metric.reason
        if not note and fewest < dim and key != "kad":
            note = f"{fewest} embeddings of {dim} dimensions: mostly bias"
        figures.append(Figure(
            key=f"{key}:{name}", label=f"{title}, {label}", what=what, better="lower", section="Sets",
            value=metric.value, low=metric.low, high=metric.high, note=note,
            floors=bounds((metric.floor, "reference halves")),
            ceilings=bounds((metric.ceiling, whose)),
            **amount_fields(amounts)))
    return figures


def file_figures(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult]) -> list[Figure]:
    """Returns means of what is compared file by file."""
    rows = []
    for embedder in tools.embedders:
        key = f"reconstruction_{embedder.name}"
        rows.append(_mean_figure(
            plan, results, key, f"Reconstruction distance, {tool_label(embedder.name, embedder.stand_in)}",
            "norm of the difference of embeddings, averaged over time", "lower", "Pairs"))
    own = tool_label(tools.transcriber_name, tools.transcriber_stand_in)
    for key, (label, what) in DISTANCES.items():
        if key != "pitch_jaccard_distance":
            rows.append(_mean_figure(plan, results, key, label, what, "lower", "Pairs"))
        elif tools.transcriber is not None:
            rows.append(_mean_figure(plan, results, key, f"{label}, {own}", what, "lower", "Pairs"))
    rows.append(_mean_figure(plan, results, "level_difference_db", "Level difference (dB)",
                             "generated less reference", "none", "Pairs"))
    for key, (label, what, better) in TRANSFER_LABELS.items():
        rows.append(_mean_figure(plan, results, key, label, what, better, "Pairs"))
    return [row for row in rows if row.files]


def _mean_figure(plan: EvaluationPlan, results: Sequence[FileResult], key: str, label: str, what: str,
                 better: str, section: str) -> Figure:
    """Returns the mean over the files that have the score; floor and ceiling are of the same files."""
    found = [r for r in results if not math.isnan(r.scores.get(key, math.nan))]
    values = np.array([r.scores[key] for r in found])
    low, high = math.nan, math.nan
    if len(values) > 1 and plan.draws >= 2:
        interval = bootstrap_interval(lambda x: float(x.mean()), list(values[:, None, None]),
                                      draws=plan.draws, level=plan.level, seed=plan.seed,
                                      bounds=limits(key))
        low, high = interval.low, interval.high
    return Figure(
        key=key, label=label, what=what, better=better, section=section,
        value=float(values.mean()) if len(values) else math.nan, low=low, high=high,
        median=float(np.median(values)) if len(values) else math.nan, files=len(found),
        minutes=sum(r.facts[GENERATED].seconds for r in found) / 60,
        floors=bounds((_mean(found, f"{UNRELATED}:{key}"), "another file's notes")),
        ceilings=bounds((_mean(found, f"{REFERENCE}:{key}"), "reference as it is"),
                        (_mean(found, f"{INVERTED}:{key}"), f"reference through {plan.inverter}")))


def limits(key: str) -> tuple[float, float]:
    """The least and the greatest value that a score of a file can have."""
    if key == "envelope_correlation":
        return -1.0, 1.0
    shares = {"pitch_jaccard_distance", *NOTE_LABELS, *TRANSFER_LABELS} - {"style_distance"}
    if key in shares:
        return 0.0, 1.0
    return (-math.inf if key == "level_difference_db" else 0.0), math.inf


def _mean(results: Sequence[FileResult], key: str) -> float:
    values = [r.scores[key] for r in results if not math.isnan(r.scores.get(key, math.nan))]
    return math.fsum(values) / len(values) if values else math.nan


def note_figures(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult]) -> list[Figure]:
    """Returns means over files of what the transcriber hears of the notes; `pooled` counts notes."""
    if tools.transcriber is None:
        return []
    own = tool_label(tools.transcriber_name, tools.transcriber_stand_in)
    counts = [NoteScores(**r.counts[GENERATED]) for r in results if GENERATED in r.counts]
    pooled = functools.reduce(operator.add, counts, NoteScores()).values()
    rows = [dataclasses.replace(
        _mean_figure(plan, results, key, f"{label}, {own}", what, "higher", "Notes"), pooled=pooled[key])
        for key, (label, what) in NOTE_LABELS.items()]
    return [row for row in rows if row.files]


def speed_figure(speed: dict[str, Any]) -> Figure:
    """Returns the realtime factor of the model that rendered the generated files."""
    return Figure(key="realtime_factor", label="Realtime factor", better="higher", section="Speed",
                  what=f"seconds of audio per second, {speed['model']}, without loading and compiling",
                  value=speed["realtime_factor"], files=speed["files"],
                  minutes=speed["audio_seconds"] / 60, note=speed.get("note", ""))
