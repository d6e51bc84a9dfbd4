"""A folder of audio files → ArrayRecord shards of pieces, for training on any audio.

Files keep to one split: those in folders named train, validation or test go there,
and of the others a share goes to validation, by a hash of the path, so that new
files do not move old ones. A file's shard is a hash as well, and a shard is written
again only if its files have changed: an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float, Int16

from music_diffusion.audio.io import AudioReader, StreamResampler
from music_diffusion.data.audio_records import FULL_SCALE, KIND, AudioRecord, to_int16
from music_diffusion.data.items import SPLITS
from music_diffusion.data.shards import Account, ShardMember, ShardPlan, share, write_shards
from music_diffusion.errors import UserError
from music_diffusion.types import StepProgress

EXTENSIONS = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc",
                        ".au", ".caf", ".w64", ".rf64"})
# Audio that libsndfile does not read: named in the manifest rather than passed over.
FOREIGN = frozenset({".m4a", ".aac", ".wma", ".mp4", ".ape", ".wv", ".mka", ".webm"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFolderPlan:
    """Plan by which a folder of audio becomes records."""

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
        """Returns the settings that the records depend on."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "workers"}
        return fields | {"source": os.path.realpath(self.source)}


@dataclasses.dataclass(frozen=True, order=True)
class SourceAudio:
    """A file below the source folder."""

    path: str  # relative, with '/'
    size: int  # bytes
    modified: int  # nanoseconds


def find_audio(folder: str) -> tuple[list[SourceAudio], list[list[str]]]:
    """Finds the audio files below a folder, links followed, by path; and what is skipped, with reasons.

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
                found.append(SourceAudio(relative, facts.st_size, facts.st_mtime_ns))
    if not found:
        reason = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        raise UserError(f"{folder}: no audio files there{reason}; "
                        "put WAV, FLAC, MP3, OGG, Opus or AIFF files into it")
    return sorted(found), sorted(skipped)


def split_files(files: Iterable[SourceAudio], plan: AudioFolderPlan) -> dict[str, list[SourceAudio]]:
    """Returns every file's split: that of a folder above it (the outermost counts), else by hash.

    Where neither gives a file for validation, that of the lowest hash goes there.

    Raises:
      UserError: training or validation gets no file.
    """
    result: dict[str, list[SourceAudio]] = {s: [] for s in SPLITS}
    free = []  # by hash
    for file in files:
        named = [p.lower() for p in file.path.split("/")[:-1] if p.lower() in SPLITS]
        if named:
            result[named[0]].append(file)
        else:
            free.append((share(plan.seed, "split", file.path), file))
    for drawn, file in free:
        result["validation" if drawn < plan.validation else "train"].append(file)
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
                         progress: StepProgress = lambda i, n: None) -> dict:
    """Writes shards and manifest; returns the manifest. Finished shards are kept.

    Raises:
      UserError: no audio, or none that can be used; the destination holds other
        data, or records made with other options; the disk is full.
    """
    if pathlib.Path(destination).resolve() == pathlib.Path(plan.source).resolve():
        raise UserError(f"{destination}: give another folder than that of the audio")
    files, skipped = find_audio(plan.source)
    members = [ShardMember(name=file.path, split=split, state=(file.size, file.modified))
               for split, of_split in split_files(files, plan).items() for file in of_split]
    return write_shards(_shard_plan(plan), members, destination, skipped=skipped, progress=progress)


def _shard_plan(plan: AudioFolderPlan) -> ShardPlan:
    return ShardPlan(kind=KIND, options=plan.options(), maker=functools.partial(_messages, plan),
                     shards=plan.shards, seed=plan.seed, workers=plan.workers)


def cut_pieces(reader: AudioReader, plan: AudioFolderPlan) -> Iterator[Int16[np.ndarray, "S C"]]:
    """Yields the file at the plan's rate in pieces; memory is that of about two pieces."""
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

    for block in reader.blocks() if stereo else reader.mono_blocks():
        yield shaped(resampler.push(block))
    yield shaped(resampler.finish())


def _stored(piece: Float[np.ndarray, "S C"]) -> Int16[np.ndarray, "S C"]:
    """Returns a piece as int16; two equal channels become one."""
    piece = to_int16(piece)
    return piece[:, :1] if np.array_equal(piece[:, 0], piece[:, -1]) else piece


def _messages(plan: AudioFolderPlan, member: ShardMember, account: Account) -> Iterator[bytes]:
    """Yields the pieces of one file that are not silent."""
    path = f"{plan.source}/{member.name}"
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
                    account.totals["silent_seconds"] += seconds
                    continue
                used += seconds
                account.totals["seconds"] += seconds
                yield AudioRecord(audio=piece).to_bytes()
        if not used:
            raise UserError(f"silent (peak below {plan.silence_db:g} dBFS)" if silent
                            else "has no samples")
    except UserError as e:  # the member's name stands before it
        raise UserError(str(e).removeprefix(f"{path}: ")) from e
