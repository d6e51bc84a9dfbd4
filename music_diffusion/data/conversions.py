"""Excerpts of scores in two timbres, to judge timbre transfer by: single instruments, and mixtures.

    DST/TASK/source/NAME.flac         what is transferred; TASK: single or mixture
    DST/TASK/target/NAME.flac         the same notes in the wanted timbre
    DST/TASK/notes/NAME.mid           these notes
    DST/TASK/conversions.csv          file, source, target: instruments, with + between
    DST/mixture/parts/NAME.1.flac …   what each instrument of a mixture's source plays, in its order

The tasks are those of Comanducci et al. (2023), section 4.2; the parts are for that called single/mixed.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
import pathlib
import zlib
from collections.abc import Sequence

import numpy as np

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.augment import fit_range, split_parts, with_program
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.renderers import check_renderer, open_renderer
from music_diffusion.data.sets.soundfont_scores import Sources, find_scores, of_split, read_score
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.notes.casting import parse_program
from music_diffusion.notes.conversions import (
    COLUMNS,
    NOTES,
    PARTS,
    SOURCE,
    TABLE,
    TARGET,
    TOGETHER,
    Conversion,
)
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import program_range
from music_diffusion.types import StepProgress

# The six of Comanducci et al. (2023), section 4.3.
PAPER = ("vibraphone=piano", "piano=vibraphone", "clarinet=strings", "strings=clarinet",
         "clarinet=strings,vibraphone=piano", "strings=clarinet,piano=vibraphone")
ENOUGH_NOTES = 10  # of every part of an excerpt
TRIES = 200  # places, of which the first is taken where enough parts play


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """Plan of what is rendered."""

    scores: str  # folder of MIDI files
    soundfont: str  # or recorded notes; plays both sides
    conversions: tuple[str, ...] = PAPER
    pieces: int = 8  # of each conversion
    seconds: float = 20.0
    sample_rate: int = 16000
    split: str = "test"
    workers: int = 2
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
    plan: ConversionPlan
    destination: str
    conversion: Conversion
    number: int
    sources: Sources


def write_conversions(plan: ConversionPlan, destination: str,
                      progress: StepProgress = lambda i, n: None) -> dict[str, int]:
    """Renders every conversion's pieces in both timbres, with the tables.

    A piece's parts are those of a score, moved by octaves to where both instruments play.

    Returns the number of files of each task.

    Raises UserError: no scores, or none where so many parts play; nothing that renders.
    """
    if plan.pieces < 1 or not plan.seconds >= 1:
        raise UserError("give 1 piece or more of each conversion, of 1 s or more")
    check_renderer(plan.soundfont)
    conversions = [Conversion.parse(text) for text in plan.conversions]
    if not conversions:
        raise UserError("give a conversion, such as --conversion clarinet=strings")
    sources = of_split(find_scores(plan.scores), plan.split, plan.scores)
    tasks = [_Task(plan=plan, destination=destination, conversion=c, number=i, sources=sources)
             for c in conversions for i in range(plan.pieces)]
    names = run_tasks(_write, tasks, plan.workers, progress)
    counts: dict[str, int] = {}
    for task in dict.fromkeys(c.task for c in conversions):
        rows = [(name, *(TOGETHER.join(side) for side in (made.conversion.source, made.conversion.target)))
                for name, made in zip(names, tasks, strict=True) if made.conversion.task == task]
        _write_table(pathlib.Path(destination, task, TABLE), rows)
        counts[task] = len(rows)
    return counts


def _write(task: _Task) -> str:
    """Writes one piece; returns its name."""
    plan, conversion = task.plan, task.conversion
    name = f"{conversion.name}_{task.number:02d}"
    folder = pathlib.Path(task.destination, conversion.task)
    parts = _parts(task)
    renderer = open_renderer(plan.soundfont, plan.sample_rate)
    both = [[with_program(part, parse_program(instrument, "--conversion"))
             for part, instrument in zip(parts, side, strict=True)]
            for side in (conversion.source, conversion.target)]
    for where, side in zip((SOURCE, TARGET), both, strict=True):
        rendered = [renderer(part, plan.seconds).samples for part in side]
        if where == SOURCE and len(rendered) > 1:
            for i, samples in enumerate(rendered, 1):
                _write_sound(folder / PARTS / f"{name}.{i}.flac", samples, plan.sample_rate)
        _write_sound(folder / where / f"{name}.flac", np.sum(rendered, axis=0), plan.sample_rate)
    (folder / NOTES).mkdir(parents=True, exist_ok=True)
    write_midi(Notes.concatenate(both[1]), str(folder / NOTES / f"{name}.mid"))
    return name


def _write_sound(path: pathlib.Path, samples: np.ndarray, sample_rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # 24 bits, as of `data.pairs`: 16 would lay a floor of noise under what is quiet.
    write_audio(path, Waveform(samples.astype(np.float32), sample_rate), subtype="PCM_24")


def _parts(task: _Task) -> list[Notes]:
    """Draws an excerpt: as many parts as instruments, each with enough notes, in ranges of both."""
    plan, conversion = task.plan, task.conversion
    rng = np.random.default_rng([plan.seed, zlib.crc32(conversion.name.encode()), task.number])
    for _ in range(TRIES):
        origin = sorted(task.sources)[rng.integers(len(task.sources))]
        piece = task.sources[origin][rng.integers(len(task.sources[origin]))]
        score = _melodic(os.path.join(plan.scores, piece))
        start = rng.uniform(0, max(score.duration - plan.seconds, 0))
        notes = score.between(start, start + plan.seconds).shift(-start)
        parts = [part for part in split_parts(notes) if len(part) >= ENOUGH_NOTES]
        if len(parts) < len(conversion.source):
            continue
        chosen = rng.permutation(len(parts))[:len(conversion.source)]
        return [dataclasses.replace(parts[i], pitch=fit_range(parts[i].pitch, _common(*instruments)))
                for i, *instruments in zip(chosen, conversion.source, conversion.target, strict=True)]
    raise UserError(f"{plan.scores}: found no {plan.seconds:g} s with {len(conversion.source)} parts of "
                    f"{ENOUGH_NOTES} notes in its {plan.split} split; give other scores")


@functools.lru_cache(maxsize=64)
def _melodic(path: str) -> Notes:
    score = read_score(path)
    return score[~score.is_drum]


def _common(source: str, target: str) -> tuple[int, int]:
    """Returns the pitches that suit both instruments, or the target's where hardly any do."""
    (low, high), (least, most) = (program_range(parse_program(name, "--conversion"))
                                  for name in (source, target))
    both = max(low, least), min(high, most)
    return both if both[1] - both[0] >= 12 else (least, most)


def _write_table(path: pathlib.Path, rows: Sequence[tuple[str, ...]]) -> None:
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
