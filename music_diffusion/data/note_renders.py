"""Isolated notes of a SoundFont or of recorded notes as training rows for the note timbre network."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames, frame_grid
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.renderers import Renderer, check_renderer, open_renderer
from music_diffusion.files import atomic_write
from music_diffusion.notes.frames import DRUMS, FrameGrid
from music_diffusion.notes.notes import Notes
from music_diffusion.types import StepProgress

FILE = "note_rows.npy"
ROW_DTYPE = np.dtype([("program", "u1"), ("pitch", "u1"), ("velocity", "u1"),
                      ("age", "f4"), ("release", "f4"), ("mel", "f2", (128,))])


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteSampling:
    """Ranges from which isolated notes are drawn."""

    low: int = 21  # lowest melodic pitch
    high: int = 108  # highest melodic pitch
    drum_low: int = 27  # lowest drum key
    drum_high: int = 87  # highest drum key
    shortest: float = 0.05  # seconds; durations are log-uniform
    longest: float = 5.0  # seconds
    steady_kept: float = 0.35  # share of frames kept away from onset and release (0.1 s)
    silence_kept: float = 0.1  # share of frames at the codec's floor that are kept

    def pitches(self, program: int, keys: Sequence[int]) -> np.ndarray:
        """Returns the pitches in the range of a program (DRUMS: drum keys) that are among `keys` [K]."""
        low, high = (self.drum_low, self.drum_high) if program == DRUMS else (self.low, self.high)
        return np.array([pitch for pitch in range(low, high + 1) if pitch in keys], int)

    def draw(self, rng: np.random.Generator, program: int, count: int, tail: float,
             keys: Sequence[int] = range(128)) -> Notes:
        """Returns `count` notes of keys, one after another, each with its whole tail before the next."""
        drum, pitches = program == DRUMS, self.pitches(program, keys)
        pitch = pitches[rng.permutation(np.arange(count) % len(pitches))]
        velocity = rng.integers(20, 128, count)
        length = np.exp(rng.uniform(np.log(self.shortest), np.log(self.longest), count))
        start = 0.1 + np.cumsum(np.concatenate([[0], length[:-1] + tail + 0.1])) \
            + rng.uniform(0, 0.02, count)
        return Notes(start, start + length, pitch, velocity,
                     np.full(count, 0 if drum else program), np.full(count, drum))


def note_rows(program: int, count: int, seed: int, *, renderer: Renderer,
              codec: MelCodec, grid: FrameGrid, sampling: NoteSampling) -> np.ndarray:
    """Renders `count` isolated notes of one program; returns rows of ROW_DTYPE, none without its keys."""
    rng = np.random.default_rng([seed, program])
    keys = renderer.keys(program)
    if not len(sampling.pitches(program, keys)):
        return np.zeros(0, ROW_DTYPE)
    notes = sampling.draw(rng, program, count, grid.tail, keys)
    mel = codec.encode(renderer(notes).samples)
    centre = grid.centres(0.0, len(mel))
    index = np.searchsorted(notes.start - grid.half_window, centre, side="right") - 1
    valid = index >= 0
    index = np.maximum(index, 0)
    age, release = centre - notes.start[index], centre - notes.end[index]
    valid &= release < grid.tail
    silent = mel.max(1) <= codec.log_min + 0.05
    changing = (age < 0.1) | (np.abs(release) < 0.1)
    share = np.where(silent, sampling.silence_kept, np.where(changing, 1.0, sampling.steady_kept))
    valid &= rng.uniform(size=len(mel)) < share
    rows = np.zeros(int(valid.sum()), ROW_DTYPE)
    rows["program"], rows["pitch"] = program, notes.pitch[index][valid]
    rows["velocity"] = notes.velocity[index][valid]
    rows["age"], rows["release"], rows["mel"] = age[valid], release[valid], mel[valid]
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoteRowPlan:
    """Plan of the isolated notes that are rendered."""

    soundfont: str  # .sf2 or .sf3, or recorded notes (`data.renderers.open_renderer`)
    fallback: str | None = None  # SoundFont that plays what recorded notes lack
    notes_per_program: int = 96  # of each program; four times as many of the drums
    seed: int = 0
    workers: int = 2  # processes
    sampling: NoteSampling = NoteSampling()
    codec: MelCodec = MelCodec()
    ring: float = NoteFrames.ring  # seconds after a note's end that are rendered

    @property
    def renderer(self) -> Renderer:
        return open_renderer(self.soundfont, self.codec.sample_rate, fallback=self.fallback)


def write_note_rows(plan: NoteRowPlan, folder: str,
                    progress: StepProgress = lambda i, n: None) -> None:
    """Writes `note_rows.npy`, unless it is there. What an interrupted run finished is kept.

    Raises:
      UserError: what plays cannot be used, a SoundFont lacks a program, or FluidSynth is not
        installed. Recorded notes give rows of the programs that they play.
    """
    check_renderer(plan.soundfont, plan.fallback)
    out = pathlib.Path(folder)
    if (out / FILE).exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    parts = run_tasks(functools.partial(_program_rows, plan, folder), range(DRUMS + 1), plan.workers,
                      progress)
    _save(out / FILE, np.concatenate([np.load(part) for part in parts]))
    for part in parts:
        os.unlink(part)


def _program_rows(plan: NoteRowPlan, folder: str, program: int) -> str:
    path = f"{folder}/rows-{program:03d}.npy"
    if not os.path.exists(path):
        count = plan.notes_per_program * (4 if program == DRUMS else 1)
        rows = note_rows(program, count, plan.seed, renderer=plan.renderer, codec=plan.codec,
                         grid=frame_grid(plan.codec, plan.ring), sampling=plan.sampling)
        _save(path, rows)
    return path


def _save(path: str | os.PathLike, rows: np.ndarray) -> None:
    # To an open file: given a path, `np.save` adds a suffix of its own.
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, rows)
