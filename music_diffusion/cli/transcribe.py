"""`music-diffusion transcribe`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.paths import shown
from music_diffusion.workflows.requests import TranscribeRequest


@command("music-diffusion transcribe song.wav -o song.mid --plot song.png",
         source=argument("Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF.", "IN.wav"),
         output=option("Where to write the notes.", "--output", "-o", metavar="OUT.mid"),
         transcriber=option("Name or folder of a trained transcriber."),
         plot=option("Picture: the notes over the recording's spectrogram.", metavar="OUT.png"),
         onset=option("Least activation that begins a note; lower hears more notes."),
         frame=option("Least activation that holds a note; lower makes notes longer."))
def transcribe(request: TranscribeRequest, json: bool = False) -> None:
    """Write down the notes of a recording, with instruments and drums."""
    from music_diffusion.workflows import listen

    facts = listen.transcribe(request, terminal.TERMINAL)
    if json:
        terminal.print_json(facts)
    else:
        print(f"{shown(facts.output)}: {facts.notes} notes ({facts.drums} of drums) in "
              f"{facts.audio_seconds:.1f} s of audio, {facts.wall_seconds:.1f} s "
              f"({facts.realtime_factor:.1f} x realtime)")
    terminal.check_picture(facts.plot_error, facts.output)
