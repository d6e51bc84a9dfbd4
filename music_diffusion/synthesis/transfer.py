"""Audio → the same music in another timbre, of any length, channel by channel."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.audio.io import AudioReader, AudioWriter
from music_diffusion.audio.loudness import TruePeakLimiter
from music_diffusion.conditions.base import Source
from music_diffusion.errors import UserError
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_pair
from music_diffusion.synthesis.reconstruct import CEILING, check_files, resampled
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress

LEAST_SECONDS = 0.2  # of a recording: less is no music
SILENCE_DB = 60.0  # below its loudest frame a recording counts as silent
HOLD, FADE = 0.6, 0.2  # seconds that a sound may go on in silence, and then fade
QUIETEST_DB = -90.0  # dBFS; recordings without a sample above it are silence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transferred(Speed):
    """Facts of a transfer, for machines.

    The speed is that from file to file, without loading the model, compiling and the plot.
    """

    output: str
    plot: str | None  # None also of a picture that could not be drawn
    plot_error: str | None  # why it could not, in one line
    model: str
    steps: int | None  # None for what the model does not have
    solver: str | None
    strength: float | None
    seed: int
    joining: str  # of segments: overlap, context or separate
    sample_rate: int  # Hz, of the output
    channels: int
    peak: float  # largest amplitude of the output; full scale is 1


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

    def __init__(self, path: str, codec: MelCodec, folder: str, *, mono: bool = False):
        """Reads the file into `folder`.

        Raises UserError for a file that cannot be read, is too short or is silent.
        """
        with AudioReader(path) as reader:
            self.channels = 1 if mono else reader.channels
            blocks = (block[:, None] for block in reader.mono_blocks()) if mono else reader.blocks()
            streams = [MelStream(codec) for _ in range(self.channels)]
            with contextlib.ExitStack() as stack:
                files = [stack.enter_context(pathlib.Path(folder, f"{i}.mel").open("wb"))
                         for i in range(self.channels)]
                self.samples, peak = 0, 0.0
                for block in resampled(blocks, reader.sample_rate, codec.sample_rate):
                    self.samples += len(block)
                    peak = max(peak, float(np.abs(block).max(initial=0)))
                    for stream, file, channel in zip(streams, files, block.T, strict=True):
                        file.write(stream.push(channel).tobytes())
                for stream, file in zip(streams, files, strict=True):
                    file.write(stream.finish().tobytes())
        if self.samples < LEAST_SECONDS * codec.sample_rate:
            raise UserError(f"{shown(path)}: lasts {self.samples / codec.sample_rate:.2f} s; give "
                            f"{LEAST_SECONDS:g} s or more")
        if peak <= 10 ** (QUIETEST_DB / 20):
            raise UserError(f"{shown(path)}: is silent; there is nothing to transfer")
        self.mels = [np.memmap(pathlib.Path(folder, f"{i}.mel"), np.float32, "r").reshape(-1, codec.mels)
                     for i in range(self.channels)]

    def alike(self) -> bool:
        """Returns whether all channels are the same."""
        first, *others = self.mels
        return all(np.array_equal(first, other) for other in others)


def transfer_file(synthesizer: Synthesizer, source: str, output: str, *,
                  settings: RenderSettings = RenderSettings(), mono: bool = False, plot: str | None = None,
                  progress: Progress | None = None) -> Transferred:
    """Writes a recording in the timbre that a model gives it; the file appears when it is complete.

    The output is as long as the recording. A picture that cannot be drawn costs no audio: see
    `Transferred.plot_error`.

    Args:
      synthesizer: of a model that changes recordings, from `load`.
      source: audio of any length, rate and number of channels.
      output: .wav, .flac or .mp3.
      settings: of the sampling.
      mono: mix the channels to one first; otherwise each is changed by itself, with the same noise.
      plot: .png of the recording's spectrogram over the output's.
      progress: takes the share that is done.

    Raises UserError for files that cannot be read or written, a recording that is silent or shorter
    than LEAST_SECONDS, a setting out of its range, and a model that does not change recordings.
    """
    check_files(source, output, plot)
    codec, watch = synthesizer.codec, Stopwatch()
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        sketches = [SpectrogramSketch(codec.mels) for _ in range(2)] if plot else []

        def work() -> tuple[int, int, float]:
            """Returns channels, samples and peak."""
            recording = Recording(source, codec, folder, mono=mono)
            with watch.paused():
                synthesizer.compile(_source(synthesizer, recording.mels[0]), settings)
            own = recording.mels[:1] if recording.alike() else recording.mels
            streams = [_stream(synthesizer, mel, settings, sketches if i == 0 else [],
                               progress if i == 0 else None) for i, mel in enumerate(own)]
            limiter = TruePeakLimiter(codec.sample_rate, recording.channels, ceiling_dbtp=CEILING)
            peak = 0.0
            with AudioWriter(output, codec.sample_rate, recording.channels) as writer:
                for samples in _limited(limiter, streams, recording.channels, recording.samples):
                    writer.write(samples)
                    peak = max(peak, float(np.abs(samples).max()))
            return recording.channels, recording.samples, peak

        (channels, _, peak), speed = measure(work, lambda done: done[1] / codec.sample_rate, watch=watch)
        failed = None
        if plot is not None:
            failed = attempt(plot_pair, plot, sketches, codec,
                             (os.path.basename(source), f"by {synthesizer.name}"))
    sampling = synthesizer.sampled_by(settings).sampling
    return Transferred(
        output=output, plot=None if failed else plot, plot_error=failed, model=synthesizer.name,
        steps=sampling.steps, solver=None if sampling.solver is None else repr(sampling.solver),
        strength=sampling.strength, seed=settings.seed, joining=synthesizer.joining_of(settings).name,
        sample_rate=codec.sample_rate, channels=channels, peak=round(peak, 5),
        **dataclasses.asdict(speed.rounded()))


def _source(synthesizer: Synthesizer, mel: np.ndarray) -> Source:
    """Returns the source of one channel. Raises UserError: the model does not change recordings."""
    return synthesizer.source_of(Source(codec=synthesizer.codec, mel=mel, frames=len(mel)))


def _stream(synthesizer: Synthesizer, mel: np.ndarray, settings: RenderSettings,
            sketches: list[SpectrogramSketch], progress: Progress | None) -> Iterator[np.ndarray]:
    """Yields samples [n] of one channel."""
    gate, inversion, first = Gate(frame_levels(mel), synthesizer.codec), synthesizer.inverter.stream(), 0
    for made in synthesizer.stream_mel(_source(synthesizer, mel), settings, progress):
        made = gate.push(made)
        for sketch, part in zip(sketches, (mel[first:first + len(made)], made), strict=False):
            sketch.push(part)
        first += len(made)
        yield inversion.push(made)
    yield inversion.finish()


def _limited(limiter: TruePeakLimiter, streams: list[Iterator[np.ndarray]], channels: int, left: int
             ) -> Iterator[Float[np.ndarray, "n C"]]:
    """Yields `left` samples of all channels, nothing above full scale."""
    def parts() -> Iterator[np.ndarray]:
        nonlocal left
        for columns in zip(*streams, strict=True):
            together = np.stack(columns, axis=1)[:left]
            left -= len(together)
            yield limiter.push(np.broadcast_to(together, (len(together), channels)))
        yield limiter.finish()

    for samples in parts():
        if len(samples):
            yield samples.reshape(-1, channels)
