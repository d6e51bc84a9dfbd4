"""`music-diffusion restyle`."""

from __future__ import annotations

from music_diffusion.cli.changed import CHANGED, run
from music_diffusion.cli.options import argument, command, option
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows.requests import RestyleRequest


@command("music-diffusion restyle violin.wav --style guitar.wav -o OUT.wav",
         **CHANGED, source=argument("The content, any audio: WAV, FLAC, MP3, OGG, Opus or AIFF; or a "
                                    "folder of it.", "CONTENT.wav"),
         style=option("A recording that it should sound like, of a second or more.", metavar="STYLE.wav"),
         model=option("Name or folder of a model that takes a recording to sound like."),
         guidance=option("Guidance weight of the style, 1 for none; the model's own if left out."),
         content_guidance=option("Guidance weight of the content; 1 is none."),
         passes=None, texture=None, performance=None, performance_guidance=None)
def restyle(request: RestyleRequest, settings: RenderSettings, json: bool = False) -> None:
    """Play what is heard in a recording in the sound of another one."""
    run(request, settings, json)
