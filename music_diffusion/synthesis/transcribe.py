"""One audio file → one MIDI file of the notes that are heard in it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.encode_stream import MelStream
from music_diffusion.audio.io import AudioReader, check_writable
from music_diffusion.errors import UserError
from music_diffusion.files import atomic_write
from music_diffusion.models.transcriber import Transcriber
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import shown
from music_diffusion.speed import Speed, Stopwatch, measure
from music_diffusion.synthesis.plot import SpectrogramSketch, attempt, plot_rendering
from music_diffusion.synthesis.reconstruct import resampled, with_progress
from music_diffusion.synthesis.synthesizer import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriptionFacts(Speed):
    """Facts of a transcription, for machines. The speed is that of listening, without files."""

    output: str
    plot: str | None  # None also of a picture that could not be drawn
    plot_error: str | None  # why it could not, in one line
    transcriber: str
    notes: int  # drums too
    drums: int
    programs: list[int]  # General MIDI, of the melodic notes


def check_files(source: str, output: str, plot: str | None) -> None:
    """Finds before the work whether the files can be read and written."""
    with AudioReader(source) as reader:
        if next(reader.blocks(1), None) is None:
            raise UserError(f"{shown(source)}: has no samples")
    check_writable(output, extensions=(".mid", ".midi"))
    if plot is not None:
        check_writable(plot, extensions=(".png",))


def transcribe_file(transcriber: Transcriber, source: str, output: str, *, plot: str | None = None,
                    progress: Progress | None = None) -> tuple[Notes, TranscriptionFacts]:
    """Transcribes a file of any length in memory that does not grow with it; then draws the picture.

    The MIDI file appears when it is complete. A picture that cannot be drawn does not cost it: see
    `TranscriptionFacts.plot_error`.

    Args:
      transcriber: from `hub.load_transcriber`.
      source: any audio; it is mixed to one channel (`AudioReader.mono_blocks`).
      output: .mid
      plot: .png of the notes over the recording's spectrogram.
      progress: given the share that is done.
    """
    check_files(source, output, plot)
    rate = transcriber.sample_rate
    codec = dataclasses.replace(MelCodec(), sample_rate=rate, fmax=min(MelCodec().fmax, rate / 2))
    picture = _Picture(codec) if plot is not None else None
    transcriber.compile()
    watch, samples = Stopwatch(), 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal samples
        with AudioReader(source) as reader:
            mono = reader.mono_blocks()
            if progress is not None:
                mono = with_progress(mono, reader.samples, progress)
            stream = resampled((block[:, None] for block in mono), reader.sample_rate, rate)
            while True:
                with watch.paused():  # files are not part of listening
                    block = next(stream, None)
                    if block is not None and picture is not None:
                        picture.push(block[:, 0])
                if block is None:
                    break
                samples += len(block)
                yield block[:, 0]

    notes, speed = measure(lambda: transcriber.notes(blocks()), lambda _: samples / rate, watch=watch)
    if not samples:
        raise UserError(f"{shown(source)}: has no samples")
    with atomic_write(output) as part:
        write_midi(notes, part)
    failed = None
    if plot is not None and picture is not None:
        failed = attempt(picture.draw, plot, notes, os.path.basename(source))
    return notes, TranscriptionFacts(
        output=output, plot=None if failed else plot, plot_error=failed, transcriber=transcriber.name,
        notes=len(notes), drums=int(notes.is_drum.sum()),
        programs=sorted({int(p) for p in notes.program[~notes.is_drum]}),
        **dataclasses.asdict(speed.rounded()))


class _Picture:
    """The spectrogram of what was heard, gathered in flat memory."""

    def __init__(self, codec: MelCodec):
        self._codec, self._stream, self._sketch = codec, MelStream(codec), SpectrogramSketch(codec.mels)

    def push(self, samples: np.ndarray) -> None:
        self._sketch.push(self._stream.push(samples))

    def draw(self, path: str, notes: Notes, name: str) -> None:
        self._sketch.push(self._stream.finish())
        plot_rendering(path, notes, self._sketch, self._codec, name)
