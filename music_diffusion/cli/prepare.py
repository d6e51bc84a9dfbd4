"""`music-diffusion prepare`."""

from __future__ import annotations

import os
import pathlib

import jax

from music_diffusion.cli.progress import progress_bar
from music_diffusion.data.audio_folder import AudioFolderPlan, prepare_audio_folder
from music_diffusion.data.audio_renders import AudioRenderPlan, render_audio
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.render import RenderPlan, render
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel

KINDS = ("soundfont", "renders", "audio_folder", "note_maps", "release")
HELD_OUT = 0.05  # hours of validation (and test) renders for each hour of training


def run(*, kind: str, source: str, destination: str, soundfonts: list[str], hours: float,
        test: bool, solo: float, midi: bool, rate: int, mono: bool,
        notes_per_program: int, weights: str | None, bindings: list[str], workers: int, seed: int) -> None:
    """See `cli.main.prepare`."""
    if not os.path.isdir(source):
        raise UserError(f"{source}: no such folder")
    summary = "done"
    with progress_bar(f"{kind} {destination}") as bar:
        def progress(done: int, of: int) -> None:
            bar(done / of)

        if kind == "soundfont":
            if len(soundfonts) != 1:
                raise UserError("prepare soundfont needs one --soundfont FILE.sf2")
            plan = RenderPlan(scores=source, soundfont=soundfonts[0], train_hours=hours,
                              notes_per_program=notes_per_program, workers=workers, seed=seed)
            render(plan, destination, progress)
        elif kind == "renders":
            if not soundfonts:
                raise UserError("prepare renders needs --soundfont FILE.sf2, once or several times")
            render_audio(AudioRenderPlan(
                scores=source, soundfonts=tuple(soundfonts), train_hours=hours,
                validation_hours=HELD_OUT * hours, test_hours=HELD_OUT * hours * test,
                sample_rate=rate, solo=solo, midi=midi, workers=workers, seed=seed),
                destination, progress)
        elif kind == "audio_folder":
            summary = _summary(prepare_audio_folder(AudioFolderPlan(
                source=source, sample_rate=rate, mono=mono, workers=workers, seed=seed),
                destination, progress))
        elif kind == "note_maps":
            if weights is None:
                raise UserError("prepare note_maps needs --weights note_timbre.safetensors")
            model = FrameDiffusionModel(timbre_weights=weights)
            params = model.init(jax.random.key(0), {})["params"]
            add_note_maps(source, destination, model, params, progress=progress)
        elif kind == "release":
            from music_diffusion.synthesis.release import release

            release(source, destination, bindings=bindings)
        else:
            raise UserError(f"prepare {kind}: unknown; choose {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    print(f"{pathlib.Path(destination).resolve()}: {summary}")


def _summary(manifest: dict) -> str:
    """What a folder of audio gave, and how many files it did not."""
    hours = ", ".join(f"{manifest['hours'][s]:.2f} h for {s}" for s in manifest["hours"]
                      if manifest["records"][s])
    skipped = manifest["skipped"]
    if not skipped:
        return hours
    return f"{hours}; skipped {len(skipped)}, e.g. {skipped[0][0]}: {skipped[0][1]} (see manifest.json)"
