"""One audio file → one MIDI file of the notes that are heard in it."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from jaxtyping import Float

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import AudioReader, StreamResampler, check_writable
from music_diffusion.errors import UserError
from music_diffusion.models.transcriber import Transcriber, Transcription
from music_diffusion.notes.midi import write_midi
from music_diffusion.speed import Speed, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, plot_rendering
from music_diffusion.synthesis.synthesizer import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionFacts(Speed):
    """Facts of a transcription, for machines. The speed is that of listening, without files."""

    output: str
    plot: str | None
    transcriber: str
    notes: int  # drums too
    drums: int
    programs: list[int]  # General MIDI, of the melodic notes


def read_mono(path: str | os.PathLike, sample_rate: int) -> Float[np.ndarray, " S"]:
    """Reads a file's channels mixed to one, at `sample_rate` (Hz). Raises UserError for bad files."""
    with AudioReader(path) as reader:
        resampler = StreamResampler(reader.sample_rate, sample_rate)
        parts = [resampler.push(block.mean(axis=1)) for block in reader.blocks()]
        parts.append(resampler.finish())
    samples = np.concatenate(parts)
    if not len(samples):
        raise UserError(f"{path}: has no samples")
    return samples


def check_files(source: str, output: str, plot: str | None) -> None:
    """Finds before the work whether the files can be read and written."""
    AudioReader(source).close()
    check_writable(output, extensions=(".mid", ".midi"))
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def transcribe_file(transcriber: Transcriber, source: str, output: str, *, plot: str | None = None,
                    progress: Progress | None = None) -> tuple[Transcription, TranscriptionFacts]:
    """Transcribes a file; the MIDI file appears when it is complete.

    Args:
      transcriber: from `hub.load_transcriber`.
      source: any audio; it is mixed to one channel.
      output: .mid
      plot: .png of the notes over the recording's spectrogram.
      progress: takes the share that is done.
    """
    check_files(source, output, plot)
    samples = read_mono(source, transcriber.sample_rate)
    told = (lambda done, of: progress(done / of)) if progress else None
    transcriber.compile()
    heard, speed = measure(lambda: transcriber.transcribe(samples, progress=told),
                           len(samples) / transcriber.sample_rate)
    notes = heard.notes
    if plot is not None:
        _plot(plot, heard, samples, transcriber.sample_rate, os.path.basename(source))
    part = f"{output}.part"
    try:
        write_midi(notes, part)
        os.replace(part, output)
    finally:
        if os.path.exists(part):
            os.remove(part)
    return heard, TranscriptionFacts(
        output=output, plot=plot, transcriber=transcriber.name, notes=len(notes),
        drums=int(notes.is_drum.sum()),
        programs=sorted({int(p) for p in notes.program[~notes.is_drum]}),
        **dataclasses.asdict(speed.rounded()))


def _plot(path: str, heard: Transcription, samples: np.ndarray, sample_rate: int, title: str) -> None:
    codec = MelCodec()
    codec = dataclasses.replace(codec, sample_rate=sample_rate, fmax=min(codec.fmax, sample_rate / 2))
    mel = codec.encode(samples)
    sketch = SpectrogramSketch(len(mel), codec.mels)
    sketch.push(mel)
    plot_rendering(path, heard.notes, sketch, codec, title)
