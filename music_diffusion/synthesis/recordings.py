"""Recordings that are changed: their spectrograms on disk, and silence that stays silence."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.audio.io import AudioReader
from music_diffusion.errors import UserError
from music_diffusion.paths import shown
from music_diffusion.synthesis.reconstruct import resampled

LEAST_SECONDS = 0.2  # of a recording: less is no music
SILENCE_DB = 60.0  # below its loudest frame a recording counts as silent
HOLD, FADE = 0.6, 0.2  # seconds that a sound may go on in silence, and then fade
QUIETEST_DB = -90.0  # dBFS; recordings without a sample above it are silence


class Gate:
    """Lets silence be silence: what is made of a recording's silent frames fades away.

    A sound may go on HOLD seconds after that of the recording, as a struck string rings on.
    """

    def __init__(self, level: Float[np.ndarray, " T"], codec: MelCodec):
        """level: nat, of the recording's frames."""
        self._codec, self._done = codec, 0
        loudest = float(level.max(initial=codec.log_min))
        floor = codec.log_min + 0.5 * np.log(codec.mels)
        heard = level > max(loudest - SILENCE_DB / 20 * np.log(10), floor)
        frames = np.arange(len(level))
        # Frames since the latest one with sound, and until the next one.
        since = frames - np.maximum.accumulate(np.where(heard, frames, -len(level)))
        until = np.minimum.accumulate(np.where(heard, frames, 2 * len(level))[::-1])[::-1] - frames
        rate = codec.frame_rate
        behind = np.clip(1 - (since / rate - HOLD) / FADE, 0, 1)
        before = (until <= 1).astype(np.float64)  # a window reaches into the frame before
        self._gain = np.maximum(behind, before)

    def push(self, mel: Float[np.ndarray, "t F"]) -> Float[np.ndarray, "t F"]:
        """Returns the next frames of log-mel in nat, as loud as they may be."""
        gain = self._gain[self._done:self._done + len(mel), None]
        self._done += len(mel)
        quiet = np.log(np.maximum(np.exp(mel) * gain, self._codec.clip_min))
        return np.where(gain < 1, quiet, mel).astype(np.float32)


def frame_levels(mel: Float[np.ndarray, "T F"], block: int = 4096) -> Float[np.ndarray, " T"]:
    """Returns the level of frames of log-mel, nat: half of the logarithm of their energy."""
    parts = [0.5 * np.log(np.exp(2 * np.asarray(mel[i:i + block], np.float64)).sum(axis=1))
             for i in range(0, len(mel), block)]
    return np.concatenate([np.zeros(0), *parts])


class Recording:
    """Spectrograms of a file's channels, on disk: memory does not grow with its length."""

    def __init__(self, path: str, codec: MelCodec, folder: str, *, mono: bool = False,
                 level: float | None = None):
        """Reads the file into `folder`.

        Args:
          path: of the file.
          codec: of the spectrograms.
          folder: of files for them.
          mono: mix the channels to one.
          level: nat, to which the channels together are brought (`notes.heard.level`); None: as they are.

        Raises UserError for a file that cannot be read, is too short or is silent.
        """
        self._path, self._mono = path, mono
        self.gain = 1.0
        energy, peak = self._read(codec, folder)
        if self.samples < LEAST_SECONDS * codec.sample_rate:
            raise UserError(f"{shown(path)}: lasts {self.samples / codec.sample_rate:.2f} s; give "
                            f"{LEAST_SECONDS:g} s or more")
        if peak <= 10 ** (QUIETEST_DB / 20):
            raise UserError(f"{shown(path)}: is silent; there is nothing to transfer")
        if level is not None:
            self.gain = float(np.exp(level) / np.sqrt(energy))
            self._read(codec, folder)
        self.mels = [np.memmap(pathlib.Path(folder, f"{i}.mel"), np.float32, "r").reshape(-1, codec.mels)
                     for i in range(self.channels)]

    def _read(self, codec: MelCodec, folder: str) -> tuple[float, float]:
        """Writes the spectrograms; returns the mean energy of their frames, and the largest amplitude."""
        with AudioReader(self._path) as reader:
            self.channels = 1 if self._mono else reader.channels
            blocks = (block[:, None] for block in reader.mono_blocks()) if self._mono else reader.blocks()
            streams = [MelStream(codec) for _ in range(self.channels)]
            self.samples, peak, energy, frames = 0, 0.0, 0.0, 0
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context(pathlib.Path(folder, f"{i}.mel").open("wb"))
                         for i in range(self.channels)]

                def write(file: BinaryIO, mel: np.ndarray) -> None:
                    nonlocal energy, frames
                    file.write(mel.tobytes())
                    energy += float(np.exp(2 * mel.astype(np.float64)).sum())
                    frames += len(mel)

                for block in resampled(blocks, reader.sample_rate, codec.sample_rate):
                    self.samples += len(block)
                    peak = max(peak, float(np.abs(block).max(initial=0)))
                    for stream, file, channel in zip(streams, files, block.T, strict=True):
                        write(file, stream.push(np.float32(self.gain) * channel))
                for stream, file in zip(streams, files, strict=True):
                    write(file, stream.finish())
        return energy / max(frames, 1), peak

    def mono(self, sample_rate: int) -> Iterator[Float[np.ndarray, " n"]]:
        """Yields the channels mixed to one, at the level of the spectrograms."""
        with AudioReader(self._path) as reader:
            blocks = (block[:, None] for block in reader.mono_blocks())
            for block in resampled(blocks, reader.sample_rate, sample_rate):
                yield np.float32(self.gain) * block[:, 0]

    def alike(self) -> bool:
        """Returns whether all channels are the same."""
        first, *others = self.mels
        return all(np.array_equal(first, other) for other in others)
