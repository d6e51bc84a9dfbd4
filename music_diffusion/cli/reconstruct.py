"""`music-diffusion reconstruct`."""

from __future__ import annotations

import dataclasses
import json as json_module

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.cli.output import check_picture
from music_diffusion.cli.progress import progress_bar
from music_diffusion.evaluation.spectral import FineSpectralDistance, LogMelDistance
from music_diffusion.paths import shown, source_file
from music_diffusion.synthesis.hub import load_inverter
from music_diffusion.synthesis.reconstruct import check_files, reconstruct_file


class Distances:
    """What `--json` tells of output against input: means over the channels."""

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
        log_mel, fine = np.mean([[d.finish() for d in c] for c in self._channels], axis=0)
        return {"log_mel_l1": round(float(log_mel), 4), "fine_spectral_distance": round(float(fine), 4)}


def run(*, source: str, output: str, inverter: str, plot: str | None, mono: bool, json: bool) -> None:
    """See `cli.main.reconstruct`."""
    with source_file(source) as file:
        _run(file, output, inverter, plot, mono, json)


def _run(source: str, output: str, inverter: str, plot: str | None, mono: bool, json: bool) -> None:
    check_files(source, output, plot)  # before the inverter is loaded
    with progress_bar(f"reconstructing {output}") as progress:
        loaded = load_inverter(inverter)
        distances = Distances(loaded.codec) if json else None
        done = reconstruct_file(loaded, source, output, name=inverter, mono=mono, plot=plot,
                                observe=distances.push if distances else None, progress=progress)
    if distances:
        print(json_module.dumps(dataclasses.asdict(done) | distances.finish()))
    else:
        print(f"{shown(output)}: {done.audio_seconds:.1f} s of audio in {done.wall_seconds:.1f} s "
              f"({done.realtime_factor:.1f} x realtime, {inverter})")
    check_picture(done.plot_error, output)
