"""Audio → the same music in another timbre, of any length, channel by channel."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.audio.io import AudioReader, AudioWriter
from music_diffusion.audio.loudness import TruePeakLimiter
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.notes.casting import InstrumentCasting
from music_diffusion.notes.decoding import NoteDecoder
from music_diffusion.notes.heard import HeardFrames, only_classes
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.performance import parse_performance
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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Hearing:
    """Ears for a model that hears its recordings, and what is to become of them."""

    transcriber: Transcriber
    casting: InstrumentCasting = InstrumentCasting()
    reference: Float[np.ndarray, " D"] | None = None  # embedding of what it should sound like

    def __call__(self, blocks: Iterator[Float[np.ndarray, " n"]], codec: MelCodec, frames: int, path: str
                 ) -> tuple[Notes, np.ndarray]:
        """Hears a recording.

        Args:
          blocks: mono samples at the transcriber's rate.
          codec: of its spectrogram.
          frames: of it.
          path: of a file that is written, so that memory does not grow.

        Returns the notes as they are to be played, and [frames, 2 P] uint8 (`notes.heard.HeardFrames`).
        """
        decoder = NoteDecoder(self.transcriber.model.decode, self.transcriber.model.spectrum.frame_seconds)
        stream, notes, left = HeardFrames(codec.hop / codec.sample_rate), [], frames
        with open(path, "wb") as file:
            for part in self.transcriber.activations(blocks):
                notes.append(decoder.push(only_classes(part, self.casting.heard)))
                heard = stream.push(part)[:left]
                left -= len(heard)
                file.write(heard.tobytes())
            file.write(stream.finish(frames)[:left].tobytes())
        heard = np.memmap(path, np.uint8, "r").reshape(frames, -1)
        return self.casting(Notes.concatenate([*notes, decoder.finish()])), heard


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


def transfer_file(synthesizer: Synthesizer, source: str, output: str, *,
                  settings: RenderSettings = RenderSettings(), hearing: Hearing | None = None,
                  mono: bool = False, plot: str | None = None, progress: Progress | None = None
                  ) -> Transferred:
    """Writes a recording in the timbre that a model gives it; the file appears when it is complete.

    The output is as long as the recording. A picture that cannot be drawn costs no audio: see
    `Transferred.plot_error`.

    Args:
      synthesizer: of a model that changes recordings, from `load`.
      source: audio of any length, rate and number of channels.
      output: .wav, .flac or .mp3.
      settings: of the sampling.
      hearing: for a model that hears its recordings (`models.base.Generator.hears`).
      mono: mix the channels to one first; otherwise each is changed by itself, with the same noise.
      plot: .png of the recording's spectrogram over the output's.
      progress: takes the share that is done.

    Raises UserError for files that cannot be read or written, a recording that is silent or shorter
    than LEAST_SECONDS, a setting out of its range, and a model that does not change recordings.
    """
    check_files(source, output, plot)
    if (hearing is None) == synthesizer.model.hears:
        raise UserError(f"{synthesizer.name}: " + (
            "has to be told what to become of the recording; give --to INSTRUMENT or --like RECORDING"
            if hearing is None else "makes one timbre alone; leave --to, --from and --like out"))
    codec, watch = synthesizer.codec, Stopwatch()
    performance = _performance(synthesizer, settings, hearing)
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        sketches = [SpectrogramSketch(codec.mels) for _ in range(2)] if plot else []

        def work() -> tuple[int, int, float]:
            """Returns channels, samples and peak."""
            recording = Recording(source, codec, folder, mono=mono, level=LEVEL if hearing else None)
            own = recording.mels[:1] if recording.alike() else recording.mels
            first = Source(codec=codec, mel=own[0], frames=len(own[0]), performance=performance)
            if hearing is not None:
                notes, heard = hearing(recording.mono(hearing.transcriber.sample_rate), codec, first.frames,
                                       os.path.join(folder, "heard"))
                if not len(notes):
                    warnings.warn(f"{shown(source)}: no notes are heard in it; what is made follows its "
                                  "spectrum alone", stacklevel=2)
                first = dataclasses.replace(first, notes=notes, heard=heard, reference=hearing.reference)
            sources = [dataclasses.replace(first, mel=mel) for mel in own]
            with watch.paused():
                synthesizer.compile(first, settings)
            streams = [_stream(synthesizer, part, settings, recording.gain, sketches if i == 0 else [],
                               progress if i == 0 else None) for i, part in enumerate(sources)]
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


def _performance(synthesizer: Synthesizer, settings: RenderSettings, hearing: Hearing | None
                 ) -> Float[np.ndarray, " R"] | None:
    """Returns weights of the performance that a model's table has; none where a reference stands for it.

    Raises UserError: parts with performances of their own, which one recording cannot have.
    """
    if synthesizer.performances is None:
        return None
    if settings.performance is None and hearing is not None and hearing.reference is not None:
        return np.zeros(len(synthesizer.performances.names), np.float32)
    weights = parse_performance(settings.performance, synthesizer.performances).weights
    if len(weights) > 1:
        raise UserError(f"--performance {settings.performance}: a recording has one; give a name, or a "
                        "mixture such as NAME+NAME")
    return np.asarray(weights[0], np.float32)


def _stream(synthesizer: Synthesizer, source: Source, settings: RenderSettings, gain: float,
            sketches: list[SpectrogramSketch], progress: Progress | None) -> Iterator[np.ndarray]:
    """Yields samples [n] of one channel, at the level that it had before `gain`."""
    codec, mel, first = synthesizer.codec, source.mel, 0
    assert mel is not None
    gate, inversion, back = Gate(frame_levels(mel), codec), synthesizer.inverter.stream(), np.log(gain)
    own = settings.changed(performance=None)  # it is the source's
    for made in synthesizer.stream_mel(source, own, progress):
        given = mel[first:first + len(made)]
        first += len(made)
        made = gate.push(made)
        if gain != 1.0:
            given, made = (np.maximum(x - np.float32(back), codec.log_min) for x in (given, made))
        for sketch, part in zip(sketches, (given, made), strict=False):
            sketch.push(part)
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
