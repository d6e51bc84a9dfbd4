"""Audio files: WAV, FLAC and MP3 in and out; OGG, Opus and AIFF in (libsndfile).

Files are read and written in blocks, so that memory does not grow with their
length, and an output appears under its name only when it is complete. A file is
read from its start to its end and never searched: not all codecs can (GSM 6.10).
"""

from __future__ import annotations

import functools
import os
import stat
import sys
import warnings
from collections.abc import Collection, Iterator
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile
import soxr

from music_diffusion.audio.mixdown import mix, polarity
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.files import PartFile
from music_diffusion.paths import located, shown

# File name extension → libsndfile's format and default sample encoding.
FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
BLOCK = 65536  # samples read or written at once
SHORT = 16  # seconds in a block at most, so that it stays small when it is resampled
NAME_MAX = 255  # bytes of a file name on all common file systems
RATES = (100, 768_000)  # Hz; what is outside is a damaged header, and would take any amount of memory
MOST_CHANNELS = 64
LARGEST = 2.0**32  # amplitude, beyond that of 32-bit integers that were never scaled
UNKNOWN = 2**40  # samples: a header that says so does not know


class _Sequential(soundfile.SoundFile):
    """A sound file that soundfile reads without asking where it is, which some codecs cannot say."""

    def seekable(self) -> bool:
        return False


class AudioReader:
    """An open audio file.

    Where there is no file of this name, but one in another spelling (`paths.located`), that is
    opened.

    Raises UserError if it is missing, empty, no regular file, or not audio that libsndfile reads,
    and if its sample rate or its number of channels is not that of any recording.
    """

    def __init__(self, path: str | os.PathLike, data: BinaryIO | None = None):
        """data: the file's content, if it does not lie at `path`, which then only names it."""
        self.path = os.fspath(path) if data is not None else located(path)
        self._data = data
        if data is None:
            self._check()
        self._file = self._open()
        self._used = False  # whether something was read from the open file
        self.sample_rate: int = self._file.samplerate  # Hz
        self.channels: int = self._file.channels
        self._check_header()

    def _check(self) -> None:
        name = shown(self.path)
        if os.path.isdir(self.path):
            raise UserError(f"{name}: is a folder; give an audio file")
        if not os.path.exists(self.path):
            raise UserError(f"{name}: no such file")
        if not os.access(self.path, os.R_OK):
            raise UserError(f"{name}: no permission to read it")
        if not stat.S_ISREG(os.stat(self.path).st_mode):
            raise UserError(f"{name}: is a device or a pipe; give an audio file")
        if os.path.getsize(self.path) == 0:
            raise UserError(f"{name}: the file is empty")

    def _check_header(self) -> None:
        low, high = RATES
        wrong = None
        if not low <= self.sample_rate <= high:
            wrong = f"a sample rate of {self.sample_rate} Hz (possible are {low} to {high})"
        elif not 1 <= self.channels <= MOST_CHANNELS:
            wrong = f"{self.channels} channels (possible are 1 to {MOST_CHANNELS})"
        if wrong is not None:
            self._file.close()
            raise UserError(f"{shown(self.path)}: says that it has {wrong}; export it again")

    def _open(self) -> soundfile.SoundFile:
        try:
            if self._data is not None:
                self._data.seek(0)
                return _Sequential(self._data)
            return _Sequential(native_path(self.path))
        except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError, OSError) as e:
            raise UserError(_unreadable(self.path, e)) from e

    @functools.cached_property
    def samples(self) -> int:
        """Samples of a channel, by the file's header; counted where it has no number."""
        told = self._file.frames
        return told if told < UNKNOWN else sum(map(len, self.blocks()))

    def blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """The samples from the start in parts of at most `size`, [n, channels] float32.

        Raises UserError where the file is damaged, and for samples that are no amplitudes.
        """
        if self._used:
            self._file.close()
            self._file = self._open()
        self._used = True
        file, size = self._file, min(size, SHORT * self.sample_rate)
        try:
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise UserError(f"{shown(self.path)}: has NaN or infinite samples; re-export it")
                if np.abs(block).max() > LARGEST:
                    raise UserError(f"{shown(self.path)}: has samples of {np.abs(block).max():.0e}, full "
                                    "scale being 1; re-export it")
                yield block
        except (soundfile.LibsndfileError, RuntimeError) as e:
            raise UserError(_unreadable(self.path, e)) from e

    @functools.cached_property
    def signs(self) -> np.ndarray | None:
        """Returns how the channels must be turned over before they are mixed; see `mixdown.polarity`.

        Reads the first minute of sound of a file with several channels; do not ask inside of
        `blocks`. Warns where channels cancel each other.
        """
        if self.channels == 1:
            return None
        signs = polarity(self.blocks(), self.sample_rate)
        if signs is not None:
            turned = ", ".join(str(i + 1) for i in np.flatnonzero(signs < 0))
            warnings.warn(f"{shown(self.path)}: the channels cancel each other when they are mixed; "
                          f"channel {turned} was inverted", stacklevel=2)
        return signs

    def mono_blocks(self, size: int = BLOCK) -> Iterator[np.ndarray]:
        """Yields `blocks` mixed to one channel, [n]; channels do not cancel each other (`signs`)."""
        signs = self.signs
        for block in self.blocks(size):
            yield block[:, 0] if self.channels == 1 else mix(block, signs)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def native_path(path: str) -> str | bytes:
    """Returns a path as soundfile takes it: as a string it must be UTF-8."""
    return path if sys.platform == "win32" else os.fsencode(path)


def _unreadable(path: str, error: Exception) -> str:
    prefix = f"Error opening {native_path(path)!r}: "
    reason = str(error).replace("\n", " ").rstrip(". ").removeprefix(prefix)
    return (f"{shown(path)}: cannot be read as audio ({reason}); "
            "convert it to WAV, FLAC, MP3, OGG or Opus")


def read_audio(path: str | os.PathLike) -> Waveform:
    """The whole file; [S] if it is mono, else [S, channels].

    Raises:
      UserError: missing, empty, corrupted, or without a single sample.
    """
    with AudioReader(path) as reader:
        parts = list(reader.blocks())
        if not parts:
            raise UserError(f"{shown(path)}: has no samples")
        samples = np.concatenate(parts)
        return Waveform(samples[:, 0] if reader.channels == 1 else samples, reader.sample_rate)


def check_writable(path: str | os.PathLike, extensions: Collection[str] = tuple(FORMATS)) -> None:
    """Finds before the work whether a file can be written there.

    Raises:
      UserError: unknown extension, missing folder, a folder itself, a device or pipe such as
        /dev/stdout, no permission.
    """
    path = os.fspath(path)
    extension = os.path.splitext(path)[1].lower()
    name, target = shown(path), os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(path):
        raise UserError(f"{name}: is a folder; give a file name")
    if os.path.exists(target) and not os.path.isfile(target):
        raise UserError(f"{name}: is a device or a pipe; give the name of a file, which appears when it is "
                        "complete")
    if extension not in extensions:
        raise UserError(f"{name}: unknown extension {extension!r}; use {', '.join(extensions)}")
    path = name
    if not os.path.isdir(folder):
        raise UserError(f"{path}: folder {shown(folder)} does not exist; create it first")
    if os.path.exists(target) and not os.access(target, os.W_OK):
        raise UserError(f"{path}: no permission to overwrite it; choose another name")
    probe = PartFile(target)
    try:  # permission bits do not tell of read-only and full disks
        probe.path.touch(exist_ok=False)
        probe.remove()
    except OSError as e:
        raise UserError(f"{path}: cannot write into folder {shown(folder)} ({e.strerror}); "
                        "choose another place") from e
    if len(os.fsencode(os.path.basename(target))) > NAME_MAX:
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
                native_path(os.fspath(self._part.path)), "w", sample_rate, channels, subtype or default,
                format=kind)
        except (soundfile.LibsndfileError, ValueError, RuntimeError) as e:
            self._part.remove()
            raise UserError(f"{shown(self.path)}: cannot write {kind} with {sample_rate} Hz and "
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
            raise UserError(f"{shown(self.path)}: writing failed ({e}); is the disk full?") from e
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
            raise UserError(f"{shown(self.path)}: writing failed ({e}); is the disk full?") from e
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
