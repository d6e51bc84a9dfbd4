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
    # before, after, recordings (what these score themselves): key → value; labels; ears: name → share
    # of triples in an ear's order; ear, the one that chose. {}: not evaluated
    figures: Mapping[str, Any]
    minutes: float  # of the command's last run
    held_out: tuple[str, ...]  # items
    sampling: tuple[str, ...] = ()  # gin bindings that were chosen by them


PASSED = 0.9  # share of triples from which on an ear is trusted


def figure_rows(figures: Mapping[str, Any], base: str) -> list[tuple[str, ...]]:
    """Returns (figure, before, after, of the recordings) of `Card.figures`, with a head; none without an
    evaluation."""
    if not figures:
        return []
    columns = [figures.get(key, {}) for key in ("before", "after", "recordings")]
    return [("held-out items", base, "this model", "the recordings")] + [
        (label, *(_number(column.get(key)) for column in columns))
        for key, label in figures["labels"].items()]


def verdict(figures: Mapping[str, Any], base: str) -> list[str]:
    """Returns what the figures say in sentences, each with the ear that says it."""
    if not figures:
        return []
    before, after, own = (figures.get(key, {}) for key in ("before", "after", "recordings"))
    said = []
    for ear in sorted(figures["ears"] or {figures["ear"]: None}, key=lambda ear: ear != figures["ear"]):
        share, far = figures["ears"].get(ear), after.get(f"fad:{ear}")
        trust = "" if share is None else (
            f", which puts {share:.2f} of sounds of known order right"
            + ("" if share >= PASSED else f" (below {PASSED:g}: do not rely on it)"))
        role = "chose" if ear == figures["ear"] else "did not choose"
        if (was := before.get(f"fad:{ear}")) is not None and far is not None:
            nearer = "nearer to" if far < was else "farther from"
            said.append(f"By {ear}{trust}, this model is {nearer} the recordings than {base}: "
                        f"{_number(far)}, {_number(was)}. It {role}.")
        elif far is not None:
            said.append(f"By {ear}{trust}, this model is {_number(far)} from the recordings. It {role}.")
    f1, ceiling = after.get("onset_f1"), own.get("onset_f1")
    if f1 is not None and ceiling is not None:
        said.append(f"The transcriber hears notes of this model with F1 {f1:.2f}, of the recordings "
                    f"themselves with {ceiling:.2f}: more says nothing about a model.")
    return said


def card_text(card: Card) -> str:
    """Returns the card in Markdown."""
    request, hours = card.request, card.manifest["hours"]
    rows = figure_rows(card.figures, request.base)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows[:1] + [("---",) * 4] + rows[1:])
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
    judged = "\n".join(f"- {line}" for line in verdict(card.figures, request.base))
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

{judged}

The notes are heard by this project's own transcriber, and `tagger` is its own embedding: figures to
compare models with each other, not with those of papers. Little held-out audio makes them rough{same}.

## Terms

The weights are made of those of `{request.base}`{licence} and of the recordings: whoever passes them on
needs the right to do so from the holders of the recordings' rights.
"""


def _number(value: float | None) -> str:
    return "" if value is None else number(value)
