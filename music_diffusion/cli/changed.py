"""Recordings that are changed: what `transfer` and `restyle` share."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import option
from music_diffusion.paths import shown
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.requests import RestyleRequest, TransferRequest

CHANGED = {
    "output": option("Where to write: .wav, .flac or .mp3; of a folder give --out-dir.", "--output", "-o",
                     metavar="OUT.wav"),
    "out_dir": option("Folder for what is made of a folder's files; what is there already is kept.",
                      metavar="DIR"),
    "plot": option("Picture: the input's spectrogram over the output's.", metavar="OUT.png"),
    "mono": option("Mix the channels to one first; otherwise each is changed by itself."),
}


def run(request: TransferRequest | RestyleRequest, settings: RenderSettings, json: bool) -> None:
    """Changes a recording, or a folder of them, and says what was done."""
    from music_diffusion.workflows import transfer as work

    if request.out_dir is not None:
        done = work.transfer_folder(request, settings, terminal.TERMINAL)
        for name, why in done.skipped:
            terminal.say(f"skipped {shown(name)}: {terminal.one_line(why)}")
        if json:
            terminal.print_json(done)
        else:
            print(f"{shown(request.out_dir)}: {len(done.made)} files, {done.kept} of them there before")
        return
    file = work.transfer(request, settings, terminal.TERMINAL)
    if json:
        terminal.print_json(file)
    else:
        print(f"{shown(file.output)}: {file.audio_seconds:.1f} s of audio in {file.wall_seconds:.1f} s "
              f"({file.realtime_factor:.1f} x realtime, {file.steps} steps)")
    terminal.check_picture(file.plot_error, file.output)
