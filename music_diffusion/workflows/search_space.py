"""Ranges of gin bindings, as a person writes them and as Optuna draws from them.

    adamw.learning_rate=log:1e-5:1e-3      a number, evenly in its logarithm
    signal_rates.lowest=float:0.01:0.3     a number
    UNet2DConfig.blocks=int:1:4            a whole number
    UNet2DConfig.norm=choice:'batch','group'
"""

from __future__ import annotations

import ast
import dataclasses
import math
from typing import Any

from music_diffusion.errors import UserError

KINDS = ("log", "float", "int", "choice")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Range of a gin binding."""

    name: str  # as gin files bind it
    kind: str  # one of KINDS
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    def __str__(self) -> str:
        """Returns the text that `parse_range` reads."""
        if self.kind == "choice":
            return f"{self.name}=choice:{','.join(map(repr, self.choices))}"
        return f"{self.name}={self.kind}:{self.low:g}:{self.high:g}"

    def suggest(self, trial: Any) -> Any:
        """Draws a value for an `optuna.Trial`."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.name, self.choices)
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high))
        return trial.suggest_float(self.name, self.low, self.high, log=self.kind == "log")

    def near(self, value: Any) -> Any:
        """Returns the value of the range that is nearest to one; of None its middle."""
        if self.kind == "choice":
            return value if value in self.choices else self.choices[0]
        if value is None:
            value = math.sqrt(self.low * self.high) if self.kind == "log" else 0.5 * (self.low + self.high)
        value = min(max(value, self.low), self.high)
        return round(value) if self.kind == "int" else float(value)


def parse_range(text: str) -> Range:
    """Reads a range. Raises UserError that says how it is written."""
    name, equals, rest = text.partition("=")
    kind, _, values = rest.partition(":")
    name, kind = name.strip(), kind.strip()
    if not equals or not name or kind not in KINDS:
        raise UserError(f"--search {text}: write it as NAME=log:LOW:HIGH, NAME=float:LOW:HIGH, "
                        "NAME=int:LOW:HIGH or NAME=choice:A,B")
    if kind == "choice":
        try:
            choices = tuple(ast.literal_eval(f"[{values}]"))
        except (ValueError, SyntaxError):
            choices = ()
        if len(choices) < 2 or not all(isinstance(c, str | int | float) for c in choices):
            raise UserError(f"--search {text}: give two choices or more as gin writes them, such as "
                            "8,16 or 'batch','group'")
        return Range(name=name, kind=kind, choices=choices)
    low, _, high = values.partition(":")
    try:
        least, most = float(low), float(high)
    except ValueError:
        least, most = math.nan, math.nan
    if not -math.inf < least < most < math.inf or kind == "log" and least <= 0 or kind == "int" and (
            least % 1 or most % 1):
        raise UserError(f"--search {text}: give two numbers, the lower first"
                        + {"log": ", both above 0", "int": ", both whole"}.get(kind, ""))
    return Range(name=name, kind=kind, low=least, high=most)


# What Pouya Mehr et al. search (section 3.5); the ranges are ours.
PAPER = tuple(map(parse_range, (
    "adamw.learning_rate=log:1e-5:1e-3", "adamw.weight_decay=log:1e-4:1e-1",
    "signal_rates.lowest=float:0.01:0.3", "signal_rates.highest=float:0.8:0.98",
    "UNet2DConfig.blocks=int:1:4")))
