"""`music-diffusion synthesize`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.paths import shown
from music_diffusion.synthesis.settings import RenderSettings


@command("music-diffusion synthesize song.mid -o song.wav --plot song.png",
         midi=argument("A MIDI file (also .kar, .rmi, gzipped).", "IN.mid"),
         plot=option("Picture: piano roll over spectrogram.", metavar="OUT.png"),
         normalize=option("To -14 LUFS, peak at most -1 dBTP."), strength=None, passes=None)
def synthesize(midi: str, output: str, settings: RenderSettings, model: str = "default",
               inverter: str | None = None, plot: str | None = None, normalize: bool = True,
               json: bool = False) -> None:
    """Render a MIDI file as audio."""
    from music_diffusion.notes.midi import read_midi_file
    from music_diffusion.synthesis.hub import load
    from music_diffusion.synthesis.render import check_outputs, render_file

    check_outputs(output, plot)
    file = read_midi_file(midi)  # once, as it may be a pipe; and before the model is loaded
    for line in file.report():
        terminal.say(f"warning: {terminal.one_line(line)}")
    with terminal.progress_bar(f"rendering {output}") as progress:
        rendering = render_file(load(model, inverter), file, output, settings=settings, plot=plot,
                                normalize=normalize, progress=progress)
    if json:
        terminal.print_json(rendering)
    else:
        print(f"{shown(output)}: {rendering.audio_seconds:.1f} s of audio in "
              f"{rendering.wall_seconds:.1f} s ({rendering.realtime_factor:.1f} x realtime, "
              f"{rendering.steps} steps)")
    terminal.check_picture(rendering.plot_error, output)
