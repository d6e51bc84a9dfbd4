"""Recordings listened to: the sound that an inverter keeps of one, or the notes in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.evaluation.spectral import FineSpectralDistance, LogMelDistance
from music_diffusion.paths import shown, source_file
from music_diffusion.synthesis.hub import load_inverter, load_transcriber
from music_diffusion.synthesis.reconstruct import Reconstruction, reconstruct_file
from music_diffusion.synthesis.reconstruct import check_files as check_reconstruction
from music_diffusion.synthesis.transcribe import TranscriptionFacts, transcribe_file
from music_diffusion.synthesis.transcribe import check_files as check_transcription
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import ReconstructRequest, TranscribeRequest


class OutputDistances:
    """Distances of output from input: means over the channels."""

    def __init__(self, codec: MelCodec):
        self._codec = codec
        self._channels: list[tuple[LogMelDistance, FineSpectralDistance]] = []

    def push(self, given: np.ndarray, made: np.ndarray) -> None:
        """Takes the next samples [n, C] of both."""
        if not self._channels:
            self._channels = [(LogMelDistance(self._codec),
                               FineSpectralDistance(self._codec.sample_rate))
                              for _ in range(given.shape[1])]
        for distances, a, b in zip(self._channels, given.T, made.T, strict=True):
            for distance in distances:
                distance.push(a, b)

    def finish(self) -> dict[str, float]:
        """Returns log_mel_l1 (nat) and fine_spectral_distance."""
        log_mel, fine = np.mean([[d.finish() for d in c] for c in self._channels], axis=0)
        return {"log_mel_l1": round(float(log_mel), 4), "fine_spectral_distance": round(float(fine), 4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """A reconstruction, and how far it is from its input."""

    reconstruction: Reconstruction
    distances: dict[str, float] | None  # None: not measured

    def facts(self) -> dict:
        """Returns all of it, for machines."""
        return dataclasses.asdict(self.reconstruction) | (self.distances or {})


def reconstruct(request: ReconstructRequest, monitor: Monitor = SILENT, *, compare: bool = True
                ) -> Compared:
    """Turns audio into a spectrogram and back; measures distances, too, if `compare`.

    Raises UserError for files that cannot be read or written (before the inverter is loaded), and
    as `synthesis.hub.load_inverter` does.
    """
    with source_file(request.source) as source:
        return _reconstruct(dataclasses.replace(request, source=source), monitor, compare)


def _reconstruct(request: ReconstructRequest, monitor: Monitor, compare: bool) -> Compared:
    check_reconstruction(request.source, request.output, request.plot)
    with monitor.bar(f"reconstructing {shown(request.output)}") as progress:
        inverter = load_inverter(request.inverter)
        distances = OutputDistances(inverter.codec) if compare else None
        done = reconstruct_file(inverter, request.source, request.output, name=request.inverter,
                                mono=request.mono, plot=request.plot,
                                observe=distances.push if distances else None, progress=progress)
    return Compared(reconstruction=done, distances=distances.finish() if distances else None)


def transcribe(request: TranscribeRequest, monitor: Monitor = SILENT) -> TranscriptionFacts:
    """Writes the notes of a recording as a MIDI file.

    Raises UserError for files that cannot be read or written (before the transcriber is loaded), a
    threshold out of its range, and as `synthesis.hub.load_transcriber` does.
    """
    with source_file(request.source) as source:
        return _transcribe(dataclasses.replace(request, source=source), monitor)


def _transcribe(request: TranscribeRequest, monitor: Monitor) -> TranscriptionFacts:
    check_transcription(request.source, request.output, request.plot)
    transcriber = load_transcriber(request.transcriber)
    model = transcriber.model
    asked: dict[str, Any] = {"onset_threshold": request.onset, "frame_threshold": request.frame}
    try:
        decode = dataclasses.replace(model.decode, **{k: v for k, v in asked.items() if v is not None})
    except ValueError as e:
        raise UserError(f"thresholds: {e}") from e
    transcriber = dataclasses.replace(transcriber, model=dataclasses.replace(model, decode=decode))
    with monitor.bar(f"transcribing {shown(request.source)}") as progress:
        return transcribe_file(transcriber, request.source, request.output, plot=request.plot,
                               progress=progress)[1]
