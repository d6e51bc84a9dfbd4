"""`music-diffusion generate`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.paths import shown
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.requests import GenerateRequest


@command("music-diffusion generate -o OUT.wav --seconds 30 --class orchestral",
         output=option("Where to write: .wav, .flac or .mp3; of several takes give --out-dir.", "--output",
                       "-o", metavar="OUT.wav"),
         seconds=option("How long; 10 if left out.", metavar="SECONDS"),
         model=option("Name or folder of a model that makes sound from noise; generator if left out, "
                      "with --style transfer, which restyles what that makes."),
         class_name=option("One of the model's classes (models show generator), or NAME:0.7+NAME:0.3.",
                           "--class", metavar="TEXT"),
         style=option("A recording that it should sound like, of a model that restyles.",
                      metavar="STYLE.wav"),
         continued=option("A recording that goes on, for --seconds.", "--continue", metavar="IN.wav"),
         until=option("With --continue: the recording that it is led to.", metavar="NEXT.wav"),
         edit=option("A recording of which a part is made anew: --inpaint, --band or both.",
                     metavar="IN.wav"),
         inpaint=option("With --edit: from and to, in seconds, such as 3.0:5.5.", metavar="BEGIN:END"),
         band=option("With --edit: frequencies in Hz, such as 0:2000.", metavar="LOW:HIGH"),
         vary=option("A recording of which a variation is made; see --strength.", metavar="IN.wav"),
         loop=option("Let its end lead to its beginning."),
         count=option("Takes, with seeds one after the other."),
         out_dir=option("Folder of several takes.", metavar="DIR"),
         plot=option("Picture of the spectrogram.", metavar="OUT.png"),
         temperature=None, texture=None, performance=None, performance_guidance=None)
def generate(request: GenerateRequest, settings: RenderSettings, json: bool = False) -> None:
    """Make sound from noise: free, from a recording on, or in place of a part of one."""
    from music_diffusion.workflows.generate import generate as work

    takes = work(request, settings, terminal.TERMINAL)
    if json:
        terminal.print_json(takes[0] if request.out_dir is None else takes)
        return
    for take in takes:
        print(f"{shown(take.output)}: {take.audio_seconds:.1f} s of audio in {take.wall_seconds:.1f} s "
              f"({take.realtime_factor:.1f} x realtime, {take.steps} steps)")
        terminal.check_picture(take.plot_error, take.output)
