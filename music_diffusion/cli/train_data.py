"""`music-diffusion train --data`: from a folder of recordings to a model that plays.

The folder MODEL.work beside the model keeps what lies between (records, maps,
checkpoints, renders), so that the same command goes on where it stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import json as json_module
import math
import os
import pathlib
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from music_diffusion import gin_setup
from music_diffusion.cli import evaluate as evaluation
from music_diffusion.cli.progress import progress_bar
from music_diffusion.cli.train_card import Card, card_text
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DataSet, Item, Listing
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.pairs import write_pairs
from music_diffusion.data.sets.catalogue import open_set
from music_diffusion.data.sets.transposed import Transposed
from music_diffusion.data.splits import Assigned
from music_diffusion.errors import StoppedError, UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.performance import narrowed
from music_diffusion.models.performances import (
    FILE,
    Performance,
    Performances,
    read_performances,
    write_performances,
)
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors, save_safetensors
from music_diffusion.paths import check_utf8, shown
from music_diffusion.synthesis.hub import find, load_trained
from music_diffusion.synthesis.release import rebound_config, release

NOTHING = "none"  # as --from: fresh parameters
WORK = ".work"
HELD_OUT = 0.1  # share of the pieces, of those that are in no folder of a split
EVALUATED_MINUTES = 10.0  # of every held-out item
TEMPERATURES = (0.15, 0.3, 0.5, 0.8)  # of sampling, of which one is chosen by what is held out
# Shown on the card and the terminal.
FIGURES = ("fad:tagger", "onset_f1", "frame_f1", "log_mel_distance")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line may change."""

    data: str  # folder of recordings
    base: str  # name or folder of the model to begin with, or NOTHING
    output: str  # folder of the model
    layout: str = "paired_folder"  # how the folder is read (`data.sets.catalogue`)
    options: tuple[tuple[str, str], ...] = ()  # of the reader
    transpose: int = 2  # semitones that training items are also played up and down; 0: none
    held_out: tuple[str, ...] = ()  # names of items; (): by the folders, or by hash
    steps: int | None = None  # of training; None: as the recipe says
    batch: int = 8
    examine: bool = True  # leave out what the doctor finds unusable
    evaluate: bool = True
    bindings: tuple[str, ...] = ()  # gin, of the training
    workers: int = 2
    seed: int = 0

    @property
    def work(self) -> str:
        return f"{os.path.normpath(self.output)}{WORK}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
    """A data set without the items that are unusable."""

    data_set: DataSet
    without: tuple[tuple[str, str], ...]  # names, and why

    def identity(self) -> dict:
        return dict(self.data_set.identity()) | {"without": sorted(name for name, _ in self.without)}

    def list(self) -> Listing:
        listing = self.data_set.list()
        names = {name for name, _ in self.without}
        return Listing(items=tuple(i for i in listing.items if i.name not in names),
                       skipped=(*listing.skipped, *self.without))


def run(settings: Settings, *, json: bool) -> None:
    """See `cli.main.train`."""
    began = time.monotonic()
    stages = _Stages(5 if settings.evaluate else 4)
    base = None if settings.base == NOTHING else find(settings.base)
    template = find("default") if base is None else base
    model = _base_model(template)
    _check_output(settings)

    stages.next(f"looking at {settings.data}")
    data_set = _usable(settings, model, stages)
    data_set.list()  # finds what is wrong before anything is written
    _note(settings).parent.mkdir(parents=True, exist_ok=True)
    _note(settings).write_text(json_module.dumps(_depends(settings), indent=1) + "\n")
    base, template = _alone(settings, model, base, template)
    stages.next("spectrograms and notes")
    folder, manifest = _prepare(settings, data_set, model, template, fresh=base is None)
    stages.say(_amounts(manifest))
    stages.next(f"training, from {settings.base}")
    run_dir, step, loss = _train(settings, folder, template, fresh=base is None)
    names = _names(settings, template)
    figures: dict[str, Any] = {}
    bindings: tuple[str, ...] = ()
    if settings.evaluate:
        stages.next("listening to what was held out")
        figures, bindings = _listen(settings, data_set, base, run_dir, step, names)
    stages.next(f"model folder {settings.output}")
    release(run_dir, settings.output, step=step, bindings=bindings, performances=names)
    card = Card(settings=dataclasses.asdict(settings), manifest=manifest, step=step, loss=loss,
                figures=figures, minutes=(time.monotonic() - began) / 60,
                held_out=tuple(i.name for i in _held_out(data_set)), sampling=bindings)
    pathlib.Path(settings.output, "README.md").write_text(
        "\n".join(map(shown, card_text(card).split("\n"))), encoding="utf-8")
    if json:
        print(json_module.dumps({"model": settings.output, "step": step, "validation_loss": loss,
                                 "figures": figures, "hours": manifest["hours"]}))
        return
    for row in card.rows():
        stages.say("  ".join(row))
    stages.say(f"done: music-diffusion synthesize song.mid -o song.wav --model {settings.output}")


class _Stages:
    """Numbered lines of what is going on, on stderr."""

    def __init__(self, count: int):
        self._count, self._at = count, 0

    def next(self, what: str) -> None:
        self._at += 1
        self.say(f"[{self._at}/{self._count}] {what}")

    @staticmethod
    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def _base_model(folder: pathlib.Path) -> FrameDiffusionModel:
    # Other kinds train with their recipe on a folder of `prepare`.
    return load_trained(folder, FrameDiffusionModel, "frame diffusion model, which is what --data trains "
                        "(others: see gin/recipes)")[1]


def _alone(settings: Settings, model: FrameDiffusionModel, base: pathlib.Path | None,
           template: pathlib.Path) -> tuple[pathlib.Path | None, pathlib.Path]:
    """Of a model with performances, one that knows only its default: training would move the others.

    Returns the folder to begin with (or None), and that of the configuration.
    """
    if model.config.performances is None:
        return base, template
    known = read_performances(template / FILE)
    row = known.number(known.default)
    params = narrowed(load_safetensors(template / WEIGHTS), [row])
    folder = pathlib.Path(settings.work, "base")
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / WEIGHTS, params)
    (folder / CONFIG).write_text(rebound_config((template / CONFIG).read_text(),
                                                ["PerformanceConfig.count = 1"]))
    listed = Performances(performances=(known.performances[row],), default=known.default)
    write_performances(folder / FILE, listed.with_table(params))
    return None if base is None else folder, folder


def _names(settings: Settings, template: pathlib.Path) -> str | None:
    """The file that names the trained model's only performance, if it has one."""
    if not (template / FILE).is_file():
        return None
    path = pathlib.Path(settings.work, FILE)
    name = re.sub("[,:=+]", "_", pathlib.Path(settings.output).name).strip() or "own"
    own = Performance(name=name, source=os.path.basename(os.path.normpath(settings.data)))
    write_performances(path, Performances(performances=(own,), default=own.name))
    return str(path)


def _check_output(settings: Settings) -> None:
    check_utf8(settings.output)
    out = pathlib.Path(settings.output)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give a folder for the model")
    if out.is_dir() and any(out.iterdir()) and not (out / WEIGHTS).is_file():
        raise UserError(f"{out}: holds other things; give a new folder for the model")
    note = _note(settings)
    if note.is_file():
        its = json_module.loads(note.read_text())
        changed = sorted(k for k, v in _depends(settings).items() if its.get(k) != v)
        if changed:
            raise UserError(f"{settings.work}: was begun with other {', '.join(changed)}; delete it to "
                            "begin anew, or give another --output")


def _note(settings: Settings) -> pathlib.Path:
    return pathlib.Path(settings.work, "settings.json")


def _depends(settings: Settings) -> dict:
    """What the records, and so all that follows, depend on. More steps go on with a run."""
    other = ("workers", "evaluate", "output", "steps", "batch", "bindings")
    fields = {k: v for k, v in dataclasses.asdict(settings).items() if k not in other}
    return json_module.loads(json_module.dumps(fields))


def _usable(settings: Settings, model: FrameDiffusionModel, stages: _Stages) -> DataSet:
    """The data set with splits, without what cannot be used."""
    data_set: DataSet = open_set(settings.layout, settings.data, dict(settings.options))
    listing = data_set.list()
    without: list[tuple[str, str]] = [
        (item.name, "has no notes; training on --data needs them") for item in listing.items
        if item.notes is None]
    if settings.examine:
        from music_diffusion.cli.doctor import diagnose, doubtful, unusable

        diagnosis = diagnose(data_set, model.codec, settings.workers)
        without += unusable(diagnosis)
        for line in doubtful(diagnosis):
            stages.say(f"  doubtful: {line}")
    for name, reason in (*listing.skipped, *without):
        stages.say(f"  left out: {name}: {reason}")
    chosen = Chosen(data_set=data_set, without=tuple(without))
    return Assigned(data_set=chosen, validation=HELD_OUT, seed=settings.seed, held_out=settings.held_out)


def _held_out(data_set: DataSet) -> list[Item]:
    """What the figures are of: the test split, or validation where there is none."""
    items = data_set.list().items
    return [i for i in items if i.split == "test"] or [i for i in items if i.split == "validation"]


def _prepare(settings: Settings, data_set: DataSet, model: FrameDiffusionModel, template: pathlib.Path,
             *, fresh: bool) -> tuple[str, dict]:
    """The folder of records to train on (with note maps, unless all is learned), and its manifest."""
    if settings.transpose:
        data_set = Transposed(data_set=data_set, most=settings.transpose)
    folder = os.path.join(settings.work, "records")
    plan = BuildPlan(codec=model.codec, workers=settings.workers, seed=settings.seed)
    with progress_bar("records") as bar:
        manifest = build(data_set, settings.layout, plan, folder,
                         progress=lambda done, of: bar(done / of))
    if fresh:
        return folder, manifest
    mapped = os.path.join(settings.work, "mapped")
    _, model, params = load_trained(template, FrameDiffusionModel, "frame diffusion model")
    with progress_bar("note maps") as bar:
        add_note_maps(folder, mapped, model.config.timbre, params["timbre"],
                      progress=lambda done, of: bar(done / of), row_of=lambda record: 0)
    return mapped, manifest


def _amounts(manifest: dict) -> str:
    minutes = {s: 60 * h for s, h in manifest["hours"].items() if manifest["records"][s]}
    return "  " + ", ".join(f"{m:.1f} minutes and {manifest['notes'][s]} notes for {s}"
                            for s, m in minutes.items())


def _train(settings: Settings, folder: str, template: pathlib.Path, *, fresh: bool
           ) -> tuple[str, int, float]:
    """Trains, or goes on; returns the run's folder, its best step and the loss there."""
    run_dir = os.path.join(settings.work, "run")
    bindings = [f"DATA = {folder!r}", f"BATCH_SIZE = {settings.batch}", f"SEED = {settings.seed}",
                "TrainConfig.keep = 100"]
    if settings.steps is not None:
        bindings += [f"TOTAL_STEPS = {settings.steps}",
                     f"warmup_cosine.warmup_steps = {min(50, settings.steps // 10)}"]
    if (template / FILE).is_file():
        tails = _base_model(template).config.tails
        bindings += ["RecordSource.only_performance = 0", f"RecordSource.tails = {tails}"]
    if fresh:  # the note timbre network too, and from the notes themselves
        bindings += ["FrameDiffusionModel.train_timbre = True", "SLOTS = 16",
                     "warmup_cosine.peak = 1e-3"]
    with gin_setup.private_gin() as gin:
        gin_setup.parse([str(template / CONFIG), "recipes/fine_tune/frame_diffusion.gin"],
                        [*bindings, *settings.bindings])
        try:
            result = gin.get_configurable("train")(
                model_dir=run_dir, init_from=None if fresh else str(template / WEIGHTS))
        except UserError as e:  # gin adds lines on where it was raised
            raise UserError(str(e).strip().splitlines()[0]) from e
    if result.reason != "finished":
        message = (f"training {result.reason} at step {result.step}; run the same command again to "
                   "go on")
        raise UserError(message) if result.signal is None else StoppedError(message, result.signal)
    return run_dir, *best_step(run_dir)


def best_step(run_dir: str) -> tuple[int, float]:
    """The checkpoint with the lowest validation loss, and that loss."""
    with open(os.path.join(run_dir, "eval.csv"), newline="") as f:
        losses = {int(row["step"]): float(row["loss"]) for row in csv.DictReader(f)}
    kept = {int(p.name) for p in pathlib.Path(run_dir, "checkpoints").iterdir() if p.name.isdecimal()}
    known = {step: loss for step, loss in losses.items() if step in kept}
    if not known:
        raise UserError(f"{run_dir}: no checkpoint with a validation loss; delete it to begin anew")
    step = min(known, key=lambda s: known[s])
    return step, known[step]


def _listen(settings: Settings, data_set: DataSet, base: pathlib.Path | None, run_dir: str, step: int,
            names: str | None) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Renders what is held out, cooler and warmer, and by the model that it began with.

    Returns the figures, and the gin bindings of the temperature that is taken: that of the least
    Fréchet distance among those whose notes are heard as well as the first model's.
    """
    reference, notes = (os.path.join(settings.work, "held_out", kind) for kind in ("audio", "notes"))
    candidates: dict[tuple[str, ...], str] = {}
    for temperature in TEMPERATURES:
        binding: tuple[str, ...] = (f"FrameDiffusionModel.temperature = {temperature}",)
        candidates[binding] = os.path.join(settings.work, "candidates", f"temperature_{temperature}")
        release(run_dir, candidates[binding], step=step, bindings=binding, performances=names)
    codec = load_trained(next(iter(candidates.values())), FrameDiffusionModel, "model")[1].codec
    write_pairs(_held_out(data_set), reference, notes, codec.sample_rate, 60 * EVALUATED_MINUTES)

    def figures(name: str, model: str) -> dict[str, dict]:
        plan = EvaluationPlan(reference=reference, notes=notes, model=model, workers=settings.workers,
                              seed=settings.seed, max_minutes=EVALUATED_MINUTES)
        content = evaluation.run_plan(plan, os.path.join(settings.work, "evaluation", name))
        return {f["key"]: f for f in content["figures"] if f["key"] in FIGURES}

    before = figures("before", str(base)) if base is not None else {}
    after = {binding: figures(os.path.basename(folder), folder) for binding, folder in candidates.items()}
    chosen = choose({k: {n: f["value"] for n, f in v.items()} for k, v in after.items()},
                    before["onset_f1"]["value"] if before else None)
    found = {"before": {k: f["value"] for k, f in before.items()},
             "after": {k: f["value"] for k, f in after[chosen].items()},
             "labels": {k: f["label"] for k, f in after[chosen].items()}}
    return found, chosen


def choose(candidates: Mapping[tuple[str, ...], Mapping[str, float | None]], least_f1: float | None
           ) -> tuple[str, ...]:
    """The one of the least Fréchet distance whose note F1 is not lower; else that of the highest F1."""
    def value(key: tuple[str, ...], figure: str, missing: float) -> float:
        found = candidates[key].get(figure)
        return missing if found is None else found

    good = [k for k in candidates if least_f1 is None or value(k, "onset_f1", 0.0) >= least_f1]
    if good:
        return min(good, key=lambda k: value(k, "fad:tagger", math.inf))
    return max(candidates, key=lambda k: value(k, "onset_f1", 0.0))
