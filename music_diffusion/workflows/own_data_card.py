"""The model card of a model trained on a user's own recordings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from music_diffusion.evaluation.charts import number
from music_diffusion.workflows.requests import OwnDataRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Content of the card."""

    request: OwnDataRequest
    manifest: Mapping[str, Any]  # of the records
    step: int  # the checkpoint that was taken
    loss: float  # of validation, there
    figures: Mapping[str, Any]  # before, after: key → value; labels
    minutes: float  # of the command's last run
    held_out: tuple[str, ...]  # items
    sampling: tuple[str, ...] = ()  # gin bindings that were chosen by them


def figure_rows(figures: Mapping[str, Any], base: str) -> list[tuple[str, str, str]]:
    """Returns (figure, before, after) of `Card.figures`, with a head; none without an evaluation."""
    if not figures:
        return []
    before, after = figures.get("before", {}), figures["after"]
    return [("held-out items", base, "this model")] + [
        (label, _number(before.get(key)), _number(after.get(key)))
        for key, label in figures["labels"].items()]


def card_text(card: Card) -> str:
    """Returns the card in Markdown."""
    request, hours = card.request, card.manifest["hours"]
    rows = figure_rows(card.figures, request.base)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows[:1] + [("---",) * 3] + rows[1:])
    took = {split: f"{60 * h:.1f} minutes, {card.manifest['notes'][split]} notes"
            for split, h in hours.items() if card.manifest["records"][split]}
    copies = (f"\nTraining items were also played up to {request.transpose} semitones higher and lower; "
              "those copies are counted here." if request.transpose else "")
    sampled = (f"\nSampled with `{'`, `'.join(card.sampling)}`, which among several values came nearest to "
               "what is\nheld out without losing notes." if card.sampling else "")
    skipped = card.manifest["skipped"]
    left_out = ("\nLeft out: " + "; ".join(f"{name} ({why})" for name, why in skipped[:20]) + ".\n"
                if skipped else "")
    licence = " (Apache-2.0)" if request.base == "default" else ""
    same = ("" if card.manifest["records"].get("test") else
            ", and the\ncheckpoint was chosen on the same items, by its loss")
    return f"""# Model card

MIDI to audio, trained on one's own recordings with `music-diffusion train --data`.

```
music-diffusion synthesize song.mid -o song.wav --model {request.output}
```

## Data

{'; '.join(f'{split}: {amount}' for split, amount in took.items())}.{copies}
Held out, for the figures: {', '.join(card.held_out)}.
{left_out}
## Training

From `{request.base}`, step {card.step} (validation loss {card.loss:.3f}), batch {request.batch},
seed {request.seed}; the command's last run took {card.minutes:.0f} minutes.{sampled}

## Figures

{table if rows else 'Not evaluated.'}

The distances are in this project's own embedding and the notes are heard by its own transcriber: figures to
compare models with each other, not with those of papers. Little held-out audio makes them rough{same}.

## Terms

The weights are made of those of `{request.base}`{licence} and of the recordings: whoever passes them on
needs the right to do so from the holders of the recordings' rights.
"""


def _number(value: float | None) -> str:
    return "" if value is None else number(value)
