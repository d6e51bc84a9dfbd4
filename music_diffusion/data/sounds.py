"""Audio of items: files, files that sound together, and audio inside of other files."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.io import AudioReader, StreamResampler
from music_diffusion.data.items import Sound, SoundFacts
from music_diffusion.errors import UserError

BLOCK = 65536  # samples that files of a mixture are aligned to

Blocks = Iterator[Float[np.ndarray, " n"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioFile:
    """An audio file, or a stretch of it, with its channels mixed to one."""

    path: str
    start: float = 0.0  # seconds of the file where the sound begins
    end: float | None = None  # seconds of the file where it ends; None: at the file's end

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    def facts(self) -> SoundFacts:
        with AudioReader(self.path) as reader:
            return _facts(reader, self.start, self.end)

    def blocks(self, sample_rate: int) -> Blocks:
        with AudioReader(self.path) as reader:
            yield from cut(_mono(reader, sample_rate), sample_rate, self.start, self.end)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddedAudio:
    """An audio file inside of another file."""

    path: str  # of the file around it
    name: str  # of the audio in it, for messages
    load: Callable[[], bytes]  # picklable; the bytes of a WAV, FLAC … file
    start: float = 0.0  # as in AudioFile
    end: float | None = None

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    def _open(self) -> AudioReader:
        return AudioReader(f"{self.path}: {self.name}", io.BytesIO(self.load()))

    def facts(self) -> SoundFacts:
        with self._open() as reader:
            return _facts(reader, self.start, self.end)

    def blocks(self, sample_rate: int) -> Blocks:
        with self._open() as reader:
            yield from cut(_mono(reader, sample_rate), sample_rate, self.start, self.end)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """Sounds that are heard together: their sum. It lasts as long as its longest."""

    parts: tuple[Sound, ...]  # at least one
    gain: float = 1.0  # factor of the sum

    def __post_init__(self):
        if not self.parts:
            raise UserError("a mixture needs at least one sound")

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(part.files for part in self.parts))

    def facts(self) -> SoundFacts:
        facts = [part.facts() for part in self.parts]
        return SoundFacts(sample_rate=min(f.sample_rate for f in facts),
                          channels=max(f.channels for f in facts),
                          seconds=max(f.seconds for f in facts))

    def blocks(self, sample_rate: int) -> Blocks:
        streams = [_equal_blocks(part.blocks(sample_rate)) for part in self.parts]
        for blocks in itertools.zip_longest(*streams, fillvalue=np.zeros(0, np.float32)):
            total = np.zeros(max(len(block) for block in blocks), np.float32)
            for block in blocks:
                total[:len(block)] += block
            yield np.float32(self.gain) * total


def read_sound(sound: Sound, sample_rate: int) -> Float[np.ndarray, " S"]:
    """Reads all samples at once.

    Raises:
      UserError: a file of the sound is missing, unreadable or damaged.
    """
    return np.concatenate([np.zeros(0, np.float32), *sound.blocks(sample_rate)])


def cut(blocks: Blocks, sample_rate: int, start: float, end: float | None) -> Blocks:
    """Yields the stretch [start, end) in seconds of a stream of samples. Raises UserError if start < 0."""
    if start < 0:
        raise UserError(f"audio from {start:g} s on: a stretch begins at 0 s or later")
    skip = round(start * sample_rate)
    left = None if end is None else max(0, round(end * sample_rate) - skip)
    for block in blocks:
        block, skip = block[skip:], max(0, skip - len(block))
        if left is not None:
            block = block[:left]
            left -= len(block)
        if len(block):
            yield block
        if left == 0:
            return


def _facts(reader: AudioReader, start: float, end: float | None) -> SoundFacts:
    seconds = reader.samples / reader.sample_rate
    return SoundFacts(sample_rate=reader.sample_rate, channels=reader.channels,
                      seconds=max(0.0, (seconds if end is None else min(seconds, end)) - start))


def _mono(reader: AudioReader, sample_rate: int) -> Blocks:
    resampler = StreamResampler(reader.sample_rate, sample_rate)
    for block in reader.mono_blocks():
        yield resampler.push(block)
    yield resampler.finish()


def _equal_blocks(blocks: Blocks) -> Blocks:
    """Yields the same samples in blocks of BLOCK, the last one shorter."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) >= BLOCK:
            yield held[:BLOCK]
            held = held[BLOCK:]
    if len(held):
        yield held
