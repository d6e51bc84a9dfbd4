"""A rendering of which a stretch is played again, the rest sample for sample as it was."""

from __future__ import annotations

import dataclasses
import os
import warnings

import numpy as np

from music_diffusion.audio.io import check_writable, read_audio, write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.bars import parse_bars
from music_diffusion.notes.midi import MidiFile
from music_diffusion.speed import measure
from music_diffusion.synthesis.edits import FADE, Stretch, parse_pair, remade, spliced
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_rendering
from music_diffusion.synthesis.render import Rendering
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress

OTHER_PIECE = 4.0  # seconds by which a rendering's length may differ from its piece's


def stretch_of(file: MidiFile, anew: str | None, bars: str | None) -> Stretch:
    """Returns what is played again: seconds, or bars. Raises UserError unless it is one of both."""
    if (anew is None) == (bars is None):
        raise UserError("--keep: say what is played again: --bars FIRST:LAST, or --anew BEGIN:END in "
                        "seconds")
    begin, end = parse_pair(anew, "--anew", "seconds") if anew is not None else parse_bars(
        bars or "", file.bars)
    return Stretch(begin=begin, end=end)


def within(stretch: Stretch, take: Waveform) -> Stretch:
    """Returns a stretch that ends with a rendering at the latest. Raises UserError: it begins behind it."""
    if stretch.begin > take.duration - FADE:
        raise UserError(f"{stretch.begin:.2f} s: the rendering to keep ends at {take.duration:.2f} s")
    return dataclasses.replace(stretch, end=min(stretch.end, take.duration))


def retake(synthesizer: Synthesizer, file: MidiFile, take: Waveform, stretch: Stretch,
           settings: RenderSettings = RenderSettings(), progress: Progress | None = None) -> Waveform:
    """Returns a rendering in which a stretch is played again, with another seed or other settings.

    Outside the stretch and its fades all samples are the rendering's.

    Args:
      synthesizer: from `load`.
      file: the notes.
      take: an earlier rendering of them, by whatever means.
      stretch: within it.
      settings: see `RenderSettings`.
      progress: takes the share that is done.

    Raises UserError: a silent rendering, or a stretch behind its end.
    """
    codec = synthesizer.codec
    mono = take.mono().resample(codec.sample_rate)
    if not np.abs(mono.samples).max(initial=0) > 1e-4:
        raise UserError("the rendering to keep is silent")
    stretch = within(stretch, take)
    source = synthesizer.source_of(file)
    seconds = source.frames / codec.frame_rate
    if abs(seconds - take.duration) > OTHER_PIECE:
        warnings.warn(f"the rendering to keep lasts {take.duration:.1f} s, the piece {seconds:.1f} s: is "
                      "it one of this piece?", stacklevel=2)
    frames = codec.frames_of(len(mono))
    region = ~stretch.cells(frames, codec)
    samples, first = remade(synthesizer, mono, region, source, settings, progress)
    return spliced(take, Waveform(samples, codec.sample_rate), first / codec.sample_rate, stretch)


def retake_file(synthesizer: Synthesizer, file: MidiFile, kept: str, output: str, *, stretch: Stretch,
                settings: RenderSettings = RenderSettings(), plot: str | None = None,
                progress: Progress | None = None) -> Rendering:
    """Writes a rendering of which a stretch is played again; see `retake`.

    Args:
      synthesizer, file, stretch, settings, progress: see `retake`.
      kept: path of the earlier rendering.
      output: .wav, .flac or .mp3; of the rate and channels of `kept`.
      plot: .png of piano roll over spectrogram.

    The facts' speed counts the stretch alone.
    """
    check_writable(output)
    take, codec = read_audio(kept), synthesizer.codec
    stretch = within(stretch, take)
    synthesizer.compile(file, settings)
    wave, speed = measure(lambda: retake(synthesizer, file, take, stretch, settings, progress),
                          stretch.end - stretch.begin)
    write_audio(output, wave)
    failed = None
    if plot is not None:
        sketch = SpectrogramSketch(codec.mels)
        sketch.push(codec.encode(wave.mono().resample(codec.sample_rate).samples))
        failed = attempt(plot_rendering, plot, file.notes, sketch, codec, os.path.basename(file.path))
    sampling = synthesizer.sampled_by(settings).sampling
    return Rendering(
        output=output, plot=None if failed else plot, plot_error=failed, model=synthesizer.name,
        steps=sampling.steps, solver=None if sampling.solver is None else repr(sampling.solver),
        guidance=sampling.guidance, seed=settings.seed, performance=synthesizer.performance_of(settings),
        joining=synthesizer.joining_of(settings).name, notes=len(file.notes), ignored=dict(file.ignored),
        warnings=file.warnings, lufs=None, **dataclasses.asdict(speed.rounded()))
