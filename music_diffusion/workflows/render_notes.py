"""A model plays a folder of notes, so that they can be scored."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest, file_digest
from music_diffusion.evaluation.pairing import NOTES, Problem, find_files
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.evaluation.scoring import cut_notes
from music_diffusion.files import write_json
from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.synthesis.hub import find, load
from music_diffusion.synthesis.render import render_file
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import part_of

RENDER_LOG = "renders.json"  # in the folder of the audio: what each file was made of, and how fast
SPEED = ("audio_seconds", "wall_seconds", "peak_memory_mb", "start_up_seconds", "devices")


def render_notes(plan: EvaluationPlan, folder: str, progress: Progress
                 ) -> tuple[dict[str, Any], list[Problem]]:
    """Plays every MIDI file of `plan.notes`, as far as it counts; files that are there stay.

    Returns:
      The speed over all files, and what could not be played.

    Raises:
      UserError: no such model, or not one file could be played.
    """
    if plan.model is None or plan.notes is None:
        raise ValueError("the plan has no model or no notes")
    files, problems = find_files(plan.notes, NOTES, "MIDI")
    made_by = model_digests(plan.model)
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    log = read_log(out / RENDER_LOG)
    synthesizer: Synthesizer | None = None
    rows = []
    for done, (name, midi) in enumerate(files.items()):
        bar = part_of(progress, done, len(files))
        key = digest(made_by, file_digest(midi), plan.inverter, plan.steps, plan.seed, plan.max_minutes)
        target = out / f"{name}.flac"
        if not target.is_file() or log.get(name, {}).get("key") != key:
            synthesizer = synthesizer or load(plan.model, plan.inverter)
            try:
                row = _render(plan, synthesizer, midi, target, bar)
            except UserError as e:
                problems.append(Problem(kind="notes_unreadable", file=midi, advice="it is not rendered",
                                        what=str(e).removeprefix(f"{midi}: ")))
                continue
            log[name] = row | {"key": key}
            write_log(out / RENDER_LOG, log)
        rows.append(log[name])
        bar(1.0)
    if not rows:
        raise UserError(f"{plan.notes}: none of {len(files)} MIDI files could be rendered; "
                        f"first: {problems[0].what}")
    remove_others(out, {f"{name}.flac" for name in files})
    return speed_of(plan.model, rows), problems


def model_digests(model: str) -> list[str]:
    """Returns digests of a released model. Raises UserError: there is none."""
    folder = find(model)
    return [file_digest(path) for path in (folder / CONFIG, *weight_files(folder / WEIGHTS))]


def _render(plan: EvaluationPlan, synthesizer: Synthesizer, midi: str, target: pathlib.Path,
            progress: Progress) -> dict[str, Any]:
    """Writes one file; returns its speed."""
    notes = read_midi(midi)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as scratch:
        if notes.duration > 60 * plan.max_minutes:  # the rest would not be scored
            midi = os.path.join(scratch, "start.mid")
            write_midi(cut_notes(notes, 60 * plan.max_minutes), midi)
        done = render_file(synthesizer, midi, str(target), progress=progress,
                           settings=RenderSettings(steps=plan.steps, seed=plan.seed))
    return {name: getattr(done, name) for name in SPEED}


def speed_of(model: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the speed over all files, from what is logged of each."""
    audio, wall = (sum(row[name] for row in rows) for name in ("audio_seconds", "wall_seconds"))
    peaks = [row["peak_memory_mb"] for row in rows if row["peak_memory_mb"] is not None]
    devices = sorted({row["devices"] for row in rows if row["devices"]})
    return {"model": model, "files": len(rows), "audio_seconds": round(audio, 3),
            "wall_seconds": round(wall, 3), "realtime_factor": round(audio / wall, 3) if wall else None,
            "peak_memory_mb": max(peaks, default=None), "start_up_seconds": rows[0]["start_up_seconds"],
            "devices": ", ".join(devices) or None, "note": ", ".join(devices)}


def read_log(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Returns the log; nothing where there is none, or a damaged one: then the files are made again."""
    try:
        log = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return log if isinstance(log, dict) else {}


def write_log(path: pathlib.Path, log: dict[str, dict[str, Any]]) -> None:
    """Writes what `read_log` reads."""
    write_json(path, log)


def remove_others(folder: pathlib.Path, names: set[str]) -> None:
    """Removes renders of notes that are no longer there, which would be scored, too."""
    for path in folder.rglob("*.flac"):
        if path.relative_to(folder).as_posix() not in names:
            path.unlink()
