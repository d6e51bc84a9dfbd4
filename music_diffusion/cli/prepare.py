"""`music-diffusion prepare`."""

from __future__ import annotations

import os
import pathlib

import jax

from music_diffusion.cli.progress import progress_bar
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.render import RenderPlan, render
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel


def run(*, kind: str, source: str, destination: str, soundfont: str | None, hours: float,
        notes_per_program: int, weights: str | None, bindings: list[str],
        workers: int, seed: int) -> None:
    """See `cli.main.prepare`."""
    if not os.path.isdir(source):
        raise UserError(f"{source}: no such folder")
    with progress_bar(f"{kind} {destination}") as bar:
        if kind == "soundfont":
            if soundfont is None:
                raise UserError("prepare soundfont needs --soundfont FILE.sf2")
            plan = RenderPlan(scores=source, soundfont=soundfont, train_hours=hours,
                              notes_per_program=notes_per_program, workers=workers, seed=seed)
            render(plan, destination, lambda i, n: bar(i / n))
        elif kind == "note_maps":
            if weights is None:
                raise UserError("prepare note_maps needs --weights note_timbre.safetensors")
            model = FrameDiffusionModel(timbre_weights=weights)
            params = model.init(jax.random.key(0), {})["params"]
            add_note_maps(source, destination, model, params, progress=lambda i, n: bar(i / n))
        elif kind == "release":
            from music_diffusion.synthesis.release import release

            release(source, destination, bindings=bindings)
        else:
            raise UserError(f"prepare {kind}: unknown; choose soundfont, note_maps or release")
    print(f"{pathlib.Path(destination).resolve()}: done")
