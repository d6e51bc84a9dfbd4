"""A handful of files to look at and to listen to: the best, the worst, and some between."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Sequence

import numpy as np
import soundfile

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.waveform import Waveform
from music_diffusion.evaluation.charts import Roll, Spectrogram, roll, spectrograms
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import GENERATED, REFERENCE, FileResult
from music_diffusion.evaluation.sounds import read_start
from music_diffusion.evaluation.tools import Resynthesis, Tools
from music_diffusion.paths import shown

MOST_SECONDS, ALL_SECONDS = 20.0, 60.0  # of one example, and of all (the report stays below 10 MB)
LEAD = 0.25  # seconds before the first sound
AUDIBLE = 0.01  # of the peak
MP3_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz


@dataclasses.dataclass(frozen=True, kw_only=True)
class Player:
    label: str
    uri: str  # MP3


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportExample:
    title: str  # e.g. best
    name: str  # of the file
    score: str  # label and value of what it was chosen by
    start: float  # seconds, where the excerpt begins
    seconds: float
    players: list[Player]
    spectrograms: list[Spectrogram]
    roll: Roll | None


def choose(results: Sequence[FileResult], count: int) -> list[tuple[str, FileResult, str]]:
    """Chooses the best, the worst and files evenly between, by note F1, else by the distance of pairs.

    Returns:
      (title, result, name of the score), the best first; without pairs and notes
      simply the first files of each side, with no score.
    """
    for key, sign in (("onset_f1", -1), ("drum_onset_f1", -1), ("reconstruction_", 1)):
        found = [(name, r) for r in results for name in sorted(r.scores) if name.startswith(key)
                 and not math.isnan(r.scores[name])]
        if found and count:
            name = found[0][0]  # of several embeddings the first
            ranked = sorted((r for n, r in found if n == name),
                            key=lambda r: (sign * r.scores[name], r.item.name))
            at = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int))
            return [(_title(int(i), len(ranked)), ranked[i], name) for i in at]
    both = []
    for side in (GENERATED, REFERENCE):
        sound = [r for r in results if r.facts.get(side) is not None and not r.facts[side].silent]
        both += [(side, r, "") for r in sound[:count]]
    return both


def _title(rank: int, count: int) -> str:
    if count == 1:
        return "the only file"
    if rank in (0, count - 1):
        return "best" if rank == 0 else "worst"
    return "median" if rank in ((count - 1) // 2, count // 2) else f"rank {rank + 1} of {count}"


def make_examples(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult],
                  labels: dict[str, str]) -> tuple[list[ReportExample], list[str]]:
    """Makes excerpts with players, spectrograms and the piano roll of asked and heard notes.

    They come after all the work: one that cannot be made is left out, not the report with it.

    Args:
      plan: how many, and how far files count.
      tools: whose inverter makes the reference's third player.
      results: of all files.
      labels: of scores.

    Returns:
      The examples, and a line about each that could not be made.
    """
    chosen = choose(results, plan.examples)
    length = min(MOST_SECONDS, ALL_SECONDS / max(1, len(chosen)))
    made, failed = [], []
    for title, result, score in chosen:
        try:
            made.append(_example(plan, tools.resynthesis, title, result, score, labels, length))
        except Exception as e:  # of any library that draws or encodes; it is reported
            reason = " ".join(f"{type(e).__name__}: {e}".split())
            failed.append(f"The example {shown(result.item.name)} is left out: {shown(reason)}.")
    return made, failed


def _example(plan: EvaluationPlan, resynthesis: Resynthesis | None, title: str, result: FileResult,
             score: str, labels: dict[str, str], length: float) -> ReportExample:
    waves = {side: read_start(path, 60 * plan.max_minutes)[0] for side in (GENERATED, REFERENCE)
             if (path := getattr(result.item, side)) is not None and side in result.facts
             and result.facts[side].seconds >= plan.min_seconds}
    start = _first_sound(waves.get(REFERENCE, waves.get(GENERATED)), length)
    cut = {side: Waveform(w.samples[round(start * w.sample_rate):round((start + length) * w.sample_rate)],
                          w.sample_rate) for side, w in waves.items()}
    cut = {side: wave for side, wave in cut.items() if len(wave)}
    sounds = {"Generated": cut.get(GENERATED), "Reference": cut.get(REFERENCE)}
    if resynthesis is not None and REFERENCE in cut:
        again = resynthesis.run(cut[REFERENCE].resample(resynthesis.sample_rate).samples)
        sounds[f"Reference through {resynthesis.name}"] = Waveform(again, resynthesis.sample_rate)
    present = {label: wave for label, wave in sounds.items() if wave is not None}
    codec = MelCodec()
    seconds = max(wave.duration for wave in present.values())
    return ReportExample(
        title=title, name=result.item.name, start=start, seconds=seconds,
        score=f"{labels.get(score, score)} {result.scores[score]:.3f}" if score else "",
        players=[Player(label=label, uri=mp3_uri(wave)) for label, wave in present.items()],
        spectrograms=spectrograms([(label, wave.resample(codec.sample_rate).samples)
                                   for label, wave in present.items()], codec, start),
        roll=None if result.notes is None or GENERATED not in result.heard else
        roll(result.notes, result.heard[GENERATED], start, seconds))


def _first_sound(wave: Waveform | None, length: float) -> float:
    """Returns where an excerpt should begin, in seconds: 0 if all of the file fits."""
    if wave is None or wave.duration <= length:
        return 0.0
    level = np.abs(wave.samples)
    first = int(np.argmax(level >= AUDIBLE * level.max())) / wave.sample_rate
    return round(min(max(0.0, first - LEAD), wave.duration - length), 2)


def mp3_uri(wave: Waveform) -> str:
    """Returns mono audio as a data URI that every browser plays."""
    rate = next((r for r in MP3_RATES if r <= wave.sample_rate), MP3_RATES[-1])
    file = io.BytesIO()
    soundfile.write(file, wave.mono().resample(rate).samples.clip(-1, 1), rate, format="MP3",
                    subtype="MPEG_LAYER_III")
    return "data:audio/mpeg;base64," + base64.b64encode(file.getvalue()).decode()
