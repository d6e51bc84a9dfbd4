"""One MIDI file → one audio file, of any length, loudness-normalised."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time

from music_diffusion.audio.io import AudioWriter, check_writable
from music_diffusion.audio.loudness import normalize_file
from music_diffusion.notes.midi import read_midi
from music_diffusion.synthesis.plot import SpectrogramSketch, plot_rendering
from music_diffusion.synthesis.synthesizer import Progress, Settings, Synthesizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rendering:
    """What was rendered, for machines."""

    output: str
    plot: str | None
    model: str
    steps: int
    solver: str
    guidance: float
    seed: int
    notes: int
    audio_seconds: float
    wall_seconds: float  # from notes to file, without loading the model and compiling
    realtime_factor: float  # audio_seconds / wall_seconds
    lufs: float | None  # integrated loudness of the file; None if not normalised or silent


def check_outputs(output: str, plot: str | None) -> None:
    """Finds before the work whether the files can be written."""
    check_writable(output)
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def render_file(synthesizer: Synthesizer, midi: str, output: str, *,
                settings: Settings = Settings(), plot: str | None = None, normalize: bool = True,
                progress: Progress | None = None) -> Rendering:
    """Renders a MIDI file; nothing appears under `output` unless all went well.

    Args:
      synthesizer: from `load`.
      midi: path.
      output: .wav, .flac or .mp3.
      settings: sampling.
      plot: .png of piano roll over spectrogram.
      normalize: to -14 LUFS with a true peak of at most -1 dBTP; otherwise the
        model's own level, clipped at full scale.
      progress: told the share that is done.
    """
    check_outputs(output, plot)
    notes = read_midi(midi)
    codec = synthesizer.codec
    synthesizer.compile(notes, settings)
    began = time.perf_counter()
    sketch = SpectrogramSketch(synthesizer.frames_of(notes), codec.mels) if plot else None
    lufs = None
    with tempfile.TemporaryDirectory(prefix="music-diffusion-") as scratch:
        # Loudness is known only at the end, so the first pass goes to a scratch file.
        target = os.path.join(scratch, "raw.wav") if normalize else output
        with AudioWriter(target, codec.sample_rate, subtype="FLOAT" if normalize else None) as writer:
            for samples in synthesizer.stream(notes, settings, progress=progress,
                                              on_mel=sketch.push if sketch else None):
                writer.write(samples)
        if normalize:
            done = normalize_file(target, output)
            lufs = round(done.lufs, 2) if done.lufs > float("-inf") else None
    wall = time.perf_counter() - began
    if plot is not None:
        plot_rendering(plot, notes, sketch, codec, os.path.basename(midi))
    model = settings.apply(synthesizer.model)
    seconds = writer.samples / codec.sample_rate
    return Rendering(
        output=output, plot=plot, model=synthesizer.name, steps=model.num_steps,
        solver=repr(model.solver), guidance=model.guidance_weight, seed=settings.seed,
        notes=len(notes), audio_seconds=round(seconds, 3), wall_seconds=round(wall, 3),
        realtime_factor=round(seconds / wall, 3), lufs=lufs)
