"""A model plays the notes, where it is asked to, and what it made is scored and shown in a report."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np

from music_diffusion.audio.inverter import Inverter
from music_diffusion.data.parallel import run_tasks
from music_diffusion.evaluation.evaluate import evaluate
from music_diffusion.evaluation.pairing import Problem
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.tools import Naming, Resynthesis, Tools
from music_diffusion.models.base import Tagging
from music_diffusion.synthesis.hub import (
    DEFAULT_TAGGER,
    load_inverter,
    load_trained,
    load_transcriber,
)
from music_diffusion.synthesis.reconstruct import reconstruct_blocks
from music_diffusion.workflows.embedders import load_embedder
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.render_notes import render_notes
from music_diffusion.workflows.render_performances import render_performances
from music_diffusion.workflows.requests import NO_MODEL
from music_diffusion.workflows.transfer_sources import transfer_sources

BLOCK = 65536  # samples that go through the inverter at once
GENERATED = "generated"  # folder of what the plan's model renders, in that of the report


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadTools:
    """Loads what listens, in every process; see `evaluation.tools.ToolLoader`."""

    embeddings: tuple[str, ...]
    transcriber: str | None
    inverter: str | None
    naming: bool = False  # whether instruments are named

    def __call__(self) -> Tools:
        return Tools(
            embedders=tuple(load_embedder(spec) for spec in self.embeddings),
            transcriber=load_transcriber(self.transcriber) if self.transcriber is not None else None,
            transcriber_name=self.transcriber or NO_MODEL,
            resynthesis=resynthesis(self.inverter) if self.inverter is not None else None,
            naming=naming() if self.naming else None)


def naming() -> Naming:
    """Returns what names instruments: the tagger of the package."""
    _, model, params = load_trained(DEFAULT_TAGGER, Tagging, "tagger")
    presence = model.presence(params)
    return Naming(name=DEFAULT_TAGGER, sample_rate=presence.model.front.sample_rate,
                  presence=lambda samples: np.asarray(presence(samples)))


def resynthesis(name: str) -> Resynthesis:
    """Returns what sends audio through an inverter and the limiter of `reconstruct`."""
    inverter = load_inverter(name)
    return Resynthesis(name=name, sample_rate=inverter.codec.sample_rate,
                       run=lambda samples: _through(inverter, samples))


def _through(inverter: Inverter, samples: np.ndarray) -> np.ndarray:
    blocks = (samples[at:at + BLOCK, None] for at in range(0, len(samples), BLOCK))
    made = [out[:, 0] for _, out in reconstruct_blocks(inverter, blocks, 1)]
    return np.concatenate(made) if made else np.zeros(0, np.float32)


def render_and_evaluate(plan: EvaluationPlan, output: str, *, cache: str | None = None,
                        monitor: Monitor = SILENT) -> dict[str, Any]:
    """Renders where the plan has a model, scores, and writes the report into a folder.

    Args:
      plan: what is compared.
      output: folder of the report.
      cache: folder of what it has in common with other evaluations; None: one in `output`.
      monitor: gets the progress.

    Returns:
      What is in report.json.

    Raises UserError: folders without files, no such model or tool; bad files are problems in the report.
    """
    if plan.workers > 1:  # each process would take most of a GPU's memory at once
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    speed: dict[str, Any] | None = None
    problems: list[Problem] = []
    if plan.generated is None:
        folder = os.path.join(output, GENERATED)
        with monitor.bar(f"rendering with {plan.model or plan.method}") as progress:
            if plan.sources is not None:
                speed, problems = transfer_sources(plan, folder, progress)
                plan = dataclasses.replace(plan, generated=folder)
            elif plan.performances is None:
                speed, problems = render_notes(plan, folder, progress)
                plan = dataclasses.replace(plan, generated=folder)
            else:
                plan, problems = render_performances(plan, folder, progress)
    loader = LoadTools(embeddings=plan.embeddings, transcriber=plan.transcriber, inverter=plan.inverter,
                       naming=plan.conversions is not None)
    with monitor.bar("evaluating") as progress:
        return evaluate(plan, output, loader=loader, run_tasks=run_tasks, progress=progress, speed=speed,
                        problems=problems, cache=cache)
