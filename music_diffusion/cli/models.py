"""`music-diffusion models`."""

from __future__ import annotations

import json as json_module

from music_diffusion.errors import UserError
from music_diffusion.models.weights import WEIGHTS
from music_diffusion.synthesis.hub import available, find


def run(*, action: str, name: str, json: bool) -> None:
    """See `cli.main.models`."""
    if action == "list":
        facts = [{"name": n, "megabytes": round((find(n) / WEIGHTS).stat().st_size / 1e6, 1),
                  "folder": str(find(n))} for n in available()]
        if json:
            print(json_module.dumps({"models": facts}))
        for fact in [] if json else facts:
            print(f"{fact['name']:20s} {fact['megabytes']:6.1f} MB  {fact['folder']}")
    elif action == "show":
        card = find(name) / "README.md"
        text = card.read_text() if card.is_file() else f"{name}: no model card"
        print(json_module.dumps({"name": name, "card": text}) if json else text)
    else:
        raise UserError(f"models {action}: unknown; use list or show")
