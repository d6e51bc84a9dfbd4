"""One MIDI file → one audio file, of any length, loudness-normalised."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile

from music_diffusion.audio.io import AudioWriter, check_writable
from music_diffusion.audio.loudness import normalize_file
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, plot_rendering
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendering(Speed):
    """Facts of a rendering, for machines.

    The speed is that from notes to file, without loading the model, compiling and
    the plot.
    """

    output: str
    plot: str | None
    model: str
    steps: int | None  # None for what the model does not have
    solver: str | None
    guidance: float | None
    seed: int
    performance: str | None  # who plays what; None of a model without performances
    joining: str  # of segments: overlap, context or separate
    notes: int
    lufs: float | None  # integrated loudness of the file; None if not normalised or silent


def check_outputs(output: str, plot: str | None) -> None:
    """Finds before the work whether the files can be written."""
    check_writable(output)
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def render_file(synthesizer: Synthesizer, midi: str, output: str, *,
                settings: RenderSettings = RenderSettings(), plot: str | None = None,
                normalize: bool = True, progress: Progress | None = None) -> Rendering:
    """Renders a MIDI file; nothing appears unless all went well.

    Args:
      synthesizer: from `load`.
      midi: path.
      output: .wav, .flac or .mp3.
      settings: sampling.
      plot: .png of piano roll over spectrogram.
      normalize: to -14 LUFS with a true peak of at most -1 dBTP; otherwise the
        model's own level, clipped at full scale.
      progress: takes the share that is done.
    """
    check_outputs(output, plot)
    notes = read_midi(midi)
    codec = synthesizer.codec
    source = synthesizer.source_of(notes)
    synthesizer.compile(source, settings)
    sketch = SpectrogramSketch(source.frames, codec.mels) if plot else None
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as scratch:
        picture = os.path.join(scratch, "plot.png")

        def work() -> tuple[float, float | None]:
            """Returns the seconds of audio and its loudness."""
            # Loudness is known only at the end, so the first pass goes to a scratch file.
            target = os.path.join(scratch, "raw.wav") if normalize else output
            with AudioWriter(target, codec.sample_rate, subtype="FLOAT" if normalize else None) as writer:
                for samples in synthesizer.stream(source, settings, progress=progress,
                                                  on_mel=sketch.push if sketch else None):
                    writer.write(samples)
                if sketch is not None:  # before the audio appears, because drawing may fail too
                    with watch.paused():
                        plot_rendering(picture, notes, sketch, codec, os.path.basename(midi))
            loudness = normalize_file(target, output).lufs if normalize else None
            return writer.samples / codec.sample_rate, loudness

        (_, lufs), speed = measure(work, lambda done: done[0], watch=watch)
        if plot is not None:
            _place(picture, plot)
    sampling = synthesizer.sampled_by(settings).sampling
    return Rendering(
        output=output, plot=plot, model=synthesizer.name, steps=sampling.steps,
        solver=None if sampling.solver is None else repr(sampling.solver), guidance=sampling.guidance,
        seed=settings.seed, performance=synthesizer.performance_of(settings),
        joining=synthesizer.joining_of(settings).name, notes=len(notes),
        lufs=None if lufs is None or lufs == float("-inf") else round(lufs, 2),
        **dataclasses.asdict(speed.rounded()))


def _place(source: str, target: str) -> None:
    """Copies a file, maybe from another file system; it appears when it is complete."""
    part = f"{target}.part"
    try:
        shutil.copyfile(source, part)
        os.replace(part, target)
    except OSError as e:
        raise UserError(f"{target}: writing failed ({e.strerror}); is the disk full?") from e
    finally:
        if os.path.exists(part):
            os.remove(part)
