"""`music-diffusion evaluate --seams`: does one hear where the segments of a rendering meet?"""

from __future__ import annotations

import dataclasses
import json as json_module
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from music_diffusion.cli.progress import progress_bar
from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import NOTES, find_files
from music_diffusion.evaluation.scoring import cut_notes
from music_diffusion.evaluation.seams import Piece, Seams, seams
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.joining import OVERLAP, Windows
from music_diffusion.synthesis.synthesizer import Settings, Synthesizer

FILE = "seams.json"
NOT_CHANCE = 0.05  # a smaller p is a seam


class Apart(Windows):
    """Windows that know nothing of each other, one at a time: there is nothing to fade."""

    def fade(self, x0: jax.Array, *_: Any) -> jax.Array:
        return x0


def run(*, model: str, notes: str | None, steps: int | None, max_minutes: float, seed: int,
        output: str | None, json: bool) -> None:
    """See `cli.main.evaluate`."""
    if notes is None:
        raise UserError("--notes is missing: give the folder of MIDI files to render")
    files, _ = find_files(notes, NOTES, "MIDI")
    synthesizer = load(model)
    pieces: list[tuple[Piece, Piece]] = []
    with progress_bar(f"rendering with {model}") as progress:
        for i, path in enumerate(files.values()):
            def told(share: float, i: int = i) -> None:
                progress((i + share) / len(files))

            piece = cut_notes(read_midi(path), 60 * max_minutes)
            pieces.append(render_pair(synthesizer, piece, Settings(steps=steps, seed=seed), told))
    facts = compare(pieces, seed) | {"model": synthesizer.name, "pieces": len(pieces)}
    if output is not None:
        folder = pathlib.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json_module.dumps(facts, indent=1, allow_nan=False) + "\n")
    print(json_module.dumps(facts, allow_nan=False) if json else table(facts))


def render_pair(synthesizer: Synthesizer, notes: Notes, settings: Settings,
                progress: Callable[[float], None] = lambda share: None) -> tuple[Piece, Piece]:
    """A piece with overlapping segments, and with segments that were made each by itself.

    The latter are the windows of the former, denoised without regard to each other and cut where the
    next one begins; neighbours are of different seeds.

    Raises UserError for a model that does not make segments with overlaps.
    """
    joining = synthesizer.joining_of(settings)
    windows = getattr(joining, "windows", None)
    if joining.name(synthesizer.model) != OVERLAP or not isinstance(windows, Windows):
        raise UserError(f"{synthesizer.name}: its segments do not overlap; --seams needs a model whose "
                        "segments do")
    # Those of the synthesizer as it is now: a setting would be applied to the windows again.
    plain = dataclasses.replace(settings, joining=None, overlap=None, segment=None)

    def mel(windows: Windows, seed: int, part: int) -> Float[np.ndarray, "T F"]:
        changed = dataclasses.replace(synthesizer, joining=dataclasses.replace(
            joining, windows=windows))  # type: ignore[type-var]
        blocks = changed.stream_mel(notes, dataclasses.replace(plain, seed=seed),
                                    lambda share: progress((part + share) / 3))
        return np.concatenate(list(blocks))

    apart = Apart(frames=windows.frames, overlap=windows.overlap, group=1)
    faded = mel(windows, settings.seed, 0)
    even, odd = (mel(apart, settings.seed + k, k) for k in (1, 2))
    joins = np.arange(windows.stride, len(faded) - windows.overlap, windows.stride)
    segment = np.searchsorted(joins, np.arange(len(faded)), side="right")
    cut = np.where(segment[:, np.newaxis] % 2 == 0, even, odd)
    onsets = np.floor(notes.start * synthesizer.codec.frame_rate).astype(int)
    whole = Piece(mel=faded, joins=joins, overlap=windows.overlap, onsets=onsets)
    return whole, dataclasses.replace(whole, mel=cut, overlap=0)


def compare(pieces: list[tuple[Piece, Piece]], seed: int = 0) -> dict[str, Any]:
    """The statistics of both kinds. Raises UserError where no segments meet."""
    faded, cut = ([pair[k] for pair in pieces] for k in (0, 1))
    rows = {"overlap, where segments begin": seams(faded, along=False, seed=seed),
            "overlap, all along": seams(faded, seed=seed),
            "independent": seams(cut, seed=seed)}
    return {"rows": {name: _facts(found) for name, found in rows.items()},
            "joins": rows["independent"].change.joins, "units": {"change": "nat", "level": "dB"}}


def _facts(found: Seams) -> dict[str, dict[str, float]]:
    return {kind: dataclasses.asdict(test) for kind, test in
            (("change", found.change), ("level", found.level))}


def table(facts: dict[str, Any]) -> str:
    """For people, in Markdown."""
    lines = [f"# Seams of {facts['model']}: {facts['joins']} joins in {facts['pieces']} pieces", "",
             "| segments | statistic | at joins | elsewhere (95 %) | percentile | p | |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, row in facts["rows"].items():
        for kind, unit, what in (("change", "nat", "change from frame to frame"),
                                 ("level", "dB", "step of the level")):
            test = row[kind]
            lines.append(f"| {name} | {what} | {test['at_joins']:.3f} {unit} | {test['elsewhere']:.3f} "
                         f"({test['low']:.3f} … {test['high']:.3f}) | {test['percentile']:.1f} | "
                         f"{test['p']:.3g} | {'seam' if test['p'] < NOT_CHANCE else 'none found'} |")
    return "\n".join(lines)
