"""`music-diffusion render`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.workflows.requests import ScoresRequest


@command("music-diffusion render scores/ audio/ --soundfont A.sf2 --soundfont B.sf3 --hours 2",
         scores=argument("Folder of MIDI files.", "SCORES"),
         destination=argument("Folder to write.", "OUT"),
         midi=option("Write the notes of every render beside it."),
         seed=option("Another seed draws other excerpts."))
def render(request: ScoresRequest, json: bool = False) -> None:
    """Play scores with SoundFonts, in rooms and at levels that are drawn: audio files to train on."""
    from music_diffusion.workflows.prepare import render_scores

    with terminal.progress_bar(f"rendering {request.destination}") as progress:
        render_scores(request, progress)
    terminal.print_made(request.destination, {}, json=json)
