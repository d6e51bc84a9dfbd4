"""Recordings in another timbre: one file, or all of a folder."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.errors import UserError
from music_diffusion.evaluation.cache import digest, file_digest
from music_diffusion.files import write_json
from music_diffusion.models.weights import CONFIG, WEIGHTS, weight_files
from music_diffusion.paths import check_apart, name_key, shown, source_file
from music_diffusion.synthesis.hearing import Hearing, open_hearing, open_style, style_settings
from music_diffusion.synthesis.hub import find, load
from music_diffusion.synthesis.reconstruct import check_files
from music_diffusion.synthesis.released_copy import is_released
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.synthesis.transfer import Transferred, transfer_file
from music_diffusion.workflows.monitor import SILENT, Monitor, part_of
from music_diffusion.workflows.requests import RestyleRequest, TransferRequest

LOG = "transfers.json"  # in the folder of what was made: of what, and by which model and settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferredFolder:
    """Files that a folder's transfer made, kept and skipped."""

    made: tuple[str, ...]  # files that are there now
    kept: int  # of them, that an earlier call made
    skipped: tuple[tuple[str, str], ...]  # recordings that could not be used, and why


def transfer(request: TransferRequest | RestyleRequest, settings: RenderSettings = RenderSettings(),
             monitor: Monitor = SILENT) -> Transferred:
    """Writes a recording in another timbre, or style.

    Raises UserError for files that cannot be read or written (before the model is loaded), and as
    `synthesis.hub.load` and `synthesis.transfer.transfer_file` do.
    """
    if os.path.isdir(request.source):
        raise UserError(f"{shown(request.source)}: is a folder; say by --out-dir where its files go")
    if request.output is None:
        raise UserError("give the file to write: -o OUT.wav")
    with source_file(request.source) as source:
        check_files(source, request.output, request.plot)
        check_apart(request.output, _beside(request))
        with monitor.bar(f"changing {shown(request.output)}") as progress:
            synthesizer = load(request.model, request.inverter)
            own = style_settings(synthesizer, settings) if isinstance(request, RestyleRequest) else settings
            return transfer_file(synthesizer, source, request.output, settings=own,
                                 hearing=hearing(request, synthesizer), mono=request.mono,
                                 plot=request.plot, progress=progress)


def hearing(request: TransferRequest | RestyleRequest, synthesizer: Synthesizer) -> Hearing | None:
    """Returns what the request asks for; see `synthesis.hearing`."""
    if isinstance(request, RestyleRequest):
        return open_style(synthesizer, request.style)
    return open_hearing(synthesizer, request.to, request.source_instruments, request.like)


def transfer_folder(request: TransferRequest | RestyleRequest, settings: RenderSettings = RenderSettings(),
                    monitor: Monitor = SILENT) -> TransferredFolder:
    """Writes every recording below a folder in another timbre, as OUT_DIR/NAME.wav.

    Files that an earlier call made of the same recording, by the same model and settings, are kept; so an
    interrupted call is continued.

    Raises UserError: no such folder, no audio in it, an output that lies in it, or no file could be used.
    """
    if request.output is not None or request.plot is not None:
        raise UserError("--out-dir: the files get their names and no pictures; leave -o and --plot out")
    if request.out_dir is None or not os.path.isdir(request.source):
        raise UserError(f"{shown(request.source)}: is no folder; --out-dir is for a folder's files")
    out, folder = pathlib.Path(request.out_dir), pathlib.Path(request.source)
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise UserError(f"{shown(request.out_dir)}: lies in the folder that is read; choose one beside it")
    if out.exists() and not out.is_dir():
        raise UserError(f"{shown(request.out_dir)}: is a file; give a folder")
    found, unread = find_audio(request.source)
    skipped, made, kept = [(path, reason) for path, reason in unread], list[str](), 0
    log = _read_log(out / LOG)
    asked = () if isinstance(request, RestyleRequest) else (request.to, request.source_instruments)
    options = digest(_state(request.model), repr(settings), request.mono, request.inverter, *asked,
                     _like(_beside(request)))
    targets = _targets([file.path for file in found])
    _check_free(out, targets.values(), log, options)
    out.mkdir(parents=True, exist_ok=True)
    synthesizer: Synthesizer | None = None
    told: Hearing | None = None
    with monitor.bar(f"changing {shown(request.out_dir)}") as progress:
        for i, file in enumerate(found):
            source, target = folder / file.path, out / targets[file.path]
            bar = part_of(progress, i, len(found))
            key = [options, file_digest(source)]
            name = targets[file.path]
            if target.is_file() and log.get(name) == key:
                kept += 1
            else:
                if synthesizer is None:
                    synthesizer = load(request.model, request.inverter)
                    told = hearing(request, synthesizer)
                    if isinstance(request, RestyleRequest):
                        settings = style_settings(synthesizer, settings)
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    transfer_file(synthesizer, str(source), str(target), settings=settings,
                                  hearing=told, mono=request.mono, progress=bar)
                except UserError as e:
                    skipped.append((file.path, str(e).removeprefix(f"{source}: ")))
                    continue
                log[name] = key
                write_json(out / LOG, log)
            made.append(name)
            bar(1.0)
    if not made:
        raise UserError("{}: no file could be used ({}: {})".format(
            shown(request.source), *(skipped or [("none", "no audio there")])[0]))
    return TransferredFolder(made=tuple(made), kept=kept, skipped=tuple(skipped))


def _beside(request: TransferRequest | RestyleRequest) -> str | None:
    """Returns what the recording should sound like."""
    return request.style if isinstance(request, RestyleRequest) else request.like


def _like(text: str | None) -> str | None:
    """Returns what the output depends on of a recording, or of a performance's name."""
    return text if text is None or not os.path.isfile(text) else file_digest(text)


def _check_free(out: pathlib.Path, names: Iterable[str], log: Mapping[str, list[str]], options: str
                ) -> None:
    """Raises UserError where a file would be replaced that is another's, or was made with other options."""
    for name in names:
        if not (out / name).exists():
            continue
        if name not in log:
            raise UserError(f"{shown(out / name)}: is there already, and not by this command; give another "
                            "--out-dir")
        if log[name][0] != options:
            raise UserError(f"{shown(out)}: what is there was made with other options; give another "
                            "--out-dir, or delete it")


def _targets(paths: Sequence[str]) -> dict[str, str]:
    """Returns what is written of every file: NAME.wav, or NAME.mp3.wav where two have one name.

    Names that differ in case alone are one, as some file systems see them.
    """
    stems = collections.Counter(name_key(os.path.splitext(path)[0]).casefold() for path in paths)
    targets: dict[str, str] = {}
    used: set[str] = set()
    for path in paths:
        stem = os.path.splitext(path)[0]
        own = stem if stems[name_key(stem).casefold()] == 1 else path
        number = 2
        target = f"{own}.wav"
        while name_key(target).casefold() in used:
            target, number = f"{own}_{number}.wav", number + 1
        used.add(name_key(target).casefold())
        targets[path] = target
    return targets


def _state(model: str) -> list:
    """Returns what a model's output depends on: the content of a released one, the files of a run."""
    if is_released(model):
        folder = find(model)
        return [file_digest(path) for path in (folder / CONFIG, *weight_files(folder / WEIGHTS))]
    return [[path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns]
            for path in sorted(pathlib.Path(model).rglob("*")) if path.is_file()]


def _read_log(path: pathlib.Path) -> dict[str, list[str]]:
    """Returns what every file was made with, options and recording; {} where the log is damaged."""
    try:
        log = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return log if isinstance(log, dict) else {}
