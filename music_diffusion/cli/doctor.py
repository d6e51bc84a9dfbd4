"""`music-diffusion prepare … --doctor`: what is wrong with a data set, and what to do about it."""

from __future__ import annotations

import dataclasses
import json as json_module
import os
import sys
from collections.abc import Callable

import numpy as np

from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec
from music_diffusion.cli.progress import progress_bar
from music_diffusion.data import doctor, records
from music_diffusion.data.checks import findings as kinds
from music_diffusion.data.items import DataSet
from music_diffusion.data.shards import verify
from music_diffusion.errors import UserError

FOUND = 1  # exit code where there is a finding
# Kinds for which `train --data` leaves an item out; others are told.
UNUSABLE = frozenset({kinds.MISALIGNED, kinds.SILENT, kinds.EMPTY, kinds.UNREADABLE, kinds.DUPLICATED,
                      kinds.LEAK})


@dataclasses.dataclass(frozen=True)
class LoadPresence:
    """Loads the tagger that comes with the package, in every process."""

    def __call__(self) -> Callable[[np.ndarray], np.ndarray]:
        from music_diffusion.models.tagger import Presence, TaggerModel
        from music_diffusion.synthesis.hub import DEFAULT_TAGGER, load_trained

        _, model, params = load_trained(DEFAULT_TAGGER, TaggerModel, "tagger")
        return Presence(model=model, params=params)


def diagnose(data_set: DataSet, codec: MelCodec, workers: int) -> doctor.Diagnosis:
    """Examines all items."""
    with progress_bar("examining") as bar:
        return doctor.examine(data_set, codec=codec, presence=LoadPresence(), workers=workers,
                              progress=lambda done, of: bar(done / of))


def unusable(diagnosis: doctor.Diagnosis) -> list[tuple[str, str]]:
    """Items that training leaves out, and why."""
    result: dict[str, str] = {}
    for found in diagnosis.findings:
        if found.kind in UNUSABLE:
            result.setdefault(found.item, f"{found.kind}: {found.measured}")
    return list(result.items())


def doubtful(diagnosis: doctor.Diagnosis) -> list[str]:
    """A line for everything else."""
    return [f"{found.item}: {found.kind}: {found.measured}; {found.advice}"
            for found in diagnosis.findings if found.kind not in UNUSABLE]


def run(data_set: DataSet, *, source: str, codec: str, workers: int, json: bool) -> None:
    """Prints a table; exits with FOUND where there is something in it."""
    if os.path.isfile(os.path.join(source, records.MANIFEST)):
        wrong = verify(source)
        records.read_manifest(source, gin_setup.codec(codec))
        if wrong:
            raise UserError(f"{source}: {', '.join(wrong)} differ from their checksums; delete them and "
                            "run the same `music-diffusion prepare` again")
        print(json_module.dumps({"folder": source, "changed": []}) if json else
              f"{source}: prepared, every shard is as it was written")
        return
    diagnosis = diagnose(data_set, gin_setup.codec(codec), workers)
    if json:
        print(json_module.dumps(diagnosis.to_dict()))
    else:
        _show(diagnosis)
    if diagnosis.findings:
        sys.exit(FOUND)


def _show(diagnosis: doctor.Diagnosis) -> None:
    from rich.console import Console
    from rich.table import Table

    if diagnosis.findings:
        table = Table(*doctor.COLUMNS)
        for row in diagnosis.rows():
            table.add_row(*row)
        Console(markup=False).print(table)  # brackets are part of names
    print(diagnosis.summary())
