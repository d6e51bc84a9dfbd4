"""Examination of a data set: the faults of its items, heard with the tagger, and what to do about them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from music_diffusion import gin_setup
from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import doctor, records
from music_diffusion.data.checks import findings as kinds
from music_diffusion.data.items import DataSet
from music_diffusion.data.shards import verify
from music_diffusion.errors import UserError
from music_diffusion.workflows.monitor import SILENT, Monitor, in_steps
from music_diffusion.workflows.prepare import open_data_set
from music_diffusion.workflows.requests import DataSetRequest

# Kinds for which training on one's own data leaves an item out; others are reported.
UNUSABLE = frozenset({kinds.MISALIGNED, kinds.SILENT, kinds.EMPTY, kinds.UNREADABLE, kinds.DUPLICATED,
                      kinds.LEAK})


@dataclasses.dataclass(frozen=True)
class LoadPresence:
    """Loads the tagger that comes with the package, in every process."""

    def __call__(self) -> Callable[[np.ndarray], np.ndarray]:
        from music_diffusion.models.base import Tagging
        from music_diffusion.synthesis.hub import DEFAULT_TAGGER, load_trained

        _, model, params = load_trained(DEFAULT_TAGGER, Tagging, "tagger")
        return model.presence(params)


def diagnose(data_set: DataSet, codec: MelCodec, workers: int, monitor: Monitor = SILENT
             ) -> doctor.Diagnosis:
    """Examines all items; `codec` is that of the spectrograms that would be made of them."""
    with monitor.bar("examining") as progress:
        return doctor.examine(data_set, codec=codec, presence=LoadPresence(), workers=workers,
                              progress=in_steps(progress))


def unusable(diagnosis: doctor.Diagnosis) -> list[tuple[str, str]]:
    """Returns the items that training leaves out, and why."""
    result: dict[str, str] = {}
    for found in diagnosis.findings:
        if found.kind in UNUSABLE:
            result.setdefault(found.item, f"{found.kind}: {found.measured}")
    return list(result.items())


def doubtful(diagnosis: doctor.Diagnosis) -> list[str]:
    """Returns a line for every other finding."""
    return [f"{found.item}: {found.kind}: {found.measured}; {found.advice}"
            for found in diagnosis.findings if found.kind not in UNUSABLE]


def examine_source(request: DataSetRequest, monitor: Monitor = SILENT) -> doctor.Diagnosis | None:
    """Examines a data set; of a folder that is prepared, only that its shards are as they were written.

    Returns the diagnosis, or None for prepared folders.

    Raises UserError: no such data set, records of another codec, or shards that have changed.
    """
    data_set, codec = open_data_set(request), gin_setup.codec(request.codec)
    if not os.path.isfile(os.path.join(request.source, records.MANIFEST)):
        return diagnose(data_set, codec, request.workers, monitor)
    wrong = verify(request.source)
    records.read_manifest(request.source, codec)
    if wrong:
        raise UserError(f"{request.source}: {', '.join(wrong)} differ from their checksums; delete them "
                        "and run the same `music-diffusion prepare` again")
    return None
