"""Settings of a rendering: one object from the command line to the sampler."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from music_diffusion.errors import UserError

if TYPE_CHECKING:  # the command line's help names these settings and has no time for JAX
    from music_diffusion.diffusion.sampling import TimeGrid
    from music_diffusion.diffusion.solvers import Solver

JOININGS = ("overlap", "context")  # that a user may ask for, of those in `models.base`
MOST_SECONDS, MOST_GUIDANCE, MOST_TEMPERATURE, SEEDS = 300.0, 100.0, 10.0, 10**18


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Settings that a user may change of a rendering. None: as the model was released."""

    steps: int | None = None  # sampling steps, from 1
    guidance: float | None = None  # weight of classifier-free guidance; 1 is none
    solver: Solver | None = None
    grid: TimeGrid | None = None  # noise levels of the steps
    seed: int = 0  # another seed is another take
    performance: str | None = None  # who plays what: see `synthesis.performance`
    performance_guidance: float | None = None  # weight of the performance's guidance; 1 is none
    content_guidance: float | None = None  # … of the content of what is restyled
    temperature: float | None = None  # deviation of the starting noise, from 0; 1 as in training
    texture: float | None = None  # … of its fast part, which makes sound rough or smooth
    strength: float | None = None  # of a change, above 0; 1: nothing of the sound itself is kept
    passes: int | None = None  # how often each step is done where a part is given, from 1
    joining: str | None = None  # of segments: one of JOININGS
    overlap: float | None = None  # seconds that neighbouring segments share
    segment: float | None = None  # seconds of a segment, where the model leaves them open

    def __post_init__(self):
        if self.joining is not None and self.joining not in JOININGS:
            raise UserError(f"--joining {self.joining}: unknown; choose {' or '.join(JOININGS)}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise UserError(f"--strength {self.strength:g}: give a number above 0, and at most 1")
        if self.grid is not None and self.strength not in (None, 1.0):
            raise UserError(f"--grid: with --strength {self.strength:g} steps are of equal time; leave one "
                            "of them out")
        for name in ("overlap", "segment"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST_SECONDS:
                raise UserError(f"--{name} {value:g}: give seconds above 0, up to {MOST_SECONDS:g}")
        for name in ("guidance", "performance_guidance", "content_guidance"):
            value = getattr(self, name)
            if value is not None and not abs(value) <= MOST_GUIDANCE:
                raise UserError(f"--{name.replace('_', '-')} {value:g}: give a number up to "
                                f"{MOST_GUIDANCE:g}")
        for name in ("temperature", "texture"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST_TEMPERATURE:
                raise UserError(f"--{name} {value:g}: give a number from 0 to {MOST_TEMPERATURE:g}")
        if not -SEEDS <= self.seed < SEEDS:
            raise UserError(f"--seed {self.seed}: give a whole number of up to 18 digits")

    def changed(self, **changes: Any) -> RenderSettings:
        """Returns these settings with some of them replaced. Raises UserError for a bad value."""
        return dataclasses.replace(self, **changes)
