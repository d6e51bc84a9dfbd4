"""TFRecord files without TensorFlow: messages one after another, with checksums.

A record is, little-endian (TensorFlow, `core/lib/io/record_writer.h`):

    uint64  length of the message
    uint32  masked CRC-32C of the eight bytes before
    bytes   the message
    uint32  masked CRC-32C of the message

Nothing stands before the first record or after the last. Compressed files are
not read: they have no random access.
"""

from __future__ import annotations

import functools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, SupportsIndex, overload

import numpy as np
from jaxtyping import Int

from music_diffusion.errors import UserError
from music_diffusion.files import replacing

_HEADER = struct.Struct("<QI")
_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # a CRC of data that contain CRCs is weak; hence masked ones


class RecordError(UserError):
    """A file that cannot be opened, is cut short, or is damaged."""


def write_tf_records(path: str | os.PathLike, messages: Iterable[bytes]) -> int:
    """Writes one file (under another name until whole); returns its record count.

    Raises:
      UserError: google-crc32c is not installed.
      OSError: it cannot be written, as on a full disk; nothing of it stays.
    """
    count = 0
    with replacing(path) as part, part.open("wb") as file:
        for message in messages:
            length = _LENGTH.pack(len(message))
            file.write(length + _CHECKSUM.pack(_masked_crc(length)))
            file.write(message)
            file.write(_CHECKSUM.pack(_masked_crc(message)))
            count += 1
    return count


class TFRecords(Sequence[bytes]):
    """The messages of files, one file after the other, in any order.

    Only their places are held in memory; a file is opened for each message, so
    that this can be pickled, and shared by threads.

    Raises RecordError where a file is cut short or damaged: on opening if the
    headers show it, else on reading; UserError if google-crc32c is not installed.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        self._paths = tuple(os.fspath(path) for path in paths)
        self._offsets = tuple(record_offsets(path) for path in self._paths)
        self._ends = np.cumsum([len(offsets) for offsets in self._offsets], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: SupportsIndex) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> bytes | list[bytes]:
        number = range(len(self))[index]
        if isinstance(number, range):
            return [self[i] for i in number]
        file = int(np.searchsorted(self._ends, number, side="right"))
        number -= int(self._ends[file]) - len(self._offsets[file])
        return read_record(self._paths[file], number, int(self._offsets[file][number]))


def record_offsets(path: str | os.PathLike) -> Int[np.ndarray, " n"]:
    """Returns the bytes before each record of a file, from the headers alone.

    Raises:
      RecordError: the file is missing, cut short, or a header is damaged.
      UserError: google-crc32c is not installed.
    """
    return np.fromiter(_scan(os.fspath(path)), np.int64)


def read_record(path: str | os.PathLike, number: int, offset: int) -> bytes:
    """Reads one message.

    Args:
      path: a TFRecord file.
      number: of the record, counted from 0; for messages.
      offset: bytes before the record, from `record_offsets`.

    Raises:
      RecordError: the file is missing, cut short or damaged.
      UserError: google-crc32c is not installed.
    """
    path = os.fspath(path)
    with _opened(path) as file:
        file.seek(offset)
        length = _checked_length(file.read(_HEADER.size), path, number)
        # Not read at once: a length beyond the file's end would be allocated first.
        if offset + _HEADER.size + length + _CHECKSUM.size > _size(file):
            raise _cut_short(path, number)
        message = file.read(length)
        checksum = file.read(_CHECKSUM.size)
    if _CHECKSUM.unpack(checksum)[0] != _masked_crc(message):
        raise RecordError(f"{path}: record {number} (counted from 0) does not fit its checksum: "
                          "the file is damaged; download or write it again")
    return message


def _scan(path: str) -> Iterator[int]:
    with _opened(path, buffering=0) as file:
        size, offset, number = _size(file), 0, 0
        while offset < size:
            file.seek(offset)
            length = _checked_length(file.read(_HEADER.size), path, number)
            end = offset + _HEADER.size + length + _CHECKSUM.size
            if end > size:
                raise _cut_short(path, number)
            yield offset
            offset, number = end, number + 1


def _opened(path: str, buffering: int = -1) -> BinaryIO:
    try:
        return open(path, "rb", buffering)
    except OSError as e:
        raise RecordError(f"{path}: cannot be opened ({e.strerror}); check the path") from e


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _checked_length(header: bytes, path: str, number: int) -> int:
    if len(header) < _HEADER.size:
        raise _cut_short(path, number)
    length, checksum = _HEADER.unpack(header)
    if checksum != _masked_crc(header[:_LENGTH.size]):
        raise RecordError(f"{path}: record {number} (counted from 0) has a damaged header: the file is "
                          "broken, compressed, or no TFRecord file; download or write it again")
    return length


def _cut_short(path: str, number: int) -> RecordError:
    return RecordError(f"{path}: ends inside of record {number} (counted from 0); "
                       "download or write it again")


def _masked_crc(data: bytes) -> int:
    crc = _crc32c()(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


@functools.cache
def _crc32c() -> Callable[[bytes], int]:
    try:
        import google_crc32c
    except ImportError as e:
        raise UserError("TFRecord files need google-crc32c; "
                        "install it with: pip install 'music-diffusion[data]'") from e
    return google_crc32c.value
