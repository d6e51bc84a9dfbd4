"""`music-diffusion prepare`."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import pathlib
from collections.abc import Callable

from music_diffusion.cli.progress import progress_bar
from music_diffusion.data.items import DataSet
from music_diffusion.data.sets.catalogue import CATALOGUE, open_set
from music_diffusion.data.sets.transposed import Transposed
from music_diffusion.data.splits import Assigned
from music_diffusion.errors import UserError

KINDS = ("sets", "renders", "audio_folder", "note_rows", "note_maps", "performances",
         "references", "release")  # beside data sets
SOUNDFONT = "soundfont"
HELD_OUT = 0.05  # share for validation; of renders, hours of it (and of test) for each hour of training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line says; see `cli.main.prepare`."""

    kind: str
    source: str | None
    destination: str | None
    doctor: bool = False
    options: tuple[tuple[str, str], ...] = ()
    transpose: int = 0
    codec: str = "16k"
    stems: bool = False
    container: str = "array_record"
    shards: int = 32
    refuse: bool = False
    runner: str | None = None
    runner_options: tuple[str, ...] = ()
    soundfonts: tuple[str, ...] = ()
    hours: float = 10.0
    test: bool = False
    solo: float = 0.0
    midi: bool = False
    rate: int = 16000
    mono: bool = False
    notes_per_program: int = 440
    weights: str | None = None
    bindings: tuple[str, ...] = ()
    performances: str | None = None
    workers: int = 2
    seed: int = 0
    json: bool = False


def run(request: Request) -> None:
    """Does it, and tells in a line what was made."""
    kind = request.kind
    if kind == "sets":
        from music_diffusion.cli import prepare_set

        prepare_set.run_sets(json=request.json)
        return
    if kind not in KINDS and kind not in CATALOGUE:
        raise UserError(f"prepare {kind}: unknown; choose a data set of `music-diffusion prepare sets`, "
                        f"{', '.join(KINDS[1:-1])} or {KINDS[-1]}")
    if request.source is None:
        raise UserError("SRC is missing: give the folder to read")
    if not os.path.exists(request.source):
        raise UserError(f"{request.source}: no such folder or file")
    if request.doctor:
        if kind not in CATALOGUE:
            raise UserError(f"prepare {kind} --doctor: only data sets are examined")
        from music_diffusion.cli import doctor

        doctor.run(open_request(request), source=request.source, codec=request.codec,
                   workers=request.workers, json=request.json)
        return
    if request.destination is None:
        raise UserError("DST is missing: give the folder to write")
    if kind in CATALOGUE:
        from music_diffusion.cli import prepare_set

        prepare_set.run(kind=kind, data_set=open_request(request), destination=request.destination,
                        codec=request.codec, stems=request.stems, container=request.container,
                        shards=request.shards, refuse=request.refuse, runner=request.runner,
                        runner_options=request.runner_options, workers=request.workers,
                        seed=request.seed, json=request.json)
        return
    with progress_bar(f"{kind} {request.destination}") as bar:
        facts = _MAKERS[kind](request, request.source, request.destination,
                              lambda done, of: bar(done / of))
    folder = pathlib.Path(request.destination).resolve()
    if request.json:
        print(json_module.dumps({"folder": str(folder)} | facts))
    else:
        print(f"{folder}: {facts.pop('summary', 'done')}")


def open_request(request: Request) -> DataSet:
    """The reader that the command line asks for."""
    if request.source is None:
        raise ValueError("the request has no source")
    options: dict = dict(request.options)
    if request.kind == SOUNDFONT:
        if not request.soundfonts:
            raise UserError("prepare soundfont needs --soundfont FILE.sf2, once or several times")
        options = {"soundfonts": request.soundfonts, "train_hours": request.hours, "solo": request.solo,
                   "validation_hours": HELD_OUT * request.hours, "stems": request.stems,
                   "test_hours": HELD_OUT * request.hours * request.test, "seed": request.seed} | options
    data_set = open_set(request.kind, request.source, options)
    if not request.transpose:
        return data_set
    assigned = Assigned(data_set=data_set, validation=HELD_OUT, seed=request.seed)
    return Transposed(data_set=assigned, most=request.transpose)


Progress = Callable[[int, int], None]


def _renders(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.data.audio_renders import AudioRenderPlan, render_audio

    if not request.soundfonts:
        raise UserError("prepare renders needs --soundfont FILE.sf2, once or several times")
    render_audio(AudioRenderPlan(
        scores=source, soundfonts=request.soundfonts, train_hours=request.hours,
        validation_hours=HELD_OUT * request.hours, test_hours=HELD_OUT * request.hours * request.test,
        sample_rate=request.rate, solo=request.solo, midi=request.midi, workers=request.workers,
        seed=request.seed), destination, progress)
    return {}


def _audio_folder(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.data.audio_folder import AudioFolderPlan, prepare_audio_folder

    manifest = prepare_audio_folder(AudioFolderPlan(
        source=source, sample_rate=request.rate, mono=request.mono, workers=request.workers,
        seed=request.seed), destination, progress)
    hours = ", ".join(f"{manifest['hours'][s]:.2f} h for {s}" for s in manifest["hours"]
                      if manifest["records"][s])
    skipped = manifest["skipped"]
    left_out = [f"; skipped {len(skipped)}, e.g. {name}: {why} (see manifest.json)"
                for name, why in skipped[:1]]
    return manifest | {"summary": "".join([hours, *left_out])}


def _note_rows(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.data.note_renders import NoteRowPlan, write_note_rows

    write_note_rows(NoteRowPlan(soundfont=source, notes_per_program=request.notes_per_program,
                                workers=request.workers, seed=request.seed), destination, progress)
    return {}


def _note_maps(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.conditions.performances import read_performances
    from music_diffusion.data.note_maps import add_note_maps
    from music_diffusion.data.records import Record, read_manifest
    from music_diffusion.models.stored_timbre import stored_timbre

    if request.weights is None:
        raise UserError("prepare note_maps needs --weights note_timbre.safetensors")
    config, timbre = stored_timbre(request.weights)
    if config.performances is None:
        add_note_maps(source, destination, config, timbre, progress=progress)
        return {}
    if request.performances is None:
        raise UserError(f"{request.weights}: knows performances; give their names by --performances FILE")
    known = read_performances(request.performances)
    if len(known.names) != config.performances.count:
        raise UserError(f"{request.performances}: names {len(known.names)} performances, and "
                        f"{request.weights} has {config.performances.count}; give the file that belongs "
                        "to the weights")
    # Before any record is drawn.
    for name in read_manifest(source).get("classes", {}).get("performance", ()):
        known.number(name)

    def row_of(record: Record) -> int | None:
        named = record.labels.get("performance")
        return None if named is None else known.number(named)

    add_note_maps(source, destination, config, timbre, progress=progress, row_of=row_of)
    return {}


def _release(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.synthesis.release import release

    release(source, destination, bindings=list(request.bindings), performances=request.performances)
    progress(1, 1)
    return {}


def _performances(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.conditions.performances import write_performances
    from music_diffusion.data.performances import add_performances, read_told

    options = dict(request.options)
    told, default = options.pop("table", None), options.pop("default", None)
    if options:
        raise UserError(f"prepare performances has no option {min(options)!r}; there are table and default")
    listed = add_performances(source, destination, None if told is None else read_told(told), default)
    write_performances(destination, listed)
    progress(1, 1)
    return {"performances": list(listed.names),
            "summary": f"{len(listed.names)} performances: {', '.join(listed.names)}"}


def _references(request: Request, source: str, destination: str, progress: Progress) -> dict:
    from music_diffusion.data.references import TABLE, write_references

    options = dict(request.options)
    kind = options.pop("dataset", None)
    if kind not in CATALOGUE:
        raise UserError("prepare references needs --option dataset=NAME, a data set of `music-diffusion "
                        "prepare sets`" + ("" if kind is None else f"; {kind} is none"))
    splits = [split.strip() for split in options.pop("splits", "train,test").split(",")]
    minutes = options.pop("minutes", "10")
    try:
        length = float(minutes)
    except ValueError:
        raise UserError(f"--option minutes={minutes}: give a number") from None
    data_set = open_request(dataclasses.replace(
        request, kind=kind, options=tuple(options.items()), transpose=0, test=True))
    listing = data_set.list()
    if any(item.split is None for item in listing.items):
        listing = Assigned(data_set=data_set, validation=HELD_OUT, seed=request.seed).list()
    counts = write_references(listing, destination, splits=splits, minutes=length,
                              sample_rate=request.rate, seed=request.seed, workers=request.workers,
                              progress=progress)
    return {"files": counts, "summary": ", ".join(
        f"{n} file{'s' * (n != 1)} for {split}" for split, n in counts.items()) + f"; {TABLE}"}


_MAKERS: dict[str, Callable[[Request, str, str, Progress], dict]] = {
    "renders": _renders, "audio_folder": _audio_folder, "note_rows": _note_rows,
    "note_maps": _note_maps, "performances": _performances, "references": _references,
    "release": _release}
