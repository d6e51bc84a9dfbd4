"""Tables like those of papers: a row for each evaluation, a column for each figure."""

from __future__ import annotations

import csv
import dataclasses
import fnmatch
import io
import math
import re
from collections.abc import Mapping
from typing import Any

from music_diffusion.errors import UserError
from music_diffusion.evaluation.plan import EvaluationPlan

Content = Mapping[str, Any]  # of a report.json


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows and columns of a table before it is filled; gin recipes bind it."""

    title: str
    # Name of a row → what is evaluated for it. None is left out, and named among the warnings.
    rows: Mapping[str, EvaluationPlan | None]
    # Keys of figures in report.json, in order; `*` stands for anything, so that 'fad:*' is a
    # column for each embedding.
    columns: tuple[str, ...]
    # Rows for what the reference reaches, as it is and through the inverter, where that is known.
    ceilings: bool = True
    curve: tuple[str, str] | None = None  # keys of two figures, for a picture of the rows; None: without
    left_out: tuple[str, ...] = dataclasses.field(default=(), init=False)  # names of rows

    def __post_init__(self):
        object.__setattr__(self, "left_out", tuple(n for n, plan in self.rows.items() if plan is None))
        object.__setattr__(self, "rows", {n: p for n, p in self.rows.items() if p is not None})
        if self.left_out and not self.rows:
            raise UserError(f"the table {self.title!r} has nothing to fill it with: none of its rows "
                            f"({', '.join(self.left_out)}) is given a model or a folder")
        if self.curve is not None and not set(self.curve) <= set(self.columns):
            raise UserError(f"the curve of {self.title!r} is of columns that it does not have; it has "
                            f"{', '.join(self.columns)}")
        if not self.rows or not self.columns:
            raise UserError(f"the table {self.title!r} has no rows or no columns; see "
                            "recipes/evaluation")
        folders = [row_folder(name) for name in self.rows]
        if len(set(folders)) < len(folders):
            raise UserError(f"the table {self.title!r} has two rows called alike: "
                            f"{', '.join(self.rows)}")

    @property
    def plans(self) -> dict[str, EvaluationPlan]:
        """Returns the plans of the rows that are filled."""
        return {name: plan for name, plan in self.rows.items() if plan is not None}


def evaluated(*, table: Table) -> Table:
    """Returns the table that a recipe of `evaluate` binds."""
    return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilledTable:
    """Labels, and a value for each row and column; NaN where there is none."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]
    minutes: dict[str, float]  # of generated audio, for each row
    warnings: tuple[str, ...]
    curve: tuple[str, str] | None = None  # columns of a picture

    def points(self) -> dict[str, tuple[float, float]]:
        """Returns the two values of each row on the curve; rows that lack one are left out."""
        if self.curve is None:
            return {}
        x, y = (self.columns.index(column) for column in self.curve)
        found = {name: (values[x], values[y]) for name, values in self.rows.items()}
        return {name: pair for name, pair in found.items() if not any(map(math.isnan, pair))}

    def markdown(self) -> str:
        """Returns the table in Markdown, for people; an arrow shows which direction is better."""
        head = ["", *self.columns, "minutes"]
        lines = [f"# {self.title}", "", _line(head), _line(["---"] * len(head))]
        for name, values in self.rows.items():
            cells = ["" if math.isnan(v) else f"{v:.3g}" for v in values]
            minutes = self.minutes.get(name, math.nan)
            lines.append(_line([name, *cells, "" if math.isnan(minutes) else f"{minutes:.1f}"]))
        lines += ["", *(f"- {warning}" for warning in self.warnings)]
        return "\n".join(lines).rstrip() + "\n"

    def csv(self) -> str:
        """Returns the table in CSV, for spreadsheets."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["row", *self.columns, "minutes"])
        for name, values in self.rows.items():
            cells = [*values, self.minutes.get(name, math.nan)]
            writer.writerow([name, *("" if math.isnan(v) else repr(v) for v in cells)])
        return out.getvalue()

    def facts(self) -> dict[str, Any]:
        """Returns the table for JSON."""
        rows = {name: {c: None if math.isnan(v) else v for c, v in zip(self.columns, values, strict=True)}
                for name, values in self.rows.items()}
        return {"title": self.title, "rows": rows, "minutes": self.minutes,
                "warnings": list(self.warnings)}


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def row_folder(name: str) -> str:
    """Returns the folder of a row's report, inside that of the table."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "row"


def fill(table: Table, contents: Mapping[str, Content]) -> FilledTable:
    """Makes the table of the rows' reports.

    Args:
      table: what it holds.
      contents: for each row what `evaluate` returned.

    Raises UserError if a column fits no figure of any row.
    """
    figures = {row: {f["key"]: f for f in content["figures"]} for row, content in contents.items()}
    keys: list[str] = []
    for pattern in table.columns:
        found = [k for row in figures.values() for k in row if fnmatch.fnmatchcase(k, pattern)]
        if not found:
            known = sorted({k for row in figures.values() for k in row})
            raise UserError(f"no row of {table.title!r} has a figure {pattern}; there are "
                            f"{', '.join(known)}")
        keys += [k for k in dict.fromkeys(found) if k not in keys]
    labels = {k: f for row in figures.values() for k, f in row.items()}
    rows = {name: tuple(_value(row.get(k)) for k in keys) for name, row in figures.items()}
    minutes = {name: content["amounts"]["generated"]["minutes"] for name, content in contents.items()}
    if table.ceilings:
        rows |= _ceilings(figures, keys)
    said = [w for content in contents.values() for w in content["warnings"]]
    said += [f"{name}: left out, as neither its model nor its audio is given" for name in table.left_out]
    said += [f"{name}: {row[k]['label']}: {row[k]['note']}" for name, row in figures.items() for k in keys
             if k in row and row[k].get("note")]
    warnings = dict.fromkeys(said)
    curve = None
    if table.curve is not None:
        x, y = (next(k for k in keys if fnmatch.fnmatchcase(k, pattern)) for pattern in table.curve)
        curve = _label(labels[x]), _label(labels[y])
    return FilledTable(title=table.title, rows=rows, minutes=minutes, warnings=tuple(warnings), curve=curve,
                       columns=tuple(_label(labels[k]) for k in keys))


def _value(figure: Mapping[str, Any] | None) -> float:
    value = None if figure is None else figure["value"]
    return math.nan if value is None else float(value)


def _label(figure: Mapping[str, Any]) -> str:
    arrow = {"lower": " ↓", "higher": " ↑"}.get(figure["better"], "")
    return f"{figure['label']}{arrow}"


def _ceilings(figures: Mapping[str, Mapping[str, Any]], keys: list[str]) -> dict[str, tuple[float, ...]]:
    """Returns rows of the bounds above, by whose they are, each from the first row that has it."""
    found: dict[str, dict[str, float]] = {}
    for row in figures.values():
        for key in keys:
            for bound in row[key]["ceilings"] if key in row else ():
                if bound["value"] is not None:
                    found.setdefault(bound["of"], {}).setdefault(key, float(bound["value"]))
    return {of: tuple(values.get(k, math.nan) for k in keys) for of, values in found.items()}
