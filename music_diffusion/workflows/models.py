"""Released models: what there is, releasing a run, and what the training of some needs beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.performances import (
    FILE,
    Performances,
    read_performances,
    write_performances,
)
from music_diffusion.data.records import Record, read_manifest
from music_diffusion.errors import UserError
from music_diffusion.models.weights import WEIGHTS, save_safetensors, weight_files
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.release import release
from music_diffusion.synthesis.released_copy import is_released, release_copy
from music_diffusion.tables import read_text
from music_diffusion.types import Progress
from music_diffusion.workflows.fine_tuning import best_step
from music_diffusion.workflows.monitor import in_steps, unseen
from music_diffusion.workflows.requests import (
    NoteMapsRequest,
    NoteRowsRequest,
    PerformanceListRequest,
    ReleaseRequest,
    StatisticsRequest,
)
from music_diffusion.workflows.sources import check_source

BEST = "best"  # in place of a checkpoint's number: that of the least validation loss


def released_models() -> list[dict[str, Any]]:
    """Returns name, megabytes, number of performances and folder of each model in the package."""
    return [_fact(name) for name in hub.available()]


def _fact(name: str) -> dict[str, Any]:
    folder = hub.find(name)
    file = folder / FILE
    size = sum(path.stat().st_size for path in weight_files(folder / WEIGHTS))
    return {"name": name, "megabytes": round(size / 1e6, 1),
            "performances": len(read_performances(file).names) if file.is_file() else 0,
            "folder": str(folder)}


def model_card(name: str) -> str:
    """Returns the text of a model's card. Raises UserError: no such model."""
    card = hub.find(name) / "README.md"
    return read_text(card) if card.is_file() else f"{name}: no model card"


def known_performances(name: str) -> Performances:
    """Returns the performances of a model. Raises UserError: no such model, or it knows none."""
    known = hub.load_performances(name)
    if known is None:
        raise UserError(f"{name}: this model knows no performances")
    return known


def release_run(request: ReleaseRequest) -> None:
    """Makes a model folder of a training run, or of a released model with other storage or settings.

    Raises UserError as `synthesis.release.release` and `synthesis.released_copy.release_copy` do, and for a
    checkpoint that is no number, not there, or the best of none that were evaluated.
    """
    if is_released(request.run):
        if request.step is not None:
            raise UserError(f"--step {request.step}: {request.run} is a released model and has one; "
                            "leave it out")
        if request.performances is not None:
            raise UserError(f"--performances {request.performances}: {request.run} is a released model and "
                            "keeps its names; leave it out")
        release_copy(request.run, request.output, dtype=request.dtype, bindings=request.bindings,
                     start=request.start, start_share=request.start_share)
        return
    check_source(request.run)
    release(request.run, request.output, step=_step(request), bindings=request.bindings,
            performances=request.performances, dtype=request.dtype, start=request.start,
            start_share=request.start_share)


def _step(request: ReleaseRequest) -> int | None:
    """Returns the number of the checkpoint that is asked for; None for the newest."""
    if request.step is None:
        return None
    if request.step == BEST:
        return best_step(request.run)[0]
    if not request.step.isdecimal():
        raise UserError(f"--step {request.step}: give the number of a checkpoint, or {BEST}")
    return int(request.step)


def render_note_rows(request: NoteRowsRequest, progress: Progress = unseen) -> None:
    """Writes isolated notes of a SoundFont or of recorded notes, unless they are there.

    Raises UserError: what plays is not there, or cannot be used.
    """
    from music_diffusion.data.instruments import split_source
    from music_diffusion.data.note_renders import NoteRowPlan, write_note_rows

    check_source(split_source(request.soundfont)[0])
    plan = NoteRowPlan(soundfont=request.soundfont, fallback=request.fallback,
                       notes_per_program=request.notes_per_program, workers=request.workers,
                       seed=request.seed)
    write_note_rows(plan, request.output, in_steps(progress))


def draw_maps(request: NoteMapsRequest, progress: Progress = unseen) -> None:
    """Copies records, with the maps that a note timbre network draws of their notes.

    Raises:
      UserError: no records, weights without such a network, or names of performances that are
        missing, too many, or not those of the weights or the records.
    """
    from music_diffusion.data.note_maps import add_note_maps
    from music_diffusion.models.stored_timbre import stored_timbre

    check_source(request.data)
    config, timbre = stored_timbre(request.weights)
    if config.performances is None:
        add_note_maps(request.data, request.output, config, timbre, progress=in_steps(progress))
        return
    if request.performances is None:
        raise UserError(f"{request.weights}: knows performances; give their names by --performances FILE")
    known = read_performances(request.performances)
    if len(known.names) != config.performances.count:
        raise UserError(f"{request.performances}: names {len(known.names)} performances, and "
                        f"{request.weights} has {config.performances.count}; give the file that belongs "
                        "to the weights")
    # Before any record is drawn.
    for name in read_manifest(request.data).get("classes", {}).get("performance", ()):
        known.number(name)

    def row_of(record: Record) -> int | None:
        named = record.labels.get("performance")
        return None if named is None else known.number(named)

    add_note_maps(request.data, request.output, config, timbre, progress=in_steps(progress), row_of=row_of)


def estimate_statistics(request: StatisticsRequest, progress: Progress = unseen) -> None:
    """Writes the statistics of patches of prepared records, with which a model that predicts them starts.

    Raises UserError: no records, or too few; an autoencoder of other patches, or of what maps miss; weights
    without axes, or of other patches.
    """
    from music_diffusion.data.patch_statistics import patch_statistics

    check_source(request.data)
    codec = MelCodec.from_dict(read_manifest(request.data)["codec"])
    encode = None if request.autoencoder is None else _latents(request, codec)
    axes = None if request.axes is None else _axes(request.axes)
    found = patch_statistics(request.data, codec, request.patch, around_maps=request.around_maps,
                             encode=encode, axes=axes, progress=in_steps(progress))
    save_safetensors(request.output, found, dtype="float32", facts={"patch": request.patch})


def _axes(path: str) -> np.ndarray:
    """Returns the axes among weights, orthonormal: those that were stored in few bits nearly are."""
    from music_diffusion.models.statistics import STATISTICS
    from music_diffusion.models.weights import load_safetensors

    stored = load_safetensors(path).get(STATISTICS)
    if not stored:
        raise UserError(f"{path}: has no axes, as weights of a model of patches have them")
    left, _, right = np.linalg.svd(np.asarray(stored["axes"], np.float64))
    return left @ right  # the nearest ones


def _latents(request: StatisticsRequest, codec: MelCodec) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the encoder that a request names."""
    import jax

    from music_diffusion.models.autoencoder import AutoencoderModel
    from music_diffusion.synthesis.hub import load_trained

    _, model, params = load_trained(request.autoencoder or "", AutoencoderModel, "autoencoder")
    model.codec.check_same(codec)
    if model.config.step != request.patch or request.around_maps:
        raise UserError(f"{request.autoencoder}: is of spectrograms, {model.config.step} frames at once; "
                        f"give --patch {model.config.step}, and leave --around-maps out")
    encode = jax.jit(lambda mel: model.encode(params, mel[None])[0])
    return lambda mel: np.asarray(encode(mel))


def list_performances(request: PerformanceListRequest) -> Performances:
    """Writes the performances of prepared records into a list, after those that are in it.

    Returns the list. Raises UserError: records without performances, a bad table, or a default that
    is not in the list.
    """
    from music_diffusion.data.performances import add_performances, read_descriptions

    check_source(request.data)
    table = None if request.table is None else read_descriptions(request.table)
    listed = add_performances(request.data, request.output, table, request.default)
    write_performances(request.output, listed)
    return listed
