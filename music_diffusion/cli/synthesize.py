"""`music-diffusion synthesize`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.paths import shown
from music_diffusion.synthesis.settings import RenderSettings


@command("music-diffusion synthesize song.mid -o song.wav --plot song.png",
         midi=argument("A MIDI file (also .kar, .rmi, gzipped).", "IN.mid"),
         plot=option("Picture: piano roll over spectrogram.", metavar="OUT.png"),
         normalize=option("To -14 LUFS, peak at most -1 dBTP."),
         keep=option("An earlier rendering that stays as it is, but for --bars or --anew.",
                     metavar="TAKE.wav"),
         bars=option("With --keep: bars that are played again, such as 5 or 5:6.", metavar="FIRST:LAST"),
         anew=option("With --keep: seconds that are played again, such as 3.0:5.5.", metavar="BEGIN:END"),
         strength=None)
def synthesize(midi: str, output: str, settings: RenderSettings, model: str = "default",
               inverter: str | None = None, plot: str | None = None, normalize: bool = True,
               keep: str | None = None, bars: str | None = None, anew: str | None = None,
               json: bool = False) -> None:
    """Render a MIDI file as audio."""
    from music_diffusion.errors import UserError
    from music_diffusion.notes.midi import read_midi_file
    from music_diffusion.synthesis.hub import load
    from music_diffusion.synthesis.render import check_outputs, render_file
    from music_diffusion.synthesis.retake import retake_file, stretch_of

    check_outputs(output, plot)
    if keep is None and not (bars is None and anew is None and settings.passes is None):
        raise UserError("--bars, --anew and --passes go with --keep TAKE.wav")
    file = read_midi_file(midi)  # once, as it may be a pipe; and before the model is loaded
    for line in file.report():
        terminal.say(f"warning: {terminal.one_line(line)}")
    stretch = None if keep is None else stretch_of(file, anew, bars)
    with terminal.progress_bar(f"rendering {output}") as progress:
        synthesizer = load(model, inverter)
        if keep is not None and stretch is not None:
            rendering = retake_file(synthesizer, file, keep, output, stretch=stretch, settings=settings,
                                    plot=plot, progress=progress)
        else:
            rendering = render_file(synthesizer, file, output, settings=settings, plot=plot,
                                    normalize=normalize, progress=progress)
    if json:
        terminal.print_json(rendering)
    else:
        print(f"{shown(output)}: {rendering.audio_seconds:.1f} s of audio in "
              f"{rendering.wall_seconds:.1f} s ({rendering.realtime_factor:.1f} x realtime, "
              f"{rendering.steps} steps)")
    terminal.check_picture(rendering.plot_error, output)
