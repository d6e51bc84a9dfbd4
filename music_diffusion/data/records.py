"""Rendered excerpts on disk: ArrayRecord shards of safetensors messages.

Notes that began before the excerpt have their onset clipped to 0, as they were
rendered.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Self

import numpy as np
from safetensors.numpy import load, save

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

MANIFEST = "manifest.json"
NOTE_FIELDS = ("start", "end", "pitch", "velocity", "program", "is_drum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One excerpt."""

    mel: np.ndarray  # [T, F] float16, nat
    notes: Notes  # seconds from the excerpt's first sample
    maps: np.ndarray | None = None  # [T, 2, F] float16, scaled note maps (`data.note_maps`)

    def to_bytes(self) -> bytes:
        """A safetensors message."""
        arrays = {"mel": np.ascontiguousarray(self.mel, np.float16)}
        arrays.update({f: np.ascontiguousarray(getattr(self.notes, f)) for f in NOTE_FIELDS})
        if self.maps is not None:
            arrays["maps"] = np.ascontiguousarray(self.maps, np.float16)
        return save(arrays)

    @classmethod
    def from_bytes(cls, message: bytes) -> Self:
        """The inverse of `to_bytes`."""
        arrays = load(message)
        notes = Notes(*(arrays[f] for f in NOTE_FIELDS))
        return cls(mel=arrays["mel"], notes=notes, maps=arrays.get("maps"))


def write_shard(path: str | os.PathLike, messages: Iterator[bytes]) -> int:
    """Writes one shard (under another name until whole); returns its record count."""
    from array_record.python.array_record_module import ArrayRecordWriter

    part = f"{path}.part"
    writer, count = ArrayRecordWriter(part, "group_size:1"), 0
    for message in messages:
        writer.write(message)
        count += 1
    writer.close()
    os.replace(part, path)
    return count


def read_shard(path: str | os.PathLike) -> Iterator[bytes]:
    """The messages of one shard, in order."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    yield from (reader.read([i])[0] for i in range(reader.num_records()))
    reader.close()


def write_manifest(folder: pathlib.Path, **facts) -> None:
    """Writes what the shards hold (codec, counts, hours, versions)."""
    text = json.dumps(facts, indent=1, sort_keys=True)
    (folder / MANIFEST).write_text(text + "\n")


def read_manifest(folder: str | os.PathLike, codec: MelCodec | None = None) -> dict:
    """Reads a data folder's manifest; with a codec, refuses data of another one."""
    path = pathlib.Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: no {MANIFEST} there; make the folder with `music-diffusion prepare`")
    try:
        facts = json.loads(path.read_text())
        its_codec = facts["codec"]
    except (ValueError, TypeError, KeyError) as e:
        raise UserError(f"{path}: damaged; make the folder again with `music-diffusion prepare`") from e
    if codec is not None:
        codec.check_same(MelCodec.from_dict(its_codec))
    return facts


def shard_paths(folder: str | os.PathLike, split: str) -> list[str]:
    """The shards of one split, in order."""
    paths = sorted(str(p) for p in pathlib.Path(folder).glob(f"{split}-*.array_record"))
    if not paths:
        raise UserError(f"{folder}: no shards named {split}-*.array_record")
    return paths
