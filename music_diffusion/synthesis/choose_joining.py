"""Which joining a model gets, and what a user may change of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.spectrogram_diffusion import SpectrogramDiffusionModel
from music_diffusion.synthesis.context import ContextJoining
from music_diffusion.synthesis.joining import CONTEXT, NOISE_BLOCK, OVERLAP, Joining
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.performance import table_config
from music_diffusion.synthesis.token_overlap import TokenOverlapJoining

CHOICES = (OVERLAP, CONTEXT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class JoiningOptions:
    """What a user may ask for; None: as the model has it."""

    joining: str | None = None  # overlap or context
    overlap: float | None = None  # seconds that neighbouring segments share
    segment: float | None = None  # seconds of a segment; of frame models

    def __post_init__(self):
        if self.joining is not None and self.joining not in CHOICES:
            raise UserError(f"--joining {self.joining}: unknown; choose {' or '.join(CHOICES)}")
        for name in ("overlap", "segment"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"--{name} {value:g}: give seconds above 0")

    def apply(self, joining: Joining, model: Any) -> Joining:
        """A joining of a model with these options.

        Raises UserError: context of a model that has none, or lengths that cannot be.
        """
        if self.joining is not None and self.joining != joining.name(model):
            joining = _overlap_of(model) if self.joining == OVERLAP else _context_of(model)
        if self.overlap is None and self.segment is None:
            return joining
        rate = model.codec.frame_rate
        if isinstance(joining, OverlapJoining):
            block = math.lcm(NOISE_BLOCK, model.config.unet.frame_multiple)
            frames = _frames(self.segment, rate, block, joining.windows.frames)
            overlap = _frames(self.overlap, rate, NOISE_BLOCK, joining.windows.overlap)
            _check(overlap, frames, rate)
            return dataclasses.replace(joining, windows=dataclasses.replace(
                joining.windows, frames=frames, overlap=overlap))
        if self.segment is not None:
            raise UserError(f"--segment {self.segment:g}: this model's segments are "
                            f"{model.config.frames / rate:g} s; leave it out")
        if not isinstance(joining, TokenOverlapJoining):
            raise UserError(f"--overlap {self.overlap:g}: segments are joined by "
                            f"{joining.name(model)}; give --joining overlap too")
        overlap = _frames(self.overlap, rate, NOISE_BLOCK, joining.overlap)
        _check(overlap, model.config.frames, rate)
        return dataclasses.replace(joining, overlap=overlap)


def default_joining(model: Any) -> Joining | None:
    """How a model makes long pieces; None for one that makes no spectrograms of notes.

    Token models chain by context; those with performances and without context overlap, as in
    Maman et al. 2024; those with neither render segments that know nothing of each other.
    """
    if isinstance(model, FrameDiffusionModel):
        return OverlapJoining()
    if isinstance(model, SpectrogramDiffusionModel):
        if table_config(model) is not None and not model.config.context:
            return TokenOverlapJoining()
        return ContextJoining()
    return None


def _overlap_of(model: Any) -> Joining:
    return OverlapJoining() if isinstance(model, FrameDiffusionModel) else TokenOverlapJoining()


def _context_of(model: Any) -> Joining:
    if not getattr(model.config, "context", False):
        raise UserError("--joining context: this model reads no context; use --joining overlap")
    return ContextJoining()


def _frames(seconds: float | None, rate: float, block: int, default: int) -> int:
    """The nearest whole blocks of frames, at least one."""
    return default if seconds is None else block * max(1, round(seconds * rate / block))


def _check(overlap: int, frames: int, rate: float) -> None:
    if overlap > frames // 2:
        raise UserError(f"--overlap {overlap / rate:g}: at most half of a segment, which has "
                        f"{frames / rate:g} s")
