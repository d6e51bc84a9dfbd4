"""An evaluation from folders to a report; whatever is loaded or run in parallel is handed in."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.evaluation.examples import make_examples
from music_diffusion.evaluation.pairing import Problem, pair_files
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.report import check_page, write_report
from music_diffusion.evaluation.scoring import FileResult, Work, score_item, unrelated_notes
from music_diffusion.evaluation.summary import summarize
from music_diffusion.evaluation.tools import ToolLoader, fingerprints, tools_of
from music_diffusion.types import Progress, StepProgress

CACHE = "cache"
SCORING_SHARE = 0.9  # of the progress; the rest is intervals and pictures
# (task, items, workers, progress) → results in order; `data.parallel.run_tasks` is one.
RunTasks = Callable[[Callable[[Any], Any], Sequence[Any], int, StepProgress], list[Any]]


def in_order(task: Callable[[Any], Any], items: Sequence[Any], workers: int,
             progress: StepProgress) -> list[Any]:
    """Runs a task on items one after the other, in this process."""
    del workers
    results = []
    for item in items:
        results.append(task(item))
        progress(len(results), len(items))
    return results


def evaluate(plan: EvaluationPlan, output: str, *, loader: ToolLoader, run_tasks: RunTasks = in_order,
             progress: Progress = lambda share: None,
             speed: dict[str, Any] | None = None, problems: Sequence[Problem] = (), cache: str | None = None
             ) -> dict[str, Any]:
    """Scores everything and writes report.html, report.json and scores.csv.

    Files whose content, tools and settings are those of an earlier run into the
    same folder are not worked on again.

    Args:
      plan: what is compared; `plan.generated` is a folder.
      output: folder of the report, made if missing.
      loader: of embedders, transcriber and inverter, in every process.
      run_tasks: runs one task on many items.
      progress: takes the share that is done.
      speed: of rendering, see `summary.summarize`.
      problems: that are known already; they are reported with the others.
      cache: folder of what several evaluations have in common; None: one in `output`.

    Returns:
      What is in report.json.

    Raises:
      UserError: see `pair_files` and `summarize`, and a tool that cannot be loaded.
    """
    check_page()
    pairing = pair_files(plan)
    folder = pathlib.Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{output}: is a file; give a folder for the report")
    tools = tools_of(loader)
    work = Work(cache=cache or str(folder / CACHE), loader=loader,
                prints=tuple(fingerprints(tools).items()),
                max_seconds=60 * plan.max_minutes, min_seconds=plan.min_seconds)
    folder.mkdir(parents=True, exist_ok=True)
    tasks = list(zip(pairing.items, unrelated_notes(pairing.items), strict=True))
    results: list[FileResult] = run_tasks(
        functools.partial(score_item, work), tasks, plan.workers,
        lambda done, count: progress(SCORING_SHARE * done / count))
    summary = summarize(plan, tools, results, [*problems, *pairing.problems], speed)
    labels = {f.key: f.label for f in summary.figures}
    examples, failed = make_examples(plan, tools, results, labels)
    summary.warnings.extend(failed)
    content = write_report(folder, plan, tools, results, summary, examples, speed)
    progress(1.0)
    return content
