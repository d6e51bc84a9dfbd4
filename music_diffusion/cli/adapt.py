"""`music-diffusion adapt`: one more performance for a model that has some.

The folder MODEL.work beside the new model keeps what lies between, so that the same command goes on
where it stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import json as json_module
import os
import pathlib
import shutil
import sys
import time
from typing import Any

import numpy as np

from music_diffusion import gin_setup
from music_diffusion.cli.progress import progress_bar
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.note_features import FrameFeatures, NoteFeatures, TokenFeatures
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.performances import performances_of
from music_diffusion.data.pipeline import RecordSource
from music_diffusion.data.sets.recorded_pairs import RecordedPairs
from music_diffusion.errors import StoppedError, UserError
from music_diffusion.models.adaptation import (
    AdaptationModel,
    MapModel,
    grown,
    losses_of,
    without_maps,
)
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.performances import (
    FILE,
    Performance,
    Performances,
    read_performances,
    write_performances,
)
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.paths import check_utf8
from music_diffusion.synthesis.hub import find, load_trained
from music_diffusion.synthesis.release import rebound_config
from music_diffusion.types import Params

WORK = ".work"
LEAST_SECONDS = 30.0  # of audio, of which something can be learned
SLOTS, MAP_FRAMES = 24, 128  # of the segments that notes are learned from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line may change."""

    audio: tuple[str, ...]
    midi: tuple[str, ...]
    name: str
    output: str
    base: str = "performances"
    room: str = ""
    steps: int | None = None  # of training; None: as the recipe says
    bindings: tuple[str, ...] = ()  # gin, of the training
    workers: int = 2
    seed: int = 0

    @property
    def work(self) -> str:
        return f"{os.path.normpath(self.output)}{WORK}"


def run(settings: Settings, *, json: bool) -> None:
    """See `cli.main.adapt`."""
    began = time.monotonic()
    folder = find(settings.base)
    _, model, params = load_trained(settings.base, object, "model")
    larger = grown(model)  # refuses what has no performances
    known = read_performances(folder / FILE)
    known.check(params, folder / FILE)
    if settings.name in known.names:
        raise UserError(f"{settings.name}: {settings.base} has a performance of this name; choose another")
    Performance(name=settings.name)  # checks it
    pairs = RecordedPairs(audio=settings.audio, midi=settings.midi, performance=settings.name)
    seconds = pairs.seconds()
    if seconds < LEAST_SECONDS:
        raise UserError(f"{seconds:.0f} s of audio are too few; give at least {LEAST_SECONDS:.0f} s, "
                        "better some minutes")
    _claim(settings)
    _say(f"[1/3] spectrograms and notes of {seconds:.0f} s")
    records = _records(settings, pairs, model, known)
    if isinstance(model, FrameDiffusionModel):
        source = _mapped(settings, records, "mapped", model.config.timbre, params["timbre"], slots=SLOTS)
    else:
        source = records
    begin_with = _nearest(model, params, source, known)
    _say(f"[2/3] training, from {known.names[begin_with]}, which is the nearest")
    larger = dataclasses.replace(larger, performance_dropout=0.0)
    adapter = AdaptationModel(model=larger, begin_with=begin_with)
    first = str(folder / WEIGHTS)
    if isinstance(model, FrameDiffusionModel):
        if model.config.timbre.performances is not None:
            first, timbre = _notes(settings, adapter, source, first)
            source = _mapped(settings, records, "mapped_own", larger.config.timbre, timbre,
                             row=len(known.names))
        else:
            source = dataclasses.replace(source, features=FrameFeatures(slots=0))
    trained, losses = _train(settings, adapter, source, first, "run", "recipes/fine_tune/adapt.gin")
    _say(f"[3/3] model folder {settings.output}")
    entry = dataclasses.replace(performances_of(os.path.join(settings.work, "records"))[0],
                                source=", ".join(os.path.basename(path) for path in settings.audio),
                                room=settings.room)
    _write(settings, folder, adapter.merged(trained), larger, known, entry)
    facts = {"model": settings.output, "performance": settings.name, "seconds": round(seconds, 1),
             "nearest": known.names[begin_with], "loss": losses,
             "minutes": round((time.monotonic() - began) / 60, 2)}
    if json:
        print(json_module.dumps(facts))
    else:
        _say(f"done in {facts['minutes']:.1f} minutes: music-diffusion synthesize song.mid -o song.wav "
             f"--model {settings.output} --performance {settings.name}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _claim(settings: Settings) -> None:
    """Sees that nothing is overwritten, and that what lies in the work folder is of the same request."""
    out = pathlib.Path(settings.output)
    check_utf8(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir()) and not (out / WEIGHTS).is_file()):
        raise UserError(f"{out}: holds other things; give a new folder for the model")
    if out.is_dir() and out.samefile(find(settings.base)):
        raise UserError(f"{out}: is the model to begin with; give another folder")
    note = pathlib.Path(settings.work, "settings.json")
    kept = ("audio", "midi", "name", "base", "seed")
    depends = json_module.loads(json_module.dumps({k: getattr(settings, k) for k in kept}))
    if note.is_file() and json_module.loads(note.read_text()) != depends:
        raise UserError(f"{settings.work}: was begun with other files or another name; delete it to begin "
                        "anew, or give another --output")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json_module.dumps(depends) + "\n")


def _records(settings: Settings, pairs: RecordedPairs, model: Any, known: Performances) -> RecordSource:
    """What the model learns from, but for note maps."""
    folder = os.path.join(settings.work, "records")
    build(pairs, "recorded_pairs", BuildPlan(codec=model.codec, workers=settings.workers, frames=512),
          folder)
    features: NoteFeatures = FrameFeatures()
    frames = 256
    if not isinstance(model, FrameDiffusionModel):
        features = TokenFeatures(config=model.events, tokens=model.config.max_tokens)
        frames = model.config.frames
    names = os.path.join(settings.work, FILE)
    write_performances(names, dataclasses.replace(
        known, performances=(*known.performances, Performance(name=settings.name)), table=None))
    return RecordSource(folder=folder, codec=model.codec, frames=frames, features=features,
                        context=getattr(model.config, "context", False), performance=names,
                        tails=getattr(model.config, "tails", ()),
                        eval_batch_count=4)


def _mapped(settings: Settings, source: RecordSource, name: str, config: NoteTimbreConfig, timbre: Params,
            *, slots: int = 0, row: int | None = None) -> RecordSource:
    """With the maps that a note timbre network draws, of one of its performances or without."""
    folder = os.path.join(settings.work, name)
    with progress_bar("note maps") as bar:
        add_note_maps(source.folder, folder, config, timbre, progress=lambda done, of: bar(done / of),
                      row_of=lambda record: row)
    return dataclasses.replace(source, folder=folder, features=FrameFeatures(slots=slots))


def _nearest(model: Any, params: Params, source: RecordSource, known: Performances) -> int:
    """The performance with which the model explains the training recordings best."""
    import jax

    batch = without_maps(next(source.train_iterator(8, 0)))
    losses = losses_of(model, params, batch, len(known.names), jax.random.key(0))
    return int(np.argmin(losses))


def _notes(settings: Settings, adapter: AdaptationModel, source: RecordSource, first: str
           ) -> tuple[str, Params]:
    """Learns how notes sound; the file of parameters to go on with, and the note timbre network's."""
    fitting = dataclasses.replace(adapter, model=MapModel(model=adapter.model))
    fitted, _ = _train(settings, fitting, dataclasses.replace(source, frames=MAP_FRAMES), first, "notes",
                       "recipes/fine_tune/adapt_notes.gin")
    path = os.path.join(settings.work, "notes.safetensors")
    save_safetensors(path, fitted)
    return path, adapter.merged(fitted)["timbre"]


def _train(settings: Settings, model: AdaptationModel, source: RecordSource, first: str, name: str,
           recipe: str) -> tuple[Params, list[float]]:
    """Trains, or goes on; returns the averaged parameters, and validation losses at first and last.

    `first` is the file of parameters to begin with, `name` that of the run in the work folder.
    """
    from music_diffusion.training.checkpoints import read_params

    bindings = [f"SEED = {settings.seed}"]
    if settings.steps is not None:
        bindings += [f"TOTAL_STEPS = {settings.steps}",
                     f"warmup_cosine.warmup_steps = {min(20, settings.steps // 10)}"]
    run_dir = os.path.join(settings.work, name)
    with gin_setup.private_gin() as gin:
        gin_setup.parse([recipe], [*bindings, *settings.bindings])
        try:
            result = gin.get_configurable("train")(model=model, data=source, model_dir=run_dir,
                                                   init_from=first)
        except UserError as e:  # gin adds lines on where it was raised
            raise UserError(str(e).strip().splitlines()[0]) from e
    if result.reason != "finished":
        message = f"training {result.reason} at step {result.step}; run the same command again to go on"
        raise UserError(message) if result.signal is None else StoppedError(message, result.signal)
    with open(os.path.join(run_dir, "eval.csv"), newline="") as f:
        losses = [float(row["loss"]) for row in csv.DictReader(f)]
    return read_params(run_dir)[0], [losses[0], losses[-1]]


def _write(settings: Settings, base: pathlib.Path, params: Params, larger: Any, known: Performances,
           entry: Performance) -> None:
    """The new model's folder."""
    config = larger.config.performances
    text = rebound_config((base / CONFIG).read_text(), [
        f"PerformanceConfig.count = {config.count}", f"PerformanceConfig.features = {config.features}"])
    out = pathlib.Path(settings.output)
    out.mkdir(parents=True, exist_ok=True)
    save_safetensors(out / WEIGHTS, params, facts={"adapted": settings.name})
    (out / CONFIG).write_text(text)
    listed = dataclasses.replace(known, performances=(*known.performances, entry))
    write_performances(out / FILE, listed.with_table(params))
    if (base / "README.md").is_file():
        shutil.copyfile(base / "README.md", out / "README.md")
        with open(out / "README.md", "a") as f:
            f.write(f"\n## Performance `{entry.name}`\n\nAdded by `music-diffusion adapt` from "
                    f"{entry.minutes:.1f} minutes of {entry.source}.\n")
