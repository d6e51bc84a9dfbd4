"""Sources of workflows: folders that are there, and the readers of data sets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from music_diffusion.data.items import DataSet
from music_diffusion.data.sets.catalogue import CATALOGUE, open_set
from music_diffusion.errors import UserError
from music_diffusion.workflows.requests import RendersRequest

SOUNDFONT = "soundfont"  # the data set that renders its items
HELD_OUT = 0.05  # share for validation; of renders, hours of it (and of test) for each hour of training


def check_source(path: str) -> None:
    """Raises UserError where nothing is at the path."""
    if not os.path.exists(path):
        raise UserError(f"{path}: no such folder or file")


def render_options(command: str, request: RendersRequest, *, test: bool) -> dict[str, Any]:
    """Returns what a plan of renders takes of a request. Raises UserError where nothing would play."""
    if not (request.soundfonts or request.samplers):
        raise UserError(f"{command} needs --soundfont FILE.sf2 or --sampler FOLDER, once or several times")
    if request.fallback and not request.samplers:
        raise UserError(f"--sampler_fallback {request.fallback}: goes with --sampler FOLDER")
    return {"soundfonts": request.soundfonts, "samplers": request.samplers,
            "fallback": request.fallback or "", "solo": request.solo, "seed": request.seed,
            "train_hours": request.hours, "validation_hours": HELD_OUT * request.hours,
            "test_hours": HELD_OUT * request.hours * test}


def open_source(kind: str, folder: str, options: Sequence[tuple[str, str]], request: RendersRequest, *,
                test: bool, stems: bool = False) -> DataSet:
    """Opens a data set.

    Args:
      kind: name in `data.sets.catalogue`.
      folder: where it lies.
      options: of its reader, as text.
      request, test, stems: of the data set `soundfont`; others leave them.

    Raises UserError: no such data set or folder, or options that do not fit.
    """
    if kind not in CATALOGUE:
        raise UserError(f"prepare {kind}: unknown; choose a data set of `music-diffusion prepare sets`, "
                        "audio_folder or references")
    check_source(folder)
    given: dict[str, Any] = {}
    if kind == SOUNDFONT:
        given = render_options(f"prepare {kind}", request, test=test) | {"stems": stems}
    return open_set(kind, folder, given | dict(options))
