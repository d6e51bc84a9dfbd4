"""`music-diffusion evaluate`."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import sys
from typing import Any

import numpy as np

from music_diffusion.audio.inverter import Inverter
from music_diffusion.cli.progress import progress_bar
from music_diffusion.data.parallel import run_tasks
from music_diffusion.errors import UserError
from music_diffusion.evaluation.charts import number
from music_diffusion.evaluation.evaluate import evaluate
from music_diffusion.evaluation.pairing import Problem
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.report import HTML
from music_diffusion.evaluation.tools import Resynthesis, Tools
from music_diffusion.synthesis.hub import load_inverter, load_transcriber
from music_diffusion.synthesis.reconstruct import reconstruct_blocks
from music_diffusion.workflows.embedders import load_embedder
from music_diffusion.workflows.render_notes import render_notes
from music_diffusion.workflows.render_performances import render_performances

NONE = "none"  # as --transcriber: no transcription
BLOCK = 65536  # samples that go through the inverter at once
GENERATED = "generated"  # folder of what --model renders, in that of the report


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadTools:
    """Loads what listens, in every process; see `evaluation.tools.ToolLoader`."""

    embeddings: tuple[str, ...]
    transcriber: str | None
    inverter: str | None

    def __call__(self) -> Tools:
        return Tools(
            embedders=tuple(load_embedder(spec) for spec in self.embeddings),
            transcriber=load_transcriber(self.transcriber) if self.transcriber is not None else None,
            transcriber_name=self.transcriber or NONE,
            resynthesis=resynthesis(self.inverter) if self.inverter is not None else None)


def resynthesis(name: str) -> Resynthesis:
    """Audio through an inverter and the limiter of `reconstruct`."""
    inverter = load_inverter(name)
    return Resynthesis(name=name, sample_rate=inverter.codec.sample_rate,
                       run=lambda samples: _through(inverter, samples))


def _through(inverter: Inverter, samples: np.ndarray) -> np.ndarray:
    blocks = (samples[at:at + BLOCK, None] for at in range(0, len(samples), BLOCK))
    made = [out[:, 0] for _, out in reconstruct_blocks(inverter, blocks, 1)]
    return np.concatenate(made) if made else np.zeros(0, np.float32)


def run(*, generated: str | None, reference: str, notes: str | None, groups: str | None, group_column: str,
        embeddings: list[str], transcriber: str, inverter: str | None, model: str | None, steps: int | None,
        max_minutes: float, workers: int, seed: int, output: str, json: bool) -> None:
    """See `cli.main.evaluate`."""
    if generated is not None and model is not None:
        raise UserError("--generated and --model exclude each other: give the folder or the model")
    plan = EvaluationPlan(
        generated=generated, reference=reference, notes=notes, groups=groups, group_column=group_column,
        embeddings=tuple(embeddings), transcriber=None if transcriber == NONE else transcriber,
        inverter=inverter, model=model, steps=steps, max_minutes=max_minutes, workers=workers, seed=seed)
    content = run_plan(plan, output)
    if json:
        print(json_module.dumps({k: v for k, v in content.items() if k != "files"}, allow_nan=False))
    else:
        _show(content, output)


def run_plan(plan: EvaluationPlan, output: str, cache: str | None = None) -> dict[str, Any]:
    """Renders where the plan has a model, scores, and writes the report into a folder.

    Args:
      plan: what is compared.
      output: folder of the report.
      cache: folder of what it has in common with other evaluations; None: one in `output`.

    Returns:
      What is in report.json.
    """
    if plan.workers > 1:  # each process would take most of a GPU's memory at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    speed: dict[str, Any] | None = None
    problems: list[Problem] = []
    if plan.generated is None:
        folder = os.path.join(output, GENERATED)
        with progress_bar(f"rendering with {plan.model}") as progress:
            if plan.performances is None:
                speed, problems = render_notes(plan, folder, progress)
                plan = dataclasses.replace(plan, generated=folder)
            else:
                plan, problems = render_performances(plan, folder, progress)
    loader = LoadTools(embeddings=plan.embeddings, transcriber=plan.transcriber, inverter=plan.inverter)
    with progress_bar("evaluating") as progress:
        return evaluate(plan, output, loader=loader, run_tasks=run_tasks, progress=progress, speed=speed,
                        problems=problems, cache=cache)


def _show(content: dict[str, Any], output: str) -> None:
    """A line a figure for people; warnings go to stderr."""
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    for figure in content["figures"]:
        if figure["value"] is not None:
            interval = ("" if figure["low"] is None else
                        f"  ({number(figure['low'])} … {number(figure['high'])})")
            print(f"{figure['label']}: {number(figure['value'])}{interval}")
    count = len(content["problems"])
    print(f"{os.path.join(output, HTML)}: {len(content['files'])} files, "
          f"{count} problem{'s' * (count != 1)}")
