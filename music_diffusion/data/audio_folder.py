"""A folder of audio files → ArrayRecord shards of pieces, for training on any audio.

Files keep to one split: those in folders named train, validation or test go there,
and of the others a share goes to validation, by a hash of the path, so that new
files do not move old ones. A file's shard is a hash as well, and a shard is written
again only if its files have changed: an interrupted run goes on where it was.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import soundfile
import soxr
from jaxtyping import Float, Int16

from music_diffusion import __version__
from music_diffusion.audio.io import AudioReader, StreamResampler
from music_diffusion.data import records
from music_diffusion.data.audio_records import FULL_SCALE, KIND, AudioRecord, to_int16
from music_diffusion.data.parallel import run_tasks
from music_diffusion.errors import UserError

SPLITS = ("train", "validation", "test")
EXTENSIONS = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc",
                        ".au", ".caf", ".w64", ".rf64"})
# Audio that libsndfile does not read: named in the manifest rather than passed over.
FOREIGN = frozenset({".m4a", ".aac", ".wma", ".mp4", ".ape", ".wv", ".mka", ".webm"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFolderPlan:
    """How a folder of audio becomes records."""

    source: str  # folder, with all that lies below it
    sample_rate: int = 16000  # Hz, of the records
    mono: bool = False  # mix stereo to one channel; files of three channels or more always are
    piece_seconds: float = 12.0  # length of a record; the last of a file has 0.5 to 1.5 times that
    shortest: float = 0.5  # seconds, of a file that is taken
    silence_db: float = -60.0  # dBFS; pieces whose peak is below are left out
    validation: float = 0.05  # share of the files without a split of their own, 0..1
    seed: int = 0  # of the hash that chooses them
    shards: int = 32  # of a split, at most
    workers: int = 2  # processes

    def __post_init__(self):
        if self.sample_rate < 1000:
            raise UserError(f"{self.sample_rate} Hz is no rate for audio; give e.g. 16000")
        if not 0 < self.shortest <= self.piece_seconds:
            raise UserError(f"pieces of {self.piece_seconds} s must be at least {self.shortest} s")
        if not 0 < self.validation < 1:
            raise UserError(f"the share for validation, {self.validation}, must be between 0 and 1")

    def options(self) -> dict:
        """What the records depend on."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "workers"}
        return fields | {"source": os.path.realpath(self.source)}


@dataclasses.dataclass(frozen=True, order=True)
class AudioFile:
    """A file below the source folder."""

    path: str  # relative, with '/'
    size: int  # bytes
    modified: int  # nanoseconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardFacts:
    """What one shard holds, kept beside it."""

    files: list[list]  # the fields of every `AudioFile` it was made of
    records: int
    seconds: float
    silent_seconds: float  # left out
    skipped: list[list[str]]  # path, reason

    def matches(self, files: list[AudioFile]) -> bool:
        return self.files == [list(dataclasses.astuple(f)) for f in files]


def find_audio(folder: str) -> tuple[list[AudioFile], list[list[str]]]:
    """The audio files below a folder, links followed, by path; and what is skipped, with reasons.

    Raises:
      UserError: there is none.
    """
    root, found, skipped, seen = pathlib.Path(folder), [], [], set()

    def unreadable(error: OSError):
        where = pathlib.Path(error.filename).relative_to(root).as_posix()
        skipped.append([where, f"cannot be listed ({error.strerror})"])

    for at, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        if os.path.realpath(at) in seen:  # a link back up
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        for path in (pathlib.Path(at, name) for name in names if not name.startswith(".")):
            relative, extension = path.relative_to(root).as_posix(), path.suffix.lower()
            if extension in FOREIGN:
                skipped.append([relative, f"{extension} is not read; convert it to WAV or FLAC"])
            elif extension in EXTENSIONS:
                if not path.is_file():
                    skipped.append([relative, "a link to nowhere"])
                    continue
                facts = path.stat()
                found.append(AudioFile(relative, facts.st_size, facts.st_mtime_ns))
    if not found:
        reason = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise UserError(f"{folder}: no audio files there{reason}; "
                        "put WAV, FLAC, MP3, OGG, Opus or AIFF files into it")
    return sorted(found), sorted(skipped)


def split_files(files: Iterable[AudioFile], plan: AudioFolderPlan) -> dict[str, list[AudioFile]]:
    """Every file's split: that of a folder above it (the outermost counts), else by hash.

    Where neither gives a file for validation, that of the lowest hash goes there.

    Raises:
      UserError: training or validation gets no file.
    """
    result: dict[str, list[AudioFile]] = {s: [] for s in SPLITS}
    free = []  # by hash
    for file in files:
        named = [p.lower() for p in file.path.split("/")[:-1] if p.lower() in SPLITS]
        if named:
            result[named[0]].append(file)
        else:
            free.append((_share(plan, file, "split"), file))
    for share, file in free:
        result["validation" if share < plan.validation else "train"].append(file)
    if not result["validation"] and len(free) > 1:
        lowest = min(free)[1]
        result["train"].remove(lowest)
        result["validation"].append(lowest)
    for split in ("train", "validation"):
        if not result[split]:
            raise UserError(f"{plan.source}: no file for {split}; give at least two files, or one "
                            f"in a subfolder named {split}")
    return result


def prepare_audio_folder(plan: AudioFolderPlan, destination: str,
                         progress: Callable[[int, int], None] = lambda i, n: None) -> dict:
    """Writes shards and manifest; returns the manifest. Finished shards are kept.

    Raises:
      UserError: no audio, or none that can be used; the destination holds other
        data, or records made with other options; the disk is full.
    """
    out = pathlib.Path(destination)
    files, skipped = find_audio(plan.source)
    splits = split_files(files, plan)
    _claim(out, plan)
    shards = {(split, i): members for split, of_split in splits.items()
              for i, members in _shards(of_split, plan).items()}
    _remove_others(out, {_name(*key) for key in shards})
    tasks = [(_name(*key), members) for key, members in shards.items()]
    facts = run_tasks(functools.partial(_shard, plan, destination), tasks, plan.workers, progress)
    manifest = _manifest(plan, splits, dict(zip(shards, facts, strict=True)), skipped)
    for split in ("train", "validation"):
        if not manifest["records"][split]:
            reasons = "; ".join(f"{file}: {why}" for file, why in manifest["skipped"][:3])
            raise UserError(f"{plan.source}: nothing usable for {split} ({reasons})")
    records.write_manifest(out, **manifest)
    return manifest


def cut_pieces(reader: AudioReader, plan: AudioFolderPlan) -> Iterator[Int16[np.ndarray, "S C"]]:
    """The file at the plan's rate in pieces; memory is that of about two pieces."""
    size = round(plan.piece_seconds * plan.sample_rate)
    held: list[np.ndarray] = []
    count = 0
    for block in _resampled(reader, plan):
        held.append(block)
        count += len(block)
        while count >= 1.5 * size:
            joined = np.concatenate(held)
            yield _stored(joined[:size])
            held, count = [joined[size:]], count - size
    if count:
        yield _stored(np.concatenate(held))


def _resampled(reader: AudioReader, plan: AudioFolderPlan) -> Iterator[Float[np.ndarray, "n C"]]:
    stereo = reader.channels == 2 and not plan.mono
    resampler = StreamResampler(reader.sample_rate, plan.sample_rate, 2 if stereo else 1)

    def shaped(samples: np.ndarray) -> np.ndarray:
        return samples if stereo else samples[:, None]

    for block in reader.blocks():
        yield shaped(resampler.push(block if stereo else block.mean(axis=1)))
    yield shaped(resampler.finish())


def _stored(piece: Float[np.ndarray, "S C"]) -> Int16[np.ndarray, "S C"]:
    """As int16; two equal channels as one."""
    piece = to_int16(piece)
    return piece[:, :1] if np.array_equal(piece[:, 0], piece[:, -1]) else piece


def _shard(plan: AudioFolderPlan, destination: str, task: tuple[str, list[AudioFile]]
           ) -> ShardFacts:
    """Writes one shard and its facts, unless they are there and of the same files."""
    name, files = task
    path = pathlib.Path(destination, f"{name}.array_record")
    facts = _read_facts(path.with_suffix(".json"))
    if facts and facts.matches(files) and (path.exists() or not facts.records):
        return facts
    path.with_suffix(".json").unlink(missing_ok=True)  # it must never lie beside other records
    reader = _FileReader(plan)
    try:
        count = records.write_shard(path, (message for f in files for message in reader(f)))
    except RuntimeError as e:  # from ArrayRecord
        raise UserError(f"{path}: writing failed ({' '.join(str(e).split())}); is the disk full? "
                        "Run the command again: finished shards are kept") from e
    if not count:
        path.unlink()
    facts = ShardFacts(files=[list(dataclasses.astuple(f)) for f in files], records=count,
                       seconds=reader.seconds, silent_seconds=reader.silent, skipped=reader.skipped)
    _write_json(path.with_suffix(".json"), dataclasses.asdict(facts))
    return facts


class _FileReader:
    """Messages of one file after the other; keeps account."""

    def __init__(self, plan: AudioFolderPlan):
        self._plan = plan
        self.seconds = self.silent = 0.0
        self.skipped: list[list[str]] = []

    def __call__(self, file: AudioFile) -> Iterator[bytes]:
        plan, path = self._plan, f"{self._plan.source}/{file.path}"
        threshold = FULL_SCALE * 10 ** (plan.silence_db / 20)
        used = silent = 0.0
        try:
            with AudioReader(path) as reader:
                for piece in cut_pieces(reader, plan):
                    seconds = len(piece) / plan.sample_rate
                    if seconds < plan.shortest:  # then it is the only one
                        raise UserError(f"shorter than {plan.shortest:g} s")
                    if max(int(piece.max()), -int(piece.min())) < threshold:
                        silent += seconds
                        continue
                    used += seconds
                    yield AudioRecord(audio=piece).to_bytes()
            if not used:
                raise UserError(f"silent (peak below {plan.silence_db:g} dBFS)" if silent
                                else "has no samples")
        except (UserError, OSError) as e:
            reason = str(e).removeprefix(f"{path}: ")
            so_far = f"; its first {used + silent:.0f} s are used" if used else ""
            self.skipped.append([file.path, reason + so_far])
        self.seconds += used
        self.silent += silent


def _share(plan: AudioFolderPlan, file: AudioFile, purpose: str) -> float:
    """A number in [0, 1) that depends on seed and path alone."""
    digest = hashlib.sha256(f"{plan.seed}:{purpose}:{file.path}".encode("utf-8", "surrogateescape"))
    return int.from_bytes(digest.digest()[:6]) / 2 ** 48


def _shards(files: list[AudioFile], plan: AudioFolderPlan) -> dict[int, list[AudioFile]]:
    result: dict[int, list[AudioFile]] = collections.defaultdict(list)
    for file in files:
        result[int(_share(plan, file, "shard") * plan.shards)].append(file)
    return dict(sorted(result.items()))


def _name(split: str, index: int) -> str:
    return f"{split}-{index:05d}"


def _claim(out: pathlib.Path, plan: AudioFolderPlan) -> None:
    """Makes the folder, or sees that it is one of ours; its manifest is unfinished from here."""
    if out.resolve() == pathlib.Path(plan.source).resolve():
        raise UserError(f"{out}: give another folder than that of the audio")
    note = out / records.MANIFEST
    if note.is_file():
        try:
            its = json.loads(note.read_text())
            ours, options = its["kind"] == KIND, its["options"]
        except (ValueError, TypeError, KeyError):
            ours, options = False, {}
        if not ours:
            raise UserError(f"{out}: holds other data; choose another folder")
        for name, value in plan.options().items():
            if options.get(name) != value:
                raise UserError(f"{out}: was made with {name} {options.get(name)}, not {value}; "
                                "choose another folder, or delete this one")
    elif any(out.glob("*.array_record")):
        raise UserError(f"{out}: holds other data; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _write_json(note, {"kind": KIND, "complete": False, "options": plan.options()})


def _remove_others(out: pathlib.Path, names: set[str]) -> None:
    """Shards of files that are no longer there, and what an interrupted run left."""
    for path in [*out.glob("*.array_record"), *out.glob("*.array_record.part")]:
        if path.suffix == ".part" or path.stem not in names:
            path.unlink()
            (out / f"{path.name.partition('.')[0]}.json").unlink(missing_ok=True)


def _read_facts(path: pathlib.Path) -> ShardFacts | None:
    try:
        return ShardFacts(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write_json(path: pathlib.Path, content: dict) -> None:
    """Whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(part, path)


def _manifest(plan: AudioFolderPlan, splits: dict[str, list[AudioFile]],
              facts: dict[tuple[str, int], ShardFacts], skipped: list[list[str]]) -> dict:
    def total(field: str, split: str):
        return sum(getattr(f, field) for (s, _), f in facts.items() if s == split)

    return {
        "kind": KIND, "complete": True, "options": plan.options(),
        "files": {s: len(splits[s]) for s in SPLITS},
        "records": {s: total("records", s) for s in SPLITS},
        "hours": {s: round(total("seconds", s) / 3600, 4) for s in SPLITS},
        "silent_hours": {s: round(total("silent_seconds", s) / 3600, 4) for s in SPLITS},
        "skipped": sorted(skipped + [s for f in facts.values() for s in f.skipped]),
        "versions": {"music_diffusion": __version__, "soundfile": soundfile.__version__,
                     "libsndfile": soundfile.__libsndfile_version__, "soxr": soxr.__version__}}
