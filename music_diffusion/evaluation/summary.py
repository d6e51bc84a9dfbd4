"""Figures of a whole evaluation, from the results of single files.

Every figure carries what is needed to judge it: an interval over files, what
would be reached without a model (floor, ceiling), and how much audio it is from.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from music_diffusion.errors import UserError
from music_diffusion.evaluation.figures import (
    DISTANCES,
    NOTE_LABELS,
    SECTIONS,
    STAND_IN,
    Amounts,
    Figure,
    file_figures,
    note_figures,
    set_figures,
    speed_figure,
    tool_label,
)
from music_diffusion.evaluation.group_figures import Groups, compare_groups, group_figures
from music_diffusion.evaluation.pairing import KINDS, Problem
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import GENERATED, REFERENCE, FileResult
from music_diffusion.evaluation.tools import Tools
from music_diffusion.evaluation.transcription import NoteCounts

FEW_MINUTES = 10.0  # of audio on a side; with less the report warns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of a score over files."""

    mean: float
    median: float
    files: int  # that have the score


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstrumentRow:
    """Scores of one class of instruments: how well it is heard."""

    name: str
    files: int
    notes: int
    recall: float  # share of its notes that are heard, on whatever instrument
    named_f1: float  # F1 of its notes against those heard as this class
    scores: dict[str, Statistics]  # of the files in which it plays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """All figures of an evaluation."""

    figures: list[Figure]
    instruments: list[InstrumentRow]
    by_group: dict[str, dict[str, Statistics]]
    groups: list[Groups]
    problems: list[Problem]
    warnings: list[str]
    amounts: Amounts  # by side: files, minutes


def summarize(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult],
              problems: Iterable[Problem], speed: dict[str, Any] | None = None) -> Summary:
    """Returns the figures of all results.

    Args:
      plan: settings.
      tools: for their names.
      results: one a file.
      problems: of the pairing; those of the results are added.
      speed: of rendering, where the model was run: realtime_factor, audio_seconds, …

    Raises:
      UserError: nothing could be scored.
    """
    problems = [*problems, *(p for r in results for p in r.problems)]
    _check_anything(results, problems)
    amounts = {side: _amount(r.facts[side].seconds for r in results if side in _sides(r))
               for side in (GENERATED, REFERENCE)}
    figures: list[Figure] = []
    groups: list[Groups] = []
    for embedder in tools.embedders:
        title = tool_label(embedder.name, embedder.stand_in)
        figures += set_figures(plan, embedder.name, title, results, amounts)
        if plan.groups is not None:
            found, more = compare_groups(embedder.name, title, results)
            problems += more
            if found is not None:
                groups.append(found)
                figures += group_figures(found, embedder.name, title, amounts)
    figures += file_figures(plan, tools, results)
    figures += note_figures(plan, tools, results)
    if speed:
        figures.append(speed_figure(speed))
    figures.sort(key=lambda f: SECTIONS.index(f.section))
    order = list(KINDS)
    problems.sort(key=lambda p: (order.index(p.kind), p.file))
    return Summary(
        figures=figures, instruments=_instruments(results), by_group=_by_group(results), groups=groups,
        problems=problems, amounts=amounts, warnings=_warnings(plan, tools, results, amounts, problems))


def _check_anything(results: Sequence[FileResult], problems: Sequence[Problem]) -> None:
    """Raises UserError if nothing is scored: sets need both sides somewhere, notes the generated one."""
    noted = any(GENERATED in r.counts for r in results)
    for side in (GENERATED, REFERENCE):
        if not any(side in _sides(r) for r in results) and not (side == REFERENCE and noted):
            first = next((p for p in problems if p.kind in ("unreadable", "silent", "too_short")), None)
            reason = f"; first: {first.file}: {first.what}" if first else ""
            raise UserError(f"no {side} file can be scored ({len(problems)} problems{reason})")


def _sides(result: FileResult) -> set[str]:
    """Returns the sides with embeddings."""
    return set().union(*(by.keys() for by in result.embeddings.values()))


def _amount(seconds: Iterable[float]) -> dict[str, float]:
    seconds = list(seconds)
    return {"files": len(seconds), "minutes": sum(seconds) / 60}


def statistics(values: Iterable[float]) -> Statistics:
    """Returns the statistics of the values that are not NaN."""
    known = [v for v in values if not math.isnan(v)]
    return Statistics(mean=math.fsum(known) / len(known) if known else math.nan,
                      median=float(np.median(known)) if known else math.nan, files=len(known))


def main_scores(results: Sequence[FileResult]) -> list[str]:
    """Returns the names of the scores of the generated side, in the order of the report."""
    names = {name for r in results for name in r.scores if ":" not in name}
    order = [*sorted(n for n in names if n.startswith("reconstruction_")), *DISTANCES,
             "level_difference_db", *NOTE_LABELS]
    return [name for name in order if name in names]


def _table(results: Sequence[FileResult], keys_of: Callable[[FileResult], Iterable[str]]
           ) -> dict[str, dict[str, Statistics]]:
    """Returns statistics of every score by some key of files."""
    names = main_scores(results)
    rows = collections.defaultdict(list)
    for r in results:
        for key in keys_of(r):
            rows[key].append(r)
    return {key: {name: statistics(r.scores.get(name, math.nan) for r in found) for name in names}
            for key, found in sorted(rows.items())}


def _by_group(results: Sequence[FileResult]) -> dict[str, dict[str, Statistics]]:
    return _table(results, lambda r: [r.item.group] if r.item.group is not None else [])


def _instruments(results: Sequence[FileResult]) -> list[InstrumentRow]:
    """Returns a row for each class of instruments, that with the most notes first."""
    scores = _table(results, lambda r: r.instruments)
    total: dict[str, dict[str, NoteCounts]] = {}
    for r in results:
        for name, counts in r.instruments.items():
            known = total.setdefault(name, {kind: NoteCounts() for kind in counts})
            total[name] = {kind: known[kind] + counts[kind] for kind in counts}
    rows = [InstrumentRow(name=name, files=sum(name in r.instruments for r in results),
                          notes=counts["found"].reference, recall=counts["found"].recall,
                          named_f1=counts["named"].f1, scores=scores[name])
            for name, counts in total.items()]
    return sorted(rows, key=lambda row: (-row.notes, row.name))


def _warnings(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult],
              amounts: Amounts, problems: Sequence[Problem]) -> list[str]:
    found = []
    for side, amount in amounts.items():
        if amount["minutes"] < FEW_MINUTES:
            found.append(f"Only {amount['minutes']:.1f} minutes of {side} audio: below {FEW_MINUTES:.0f} "
                         "minutes set distances are mostly bias. Give more audio.")
    own = [e.name for e in tools.embedders if e.stand_in]
    if tools.transcriber is not None and tools.transcriber_stand_in:
        own.append(tools.transcriber_name)
    if own:
        found.append(f"{' and '.join(own)}: {STAND_IN} network{'s' * (len(own) > 1)}, trained on renders. "
                     "Compare such figures with each other, never with those of a paper.")
    silent = sum(r.facts[GENERATED].silent for r in results if GENERATED in r.facts)
    if silent:
        found.append(f"{silent} generated file{'s are' if silent > 1 else ' is'} silent, and counted as "
                     "such.")
    if any(p.kind == "unpaired" for p in problems):
        found.append("No generated file has a reference of its name: the sets alone are compared.")
    if tools.transcriber is not None and plan.notes is None:
        found.append("No notes were given: the transcriber compares pitches with the reference alone.")
    return found
