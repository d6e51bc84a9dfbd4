"""`music-diffusion render`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import argument, command, option
from music_diffusion.workflows.requests import ScoresRequest


@command("music-diffusion render scores/ audio/ --soundfont A.sf2 --sampler notes/ --hours 2",
         scores=argument("Folder of MIDI files.", "SCORES"),
         destination=argument("Folder to write.", "OUT"),
         room_responses=option("Impulse responses of rooms, beside those that are made.", metavar="FOLDER"),
         room_licences=option("Use those of a licence alone, by their impulse_responses.csv; repeatable.",
                              "--room-licence", "--room_licence", metavar="LICENCE"),
         tuning=option("Tune each excerpt up to so many cents higher or lower.", metavar="CENTS"),
         vibrato=option("Share of excerpts whose sustained recorded notes get vibrato.", metavar="0..1"),
         degraded=option("Share of excerpts through microphones, noise, compression, codecs.",
                         metavar="0..1"),
         midi=option("Write the notes of every render beside it."),
         seed=option("Another seed draws other excerpts."))
def render(request: ScoresRequest, json: bool = False) -> None:
    """Play scores with SoundFonts or recorded notes, in drawn rooms and levels: audio files to train on."""
    from music_diffusion.workflows.prepare import render_scores

    with terminal.progress_bar(f"rendering {request.destination}") as progress:
        skipped = render_scores(request, progress)
    for name, why in skipped[:1]:
        terminal.say(f"skipped {len(skipped)} excerpts, e.g. {name}: {why}")
    terminal.print_made(request.destination, {"skipped": skipped} if skipped else {}, json=json)
