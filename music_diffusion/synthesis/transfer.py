"""Audio → the same music in another timbre, of any length, channel by channel."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.io import AudioWriter, read_audio, write_audio
from music_diffusion.audio.loudness import TruePeakLimiter
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import SOURCE, Source
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.follow_level import LevelFollower, followed, window_seconds
from music_diffusion.synthesis.hearing import Hearing
from music_diffusion.synthesis.performance import parse_performance
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_pair
from music_diffusion.synthesis.reconstruct import CEILING, check_files
from music_diffusion.synthesis.recordings import Gate, Recording, frame_levels
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress


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


def transfer(synthesizer: Synthesizer, source: str | os.PathLike | Waveform, hearing: Hearing | None, *,
             settings: RenderSettings = RenderSettings(), mono: bool = False,
             progress: Progress | None = None) -> Waveform:
    """Returns a recording as a model changes it, in memory; see `transfer_file`."""
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as folder:
        path, output = (os.path.join(folder, name) for name in ("given.wav", "made.wav"))
        if isinstance(source, Waveform):
            write_audio(path, source, subtype="FLOAT")
        transfer_file(synthesizer, path if isinstance(source, Waveform) else os.fspath(source), output,
                      settings=settings, hearing=hearing, mono=mono, subtype="FLOAT", progress=progress)
        return read_audio(output)


def transfer_file(synthesizer: Synthesizer, source: str, output: str, *,
                  settings: RenderSettings = RenderSettings(), hearing: Hearing | None = None,
                  mono: bool = False, plot: str | None = None, subtype: str | None = None,
                  progress: Progress | None = None) -> Transferred:
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
      subtype: of the output, see `AudioWriter`.
      progress: takes the share that is done.

    Raises UserError for files that cannot be read or written, a recording that is silent or shorter
    than LEAST_SECONDS, a setting out of its range, and a model that does not change recordings.
    """
    check_files(source, output, plot)
    if not synthesizer.model.hears and SOURCE not in synthesizer.model.conditions.needs:
        raise UserError(f"{synthesizer.name}: changes no recordings; give a model that does, such as "
                        "transfer")
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
                    warnings.warn(f"{shown(source)}: no notes are heard in it; what is made has little "
                                  "to follow", stacklevel=2)
                first = dataclasses.replace(first, notes=notes, heard=heard, reference=hearing.reference,
                                            style=hearing.style)
            sources = [dataclasses.replace(first, mel=mel) for mel in own]
            with watch.paused():
                synthesizer.compile(first, settings)
            seconds = None if hearing is None else window_seconds(hearing.casting.programs)
            streams = [_stream(synthesizer, part, settings, recording.gain, seconds,
                               sketches if i == 0 else [], progress if i == 0 else None)
                       for i, part in enumerate(sources)]
            limiter = TruePeakLimiter(codec.sample_rate, recording.channels, ceiling_dbtp=CEILING)
            peak = 0.0
            with AudioWriter(output, codec.sample_rate, recording.channels, subtype) as writer:
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
            seconds: float | None, sketches: list[SpectrogramSketch], progress: Progress | None
            ) -> Iterator[np.ndarray]:
    """Yields samples [n] of one channel, at the level that it had before `gain`.

    Their loudness follows the source's in the mean of so many seconds; None: it is the model's.
    """
    codec, mel, first = synthesizer.codec, source.mel, 0
    assert mel is not None
    level, inversion, back = frame_levels(mel), synthesizer.inverter.stream(), np.log(gain)
    gate = Gate(level, codec)
    own = settings.changed(performance=None)  # it is the source's
    frames = synthesizer.stream_mel(source, own, progress)
    if seconds is not None:
        frames = followed(frames, LevelFollower(level, codec, seconds))
    for made in frames:
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
