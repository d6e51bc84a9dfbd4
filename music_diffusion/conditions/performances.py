"""The performances that a model has learned, as data: a file of names beside its weights.

    {"default": "studio", "table": "1f0c…", "performances": [
      {"name": "studio", "source": "FluidR3_GM.sf2", "instruments": ["Acoustic Grand Piano", …],
       "room": "dry, close", "minutes": 40.0}, …]}

Their order is that of the rows of the model's table (`networks.performance`). `table` is a digest of
its parameters in a released model: names of another checkpoint are refused.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Self

import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from music_diffusion.errors import UserError
from music_diffusion.files import write_text
from music_diffusion.networks.performance import PERFORMANCE_TABLE
from music_diffusion.tables import read_text
from music_diffusion.types import Params

FILE = "performances.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Performance:
    """Performance: one ensemble in one room."""

    name: str
    source: str = ""  # where the recordings are from
    instruments: tuple[str, ...] = ()  # heard in them, most played first; () : not known
    room: str = ""  # room and microphone, in words
    minutes: float = 0.0  # minutes that the model was trained on

    def __post_init__(self):
        if not self.name or any(c in self.name for c in ",:=+") or self.name != self.name.strip():
            raise UserError(f"{self.name!r} cannot be the name of a performance: it must not be empty, nor "
                            "have blanks at its ends, nor ',', ':', '=' or '+' in it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Performances:
    """All performances that a model knows, in the order of its table."""

    performances: tuple[Performance, ...]
    default: str  # name of the one that is taken where none is asked for
    table: str | None = None  # digest of the table's parameters; None before a release

    def __post_init__(self):
        names = self.names
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise UserError(f"two performances are named {twice!r}; rename one")
        self.number(self.default)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(p.name for p in self.performances)

    def number(self, name: str) -> int:
        """Returns the row of a performance. Raises UserError with the nearest names."""
        if name in self.names:
            return self.names.index(name)
        lower = {n.lower(): n for n in self.names}
        close = [lower[n] for n in difflib.get_close_matches(name.lower(), lower, 3, 0.4)]
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(self.names)}"
        raise UserError(f"{name}: no such performance; {hint}")

    def weights(self, shares: Mapping[str, float] | None) -> Float[np.ndarray, " R"]:
        """Returns weights of the rows for shares of performances; None: the default alone.

        Raises UserError: an unknown name, or shares that are not positive.
        """
        shares = {self.default: 1.0} if shares is None else shares
        weights = np.zeros(len(self.performances), np.float32)
        for name, share in shares.items():
            if not 0 < share < np.inf:
                raise UserError(f"{name}: a share of {share} of a performance; give one above 0")
            weights[self.number(name)] += share
        return weights / weights.sum()

    def with_table(self, params: Params) -> Self:
        """Returns them as the names of these parameters."""
        return dataclasses.replace(self, table=table_digest(params))

    def check(self, params: Params, where: str | os.PathLike) -> None:
        """Raises UserError where the names are not those of the parameters."""
        rows = len(table_of(params))
        if rows != len(self.performances):
            raise UserError(f"{where}: names {len(self.performances)} performances of a model that has "
                            f"{rows}; take the {FILE} that came with the weights")
        if self.table is not None and self.table != table_digest(params):
            raise UserError(f"{where}: is of another checkpoint; take the {FILE} beside its weights")


def table_of(params: Params) -> Float[np.ndarray, "R D"]:
    """Returns the table of a model with performances."""
    found = {k: v for k, v in flatten_dict(dict(params), sep="/").items() if k.endswith(PERFORMANCE_TABLE)}
    if not found:
        raise ValueError("the parameters have no table of performances")
    return np.asarray(found[min(found, key=len)])  # not that of a part, as a note timbre network has


def table_digest(params: Params) -> str:
    """Returns a digest of the table, by which checkpoints differ: of its values in float16, as released."""
    return hashlib.sha256(np.ascontiguousarray(table_of(params), np.float16).tobytes()).hexdigest()[:16]


def read_performances(path: str | os.PathLike) -> Performances:
    """Reads the file. Raises UserError: it is not there, or damaged."""
    try:
        content = json.loads(read_text(path, f"give a {FILE}"))
        entries = [Performance(**{**p, "instruments": tuple(p.get("instruments", ()))})
                   for p in content["performances"]]
        return Performances(performances=tuple(entries), default=content["default"],
                            table=content.get("table"))
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, UserError):
            raise UserError(f"{path}: {e}") from e
        raise UserError(f"{path}: damaged ({' '.join(str(e).split())[:100]}); take the file that came "
                        "with the weights") from e


def write_performances(path: str | os.PathLike, performances: Performances) -> None:
    """Writes the file, whole or not at all."""
    content = {"default": performances.default, "table": performances.table,
               "performances": [dataclasses.asdict(p) for p in performances.performances]}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
