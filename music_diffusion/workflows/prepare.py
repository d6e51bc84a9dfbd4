"""Preparing data: records of data sets, audio of scores, recordings to compare renderings with."""

from __future__ import annotations

import pathlib

from music_diffusion import gin_setup
from music_diffusion.data import records
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.instruments import split_source
from music_diffusion.data.items import DataSet, Limited
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.sets.transposed import Transposed
from music_diffusion.data.splits import Assigned
from music_diffusion.errors import UserError
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import in_steps, unseen
from music_diffusion.workflows.requests import (
    AudioFolderRequest,
    ConversionsRequest,
    DataSetRequest,
    ExcerptsRequest,
    PicturesRequest,
    ReferencesRequest,
    ScoresRequest,
)
from music_diffusion.workflows.sources import HELD_OUT, check_source, open_source, render_options

CONTAINERS = {"array_record": records.ARRAY_RECORD, "tfrecord": records.TF_RECORD}


def open_data_set(request: DataSetRequest) -> DataSet:
    """Returns the reader that is asked for, with its transposed copies. Raises UserError."""
    data_set = open_source(request.kind, request.source, request.options, request, test=request.test,
                           stems=request.stems)
    if request.items is not None:
        data_set = Limited(data_set=data_set, count=request.items)
    if not request.transpose:
        return data_set
    assigned = Assigned(data_set=data_set, validation=HELD_OUT, seed=request.seed)
    return Transposed(data_set=assigned, most=request.transpose)


def prepare_data_set(request: DataSetRequest, progress: Progress = unseen) -> dict:
    """Builds records of a data set; what is there is kept. Returns the manifest.

    Raises UserError: see `open_data_set` and `data.build.build`; no destination; an unknown codec,
    container or runner.
    """
    data_set = open_data_set(request)
    if request.destination is None:
        raise UserError("DST is missing: give the folder to write")
    if request.container not in CONTAINERS:
        raise UserError(f"--format {request.container}: choose {' or '.join(CONTAINERS)}")
    listener = None
    if request.heard:
        from music_diffusion.workflows.listening import Ears

        listener = Ears()
    plan = BuildPlan(codec=gin_setup.codec(request.codec), stems=request.stems, listener=listener,
                     level=request.level,
                     suffix=CONTAINERS[request.container], shards=request.shards, refuse=request.refuse,
                     workers=request.workers, seed=request.seed)
    run_shards = run_tasks
    if request.runner is not None:
        from music_diffusion.data.beam import beam_runner

        run_shards = beam_runner(request.runner, request.runner_options)
    return build(data_set, request.kind, plan, request.destination, run=run_shards,
                 progress=in_steps(progress))


def contents(manifest: dict) -> str:
    """Returns what a folder has, and how many items it does not have, in a line."""
    parts = [f"{manifest['hours'][s]:.2f} h and {manifest['notes'][s]} notes for {s}"
             for s in manifest["hours"] if manifest["records"][s]]
    parts += [f"{len(names)} {kind}{'s' * (len(names) != 1)}"
              for kind, names in manifest["classes"].items()]
    skipped = manifest["skipped"]
    return ", ".join(parts) + (f"; skipped {len(skipped)} (see manifest.json)" if skipped else "")


def render_scores(request: ScoresRequest, progress: Progress = unseen) -> list[tuple[str, str]]:
    """Renders excerpts of scores as audio files, in rooms and at levels that are drawn.

    Returns the excerpts that could not be rendered, each with the reason.

    Raises UserError: no scores, no SoundFont or one that cannot be read, a folder of other renders, or
    one that is, contains or lies in what is read.
    """
    from music_diffusion.data.audio_renders import AudioRenderPlan, render_audio

    check_source(request.scores)
    sources = [request.scores, *(split_source(sampler)[0] for sampler in request.samplers)]
    for source in (*sources, *filter(None, [request.room_responses])):
        _check_apart(request.destination, source)
    return render_audio(AudioRenderPlan(
        scores=request.scores, sample_rate=request.rate, midi=request.midi, workers=request.workers,
        room_responses=request.room_responses or "", room_licences=request.room_licences,
        tuning=request.tuning, vibrato=request.vibrato, degraded=request.degraded,
        **render_options("render", request, test=request.test)), request.destination, in_steps(progress))


def _check_apart(destination: str, source: str) -> None:
    """Raises UserError where one of two folders is or contains the other.

    What is written would be read as a source by the next run.
    """
    one, other = (pathlib.Path(path).resolve() for path in (destination, source))
    if one == other or one in other.parents or other in one.parents:
        raise UserError(f"{destination}: is, contains or lies in {source}, from which is read; choose a "
                        "folder beside it")


def prepare_audio(request: AudioFolderRequest, progress: Progress = unseen) -> dict:
    """Cuts a folder of audio files into records. Returns the manifest.

    Raises UserError: no audio, or a destination with other data.
    """
    from music_diffusion.data.audio_folder import AudioFolderPlan, prepare_audio_folder

    check_source(request.source)
    return prepare_audio_folder(AudioFolderPlan(
        source=request.source, sample_rate=request.rate, mono=request.mono, workers=request.workers,
        seed=request.seed), request.destination, in_steps(progress))


def audio_contents(manifest: dict) -> str:
    """Returns the hours of each split in a line, and what was skipped."""
    hours = ", ".join(f"{manifest['hours'][s]:.2f} h for {s}" for s in manifest["hours"]
                      if manifest["records"][s])
    skipped = manifest["skipped"]
    left_out = [f"; skipped {len(skipped)}, e.g. {name}: {why} (see manifest.json)"
                for name, why in skipped[:1]]
    return "".join([hours, *left_out])


def prepare_references(request: ReferencesRequest, progress: Progress = unseen) -> dict[str, int]:
    """Writes audio and notes of a data set, a few minutes of each performance, with their table.

    Returns the number of files of each split. Raises UserError as `open_source` and
    `data.references.write_references` do.
    """
    from music_diffusion.data.references import write_references

    data_set = open_source(request.dataset, request.source, request.options, request, test=True)
    listing = data_set.list()
    if any(item.split is None for item in listing.items):
        listing = Assigned(data_set=data_set, validation=HELD_OUT, seed=request.seed).list()
    return write_references(
        listing, request.destination, splits=[split.strip() for split in request.splits.split(",")],
        minutes=request.minutes, sample_rate=request.rate, seed=request.seed, workers=request.workers,
        progress=in_steps(progress))


def prepare_conversions(request: ConversionsRequest, progress: Progress = unseen) -> dict[str, int]:
    """Renders excerpts of scores in two timbres each, to judge timbre transfer by.

    Returns the number of files of each task. Raises UserError as
    `data.conversions.write_conversions` does.
    """
    from music_diffusion.data.conversions import PAPER, ConversionPlan, write_conversions

    check_source(request.source)
    _check_apart(request.destination, request.source)
    return write_conversions(ConversionPlan(
        scores=request.source, soundfont=request.soundfont, conversions=request.conversions or PAPER,
        pieces=request.pieces, seconds=request.seconds, split=request.split, sample_rate=request.rate,
        workers=request.workers, seed=request.seed), request.destination, in_steps(progress))


def prepare_excerpts(request: ExcerptsRequest, progress: Progress = unseen) -> dict[str, int]:
    """Cuts excerpts of recordings, or makes noise like them, to compare samples of a generator with.

    Returns the number of excerpts of each folder. Raises UserError as
    `evaluation.excerpts.write_excerpts` does.
    """
    from music_diffusion.evaluation.excerpts import ExcerptPlan, write_excerpts

    check_source(request.source)
    _check_apart(request.destination, request.source)
    return write_excerpts(ExcerptPlan(
        source=request.source, seconds=request.seconds, count=request.count, noise=request.noise,
        sample_rate=request.rate, seed=request.seed), request.destination, in_steps(progress))


def prepare_pictures(request: PicturesRequest, progress: Progress = unseen) -> dict[str, int]:
    """Writes spectrograms of recordings as pictures, and pairs of them, as style transfer was trained.

    Returns the number of pictures of each instrument. Raises UserError as
    `data.style_pictures.write_pictures` does.
    """
    from music_diffusion.data.style_pictures import PicturePlan, write_pictures

    check_source(request.source)
    _check_apart(request.destination, request.source)
    return write_pictures(PicturePlan(
        source=request.source, seconds=request.seconds, minutes=request.minutes, pairs=request.pairs,
        seed=request.seed), request.destination, in_steps(progress))
