"""`music-diffusion models`."""

from __future__ import annotations

import dataclasses
import json as json_module

from music_diffusion.errors import UserError
from music_diffusion.models.performances import FILE, Performances, read_performances
from music_diffusion.models.weights import WEIGHTS, weight_files
from music_diffusion.synthesis.hub import available, find, load_performances
from music_diffusion.tables import read_text

SHOWN = 3  # instruments of a performance that a table names


def run(*, action: str, name: str, performances: bool, json: bool) -> None:
    """See `cli.main.models`."""
    if action == "list":
        facts = [_fact(n) for n in available()]
        if json:
            print(json_module.dumps({"models": facts}))
        for fact in [] if json else facts:
            known = f"{fact['performances']} performances" if fact["performances"] else ""
            print(f"{fact['name']:20s} {fact['megabytes']:6.1f} MB  {known:16s}  {fact['folder']}")
    elif action == "show" and performances:
        known_performances = load_performances(name)
        if known_performances is None:
            raise UserError(f"{name}: this model knows no performances")
        if json:
            print(json_module.dumps({"name": name, "default": known_performances.default, "performances": [
                dataclasses.asdict(p) for p in known_performances.performances]}))
        else:
            _print_table(known_performances)
    elif action == "show":
        card = find(name) / "README.md"
        text = read_text(card) if card.is_file() else f"{name}: no model card"
        print(json_module.dumps({"name": name, "card": text}) if json else text)
    else:
        raise UserError(f"models {action}: unknown; use list or show")


def _fact(name: str) -> dict:
    folder = find(name)
    file = folder / FILE
    size = sum(path.stat().st_size for path in weight_files(folder / WEIGHTS))
    return {"name": name, "megabytes": round(size / 1e6, 1),
            "performances": len(read_performances(file).names) if file.is_file() else 0,
            "folder": str(folder)}


def _print_table(performances: Performances) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(Column("performance", no_wrap=True), "source", "instruments", "room",
                  Column("minutes", justify="right"), box=None, pad_edge=False)
    for p in performances.performances:
        shown, more = ", ".join(p.instruments[:SHOWN]), len(p.instruments) - SHOWN
        if more > 0:
            shown += f" and {more} more"
        name = p.name + (" (default)" if p.name == performances.default else "")
        # Text: brackets are markup in plain strings.
        table.add_row(*map(Text, (name, p.source, shown, p.room, f"{p.minutes:.1f}")))
    Console().print(table)
