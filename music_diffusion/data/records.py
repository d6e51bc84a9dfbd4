"""Pieces of spectrogram with their notes on disk: shards of messages, and their manifest.

ArrayRecord shards hold safetensors messages, TFRecord shards `tf.train.Example`
protocol buffers with the same arrays (each as the bytes `NAME`, little-endian, with
`NAME/shape` and the NumPy type `NAME/type`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from safetensors.numpy import save

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.files import replacing, write_text
from music_diffusion.notes.notes import Notes

MANIFEST = "manifest.json"
EXAMPLES = "examples"  # kind of a folder of `Record`s, in its manifest
LISTENER = "listener"  # who heard them, in the manifest; missing where nobody did
ARRAY_RECORD, TF_RECORD = ".array_record", ".tfrecord"  # suffixes of shards
NOTE_FIELDS = ("start", "end", "pitch", "velocity", "program", "is_drum")
LABELS = ("name", "performance", "style", "piece")
# Every record by itself. Snappy, as zstd takes a tenth less space but three times as long to read,
# and every crop reads a record.
WRITER = "group_size:1,snappy"
# safetensors' names of types
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
         "U8": "u1", "BOOL": "?"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A piece of an item as it is stored."""

    mel: np.ndarray  # [T, F] float16, nat
    notes: Notes  # in the item's seconds; those of before that are still heard too
    start: float = 0.0  # the item's seconds at the first frame's first sample
    # Scaled note maps (`data.note_maps`), float16: [T, 2, F], or [T, 4, F] with those of the record's
    # performance first and those without behind.
    maps: np.ndarray | None = None
    source: np.ndarray | None = None  # [T, F] float16, nat: the same notes in another timbre
    # [T, 2 P] uint8, how surely onsets and pitches are heard in the source (`notes.heard`). Then `notes`
    # are those that are heard in it, on the instruments of `mel`, and all is at one level.
    heard: np.ndarray | None = None
    likes: np.ndarray | None = None  # [n, D] float16, embeddings of the sound of `mel`
    stems: np.ndarray | None = None  # [K, T, F] float16, nat: one instrument each
    stem_programs: np.ndarray | None = None  # [K] int32, 0..127 or items.DRUM_PROGRAM
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of LABELS

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays by name, as they are stored."""
        half = {k: getattr(self, k) for k in ("mel", "maps", "source", "likes", "stems")}
        arrays = {k: np.ascontiguousarray(v, np.float16) for k, v in half.items() if v is not None}
        if self.heard is not None:
            arrays["heard"] = np.ascontiguousarray(self.heard, np.uint8)
        arrays |= {f: np.ascontiguousarray(getattr(self.notes, f)) for f in NOTE_FIELDS}
        if self.stem_programs is not None:
            arrays["stem_programs"] = np.ascontiguousarray(self.stem_programs, np.int32)
        text = json.dumps({"start": self.start, **self.labels}, ensure_ascii=True)
        return arrays | {"facts": np.frombuffer(text.encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Makes a record of such arrays; the inverse of `arrays`."""
        facts = json.loads(arrays["facts"].tobytes()) if "facts" in arrays else {}
        notes = Notes(*(arrays[f] for f in NOTE_FIELDS))
        return cls(mel=arrays["mel"], notes=notes, start=facts.pop("start", 0.0), labels=facts,
                   **{k: arrays.get(k) for k in
                      ("maps", "source", "heard", "likes", "stems", "stem_programs")})

    def to_bytes(self, suffix: str = ARRAY_RECORD) -> bytes:
        """Returns the record as a message for a shard of that suffix."""
        return pack(self.arrays(), suffix)

    @classmethod
    def from_bytes(cls, message: bytes, suffix: str = ARRAY_RECORD) -> Self:
        """Reads a message; the inverse of `to_bytes`."""
        return cls.from_arrays(unpack(message, suffix))


def pack(arrays: Mapping[str, np.ndarray], suffix: str) -> bytes:
    """Returns named arrays as a message of a shard with that suffix."""
    if suffix == ARRAY_RECORD:
        return save(dict(arrays))
    from music_diffusion.data.tf_example import serialize

    features: dict[str, list] = {}
    for name, array in arrays.items():
        array = np.asarray(array)
        features[name] = [array.astype(array.dtype.newbyteorder("<")).tobytes()]
        features[f"{name}/shape"] = [int(n) for n in array.shape]
        features[f"{name}/type"] = [array.dtype.name.encode()]
    return serialize(features)


def unpack(message: bytes, suffix: str) -> dict[str, np.ndarray]:
    """Reads a message of `pack`, read-only. Raises ValueError or KeyError for a damaged one."""
    if suffix == ARRAY_RECORD:
        return _views(message)
    from music_diffusion.data.tf_example import parse

    features = parse(message)
    names = [name.removesuffix("/type") for name in features if name.endswith("/type")]
    return {name: np.frombuffer(features[name][0], np.dtype(features[f"{name}/type"][0].decode()))
            .reshape(features[f"{name}/shape"]) for name in names}


def _views(message: bytes) -> dict[str, np.ndarray]:
    """Returns views of a safetensors message, uncopied: a crop needs an eighth of a record."""
    size = int.from_bytes(message[:8], "little")
    header = json.loads(message[8:8 + size])
    arrays = {}
    for name, facts in header.items():
        first, last = facts["data_offsets"]
        kind = np.dtype(TYPES[facts["dtype"]])
        array = np.frombuffer(message, kind, (last - first) // kind.itemsize, 8 + size + first)
        arrays[name] = array.reshape(facts["shape"])
    return arrays


def write_shard(path: str | os.PathLike, messages: Iterable[bytes]) -> int:
    """Writes one shard (under another name until whole); returns its record count.

    Raises OSError where it cannot be written, as on a full disk; nothing of it stays.
    """
    if pathlib.Path(path).suffix == TF_RECORD:
        from music_diffusion.data.tf_records import write_tf_records

        return write_tf_records(path, messages)
    with replacing(path) as part:
        return _write_array_records(part, messages)


def _write_array_records(path: pathlib.Path, messages: Iterable[bytes]) -> int:
    from array_record.python.array_record_module import ArrayRecordWriter

    def checked(act: Callable, *args) -> None:
        try:
            act(*args)
        except RuntimeError as e:
            raise OSError(" ".join(str(e).split())) from e

    writer, count = ArrayRecordWriter(str(path), WRITER), 0
    for message in messages:
        checked(writer.write, message)
        count += 1
    checked(writer.close)
    return count


def read_shard(path: str | os.PathLike) -> Iterator[bytes]:
    """Yields the messages of one shard, in order. Raises UserError where it is damaged."""
    messages = open_shards([str(path)])
    yield from (messages[i] for i in range(len(messages)))


class _ArrayRecords(Sequence[bytes]):
    """Messages of ArrayRecord shards, by number; picklable, safe in threads."""

    def __init__(self, paths: Sequence[str]):
        self._paths = paths
        try:
            self._source = _source(paths)
        except (RuntimeError, ValueError, OSError):
            for path in paths:  # find the one
                _length(path)
            raise

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index):
        number = range(len(self))[index]
        try:
            return self._source[number]
        except RuntimeError as e:
            for path in self._paths:
                if number < (length := _length(path)):
                    break
                number -= length
            raise _damaged(path, e, f", record {number} (counted from 0)") from e


def _source(paths: Sequence[str]):
    import grain

    return grain.sources.ArrayRecordDataSource(list(paths))


def _length(path: str) -> int:
    try:
        return len(_source([path]))
    except (RuntimeError, ValueError, OSError) as e:
        raise _damaged(path, e) from e


def _damaged(path: str, error: Exception, where: str = "") -> UserError:
    return UserError(f"{path}{where}: damaged ({' '.join(str(error).split())[:120]}); delete the file and "
                     "run the same `music-diffusion prepare` again")


def open_shards(paths: Sequence[str]) -> Sequence[bytes]:
    """Opens the messages of shards of one suffix, one shard after the other, by number.

    Raises UserError, also on access, where a shard is damaged.
    """
    if paths and pathlib.Path(paths[0]).suffix == TF_RECORD:
        from music_diffusion.data.tf_records import TFRecords

        return TFRecords(tuple(paths))
    return _ArrayRecords(tuple(paths))


def write_manifest(folder: pathlib.Path, **facts) -> None:
    """Writes what the shards hold (codec, counts, hours, versions), whole or not at all."""
    write_text(folder / MANIFEST, json.dumps(facts, indent=1, sort_keys=True) + "\n")


def read_manifest(folder: str | os.PathLike, codec: MelCodec | None = None) -> dict:
    """Reads a data folder's manifest; with a codec, refuses data of another one.

    Raises UserError: there is none, it is damaged, of other data, or the folder is unfinished.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder}: no {MANIFEST} there; make the folder with `music-diffusion prepare`")
    try:
        facts = json.loads(path.read_text())
        its_codec = facts["codec"] if facts.get("complete", True) else None
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(f"{path}: damaged or of other data; make the folder again with "
                        "`music-diffusion prepare`") from e
    if its_codec is None:
        raise UserError(f"{folder}: unfinished; run the same `music-diffusion prepare` again, it keeps "
                        "what is done")
    if codec is not None:
        codec.check_same(MelCodec.from_dict(its_codec))
    return facts


def find_shards(folder: str | os.PathLike, split: str = "*") -> list[pathlib.Path]:
    """Finds the shards of a split, or of all, in order; none if there are none."""
    return sorted(p for suffix in (ARRAY_RECORD, TF_RECORD)
                  for p in pathlib.Path(folder).glob(f"{split}-*{suffix}"))


def shard_paths(folder: str | os.PathLike, split: str) -> list[str]:
    """The shards of one split, in order."""
    paths = [str(p) for p in find_shards(folder, split)]
    if not paths:
        raise UserError(f"{folder}: no shards named {split}-*{ARRAY_RECORD} or {split}-*{TF_RECORD}")
    return paths
