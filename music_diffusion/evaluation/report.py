"""The files of an evaluation: report.html, report.json and scores.csv.

The page needs no network and no script; pictures and sounds lie inside it.
"""

from __future__ import annotations

import csv
import dataclasses
import datetime
import importlib.metadata
import io
import math
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import music_diffusion
from music_diffusion.errors import UserError
from music_diffusion.evaluation.charts import WIDTH, Bar, Strip, number, strip
from music_diffusion.evaluation.examples import ReportExample
from music_diffusion.evaluation.figures import SECTIONS, Figure
from music_diffusion.evaluation.pairing import KINDS, Problem
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import GENERATED, REFERENCE, UNRELATED, FileResult
from music_diffusion.evaluation.summary import FEW_MINUTES, Summary, main_scores
from music_diffusion.evaluation.tools import Tools
from music_diffusion.files import write_json, write_text
from music_diffusion.paths import shown

TEMPLATE = pathlib.Path(__file__).with_name("report.html.j2")
HTML, JSON, CSV = "report.html", "report.json", "scores.csv"
MOST_FILES = 200  # in the page's table; scores.csv has all
MOST_PROBLEMS = 30  # of one kind in the page; report.json has all
PACKAGES = ("numpy", "scipy", "jax", "flax", "soxr", "mir_eval", "tensorflow")


def write_report(output: str | os.PathLike, plan: EvaluationPlan, tools: Tools,
                 results: Sequence[FileResult], summary: Summary, examples: Sequence[ReportExample],
                 speed: dict[str, Any] | None = None) -> dict[str, Any]:
    """Writes the three files, the page last; each appears when it is complete.

    Names that are not UTF-8 stand in JSON and CSV so that they are found again (`paths.encoded`),
    and in the page as people read them (`paths.shown`).

    Returns:
      What is in report.json.
    """
    folder = pathlib.Path(output)
    content = report_content(plan, tools, results, summary, speed)
    write_json(folder / JSON, content)
    write_text(folder / CSV, _scores_csv(results))
    write_text(folder / HTML, render_html(plan, results, summary, examples, content))
    return content


def check_page() -> None:
    """Finds before the work whether the page can be made. Raises UserError without jinja2."""
    _environment()


def report_content(plan: EvaluationPlan, tools: Tools, results: Sequence[FileResult], summary: Summary,
                   speed: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns all numbers, files, problems and settings as JSON holds them; NaN is null."""
    names = {"transcriber": tools.transcriber_name if tools.transcriber is not None else None,
             "transcriber_stand_in": tools.transcriber_stand_in if tools.transcriber is not None else None,
             "inverter": tools.resynthesis.name if tools.resynthesis is not None else None,
             "embeddings": [{"name": e.name, "settings": e.settings, "stand_in": e.stand_in, "dim": e.dim,
                             "sample_rate": e.sample_rate} for e in tools.embedders]}
    return plain({
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _versions(), "settings": dataclasses.asdict(plan), "tools": names,
        "amounts": summary.amounts, "warnings": summary.warnings,
        "figures": [dataclasses.asdict(f) for f in summary.figures],
        "groups": [dataclasses.asdict(g) for g in summary.groups],
        "instruments": [dataclasses.asdict(row) for row in summary.instruments],
        "by_group": {g: {k: dataclasses.asdict(v) for k, v in row.items()}
                     for g, row in summary.by_group.items()},
        "speed": speed, "problems": [dataclasses.asdict(p) for p in summary.problems],
        "files": [{**dataclasses.asdict(r.item), "facts": {k: dataclasses.asdict(f) for k, f in
                                                           r.facts.items()},
                   "scores": r.scores, "instruments": sorted(r.instruments)} for r in results]})


def plain(value: Any) -> Any:
    """Returns a value as JSON holds it: tuples become lists, numbers that are not finite None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _versions() -> dict[str, str]:
    found = {"music-diffusion": music_diffusion.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # an extra that is not installed
            continue
    return found


def _scores_csv(results: Sequence[FileResult]) -> str:
    """Returns CSV of a row a file; scores of other sides than the generated one begin with the side."""
    names = main_scores(results)
    names += sorted({name for r in results for name in r.scores} - set(names))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "group", "generated", "reference", "notes", "generated_seconds",
                     "reference_seconds", "instruments", *names])
    for r in results:
        seconds = [f"{r.facts[side].seconds:.3f}" if side in r.facts else ""
                   for side in (GENERATED, REFERENCE)]
        scores = [r.scores.get(name, math.nan) for name in names]
        writer.writerow([r.item.name, r.item.group or "", r.item.generated or "", r.item.reference or "",
                         r.item.notes or "", *seconds, " + ".join(sorted(r.instruments)),
                         *("" if math.isnan(s) else f"{s:.6g}" for s in scores)])
    return out.getvalue()


def render_html(plan: EvaluationPlan, results: Sequence[FileResult], summary: Summary,
                examples: Sequence[ReportExample], content: dict[str, Any]) -> str:
    """Makes the page from TEMPLATE."""
    template = _environment().from_string(TEMPLATE.read_text("utf-8"))
    labels = {f.key: f.label for f in summary.figures}
    scores = main_scores(results)
    return template.render(
        plan=plan, summary=summary, examples=examples, content=content, width=WIDTH, labels=labels,
        sections=[(name, [f for f in summary.figures if f.section == name]) for name in SECTIONS],
        few_minutes=FEW_MINUTES, strips=_strips(results, summary.figures), scores=scores,
        bars=_bars(summary), problems=_by_kind(summary.problems), kinds=KINDS, unrelated=UNRELATED,
        files=sorted(results, key=lambda r: r.item.name)[:MOST_FILES], file_count=len(results),
        most_problems=MOST_PROBLEMS, nan=math.nan)


def _environment() -> Any:
    """Makes jinja2's environment; whatever it prints can be written."""
    try:
        import jinja2
    except ImportError as e:
        raise UserError("the report needs jinja2; install it with: "
                        "pip install 'music-diffusion[evaluate]'") from e
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: shown(value) if type(value) is str else value)
    environment.filters["number"] = number
    return environment


def _strips(results: Sequence[FileResult], figures: Sequence[Figure]) -> list[Strip]:
    """Returns a strip for every score of at least two files."""
    found = []
    for figure in figures:
        files = [(r.item.name, r.scores[figure.key]) for r in results
                 if not math.isnan(r.scores.get(figure.key, math.nan))]
        if len(files) > 1:
            marks = [(f"floor, {b.of}", b.value) for b in figure.floors]
            marks += [(f"ceiling, {b.of}", b.value) for b in figure.ceilings]
            found.append(strip(figure.label, figure.better, files, marks))
    return found


def _bars(summary: Summary) -> list[Bar]:
    return [Bar(label=row.name, note=f"{row.notes} notes in {row.files} files",
                widths=[WIDTH * (0 if math.isnan(v) else v) for v in (row.recall, row.named_f1)],
                texts=[number(row.recall), number(row.named_f1)]) for row in summary.instruments]


def _by_kind(problems: Sequence[Problem]) -> dict[str, list[Problem]]:
    return {kind: found for kind in KINDS if (found := [p for p in problems if p.kind == kind])}
