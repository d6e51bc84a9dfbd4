"""`music-diffusion adapt`."""

from __future__ import annotations

from music_diffusion.cli import terminal
from music_diffusion.cli.options import command, option
from music_diffusion.workflows.requests import AdaptRequest


@command("music-diffusion adapt --audio take.wav --midi take.mid --name mine -o my_model",
         audio=option("A recording of the performance, a minute or more; repeatable.", metavar="IN.wav"),
         midi=option("Its notes, in time with it; as often as --audio, in the same order.",
                     metavar="IN.mid"),
         name=option("What the performance will be called."),
         output=option("Folder of the model that knows it, too.", "--output", "-o", metavar="MODEL"),
         base=option("Name or folder of a model with performances.", "--from", metavar="MODEL"),
         room=option("What to note of the room and the microphone."),
         steps=option("Training steps, of the notes and of the rest; by default 300 and 600."),
         bindings=option("Changes recipes/fine_tune/adapt.gin; repeatable.", "--binding",
                         metavar="NAME=VALUE"),
         seed=option("Of training."))
def adapt(request: AdaptRequest, json: bool = False) -> None:
    """Teach a model one more performance, from recordings with their notes; the others stay as they are."""
    from music_diffusion.workflows.adapt import add_performance

    added = add_performance(request, terminal.TERMINAL)
    if json:
        terminal.print_json(added)
    else:
        terminal.say(f"done in {added.minutes:.1f} minutes: music-diffusion synthesize song.mid "
                     f"-o song.wav --model {added.model} --performance {added.performance}")
