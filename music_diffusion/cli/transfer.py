"""`music-diffusion transfer`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.paths import shown
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.requests import TransferRequest


@command("music-diffusion transfer clarinet.wav -o strings.wav --to strings",
         source=argument("Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF; or a folder of it.", "IN.wav"),
         output=option("Where to write: .wav, .flac or .mp3; of a folder give --out-dir.", "--output", "-o",
                       metavar="OUT.wav"),
         out_dir=option("Folder for what is made of a folder's files; what is there already is kept.",
                        metavar="DIR"),
         model=option("Name or folder of a model that changes recordings."),
         plot=option("Picture: the input's spectrogram over the output's.", metavar="OUT.png"),
         to=option("Who plays: an instrument, or for each that is heard violin=flute,piano=vibraphone.",
                   metavar="TEXT"),
         source_instruments=option("Who is heard, where you know it: violin,piano.", "--from",
                                   metavar="TEXT"),
         like=option("A recording that it should sound like, of a second or more; with --to also a "
                     "performance, see `models show performances --performances`.", metavar="REF.wav"),
         mono=option("Mix the channels to one first; otherwise each is changed by itself."), passes=None)
def transfer(request: TransferRequest, settings: RenderSettings, json: bool = False) -> None:
    """Turn a recording into the same music in another timbre."""
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
