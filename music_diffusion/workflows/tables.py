"""The table of a recipe is filled: a report for each row."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.evaluation.evaluate import CACHE
from music_diffusion.evaluation.report import HTML
from music_diffusion.evaluation.table import FilledTable, Table, fill, row_folder
from music_diffusion.synthesis.plot import plot_points
from music_diffusion.workflows.evaluate import render_and_evaluate
from music_diffusion.workflows.monitor import SILENT, Monitor

TABLE_STEM = "table"  # name of the table's files, without suffix


def table_of(gin_file: str, bindings: Sequence[str]) -> Table:
    """Returns the table that a recipe describes.

    Raises UserError, one line, for a recipe that binds none, and for settings that do not fit.
    """
    import gin

    gin_setup.parse([gin_file], bindings, training=False)
    gin_setup.require("evaluated.table")
    try:
        return gin.get_configurable("evaluated")()
    except (UserError, TypeError) as e:  # gin adds lines on where in the configuration
        raise UserError(f"{gin_file}: {str(e).splitlines()[0]} (set what the recipe leaves open with "
                        "--binding NAME=VALUE)") from e


def fill_table(gin_file: str, bindings: Sequence[str], output: str, monitor: Monitor = SILENT
               ) -> FilledTable:
    """Evaluates every row of a recipe's table, and writes the table beside the rows' reports.

    Args:
      gin_file: the recipe.
      bindings: what it leaves open, as 'NAME = value'.
      output: folder.
      monitor: gets the progress, and a line where each row's report is.

    Raises UserError as `table_of` and `workflows.evaluate.render_and_evaluate` do.
    """
    table = table_of(gin_file, bindings)
    folder = pathlib.Path(output)
    reports = {}
    for name, plan in table.plans.items():
        reports[name] = render_and_evaluate(plan, str(folder / row_folder(name)),
                                            cache=str(folder / CACHE), monitor=monitor)
        monitor.say(f"{name}: {folder / row_folder(name) / HTML}")
    filled = fill(table, reports)
    write_table(filled, folder)
    return filled


def write_table(filled: FilledTable, folder: pathlib.Path) -> None:
    """Writes table.md, table.csv and table.json, and table.png where the table has a curve."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json.dumps(filled.facts(), indent=1, allow_nan=False, ensure_ascii=False)
    for suffix, text in ((".md", filled.markdown()), (".csv", filled.csv()), (".json", facts + "\n")):
        (folder / TABLE_STEM).with_suffix(suffix).write_text(text, encoding="utf-8", newline="")
    if filled.curve is not None:
        plot_points((folder / TABLE_STEM).with_suffix(".png"), filled.points(), filled.curve, filled.title)
