"""`music-diffusion prepare DATASET`: building a data set, or examining it."""

from __future__ import annotations

import json as json_module
import os
import pathlib
import sys
from collections.abc import Sequence

from music_diffusion import gin_setup
from music_diffusion.cli.progress import progress_bar
from music_diffusion.data import records
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DataSet
from music_diffusion.data.parallel import run_tasks
from music_diffusion.data.sets.catalogue import CATALOGUE
from music_diffusion.errors import UserError

CONTAINERS = {"array_record": records.ARRAY_RECORD, "tfrecord": records.TF_RECORD}


def run_sets(*, json: bool) -> None:
    """Lists the data sets."""
    if json:
        print(json_module.dumps({name: entry._asdict() for name, entry in CATALOGUE.items()}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("DATASET", "what", "SRC", box=None)
    for name, entry in CATALOGUE.items():
        table.add_row(name, entry.about, entry.source)
    Console().print(table)


def run(*, kind: str, data_set: DataSet, destination: str, codec: str, stems: bool, container: str,
        shards: int, refuse: bool, runner: str | None, runner_options: Sequence[str], workers: int,
        seed: int, json: bool) -> None:
    """Builds the data set; see `cli.main.prepare`."""
    if container not in CONTAINERS:
        raise UserError(f"--format {container}: choose {' or '.join(CONTAINERS)}")
    plan = BuildPlan(codec=gin_setup.codec(codec), stems=stems, suffix=CONTAINERS[container],
                     shards=shards, refuse=refuse, workers=workers, seed=seed)
    run_shards = run_tasks
    if runner is not None:
        from music_diffusion.data.beam import beam_runner

        run_shards = beam_runner(runner, runner_options)
    with progress_bar(f"{kind} {destination}") as bar:
        manifest = build(data_set, kind, plan, destination, run=run_shards,
                         progress=lambda done, of: bar(done / of))
    if json:
        print(json_module.dumps({"folder": os.path.realpath(destination)} | manifest))
        return
    print(f"{pathlib.Path(destination).resolve()}: {summary(manifest)}")
    for name, reason in manifest["skipped"][:10]:
        print(f"  skipped {name}: {reason}", file=sys.stderr)


def summary(manifest: dict) -> str:
    """What a folder has, and how many items it does not, in a line."""
    parts = [f"{manifest['hours'][s]:.2f} h and {manifest['notes'][s]} notes for {s}"
             for s in manifest["hours"] if manifest["records"][s]]
    parts += [f"{len(names)} {kind}{'s' * (len(names) != 1)}"
              for kind, names in manifest["classes"].items()]
    skipped = manifest["skipped"]
    return ", ".join(parts) + (f"; skipped {len(skipped)} (see manifest.json)" if skipped else "")
