"""Makes a model of a folder of recordings with their notes, which plays like them.

The folder MODEL.work beside the model keeps what lies between (records, maps,
checkpoints, renders), so that the same request goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from music_diffusion.conditions.performances import (
    FILE,
    Performance,
    Performances,
    read_performances,
    write_performances,
)
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DataSet, Item, Listing
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.pairs import write_pairs
from music_diffusion.data.sets.catalogue import open_set
from music_diffusion.data.sets.transposed import Transposed
from music_diffusion.data.splits import Assigned
from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan
from music_diffusion.files import write_text
from music_diffusion.models.base import NoteMapped
from music_diffusion.models.performance import narrowed
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors, save_safetensors
from music_diffusion.paths import shown
from music_diffusion.synthesis.hub import find, load_trained
from music_diffusion.synthesis.release import rebound_config, release
from music_diffusion.workflows.check_ears import check_ears
from music_diffusion.workflows.doctor import diagnose, doubtful, unusable
from music_diffusion.workflows.evaluate import render_and_evaluate
from music_diffusion.workflows.fine_tuning import best_step, fine_tune, shorter
from music_diffusion.workflows.monitor import SILENT, Monitor, Stages, in_steps
from music_diffusion.workflows.own_data_card import Card, card_text
from music_diffusion.workflows.requests import NO_MODEL, EarsRequest, OwnDataRequest
from music_diffusion.workflows.work_folder import WorkFolder

HELD_OUT = 0.1  # share of the pieces, of those that are in no folder of a split
EVALUATED_MINUTES = 10.0  # of every held-out item
TEMPERATURES = (0.15, 0.3, 0.5, 0.8)  # of sampling, of which one is chosen by what is held out
EARS = ("tagger", "mfcc")  # embeddings of which one judges: the one that hears what is held out best
# Shown on the card and the terminal.
FIGURES = (*(f"fad:{ear}" for ear in EARS), "onset_f1", "frame_f1", "log_mel_distance")
# Fields of a request on which the records do not depend. More steps go on with a run.
FREE = ("workers", "evaluate", "output", "steps", "batch", "bindings")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The model that was made, for machines."""

    model: str  # folder
    step: int  # the checkpoint that was taken
    validation_loss: float  # there
    figures: Mapping[str, Any]  # see `own_data_card.Card`; {}: not evaluated
    hours: Mapping[str, float]  # of audio, by split


@dataclasses.dataclass(frozen=True, kw_only=True)
class UsableItems:
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


def train_on_recordings(request: OwnDataRequest, monitor: Monitor = SILENT) -> TrainedModel:
    """Trains a frame diffusion model on recordings with notes, and writes its folder and card.

    Unusable items are left out, a share is held out, and the sampling temperature is the one that
    comes nearest to it.

    Raises:
      UserError: no such model or recordings, too few of them, or an output or a work folder with
        other things; found before anything is written, but for bindings that do not fit.
      StoppedError: a signal ended the training; the same request goes on.
    """
    return _Run(request, monitor).result()


class _Run:
    """The stages, which have the request, the base and the work folder in common."""

    def __init__(self, request: OwnDataRequest, monitor: Monitor):
        self._began = time.monotonic()
        self._request, self._monitor = request, monitor
        self._stages = Stages(5 if request.evaluate else 4, monitor)
        self._fresh = request.base == NO_MODEL
        depends = {k: v for k, v in dataclasses.asdict(request).items() if k not in FREE}
        self._work = WorkFolder(output=request.output, depends=depends)
        self._base = find("default" if self._fresh else request.base)
        # Other kinds train with their recipe on a folder of `prepare`.
        self._model = load_trained(self._base, NoteMapped, "frame diffusion model, which is what "
                                   "--data trains (others: see gin/recipes)")[1]
        self._codec = self._model.space.codec

    def result(self) -> TrainedModel:
        """Goes through all stages."""
        request, stages = self._request, self._stages
        self._work.check()
        stages.next(f"looking at {request.data}")
        data_set = self._usable()
        data_set.list()  # finds what is wrong before anything is written
        self._work.claim()
        self._base = self._alone()
        stages.next("spectrograms and notes")
        folder, manifest = self._prepare(data_set)
        self._monitor.say(_amounts(manifest))
        stages.next(f"training, from {request.base}")
        run_dir = self._train(folder)
        step, loss = best_step(run_dir)
        names = self._names()
        figures: dict[str, Any] = {}
        bindings: tuple[str, ...] = ()
        if request.evaluate:
            stages.next("listening to what was held out")
            figures, bindings = self._listen(data_set, run_dir, step, names)
        stages.next(f"model folder {request.output}")
        release(run_dir, request.output, step=step, bindings=bindings, performances=names)
        card = Card(request=request, manifest=manifest, step=step, loss=loss, figures=figures,
                    minutes=(time.monotonic() - self._began) / 60,
                    held_out=tuple(i.name for i in held_out_items(data_set)), sampling=bindings)
        text = "\n".join(map(shown, card_text(card).split("\n")))  # names in it may be of any bytes
        write_text(os.path.join(request.output, "README.md"), text)
        return TrainedModel(model=request.output, step=step, validation_loss=loss, figures=figures,
                            hours=manifest["hours"])

    def _usable(self) -> DataSet:
        """Returns the data set with splits, without what cannot be used."""
        request = self._request
        data_set: DataSet = open_set(request.layout, request.data, dict(request.options))
        listing = data_set.list()
        without: list[tuple[str, str]] = [
            (item.name, "has no notes; training on --data needs them") for item in listing.items
            if item.notes is None]
        if request.examine:
            diagnosis = diagnose(data_set, self._codec, request.workers, self._monitor)
            without += unusable(diagnosis)
            for line in doubtful(diagnosis):
                self._monitor.say(f"  doubtful: {line}")
        for name, reason in (*listing.skipped, *without):
            self._monitor.say(f"  left out: {name}: {reason}")
        chosen = UsableItems(data_set=data_set, without=tuple(without))
        return Assigned(data_set=chosen, validation=HELD_OUT, seed=request.seed, held_out=request.held_out)

    def _alone(self) -> pathlib.Path:
        """Returns the model's folder; of one with performances, another that knows only its default.

        Training would move the others.
        """
        if self._model.performances is None:
            return self._base
        known = read_performances(self._base / FILE)
        row = known.number(known.default)
        params = narrowed(load_safetensors(self._base / WEIGHTS), [row])
        folder = pathlib.Path(self._work.path("base"))
        folder.mkdir(parents=True, exist_ok=True)
        save_safetensors(folder / WEIGHTS, params)
        (folder / CONFIG).write_text(rebound_config((self._base / CONFIG).read_text(),
                                                    ["PerformanceConfig.count = 1"]))
        listed = Performances(performances=(known.performances[row],), default=known.default)
        write_performances(folder / FILE, listed.with_table(params))
        return folder

    def _prepare(self, data_set: DataSet) -> tuple[str, dict]:
        """Returns the folder of records to train on, and their manifest.

        They have note maps, unless these are learned, too.
        """
        request = self._request
        if request.transpose:
            data_set = Transposed(data_set=data_set, most=request.transpose)
        folder = self._work.path("records")
        plan = BuildPlan(codec=self._codec, workers=request.workers, seed=request.seed)
        with self._monitor.bar("records") as progress:
            manifest = build(data_set, request.layout, plan, folder, progress=in_steps(progress))
        if self._fresh:
            return folder, manifest
        mapped = self._work.path("mapped")
        _, model, params = load_trained(self._base, NoteMapped, "frame diffusion model")
        with self._monitor.bar("note maps") as progress:
            add_note_maps(folder, mapped, *model.note_timbre(params), progress=in_steps(progress),
                          ring=model.ring, row_of=lambda record: 0)
        return mapped, manifest

    def _train(self, folder: str) -> str:
        """Trains, or goes on; returns the run's folder."""
        request, run_dir = self._request, self._work.path("run")
        conditions: Any = self._model.conditions
        files = [str(self._base / CONFIG), "recipes/fine_tune/frame_diffusion.gin"]
        values: dict[str, Any] = {
            "DATA": folder, "BATCH_SIZE": request.batch, "SEED": request.seed, "TrainConfig.keep": 100,
            "NoteFrames.ring": conditions.ring, "NoteFrames.tails": conditions.tails,
        } | shorter(request.steps, warmup=50)
        if (self._base / FILE).is_file():
            files.append("runs/one_performance.gin")
        if self._fresh:  # the note timbre network too, and from the notes themselves
            values |= {"FrameDiffusionModel.train_timbre": True, "SLOTS": 16, "warmup_cosine.peak": 1e-3}
        fine_tune(files, values, request.bindings, model_dir=run_dir,
                  init_from=None if self._fresh else str(self._base / WEIGHTS))
        return run_dir

    def _names(self) -> str | None:
        """Returns the file that names the trained model's only performance, if it has one."""
        if not (self._base / FILE).is_file():
            return None
        path, request = self._work.path(FILE), self._request
        name = re.sub("[,:=+]", "_", pathlib.Path(request.output).name).strip() or "own"
        own = Performance(name=name, source=os.path.basename(os.path.normpath(request.data)))
        write_performances(path, Performances(performances=(own,), default=own.name))
        return path

    def _listen(self, data_set: DataSet, run_dir: str, step: int, names: str | None
                ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Renders what is held out, cooler and warmer, and by the model that it began with.

        Returns the figures of `own_data_card.Card`, and the gin bindings of the temperature that is
        taken: see `choose`.
        """
        reference, notes = (self._work.path("held_out", kind) for kind in ("audio", "notes"))
        candidates: dict[tuple[str, ...], str] = {}
        for temperature in TEMPERATURES:
            binding: tuple[str, ...] = (f"FrameDiffusionModel.temperature = {temperature}",)
            candidates[binding] = self._work.path("candidates", f"temperature_{temperature}")
            release(run_dir, candidates[binding], step=step, bindings=binding, performances=names)
        write_pairs(held_out_items(data_set), reference, notes, self._codec.sample_rate,
                    60 * EVALUATED_MINUTES)

        def figures(name: str, model: str) -> dict[str, dict]:
            plan = EvaluationPlan(reference=reference, notes=notes, model=model, seed=self._request.seed,
                                  workers=self._request.workers, max_minutes=EVALUATED_MINUTES,
                                  embeddings=EARS)
            report = render_and_evaluate(plan, self._work.path("evaluation", name), monitor=self._monitor)
            return {f["key"]: f for f in report["figures"] if f["key"] in FIGURES}

        ears = self._ears(reference)
        before = {} if self._fresh else figures("before", str(self._base))
        after = {binding: figures(os.path.basename(folder), folder)
                 for binding, folder in candidates.items()}
        of_recordings = {k: f["ceilings"][0]["value"] for k, f in next(iter(after.values())).items()
                         if f["ceilings"]}
        # A model need not be heard better than the recordings themselves.
        heard = [f for f in (of_recordings.get("onset_f1"),
                             before["onset_f1"]["value"] if before else None) if f is not None]
        ear = max(EARS, key=lambda name: ears.get(name, 0.0))
        chosen = choose({k: {n: f["value"] for n, f in v.items()} for k, v in after.items()},
                        min(heard, default=None), ear)
        found = {"before": {k: f["value"] for k, f in before.items()},
                 "after": {k: f["value"] for k, f in after[chosen].items()},
                 "recordings": of_recordings, "ears": ears, "ear": ear,
                 "labels": {k: f["label"] for k, f in after[chosen].items()}}
        return found, chosen

    def _ears(self, recordings: str) -> dict[str, float]:
        """Returns how often each ear puts the recordings and copies of them in the right order."""
        request = EarsRequest(reference=recordings, embeddings=EARS, seed=self._request.seed)
        try:
            facts = check_ears(request, monitor=Monitor(bar=self._monitor.bar))
        except UserError as e:  # recordings of some seconds
            self._monitor.say(f"  the ears could not be checked: {e}")
            return {}
        return {name: scores["share"] for name, scores in facts["embeddings"].items()}


def held_out_items(data_set: DataSet) -> list[Item]:
    """Returns what the figures are of: the test split, or validation where there is none."""
    items = data_set.list().items
    return [i for i in items if i.split == "test"] or [i for i in items if i.split == "validation"]


def _amounts(manifest: dict) -> str:
    minutes = {s: 60 * h for s, h in manifest["hours"].items() if manifest["records"][s]}
    return "  " + ", ".join(f"{m:.1f} minutes and {manifest['notes'][s]} notes for {s}"
                            for s, m in minutes.items())


def choose(candidates: Mapping[tuple[str, ...], Mapping[str, float | None]], least_f1: float | None,
           ear: str = EARS[0]) -> tuple[str, ...]:
    """Returns the key of the candidate that is taken.

    It is that of the least Fréchet distance in the embedding `ear` among those whose notes are heard
    at least as well as `least_f1`; where none is, that of the highest note F1.
    """
    def value(key: tuple[str, ...], figure: str, missing: float) -> float:
        found = candidates[key].get(figure)
        return missing if found is None else found

    good = [k for k in candidates if least_f1 is None or value(k, "onset_f1", 0.0) >= least_f1]
    if good:
        return min(good, key=lambda k: value(k, f"fad:{ear}", math.inf))
    return max(candidates, key=lambda k: value(k, "onset_f1", 0.0))
