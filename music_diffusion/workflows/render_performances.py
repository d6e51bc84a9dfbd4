"""Every piece is played by several performances, or without the condition, so that it can be scored."""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import os
import pathlib
import re
from typing import Any

import numpy as np

from music_diffusion.audio.io import write_audio
from music_diffusion.conditions.performances import Performance
from music_diffusion.data.parallel import run_tasks
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest, file_digest
from music_diffusion.evaluation.pairing import AUDIO, NOTES, GroupTable, Problem, find_files
from music_diffusion.evaluation.performance_plan import draw_performances
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import class_name, cut_notes
from music_diffusion.files import atomic_write, write_json
from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM
from music_diffusion.synthesis.hub import find, load, load_performances
from music_diffusion.synthesis.performance import NONE
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.tables import read_table
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import in_steps
from music_diffusion.workflows.render_notes import remove_others

GROUPS = "groups.csv"  # beside the folder of the audio: those of the reference and of what is rendered


@dataclasses.dataclass(frozen=True, kw_only=True)
class Render:
    """One file to be made; what it is made of lies beside it, as JSON."""

    midi: str
    target: str
    performance: str | None  # as `synthesize` takes it; None: the model has none
    group: str  # the performance that it is compared with
    seed: int
    steps: int | None
    seconds: float  # of the piece's start
    model: str
    inverter: str | None
    key: str  # of all that it depends on


def render_performances(plan: EvaluationPlan, folder: str, progress: Progress
                        ) -> tuple[EvaluationPlan, list[Problem]]:
    """Plays every piece of `plan.notes` as each of the performances that are drawn for it.

    Files that are there stay. Without the condition there are as many, of the same seeds, each
    compared with the performance that would have played it.

    Args:
      plan: with a model, notes, groups and the number of performances.
      folder: FOLDER/PERFORMANCE/PIECE.flac are made; others are removed.
      progress: takes the share that is done.

    Returns:
      The plan of what is there now, with a table of its groups, and what could not be played.

    Raises:
      UserError: no such model, no performance with reference audio, or not one piece could be played.
    """
    if plan.model is None or plan.notes is None or plan.groups is None or plan.performances is None:
        raise ValueError("the plan has no model, notes, groups or performances")
    files, problems = find_files(plan.notes, NOTES, "MIDI")
    instruments = {}
    for name, midi in files.items():
        try:
            instruments[name] = _instruments(read_midi(midi))
        except UserError as e:
            problems.append(Problem(kind="notes_unreadable", file=midi, advice="it is not rendered",
                                    what=str(e).removeprefix(f"{midi}: ")))
    drawn = draw_performances(instruments, _candidates(plan), plan.performances, plan.seed)
    for name, chosen in drawn.items():
        if not chosen:
            problems.append(Problem(
                kind="notes_unused", file=files[name], advice="it is not rendered",
                what=f"no performance has all of its instruments ({', '.join(instruments[name])})"))
    renders = _renders(plan, folder, files, drawn)
    if not renders:
        raise UserError(f"{plan.notes}: none of {len(files)} MIDI files can be rendered"
                        + (f"; first: {problems[0].what}" if problems else ""))
    failed = run_tasks(_render, renders, plan.workers, in_steps(progress))
    problems += [problem for problem in failed if problem is not None]
    made = [r for r, problem in zip(renders, failed, strict=True) if problem is None]
    if not made:
        raise UserError(f"{plan.notes}: nothing could be rendered; first: {problems[-1].what}")
    out = pathlib.Path(folder)
    remove_others(out, {pathlib.Path(r.target).relative_to(out).as_posix() for r in made})
    table = out.parent / GROUPS
    _write_groups(table, plan, made)
    return dataclasses.replace(plan, generated=folder, groups=str(table), group_column="group"), problems


def _instruments(notes: Notes) -> tuple[str, ...]:
    """Returns the classes that play, as the list of performances names them."""
    kinds = np.where(notes.is_drum, DRUM_CLASS, SLAKH_CLASS_OF_PROGRAM[notes.program])
    return tuple(class_name(int(kind)) for kind in np.unique(kinds))


def _candidates(plan: EvaluationPlan) -> list[Performance]:
    """Returns the performances of the model, or all of the reference, that have reference audio."""
    groups = GroupTable(plan.groups or "", plan.group_column)
    reference, _ = find_files(plan.reference, AUDIO, "audio")
    heard = {group for path in reference.values() if (group := groups.of(path)) is not None}
    if not heard:
        raise UserError(f"{plan.groups}: no row is about a file of {plan.reference}")
    known = load_performances(plan.performances_of or plan.model or "")
    if known is None:
        if plan.condition:
            raise UserError(f"{plan.model}: this model knows no performances; give it as a row without "
                            "the condition alone, or another one")
        return [Performance(name=name) for name in sorted(heard)]
    found = [p for p in known.performances if p.name in heard]
    if not found:
        raise UserError(f"{plan.groups}: has reference audio of {', '.join(sorted(heard)[:5])}, but the "
                        f"model knows {', '.join(known.names[:5])}")
    return found


def _renders(plan: EvaluationPlan, folder: str, files: dict[str, str],
             drawn: dict[str, tuple[str, ...]]) -> list[Render]:
    model = plan.model or ""
    conditional = load_performances(model) is not None
    released = find(model)
    made_by = [file_digest(path) for path in (released / CONFIG, *weight_files(released / WEIGHTS))]
    renders = []
    for name, chosen in drawn.items():
        for number, group in enumerate(chosen):
            performance = None if not conditional else group if plan.condition else NONE
            seed = plan.seed + number
            renders.append(Render(
                midi=files[name], target=os.path.join(folder, _folder(group), f"{name}.flac"), group=group,
                performance=performance, seed=seed, steps=plan.steps, seconds=60 * plan.max_minutes,
                model=model, inverter=plan.inverter, key=digest(
                    made_by, file_digest(files[name]), plan.inverter, plan.steps, seed, plan.max_minutes,
                    performance)))
    return renders


def _folder(name: str) -> str:
    """Returns a folder's name for a performance; names that look alike stay apart."""
    plain = re.sub(r"[^\w-]+", "-", name).strip("-")
    return plain if plain == name else f"{plain}-{digest(name)[:6]}"


def _render(render: Render) -> Problem | None:
    """Makes a file, unless it is there; says why it could not be made."""
    target = pathlib.Path(render.target)
    note = target.with_suffix(".json")
    if target.is_file() and _key(note) == render.key:
        return None
    try:
        notes = cut_notes(read_midi(render.midi), render.seconds)
        more: dict[str, Any] = {} if render.performance is None else {"performance": render.performance}
        wave = _model(render.model, render.inverter).synthesize(
            notes, steps=render.steps, seed=render.seed, **more)
    except UserError as e:
        return Problem(kind="notes_unreadable", file=render.midi, advice="it is not rendered",
                       what=str(e).removeprefix(f"{render.midi}: "))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_audio(target, wave, subtype="PCM_24")  # 16 bits are too noisy for what is quiet
    write_json(note, dataclasses.asdict(render))
    return None


@functools.lru_cache(maxsize=1)
def _model(model: str, inverter: str | None) -> Synthesizer:
    return load(model, inverter)


def _key(path: pathlib.Path) -> str | None:
    try:
        return json.loads(path.read_text())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_groups(path: pathlib.Path, plan: EvaluationPlan, made: list[Render]) -> None:
    """Writes the rows of the reference, then those of what was rendered."""
    table = read_table(plan.groups or "", ("file", plan.group_column))
    rows = [(row["file"], row[plan.group_column]) for row in table]
    rows += [(os.path.abspath(r.target), r.group) for r in made]
    with (atomic_write(path) as part,
          part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as f):
        writer = csv.writer(f, lineterminator="\n")
        writer.writerows([("file", "group"), *rows])
