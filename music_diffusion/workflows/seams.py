"""Does one hear where the segments of a rendering meet?"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import NOTES, find_files
from music_diffusion.evaluation.scoring import cut_notes
from music_diffusion.evaluation.seams import Piece, Seams, seams
from music_diffusion.files import write_json
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.context import ChainJoining
from music_diffusion.synthesis.generate import free_source
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.types import Progress
from music_diffusion.workflows.monitor import SILENT, Monitor, part_of, unseen
from music_diffusion.workflows.requests import SeamsRequest

SEAMS_FILE = "seams.json"


class Apart(Windows):
    """Windows that know nothing of each other, one at a time: there is nothing to fade."""

    def fade(self, x0: jax.Array, *_: Any) -> jax.Array:
        return x0


def measure_seams(request: SeamsRequest, output: str | None = None, monitor: Monitor = SILENT
                  ) -> dict[str, Any]:
    """Renders every piece with segments that meet and with independent ones, and compares their joins.

    Args:
      request: the model and the notes.
      output: folder that gets seams.json; None: none.
      monitor: gets the progress.

    Returns the statistics of `compare`, with the model and the number of pieces.

    Raises UserError: no MIDI files, no such model, or one whose segments do not meet.
    """
    files = [] if request.notes is None else list(find_files(request.notes, NOTES, "MIDI")[0].values())
    synthesizer = load(request.model)
    settings = RenderSettings(steps=request.steps, seed=request.seed)
    pieces: list[tuple[Piece, Piece]] = []
    with monitor.bar(f"rendering with {request.model}") as progress:
        for i, path in enumerate(files):
            piece = cut_notes(read_midi(path), 60 * request.max_minutes)
            pieces.append(render_pair(synthesizer, piece, settings, part_of(progress, i, len(files))))
        for i in range(request.count if request.notes is None else 0):
            own = settings.changed(seed=request.seed + i)
            pieces.append(generate_pair(synthesizer, request.seconds, own,
                                        part_of(progress, i, request.count)))
    facts = compare(pieces, request.seed) | {"model": synthesizer.name, "pieces": len(pieces)}
    if output is not None:
        folder = pathlib.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SEAMS_FILE, facts)
    return facts


def render_pair(synthesizer: Synthesizer, notes: Notes, settings: RenderSettings,
                progress: Progress = unseen) -> tuple[Piece, Piece]:
    """Returns a piece with overlapping segments, and with segments that were made each by itself.

    The latter are the windows of the former, denoised without regard to each other and cut where the
    next one begins; neighbours are of different seeds.

    Raises UserError for a model that does not make segments with overlaps.
    """
    joining = synthesizer.joining_of(settings)
    if not isinstance(joining, OverlapJoining):
        raise UserError(f"{synthesizer.name}: its segments do not overlap; --seams needs a model whose "
                        "segments do")
    windows = joining.windows
    # A setting would come before the synthesizer's own windows.
    plain = dataclasses.replace(settings, joining=None, overlap=None, segment=None)

    def mel(windows: Windows, seed: int, part: int) -> Float[np.ndarray, "T F"]:
        changed = dataclasses.replace(synthesizer, joining=OverlapJoining(windows=windows))
        blocks = changed.stream_mel(notes, dataclasses.replace(plain, seed=seed),
                                    part_of(progress, part, 3))
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


def generate_pair(synthesizer: Synthesizer, seconds: float, settings: RenderSettings,
                  progress: Progress = unseen) -> tuple[Piece, Piece]:
    """Returns sound from noise whose segments go on from the one before, and of segments by themselves.

    Raises UserError for a model that makes nothing from noise, or whose segments have no context.
    """
    source, joining = free_source(synthesizer, seconds), synthesizer.joining_of(settings)
    if not isinstance(joining, ChainJoining) or not joining.shared:
        raise UserError(f"{synthesizer.name}: its segments do not go on from each other; give a model with "
                        "context, or --notes for one that plays notes")
    stride = joining.frames - joining.shared
    apart = ChainJoining(frames=stride, context=False)
    pair = []
    for part, (how, first) in enumerate(((joining, joining.frames), (apart, stride))):
        changed = dataclasses.replace(synthesizer, joining=how)
        mel = np.concatenate(list(changed.stream_mel(source, settings, part_of(progress, part, 2))))
        pair.append(Piece(mel=mel, joins=np.arange(first, len(mel), stride), overlap=0,
                          onsets=np.zeros(0, int)))
    return pair[0], pair[1]


def compare(pieces: list[tuple[Piece, Piece]], seed: int = 0) -> dict[str, Any]:
    """Returns the statistics of both kinds. Raises UserError where no segments meet."""
    faded, cut = ([pair[k] for pair in pieces] for k in (0, 1))
    if any(piece.overlap for piece in faded):
        rows = {"overlap, where segments begin": seams(faded, along=False, seed=seed),
                "overlap, all along": seams(faded, seed=seed)}
    else:
        rows = {"context": seams(faded, seed=seed)}
    rows["independent"] = seams(cut, seed=seed)
    return {"rows": {name: _facts(found) for name, found in rows.items()},
            "joins": next(iter(rows.values())).change.joins, "units": {"change": "nat", "level": "dB"}}


def _facts(found: Seams) -> dict[str, dict[str, float]]:
    return {kind: dataclasses.asdict(test) for kind, test in
            (("change", found.change), ("level", found.level))}
