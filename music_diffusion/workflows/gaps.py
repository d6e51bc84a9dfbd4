"""Gaps in recordings, filled by a generator as it is shown them, by projection, and by simple means."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from music_diffusion.conditions.base import Source
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import AUDIO, find_files
from music_diffusion.evaluation.seams import Piece, seams
from music_diffusion.evaluation.sounds import SILENCE, read_start
from music_diffusion.files import write_json
from music_diffusion.models.unconditional import UnconditionalModel
from music_diffusion.notes.heard import level
from music_diffusion.synthesis.hub import load
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.workflows.monitor import SILENT, Monitor
from music_diffusion.workflows.requests import GapsRequest

GAPS_FILE = "gaps.json"
MOST_SECONDS = 600.0  # of the start of a recording, from which an excerpt is drawn
LEAST_SHARE = 0.25  # of a segment that is known on either side of a gap

Mel = Float[np.ndarray, "T F"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """Excerpt of a recording, of which a part is to be made anew."""

    mel: Mel  # nat, at the model's level
    first: int  # frames of the gap
    last: int
    elsewhere: Mel  # as many frames of another place of the recording

    @property
    def region(self) -> Bool[np.ndarray, "T F"]:
        """Returns the cells that stay."""
        region = np.ones(self.mel.shape, bool)
        region[self.first:self.last] = False
        return region


Fill = Callable[[Gap], Mel]  # of what is in the gap nothing is used


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapScores:
    """Figures of one way to fill gaps."""

    error: float  # mean difference from what was there, nat: low is right, and nothing else is wrong
    edges: float  # change of the spectrogram at the edges, over that elsewhere in the same excerpts
    p: float  # that the edges stand out so much, or more, comes by chance
    spread: float  # deviation over time within the gap, over that of what was there; 1 is as lively
    outside: float  # largest change of what stays, nat


def measure_gaps(request: GapsRequest, output: str | None = None, monitor: Monitor = SILENT
                 ) -> dict[str, Any]:
    """Opens a gap in excerpts of recordings, and fills it in several ways.

    Args:
      request: the model and the recordings.
      output: folder that gets gaps.json; None: none.
      monitor: gets the progress.

    Returns the fields of `GapScores` for each way, by name.

    Raises UserError: a model that makes nothing from noise, or no recordings of a segment's length.
    """
    synthesizer = load(request.model)
    model = synthesizer.model
    if not isinstance(model, UnconditionalModel):
        raise UserError(f"{request.model}: makes nothing from noise alone; use a model that was trained to")
    gaps = _draw(request, synthesizer, model)
    settings = RenderSettings(steps=request.steps, seed=request.seed)
    ways: dict[str, Fill] = {}
    if model.config.regions:
        ways["seen by the network"] = _by_model(synthesizer, settings)
    blind = dataclasses.replace(synthesizer, model=dataclasses.replace(model, sees=False))
    for passes in request.passes:
        ways[f"projected, {passes} pass{'es' * (passes > 1)}"] = _by_model(
            blind, settings.changed(passes=passes))
    ways |= {"a line from edge to edge": _line, "another place of the recording": _elsewhere,
             "what was there": lambda gap: gap.mel}
    rows: dict[str, dict[str, float]] = {}
    with monitor.bar(f"filling gaps with {request.model}") as progress:
        for k, (name, fill) in enumerate(ways.items()):
            filled = []
            for i, gap in enumerate(gaps):
                filled.append(fill(gap))
                progress((k + (i + 1) / len(gaps)) / len(ways))
            rows[name] = dataclasses.asdict(scores(gaps, filled, request.seed))
    facts = {"model": synthesizer.name, "gaps": len(gaps), "seconds": request.gap, "rows": rows}
    if output is not None:
        folder = pathlib.Path(output)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / GAPS_FILE, facts)
    return facts


def scores(gaps: list[Gap], filled: list[Mel], seed: int = 0) -> GapScores:
    """Returns the figures of gaps that were filled in one way."""
    pieces = [Piece(mel=mel, joins=np.array([gap.first, gap.last]), overlap=0, onsets=np.zeros(0, int))
              for gap, mel in zip(gaps, filled, strict=True)]
    test = seams(pieces, along=False, seed=seed).change
    inside = [(gap.mel[gap.first:gap.last], mel[gap.first:gap.last])
              for gap, mel in zip(gaps, filled, strict=True)]
    return GapScores(
        error=float(np.mean([np.abs(a - b).mean() for a, b in inside])), edges=float(test.ratio), p=test.p,
        spread=float(np.mean([b.std(axis=0).mean() for _, b in inside])
                     / np.mean([a.std(axis=0).mean() for a, _ in inside])),
        outside=float(max(np.abs(mel - gap.mel)[gap.region].max()
                          for gap, mel in zip(gaps, filled, strict=True))))


def _by_model(synthesizer: Synthesizer, settings: RenderSettings) -> Fill:
    def fill(gap: Gap) -> Mel:
        known = np.where(gap.region, gap.mel, np.float32(0))
        source = Source(codec=synthesizer.codec, frames=len(known), mel=known, region=gap.region)
        return np.concatenate(list(synthesizer.stream_mel(source, settings)))

    return fill


def _line(gap: Gap) -> Mel:
    share = np.linspace(0, 1, gap.last - gap.first + 2)[1:-1, None]
    filled = gap.mel.copy()
    filled[gap.first:gap.last] = (1 - share) * gap.mel[gap.first - 1] + share * gap.mel[gap.last]
    return filled


def _elsewhere(gap: Gap) -> Mel:
    filled = gap.mel.copy()
    filled[gap.first:gap.last] = gap.elsewhere
    return filled


def _draw(request: GapsRequest, synthesizer: Synthesizer, model: UnconditionalModel) -> list[Gap]:
    """Draws excerpts of a segment's length, each of another recording as far as there are others."""
    codec, frames = synthesizer.codec, model.frames
    size, most = round(request.gap * codec.frame_rate), (1 - 2 * LEAST_SHARE) * frames
    if size > most:
        raise UserError(f"a gap of {request.gap:g} s: give {most / codec.frame_rate:g} s or less, so that "
                        "the model sees what is around")
    rng = np.random.default_rng(request.seed)
    paths = list(find_files(request.reference, AUDIO, "audio")[0].values())
    gaps: list[Gap] = []
    for path in (paths[i] for i in rng.permutation(len(paths))[:request.count]):
        wave, facts = read_start(path, MOST_SECONDS)
        mel = codec.encode(wave.resample(codec.sample_rate).samples)
        if len(mel) < frames + size or facts.peak < SILENCE:
            continue
        mel = np.maximum(mel - np.float32(level(mel) - LEVEL), codec.log_min).astype(np.float32)
        begin, other = rng.integers(len(mel) - frames + 1), rng.integers(len(mel) - size + 1)
        first = (frames - size) // 2
        gaps.append(Gap(mel=mel[begin:begin + frames], first=first, last=first + size,
                        elsewhere=mel[other:other + size]))
    if not gaps:
        raise UserError(f"{request.reference}: no recording of {(frames + size) / codec.frame_rate:g} s or "
                        "more that is not silent")
    return gaps
