"""Pictures of a search: the losses of its trials, and what they depend on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from music_diffusion.synthesis.plot import new_figure, title

COLOURS = {"complete": "tab:blue", "pruned": "tab:orange", "running": "tab:gray", "fail": "tab:gray",
           "waiting": "tab:gray"}
Trial = tuple[int, str, float | None, Mapping[int, float]]  # number, state, loss, losses by step


def draw_history(path: str | os.PathLike, trials: Sequence[Trial]) -> None:
    """Writes a PNG: the loss of every trial with the best so far, and their courses."""
    with new_figure(path, ncols=2, figsize=(12, 4.5)) as (_, (left, right)):
        complete = [(number, value) for number, state, value, _ in trials
                    if state == "complete" and value is not None]
        if complete:
            number, value = (np.array(x) for x in zip(*complete, strict=True))
            left.plot(number, value, "o", color=COLOURS["complete"], label="completed")
            left.step(number, np.minimum.accumulate(value), where="post", color="tab:green",
                      label="best so far")
        for number, state, _, course in trials:
            finite = {step: loss for step, loss in course.items() if np.isfinite(loss)}
            if not finite:
                continue
            right.plot(list(finite), list(finite.values()), color=COLOURS[state], alpha=0.7, marker=".")
            if state == "pruned":
                left.plot([number], [list(finite.values())[-1]], "x", color=COLOURS["pruned"])
        left.plot([], [], "x", color=COLOURS["pruned"], label="pruned")
        left.set(xlabel="trial", ylabel="validation loss")
        left.legend()
        right.set(xlabel="step", ylabel="validation loss")
        title(left, "trials")
        title(right, "their courses (orange: pruned)")


def draw_importances(path: str | os.PathLike, importances: Mapping[str, float]) -> None:
    """Writes a PNG: the share of every name in the differences of the losses."""
    with new_figure(path, figsize=(8, 1 + 0.5 * max(1, len(importances)))) as (_, axes):
        names = sorted(importances, key=lambda name: importances[name])
        axes.barh(range(len(names)), [importances[name] for name in names], color="tab:blue")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of the differences in validation loss")
        title(axes, "importances" if names else "importances: too few trials were completed")
