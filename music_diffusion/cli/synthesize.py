"""`music-diffusion synthesize`."""

from __future__ import annotations

import warnings

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.synthesis.settings import RenderSettings


@command("music-diffusion synthesize song.mid -o song.wav --plot song.png",
         midi=argument("A MIDI file (format 0 or 1).", "IN.mid"),
         plot=option("Picture: piano roll over spectrogram.", metavar="OUT.png"),
         normalize=option("To -14 LUFS, peak at most -1 dBTP."))
def synthesize(midi: str, output: str, settings: RenderSettings, model: str = "default",
               inverter: str | None = None, plot: str | None = None, normalize: bool = True,
               json: bool = False) -> None:
    """Render a MIDI file as audio."""
    from music_diffusion.notes.midi import read_midi
    from music_diffusion.synthesis.hub import load
    from music_diffusion.synthesis.render import check_outputs, render_file

    warnings.showwarning = lambda message, *_: terminal.say(f"warning: {message}")
    check_outputs(output, plot)
    read_midi(midi)  # a bad file is found before the model is loaded
    with terminal.progress_bar(f"rendering {output}") as progress:
        rendering = render_file(load(model, inverter), midi, output, settings=settings, plot=plot,
                                normalize=normalize, progress=progress)
    if json:
        terminal.print_json(rendering)
    else:
        print(f"{output}: {rendering.audio_seconds:.1f} s of audio in {rendering.wall_seconds:.1f} s "
              f"({rendering.realtime_factor:.1f} x realtime, {rendering.steps} steps)")
