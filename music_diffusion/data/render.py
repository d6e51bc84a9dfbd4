"""Scores → a data folder of rendered excerpts and isolated notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.augment import Augmentation
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.note_renders import NoteRowPlan, NoteSampling, write_note_rows
from music_diffusion.data.sets.soundfont_renders import SoundFontRenders
from music_diffusion.notes.frames import FrameGrid


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderPlan:
    """What is rendered from a folder of scores; see `SoundFontRenders` and `NoteRowPlan`."""

    scores: str  # folder of MIDI files, with manifest.csv (columns path, source, split) or without
    soundfont: str  # .sf2 or .sf3
    train_hours: float = 10.0  # of varied excerpts; sources are drawn evenly
    validation_hours: float = 0.25  # unvaried excerpts
    frames: int = 2048  # frames an excerpt (40.96 s with the default codec)
    notes_per_program: int = 96  # isolated notes of each program and of the drums
    seed: int = 0
    workers: int = 2  # processes
    augmentation: Augmentation = Augmentation()
    sampling: NoteSampling = NoteSampling()
    codec: MelCodec = MelCodec()
    grid: FrameGrid = FrameGrid()


def render(plan: RenderPlan, folder: str,
           progress: Callable[[int, int], None] = lambda i, n: None) -> None:
    """Writes the data folder: records, `note_rows.npy`, manifest. Finished parts are kept."""
    renders = SoundFontRenders(
        folder=plan.scores, soundfonts=(plan.soundfont,), train_hours=plan.train_hours,
        validation_hours=plan.validation_hours, seconds=plan.frames / plan.codec.frame_rate,
        seed=plan.seed, **dataclasses.asdict(plan.augmentation))
    build(renders, "soundfont", BuildPlan(codec=plan.codec, frames=plan.frames, workers=plan.workers,
                                          seed=plan.seed), folder, progress=progress)
    write_note_rows(NoteRowPlan(
        soundfont=plan.soundfont, notes_per_program=plan.notes_per_program, seed=plan.seed,
        workers=plan.workers, sampling=plan.sampling, codec=plan.codec, grid=plan.grid),
        folder, progress)
