"""`music-diffusion evaluate --gin_file`: the table of a recipe, a report for each row."""

from __future__ import annotations

import json as json_module
import pathlib
import sys

from music_diffusion import gin_setup
from music_diffusion.errors import UserError
from music_diffusion.evaluation.evaluate import CACHE
from music_diffusion.evaluation.report import HTML
from music_diffusion.evaluation.table import FilledTable, Table, fill, row_folder
from music_diffusion.workflows.evaluate import run_plan

TABLE = "table"  # name of the table's files, without suffix


def table_of(gin_file: str, bindings: list[str]) -> Table:
    """The table that a recipe describes.

    Raises UserError, one line, for a recipe that binds none, and for settings that do not fit.
    """
    import gin

    gin_setup.parse([gin_file], bindings, training=False)
    gin_setup.require("evaluated.table")
    try:
        return gin.get_configurable("evaluated")()
    except (UserError, TypeError) as e:  # gin adds lines that tell where in the configuration
        raise UserError(f"{gin_file}: {str(e).splitlines()[0]} (set what the recipe leaves open with "
                        "--binding NAME=VALUE)") from e


def run(*, gin_file: str, bindings: list[str], output: str, json: bool) -> None:
    """See `cli.main.evaluate`."""
    table = table_of(gin_file, bindings)
    folder = pathlib.Path(output)
    contents = {}
    for name, plan in table.plans.items():
        contents[name] = run_plan(plan, str(folder / row_folder(name)), str(folder / CACHE))
        print(f"{name}: {folder / row_folder(name) / HTML}", file=sys.stderr)
    filled = fill(table, contents)
    write_table(filled, folder)
    if json:
        print(json_module.dumps(filled.facts(), allow_nan=False))
    else:
        print(filled.markdown(), end="")


def write_table(filled: FilledTable, folder: pathlib.Path) -> None:
    """table.md, table.csv and table.json."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = json_module.dumps(filled.facts(), indent=1, allow_nan=False, ensure_ascii=False)
    for suffix, text in ((".md", filled.markdown()), (".csv", filled.csv()), (".json", facts + "\n")):
        (folder / TABLE).with_suffix(suffix).write_text(text, encoding="utf-8", newline="")
