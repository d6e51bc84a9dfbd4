"""Choice of the joining that a model gets, and of what a user may change of it."""

from __future__ import annotations

import math

from music_diffusion.errors import UserError
from music_diffusion.models.base import CONTEXT, OVERLAP, SEPARATE, Generator
from music_diffusion.synthesis.context import ChainJoining
from music_diffusion.synthesis.joining import NOISE_BLOCK, Joining, Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.settings import RenderSettings


def choose_joining(model: Generator, settings: RenderSettings = RenderSettings()) -> Joining:
    """Returns how a model makes long pieces, with what the user asks for.

    Raises UserError: a joining that the model does not know, or lengths that cannot be.
    """
    name = model.joinings[0] if settings.joining is None else settings.joining
    if name not in model.joinings:
        raise UserError(f"--joining {name}: this model reads no context; use --joining overlap"
                        if name == CONTEXT else f"--joining {name}: this model's segments do not overlap; "
                        f"use --joining {model.joinings[0]}")
    rate = model.space.codec.frame_rate / model.space.step
    multiple, frames = model.segment.multiple, model.segment.frames
    if settings.segment is not None and multiple is None:
        raise UserError(f"--segment {settings.segment:g}: this model's segments are "
                        f"{frames / rate:g} s; leave it out")
    if name != OVERLAP:
        if settings.overlap is not None:
            raise UserError(f"--overlap {settings.overlap:g}: segments are joined by {name}; give "
                            "--joining overlap too")
        size = _frames(settings.segment, rate, multiple or 1, frames)
        shared = model.segment.context if name == CONTEXT else 0
        if size <= shared:
            raise UserError(f"--segment {settings.segment:g}: must be longer than the "
                            f"{shared / rate:g} s of context")
        return ChainJoining(frames=size, context=name != SEPARATE, shared=shared,
                            same_noise=model.segment.same_noise)
    frames = _frames(settings.segment, rate, math.lcm(NOISE_BLOCK, multiple or 1), frames)
    overlap = _frames(settings.overlap, rate, NOISE_BLOCK, Windows.overlap)
    if overlap > frames // 2:
        raise UserError(f"--overlap {overlap / rate:g}: at most half of a segment, which has "
                        f"{frames / rate:g} s")
    return OverlapJoining(windows=Windows(frames=frames, overlap=overlap))


def _frames(seconds: float | None, rate: float, block: int, default: int) -> int:
    """Returns the nearest whole blocks of frames, at least one."""
    return default if seconds is None else block * max(1, round(seconds * rate / block))
