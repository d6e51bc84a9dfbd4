"""Audio files: WAV, FLAC and MP3 in and out; OGG, Opus and AIFF in (libsndfile).

Files are read and written in blocks, so that memory does not grow with their
length, and an output appears under its name only when it is complete.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile
import soxr

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.files import PartFile

# File name extension → libsndfile's format and default sample encoding.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
BLOCK = 65536  # samples read or written at once
NAME_MAX = 255  # bytes of a file name on all common file systems


class AudioReader:
    """An open audio file.

    Raises UserError if it is missing, empty, or not audio that libsndfile reads.
    """

    def __init__(self, path: str | os.PathLike, data: BinaryIO | None = None):
        """data: the file's content, if it does not lie at `path`, which then only names it."""
        self.path = os.fspath(path)
        if data is None:
            self._check()
        try:
            self._file = soundfile.SoundFile(self.path if data is None else data)
        except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError) as e:
            raise UserError(_unreadable(self.path, e)) from e
        self.sample_rate: int = self._file.samplerate  # Hz
        self.channels: int = self._file.channels
        self.samples: int = self._file.frames  # of a channel, as the file's header tells

    def _check(self) -> None:
        if os.path.isdir(self.path):
            raise UserError(f"{self.path}: is a folder; give an audio file")
        if not os.path.exists(self.path):
            raise UserError(f"{self.path}: no such file")
        if not os.access(self.path, os.R_OK):
            raise UserError(f"{self.path}: no permission to read it")
        if os.path.getsize(self.path) == 0:
            raise UserError(f"{self.path}: the file is empty")

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The samples from the start in parts of at most `size`, [n, channels] float32."""
        try:
            self._file.seek(0)
            while len(block := self._file.read(size, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise UserError(f"{self.path}: has NaN or infinite samples; re-export it")
                yield block
        except (soundfile.LibsndfileError, RuntimeError) as e:
            raise UserError(_unreadable(self.path, e)) from e

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unreadable(path: str, error: Exception) -> str:
    reason = str(error).replace("\n", " ").rstrip(". ").removeprefix(f"Error opening {path!r}: ")
    return (f"{path}: cannot be read as audio ({reason}); "
            "convert it to WAV, FLAC, MP3, OGG or Opus")


def read_audio(path: str | os.PathLike) -> Waveform:
    """The whole file; [S] if it is mono, else [S, channels].

    Raises:
      UserError: missing, empty, corrupted, or without a single sample.
    """
    with AudioReader(path) as reader:
        parts = list(reader.blocks())
        if not parts:
            raise UserError(f"{path}: has no samples")
        samples = np.concatenate(parts)
        return Waveform(samples[:, 0] if reader.channels == 1 else samples, reader.sample_rate)


def check_writable(path: str | os.PathLike, extensions: Collection[str] = tuple(FORMATS)) -> None:
    """Finds before the work whether a file can be written there.

    Raises:
      UserError: unknown extension, missing folder, a folder itself, no permission.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        raise UserError(f"{path}: is a folder; give a file name")
    if extension not in extensions:
        raise UserError(f"{path}: unknown extension {extension!r}; use {', '.join(extensions)}")
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise UserError(f"{path}: folder {folder} does not exist; create it first")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise UserError(f"{path}: no permission to overwrite it; choose another name")
    probe = PartFile(target)
    try:  # permission bits do not tell of read-only and full disks
        probe.path.touch(exist_ok=False)
        probe.remove()
    except OSError as e:
        raise UserError(f"{path}: cannot write into folder {folder} ({e.strerror}); "
                        "choose another place") from e
    if len(os.path.basename(target).encode()) > NAME_MAX:
        raise UserError(f"{path}: the file name is too long; use at most {NAME_MAX} bytes")


class AudioWriter:
    """Writes audio block by block; the file appears when `close` succeeds.

    Use it in a `with` statement: an exception inside removes what was written.
    Samples beyond ±1 are clipped (except with subtype FLOAT).

    Raises:
      UserError: see `check_writable`; a sample rate that the format cannot
        hold; a full disk.
    """

    def __init__(self, path: str | os.PathLike, sample_rate: int, channels: int = 1,
                 subtype: str | None = None):
        """subtype: libsndfile's name, e.g. PCM_24 or FLOAT; None takes the format's default."""
        self.path = os.fspath(path)
        self.sample_rate, self.channels = sample_rate, channels
        self.samples = 0  # written so far (per channel)
        check_writable(self.path)
        self._part = PartFile(self.path)
        kind, default = FORMATS[os.path.splitext(self.path)[1].lower()]
        try:
            self._file: soundfile.SoundFile | None = soundfile.SoundFile(
                self._part.path, "w", sample_rate, channels, subtype or default, format=kind)
        except (soundfile.LibsndfileError, ValueError, RuntimeError) as e:
            self._part.remove()
            raise UserError(f"{self.path}: cannot write {kind} with {sample_rate} Hz and "
                            f"{channels} channels; use .wav") from e

    def write(self, samples: np.ndarray) -> None:
        """Appends [n] (mono) or [n, channels] samples."""
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        samples = np.asarray(samples, np.float32)
        if samples.shape[1:] not in ((self.channels,), () if self.channels == 1 else None):
            raise ValueError(f"{samples.shape=} should be [n, {self.channels}]")
        try:
            for at in range(0, len(samples), BLOCK):
                self._file.write(samples[at:at + BLOCK])
        except (soundfile.LibsndfileError, RuntimeError, OSError, AssertionError) as e:
            raise UserError(f"{self.path}: writing failed ({e}); is the disk full?") from e
        self.samples += len(samples)

    def close(self) -> None:
        """Completes the file and gives it its name; closing again does nothing."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
            self._part.complete()
        except (soundfile.LibsndfileError, RuntimeError, OSError) as e:
            raise UserError(f"{self.path}: writing failed ({e}); is the disk full?") from e
        finally:
            self._part.remove()

    def abort(self) -> None:
        """Removes what was written; nothing appears."""
        if self._file is not None:
            file, self._file = self._file, None
            try:
                file.close()
            finally:
                self._part.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def write_audio(path: str | os.PathLike, wave: Waveform, *, subtype: str | None = None) -> None:
    """The whole file at once; see `AudioWriter` for `subtype` and errors."""
    with AudioWriter(path, wave.sample_rate, wave.channels, subtype) as writer:
        writer.write(wave.samples)


class StreamResampler:
    """Changes the sample rate of a stream (soxr, high quality); equals `Waveform.resample`."""

    def __init__(self, source_rate: int, target_rate: int, channels: int = 1):
        self._channels = channels
        self._stream = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(source_rate, target_rate, channels,
                                               dtype="float32", quality="HQ")

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Takes [n] (mono) or [n, channels]; returns the samples that are ready, likewise."""
        samples = np.asarray(samples, np.float32)
        return samples if self._stream is None else self._stream.resample_chunk(samples)

    def finish(self) -> np.ndarray:
        """The remaining samples. Call once, at the end."""
        shape = (0,) if self._channels == 1 else (0, self._channels)
        empty = np.zeros(shape, np.float32)
        return empty if self._stream is None else self._stream.resample_chunk(empty, last=True)
