"""One more performance for a model that has some, from recordings with their notes.

The folder MODEL.work beside the new model keeps what lies between, so that the same request goes on
where it stopped.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from typing import Any

import numpy as np

from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.performances import (
    FILE,
    Performance,
    read_performances,
    write_performances,
)
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.note_maps import add_note_maps
from music_diffusion.data.performances import performances_of
from music_diffusion.data.pipeline import RecordSource
from music_diffusion.data.sets.recorded_pairs import RecordedPairs
from music_diffusion.errors import UserError
from music_diffusion.files import write_text
from music_diffusion.models.adaptation import AdaptationModel, losses_of
from music_diffusion.models.base import Generator, NoteMapped
from music_diffusion.models.note_map import without_maps
from music_diffusion.models.weights import CONFIG, WEIGHTS, save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.synthesis.hub import find, load_trained
from music_diffusion.synthesis.release import rebound_config
from music_diffusion.synthesis.released_copy import CARD, without_storage
from music_diffusion.tables import read_text
from music_diffusion.types import Params
from music_diffusion.workflows.fine_tuning import fine_tune, shorter, validation_losses
from music_diffusion.workflows.monitor import SILENT, Monitor, Stages, in_steps
from music_diffusion.workflows.requests import AdaptRequest
from music_diffusion.workflows.work_folder import WorkFolder

LEAST_SECONDS = 30.0  # of audio, of which something can be learned
SLOTS, MAP_FRAMES = 24, 128  # of the segments that notes are learned from
FIXED = ("audio", "midi", "name", "base", "seed")  # fields of a request that a begun work keeps


@dataclasses.dataclass(frozen=True, kw_only=True)
class AddedPerformance:
    """The performance that was added, for machines."""

    model: str  # folder
    performance: str  # its name
    seconds: float  # of audio
    nearest: str  # the performance that it began with
    loss: tuple[float, float]  # of validation, at first and last
    minutes: float  # that it took


def add_performance(request: AdaptRequest, monitor: Monitor = SILENT) -> AddedPerformance:
    """Writes a model that knows one more performance; the others stay as they are.

    Raises:
      UserError: no such model or one without performances; a name that is taken; recordings that
        are too short or do not fit their notes; an output or a work folder with other things.
      StoppedError: a signal ended the training; the same request goes on.
    """
    return _Adapting(request, monitor).result()


class _Adapting:
    """The stages, which have the request, the base and the work folder in common."""

    def __init__(self, request: AdaptRequest, monitor: Monitor):
        self._began = time.monotonic()
        self._request, self._monitor, self._stages = request, monitor, Stages(3, monitor)
        self._folder = find(request.base)
        opened: Any = load_trained(request.base, object, "model")
        self._model: Generator
        _, self._model, self._params = opened
        self._larger: Any = self._model.one_more_performance()  # refuses what has no performances
        self._known = read_performances(self._folder / FILE)
        self._known.check(self._params, self._folder / FILE)
        if request.name in self._known.names:
            raise UserError(f"{request.name}: {request.base} has a performance of this name; choose "
                            "another")
        Performance(name=request.name)  # checks it
        self._work = WorkFolder(output=request.output, depends={k: getattr(request, k) for k in FIXED})

    def result(self) -> AddedPerformance:
        """Goes through all stages."""
        request, known = self._request, self._known
        pairs = RecordedPairs(audio=request.audio, midi=request.midi, performance=request.name)
        seconds = pairs.seconds()
        if seconds < LEAST_SECONDS:
            raise UserError(f"{seconds:.0f} s of audio are too few; give at least {LEAST_SECONDS:.0f} s, "
                            "better some minutes")
        out = pathlib.Path(request.output)
        if out.is_dir() and out.samefile(self._folder):
            raise UserError(f"{out}: is the model to begin with; give another folder")
        self._work.claim()
        self._stages.next(f"spectrograms and notes of {seconds:.0f} s")
        records = self._records(pairs)
        source = self._first_source(records)
        begin_with = self._nearest(source)
        self._stages.next(f"training, from {known.names[begin_with]}, which is the nearest")
        trained, losses = self._train_all(records, source, begin_with)
        self._stages.next(f"model folder {request.output}")
        self._write(trained)
        return AddedPerformance(
            model=request.output, performance=request.name, seconds=round(seconds, 1),
            nearest=known.names[begin_with], loss=losses,
            minutes=round((time.monotonic() - self._began) / 60, 2))

    def _records(self, pairs: RecordedPairs) -> RecordSource:
        """Returns what the model learns from, but for note maps."""
        model, codec, folder = self._model, self._model.space.codec, self._work.path("records")
        build(pairs, "recorded_pairs",
              BuildPlan(codec=codec, workers=self._request.workers, frames=512), folder)
        names = self._work.path(FILE)
        write_performances(names, dataclasses.replace(
            self._known, performances=(*self._known.performances, Performance(name=self._request.name)),
            table=None))
        return RecordSource(folder=folder, codec=codec, frames=model.segment.frames, eval_batch_count=4,
                            conditions=_with(model.conditions, performance=PerformanceNumbers(file=names)))

    def _first_source(self, records: RecordSource) -> RecordSource:
        """Returns the records with the maps that the model draws so far, if it draws some."""
        if not isinstance(self._model, NoteMapped):
            return records
        mapped = self._mapped(records, "mapped", self._model, *self._model.note_timbre(self._params))
        return dataclasses.replace(mapped, conditions=_with(mapped.conditions, slots=SLOTS))

    def _mapped(self, source: RecordSource, name: str, model: NoteMapped, config: NoteTimbreConfig,
                timbre: Params, row: int | None = None) -> RecordSource:
        """Adds the maps that a note timbre network draws, of one of its performances or without."""
        folder = self._work.path(name)
        with self._monitor.bar("note maps") as progress:
            add_note_maps(source.folder, folder, config, timbre, progress=in_steps(progress),
                          ring=model.ring, row_of=lambda record: row)
        return dataclasses.replace(source, folder=folder, conditions=source.conditions.mapped())

    def _nearest(self, source: RecordSource) -> int:
        """Returns the performance with which the model explains the training recordings best."""
        import jax

        batch = without_maps(next(source.train_iterator(8, 0)))
        losses = losses_of(self._model, self._params, batch, len(self._known.names), jax.random.key(0))
        return int(np.argmin(losses))

    def _train_all(self, records: RecordSource, source: RecordSource, begin_with: int
                   ) -> tuple[Params, tuple[float, float]]:
        """Trains how notes sound, where the model knows it by performance, and then the rest.

        Returns the parameters of the larger model, and validation losses at first and last.
        """
        model = self._model
        larger = dataclasses.replace(self._larger, performance_dropout=0.0)
        adapter = AdaptationModel(model=larger, begin_with=begin_with)
        first = str(self._folder / WEIGHTS)
        if isinstance(model, NoteMapped):
            if model.note_timbre(self._params)[0].performances is not None:
                first, drawing = self._train_notes(adapter, larger, source, first)
                source = self._mapped(records, "mapped_own", model, *drawing,
                                      row=len(self._known.names))
            else:
                source = dataclasses.replace(source, conditions=source.conditions.mapped())
        trained, losses = self._train(adapter, source, first, "run", "recipes/fine_tune/adapt.gin")
        return adapter.merged(trained), losses

    def _train_notes(self, adapter: AdaptationModel, larger: NoteMapped, source: RecordSource, first: str
                     ) -> tuple[str, tuple[NoteTimbreConfig, Params]]:
        """Trains how notes sound.

        Returns the file of parameters to go on with, and the network that draws maps.
        """
        fitting = dataclasses.replace(adapter, model=larger.map_model())
        fitted, _ = self._train(fitting, dataclasses.replace(source, frames=MAP_FRAMES), first, "notes",
                                "recipes/fine_tune/adapt_notes.gin")
        path = self._work.path("notes.safetensors")
        save_safetensors(path, fitted)
        return path, larger.note_timbre(adapter.merged(fitted))

    def _train(self, model: AdaptationModel, source: RecordSource, first: str, name: str, recipe: str
               ) -> tuple[Params, tuple[float, float]]:
        """Trains, or goes on; returns the averaged parameters, and validation losses at first and last.

        `first` is the file of parameters to begin with, `name` that of the run in the work folder.
        """
        from music_diffusion.training.checkpoints import read_params

        request, run_dir = self._request, self._work.path(name)
        fine_tune([recipe], {"SEED": request.seed} | shorter(request.steps, warmup=20), request.bindings,
                  model_dir=run_dir, model=model, data=source, init_from=first)
        losses = list(validation_losses(run_dir).values())
        return read_params(run_dir)[0], (losses[0], losses[-1])

    def _write(self, params: Params) -> None:
        """Writes the new model's folder."""
        request, base = self._request, self._folder
        entry = dataclasses.replace(performances_of(self._work.path("records"))[0],
                                    source=", ".join(os.path.basename(path) for path in request.audio),
                                    room=request.room)
        config = self._larger.performances
        text = rebound_config((base / CONFIG).read_text(), [
            f"PerformanceConfig.count = {config.count}", f"PerformanceConfig.features = {config.features}"])
        out = pathlib.Path(request.output)
        out.mkdir(parents=True, exist_ok=True)
        save_safetensors(out / WEIGHTS, params, facts={"adapted": request.name})
        (out / CONFIG).write_text(text)
        listed = dataclasses.replace(self._known, performances=(*self._known.performances, entry))
        write_performances(out / FILE, listed.with_table(params))
        if (base / CARD).is_file():
            card = without_storage(read_text(base / CARD))
            write_text(out / CARD, f"{card}\n## Performance `{entry.name}`\n\nAdded by `music-diffusion "
                                   f"adapt` from {entry.minutes:.1f} minutes of {entry.source}.\n")


def _with(conditions: Any, **changes: Any) -> Any:
    """Returns conditions of training examples with some fields changed."""
    return dataclasses.replace(conditions, **changes)
