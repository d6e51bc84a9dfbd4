"""`music-diffusion transcribe`."""

from __future__ import annotations

import dataclasses
import json as json_module

from music_diffusion.cli.output import check_picture
from music_diffusion.cli.progress import progress_bar
from music_diffusion.errors import UserError
from music_diffusion.paths import shown, source_file
from music_diffusion.synthesis.hub import load_transcriber
from music_diffusion.synthesis.transcribe import check_files, transcribe_file


def run(*, source: str, output: str, transcriber: str, plot: str | None, onset: float | None,
        frame: float | None, json: bool) -> None:
    """See `cli.main.transcribe`."""
    with source_file(source) as file:
        _run(file, output, transcriber, plot, onset, frame, json)


def _run(source: str, output: str, transcriber: str, plot: str | None, onset: float | None,
         frame: float | None, json: bool) -> None:
    check_files(source, output, plot)  # before the transcriber is loaded
    loaded = load_transcriber(transcriber)
    decode = loaded.model.decode
    try:
        decode = dataclasses.replace(
            decode, onset_threshold=decode.onset_threshold if onset is None else onset,
            frame_threshold=decode.frame_threshold if frame is None else frame)
    except ValueError as e:
        raise UserError(f"thresholds: {e}") from e
    loaded = dataclasses.replace(loaded, model=dataclasses.replace(loaded.model, decode=decode))
    with progress_bar(f"transcribing {source}") as progress:
        _, facts = transcribe_file(loaded, source, output, plot=plot, progress=progress)
    if json:
        print(json_module.dumps(dataclasses.asdict(facts)))
    else:
        print(f"{shown(output)}: {facts.notes} notes ({facts.drums} of drums) in "
              f"{facts.audio_seconds:.1f} s of audio, "
              f"{facts.wall_seconds:.1f} s ({facts.realtime_factor:.1f} x realtime)")
    check_picture(facts.plot_error, output)
