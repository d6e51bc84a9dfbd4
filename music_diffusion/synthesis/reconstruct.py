"""Audio → spectrogram → inverter → audio, of any length, in memory that does not grow with it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.audio.inverter import Inverter
from music_diffusion.audio.io import AudioReader, AudioWriter, StreamResampler, check_writable
from music_diffusion.audio.loudness import TruePeakLimiter
from music_diffusion.audio.mixdown import mix
from music_diffusion.errors import UserError
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_pair
from music_diffusion.types import Progress

CEILING = 0.0  # dBTP
Block = Float[np.ndarray, "S C"]  # samples and channels
Observe = Callable[[Block, Block], None]  # takes the next samples of input and output


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Speed):
    """Facts of a reconstruction, for machines.

    The speed is that from file to file, without loading, compiling, comparing and
    the plot.
    """

    output: str
    plot: str | None  # None also of a picture that could not be drawn
    plot_error: str | None  # why it could not, in one line
    inverter: str
    sample_rate: int  # Hz, of the output
    channels: int
    peak: float  # largest amplitude of the output; full scale is 1


class ReconstructionStream:
    """Samples at the codec's rate → as many samples that the inverter makes of their spectrogram.

    Every channel goes through the inverter alone. Not mid and side: a spectrogram
    has no sign, so that the side of a sound on the right is that of one on the left.
    """

    def __init__(self, inverter: Inverter, channels: int = 1):
        self._encoders = [MelStream(inverter.codec) for _ in range(channels)]
        self._streams = [inverter.stream() for _ in range(channels)]
        self._missing = 0  # samples that went in and are not out

    def push(self, samples: Block) -> Block:
        """Takes the next samples [n, C]; returns those that are ready, [m, C]."""
        self._missing += len(samples)
        return self._out([stream.push(encoder.push(channel)) for encoder, stream, channel
                          in zip(self._encoders, self._streams, samples.T, strict=True)])

    def finish(self) -> Block:
        """Returns the remaining samples: all parts together are as many as went in."""
        return self._out([np.concatenate([stream.push(encoder.finish()), stream.finish()])
                          for encoder, stream in zip(self._encoders, self._streams, strict=True)])

    def _out(self, channels: list[np.ndarray]) -> Block:
        out = np.stack(channels, axis=1)[:self._missing]  # the last frame may reach beyond the end
        self._missing -= len(out)
        return out


def reconstruct_blocks(inverter: Inverter, blocks: Iterable[Block], channels: int
                       ) -> Iterator[tuple[Block, Block]]:
    """Yields input and output, aligned, at the codec's rate.

    The level is the input's. Only what would exceed full scale is turned down, by
    a limiter with a ceiling of 0 dBTP that leaves everything else as it is.
    """
    stream = ReconstructionStream(inverter, channels)
    limiter = TruePeakLimiter(inverter.codec.sample_rate, channels, ceiling_dbtp=CEILING)
    waiting: list[np.ndarray] = [np.zeros((0, channels), np.float32)]

    def pairs(made: np.ndarray) -> Iterator[tuple[Block, Block]]:
        made = made.reshape(-1, channels)
        if len(made):
            given = np.concatenate(waiting)
            waiting[:] = [given[len(made):]]
            yield given[:len(made)], made

    for block in blocks:
        waiting.append(block)
        yield from pairs(limiter.push(stream.push(block)))
    yield from pairs(limiter.push(stream.finish()))
    yield from pairs(limiter.finish())


def resampled(blocks: Iterable[Block], source_rate: int, rate: int) -> Iterator[Block]:
    """Yields the same sound at another rate, block by block."""
    resampler = None
    for block in blocks:
        channels = block.shape[1]
        if resampler is None:
            resampler = StreamResampler(source_rate, rate, channels)
        yield resampler.push(block[:, 0] if channels == 1 else block).reshape(-1, channels)
    if resampler is not None:
        yield resampler.finish().reshape(-1, channels)


def check_files(source: str | os.PathLike, output: str, plot: str | None) -> None:
    """Finds before the work whether the source is audio and the files can be written."""
    with AudioReader(source) as reader:
        if next(reader.blocks(1), None) is None:
            raise UserError(f"{shown(source)}: has no samples")
    check_writable(output)
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def reconstruct_file(inverter: Inverter, source: str | os.PathLike, output: str, *, name: str = "",
                     mono: bool = False, plot: str | None = None, observe: Observe | None = None,
                     progress: Progress | None = None) -> Reconstruction:
    """Writes what the inverter makes of an audio file's spectrogram, which appears when it is complete.

    A picture that cannot be drawn costs no audio: see `Reconstruction.plot_error`. The output has
    the codec's sample rate and the source's level; see `reconstruct_blocks`.

    Args:
      inverter: any.
      source: audio of any length, rate and number of channels.
      output: .wav, .flac or .mp3.
      name: of the inverter, for the report and the plot.
      mono: mix the channels to one first (`AudioReader.mono_blocks`); otherwise each is inverted alone.
      plot: .png of the source's spectrogram over the output's, of the channels' mean.
      observe: takes every part of source and output, [n, C] at the codec's rate.
      progress: takes the share that is done.
    """
    check_files(source, output, plot)
    codec = inverter.codec
    inverter.invert(np.full((1, codec.mels), codec.log_min, np.float32))  # compiles
    watch = Stopwatch()
    sketches: SketchPair | None = None

    def work() -> tuple[int, int, float]:
        """Returns channels, samples and peak."""
        nonlocal sketches
        samples, peak = 0, 0.0
        with AudioReader(source) as reader:
            channels = 1 if mono else reader.channels
            if plot is not None:
                sketches = SketchPair(codec, None if mono else reader.signs)
            blocks = (block[:, None] for block in reader.mono_blocks()) if mono else reader.blocks()
            if progress is not None:
                blocks = with_progress(blocks, reader.samples, progress)
            blocks = resampled(blocks, reader.sample_rate, codec.sample_rate)
            with AudioWriter(output, codec.sample_rate, channels) as writer:
                for given, made in reconstruct_blocks(inverter, blocks, channels):
                    writer.write(made)
                    peak = max(peak, float(np.abs(made).max()))
                    samples += len(made)
                    with watch.paused():
                        if observe is not None:
                            observe(given, made)
                        if sketches is not None:
                            sketches.push(given, made)
                if not samples:
                    raise UserError(f"{shown(source)}: is shorter than a sample at {codec.sample_rate} Hz")
        return channels, samples, peak

    (channels, _, peak), speed = measure(work, lambda done: done[1] / codec.sample_rate, watch=watch)
    failed = None
    if plot is not None and sketches is not None:
        failed = attempt(sketches.draw, plot, os.path.basename(source), name)
    return Reconstruction(
        output=output, plot=None if failed else plot, plot_error=failed, inverter=name,
        sample_rate=codec.sample_rate, channels=channels,
        peak=round(peak, 5), **dataclasses.asdict(speed.rounded()))


def with_progress(blocks: Iterable[np.ndarray], samples: int, progress: Progress) -> Iterator[np.ndarray]:
    """Yields the same blocks; reports the share of all samples that is read."""
    read = 0
    for block in blocks:
        yield block
        read += len(block)
        progress(min(1.0, read / max(1, samples)))


class SketchPair:
    """The spectrograms of input and output, for the picture."""

    def __init__(self, codec: MelCodec, signs: Float[np.ndarray, " C"] | None = None):
        """signs: of the channels, where they would cancel each other; see `mixdown.polarity`."""
        self._codec, self._signs = codec, signs
        self._encoders = MelStream(codec), MelStream(codec)
        self._sketches = SpectrogramSketch(codec.mels), SpectrogramSketch(codec.mels)

    def push(self, *blocks: Block) -> None:
        for encoder, sketch, block in zip(self._encoders, self._sketches, blocks, strict=True):
            sketch.push(encoder.push(mix(block, self._signs)))

    def draw(self, path: str, source: str, inverter: str) -> None:
        for encoder, sketch in zip(self._encoders, self._sketches, strict=True):
            sketch.push(encoder.finish())
        plot_pair(path, self._sketches, self._codec, titles=(source, f"through {inverter}"))
