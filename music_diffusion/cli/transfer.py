"""`music-diffusion transfer`."""

from __future__ import annotations

from music_diffusion.cli.changed import CHANGED, run
from music_diffusion.cli.options import argument, command, option
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.requests import TransferRequest


@command("music-diffusion transfer clarinet.wav -o strings.wav --to strings",
         **CHANGED, source=argument("Any audio: WAV, FLAC, MP3, OGG, Opus or AIFF; or a folder of it.",
                                    "IN.wav"),
         model=option("Name or folder of a model that changes recordings."),
         to=option("Who plays: an instrument, or for each that is heard violin=flute,piano=vibraphone.",
                   metavar="TEXT"),
         source_instruments=option("Who is heard, where you know it: violin,piano.", "--from",
                                   metavar="TEXT"),
         like=option("A recording that it should sound like, of a second or more; with --to also a "
                     "performance, see `models show performances --performances`.", metavar="REF.wav"),
         passes=None)
def transfer(request: TransferRequest, settings: RenderSettings, json: bool = False) -> None:
    """Turn a recording into the same music in another timbre."""
    run(request, settings, json)
