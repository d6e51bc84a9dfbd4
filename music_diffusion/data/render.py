"""Scores → a data folder of rendered excerpts and isolated notes."""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import functools
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import records
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.note_renders import NoteSampling, note_rows
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import DRUMS, FrameGrid
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """What is rendered from a folder of scores with a `manifest.csv`."""

    scores: str  # folder with manifest.csv (columns path, source, split)
    soundfont: str  # .sf2 or .sf3
    train_hours: float = 10.0  # of varied excerpts; sources are drawn evenly
    validation_hours: float = 0.25  # unvaried excerpts
    frames: int = 2048  # frames an excerpt (40.96 s with the default codec)
    shards: int = 16  # of the training split
    notes_per_program: int = 96  # isolated notes of each program and of the drums
    seed: int = 0
    workers: int = 2  # processes
    augmentation: Augmentation = Augmentation()
    sampling: NoteSampling = NoteSampling()
    codec: MelCodec = MelCodec()
    grid: FrameGrid = FrameGrid()

    @property
    def seconds(self) -> float:
        """Length of an excerpt."""
        return self.frames * self.codec.hop / self.codec.sample_rate

    @property
    def renderer(self) -> SoundFontRenderer:
        return SoundFontRenderer(path=self.soundfont, sample_rate=self.codec.sample_rate)


def scores_by_source(plan: RenderPlan, split: str) -> dict[str, list[str]]:
    """Paths of one split, by source."""
    table = pathlib.Path(plan.scores) / "manifest.csv"
    if not table.is_file():
        raise UserError(f"{plan.scores}: no manifest.csv with columns path, source, split")
    result: dict[str, list[str]] = {}
    with table.open(newline="") as f:
        reader = csv.DictReader(f)
        if not {"path", "source", "split"} <= set(reader.fieldnames or ()):
            raise UserError(f"{table}: needs the columns path, source, split")
        for row in reader:
            if row["split"] == split:
                result.setdefault(row["source"], []).append(f"{plan.scores}/{row['path']}")
    if not result:
        raise UserError(f"{table}: no row of split {split}")
    return result


@functools.lru_cache(maxsize=64)
def _read(path: str) -> Notes:
    return read_midi(path)


def draw_excerpt(plan: RenderPlan, scores: dict[str, list[str]], rng: np.random.Generator,
                 vary: bool) -> Notes:
    """Notes of one excerpt: source evenly, then piece, then place; onsets from 0."""
    sources = sorted(scores)
    for _ in range(100):
        paths = scores[sources[rng.integers(len(sources))]]
        notes = _read(paths[rng.integers(len(paths))])
        latest = max(notes.duration - 0.5 * plan.seconds, 0.0)
        start = rng.uniform(0, latest)
        # Stretched notes must still fill the excerpt, so more than its length is taken.
        excerpt = notes.between(start, start + 1.3 * plan.seconds).shift(-start)
        if len(excerpt) > 10:
            return plan.augmentation(excerpt, rng) if vary else excerpt
    raise UserError(f"{plan.scores}: no excerpt with more than ten notes found")


def render_excerpt(plan: RenderPlan, notes: Notes) -> bytes:
    """One record of `plan.frames` frames."""
    notes = notes.between(0.0, plan.seconds)
    samples = plan.renderer(notes).samples
    length = plan.frames * plan.codec.hop
    samples = np.pad(samples, (0, max(0, length - len(samples))))[:length + plan.codec.fft]
    mel = plan.codec.encode(samples)[:plan.frames]
    return records.Record(mel=mel, notes=notes).to_bytes()


def _shard(plan: RenderPlan, folder: str, split: str, index: int, count: int) -> int:
    path = f"{folder}/{split}-{index:05d}.array_record"
    if os.path.exists(path):  # an earlier run finished it
        return count
    scores = scores_by_source(plan, split)
    rng = np.random.default_rng([plan.seed, split == "train", index])

    def messages() -> Iterator[bytes]:
        for _ in range(count):
            yield render_excerpt(plan, draw_excerpt(plan, scores, rng, vary=split == "train"))

    return records.write_shard(path, messages())


def _program_rows(plan: RenderPlan, folder: str, program: int) -> str:
    path = f"{folder}/rows-{program:03d}.npy"
    if not os.path.exists(path):
        count = plan.notes_per_program * (4 if program == DRUMS else 1)
        rows = note_rows(program, count, plan.seed, renderer=plan.renderer, codec=plan.codec,
                         grid=plan.grid, sampling=plan.sampling)
        np.save(f"{path}.part.npy", rows)
        os.replace(f"{path}.part.npy", path)
    return path


def _call(task: Callable):
    return task()


def render(plan: RenderPlan, folder: str, progress: Callable[[int, int], None] = lambda i, n: None):
    """Writes the data folder: shards, `note_rows.npy`, manifest. Finished parts are kept."""
    _ = plan.renderer, *(scores_by_source(plan, s) for s in ("train", "validation"))  # checks both
    out = pathlib.Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    per_shard = max(1, round(plan.train_hours * 3600 / plan.seconds / plan.shards))
    validation = max(1, round(plan.validation_hours * 3600 / plan.seconds))
    tasks = []
    if not (out / "note_rows.npy").exists():
        tasks += [functools.partial(_program_rows, plan, folder, p) for p in range(DRUMS + 1)]
    tasks += [functools.partial(_shard, plan, folder, "validation", 0, validation)]
    tasks += [functools.partial(_shard, plan, folder, "train", i, per_shard)
              for i in range(plan.shards)]
    # spawn: FluidSynth's threads do not survive a fork
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(plan.workers, mp_context=context) as pool:
        for i, _ in enumerate(pool.map(_call, tasks)):
            progress(i + 1, len(tasks))
    parts = sorted(out.glob("rows-*.npy"))
    if parts:
        np.save(out / "note_rows.npy", np.concatenate([np.load(p) for p in parts]))
        for p in parts:
            p.unlink()
    records.write_manifest(
        out, codec=plan.codec.to_dict(), soundfont=os.path.basename(plan.soundfont),
        seed=plan.seed, excerpts={"train": per_shard * plan.shards, "validation": validation},
        seconds=plan.seconds)
