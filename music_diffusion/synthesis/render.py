"""One MIDI file → one audio file, of any length, loudness-normalised."""

from __future__ import annotations

import dataclasses
import os
import tempfile

from music_diffusion.audio.io import AudioWriter, check_writable
from music_diffusion.audio.loudness import normalize_file
from music_diffusion.conditions.base import Given
from music_diffusion.notes.notes import Notes
from music_diffusion.speed import Speed, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_rendering
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
    plot: str | None  # None also of a picture that could not be drawn
    plot_error: str | None  # why it could not, in one line
    model: str
    steps: int | None  # None for what the model does not have
    solver: str | None
    guidance: float | None
    seed: int
    performance: str | None  # who plays what; None of a model without performances
    joining: str  # of segments: overlap, context or separate
    notes: int
    ignored: dict[str, int]  # what the MIDI file asks for and is not played; see `MidiFile`
    warnings: tuple[str, ...]  # what is wrong with the MIDI file
    lufs: float | None  # integrated loudness of the file; None if not normalised or silent


def check_outputs(output: str, plot: str | None) -> None:
    """Finds before the work whether the files can be written."""
    check_writable(output)
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def render_file(synthesizer: Synthesizer, given: Given, output: str, *,
                settings: RenderSettings = RenderSettings(), plot: str | None = None,
                normalize: bool = True, progress: Progress | None = None) -> Rendering:
    """Renders a file; the audio appears when it is complete, and then the picture.

    A picture that cannot be drawn costs no audio: see `Rendering.plot_error`.

    Args:
      synthesizer: from `load`.
      given: path of a MIDI file or, for models that change recordings, of an audio file; or what was
        read from it.
      output: .wav, .flac or .mp3.
      settings: sampling.
      plot: .png of piano roll over spectrogram.
      normalize: to -14 LUFS with a true peak of at most -1 dBTP; otherwise the
        model's own level, clipped at full scale.
      progress: takes the share that is done.
    """
    check_outputs(output, plot)
    codec, source = synthesizer.codec, synthesizer.source_of(given)
    notes = Notes.empty() if source.notes is None else source.notes
    synthesizer.compile(source, settings)
    sketch = SpectrogramSketch(codec.mels) if plot else None
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as scratch:
        def work() -> tuple[float, float | None]:
            """Returns the seconds of audio and its loudness."""
            # Loudness is known only at the end, so the first pass goes to a scratch file.
            target = os.path.join(scratch, "raw.wav") if normalize else output
            with AudioWriter(target, codec.sample_rate, subtype="FLOAT" if normalize else None) as writer:
                for samples in synthesizer.stream(source, settings, progress=progress,
                                                  on_mel=sketch.push if sketch else None):
                    writer.write(samples)
            loudness = normalize_file(target, output).lufs if normalize else None
            return writer.samples / codec.sample_rate, loudness

        (_, lufs), speed = measure(work, lambda done: done[0])
    failed = None
    if plot is not None:
        failed = attempt(plot_rendering, plot, notes, sketch, codec, os.path.basename(source.name))
    sampling = synthesizer.sampled_by(settings).sampling
    return Rendering(
        output=output, plot=None if failed else plot, plot_error=failed,
        model=synthesizer.name, steps=sampling.steps,
        solver=None if sampling.solver is None else repr(sampling.solver), guidance=sampling.guidance,
        seed=settings.seed, performance=synthesizer.performance_of(settings),
        joining=synthesizer.joining_of(settings).name, notes=len(notes),
        ignored=dict(source.ignored), warnings=source.warnings,
        lufs=None if lufs is None or lufs == float("-inf") else round(lufs, 2),
        **dataclasses.asdict(speed.rounded()))
