"""Number of a record's performance as a feature (`models.performance` has the model's side)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from music_diffusion.conditions.base import PERFORMANCE, Example, Excerpt, numbered
from music_diffusion.conditions.performances import read_performances
from music_diffusion.errors import UserError
from music_diffusion.networks.performance import FEATURE


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerformanceNumbers:
    """Numbering of the performances of records: by a file, by their folder, or all alike."""

    file: str | None = None  # of names (`conditions.performances`); None: the folder's own order
    count: int | None = None  # rows of the model's table: the names must be as many; None: any number
    only: int | None = None  # this number for all records, whatever performance they have

    def check(self, classes: Mapping[str, Sequence[str]], folder: str) -> Mapping[str, Sequence[str]]:
        """Returns the classes with performances in this order; see `conditions.base.Conditions.check`."""
        if self.only is not None:
            return classes
        names = classes.get(PERFORMANCE, ())
        if self.file is not None:
            listed = read_performances(self.file).names
            strange = sorted(set(names) - set(listed))
            if strange:
                raise UserError(f"{folder}: {strange[0]!r} is no performance of {self.file}; make that "
                                "file of this folder too (`models performances`)")
            names = listed
        classes = {**classes, PERFORMANCE: names}
        numbered(classes, PERFORMANCE, folder)
        if self.count is not None and len(names) != self.count:
            raise UserError(f"{self.file or folder}: names {len(names)} performances, and the model has "
                            f"{self.count}; set NUM_PERFORMANCES={len(names)}")
        return classes

    def of_record(self, excerpt: Excerpt) -> Example:
        """Returns `performance`, int32."""
        number = excerpt.label(PERFORMANCE) if self.only is None else self.only
        return {FEATURE: np.array(number, np.int32)}


def performance_of_windows(weights: Float[np.ndarray, " R"] | None, group: int) -> Example:
    """Returns the feature `performance` [G, R] of a group's windows; nothing for weights None."""
    return {} if weights is None else {
        FEATURE: np.tile(np.asarray(weights, np.float32), (group, 1))}
