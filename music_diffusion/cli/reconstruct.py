"""`music-diffusion reconstruct`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.paths import shown
from music_diffusion.workflows.requests import ReconstructRequest


@command("music-diffusion reconstruct song.wav -o again.wav --plot again.png",
         source=argument("Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF.", "IN.wav"),
         inverter=option("griffin_lim, griffin_lim_hop, the name or folder of a trained one, "
                         "soundstream[:URL or folder] or soundstream_onnx:FILE."),
         plot=option("Picture: the input's spectrogram over the output's.", metavar="OUT.png"),
         mono=option("Mix the channels to one first; otherwise each is inverted alone."),
         json=option("Print one JSON object, with distances between input and output."))
def reconstruct(request: ReconstructRequest, json: bool = False) -> None:
    """Turn audio into a spectrogram and back: what an inverter keeps of it."""
    from music_diffusion.workflows import listen

    done = listen.reconstruct(request, terminal.TERMINAL, compare=json)
    file = done.reconstruction
    if json:
        terminal.print_json(done.facts())
    else:
        print(f"{shown(file.output)}: {file.audio_seconds:.1f} s of audio in {file.wall_seconds:.1f} s "
              f"({file.realtime_factor:.1f} x realtime, {request.inverter})")
    terminal.check_picture(file.plot_error, file.output)
