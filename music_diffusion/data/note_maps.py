"""Adds note maps to rendered excerpts: a frozen network need not draw them at every step."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from music_diffusion.data import records
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import FrameDiffusionModel
from music_diffusion.models.note_map import draw_note_maps
from music_diffusion.notes.frames import FrameGrid
from music_diffusion.types import Params


def add_note_maps(folder: str, out: str, model: FrameDiffusionModel, params: Params,
                  grid: FrameGrid = FrameGrid(),
                  progress: Callable[[int, int], None] = lambda i, n: None) -> None:
    """Copies the shards of `folder` to `out`, every record with its maps. Resumable."""
    facts = records.read_manifest(folder, model.codec)
    target = pathlib.Path(out)
    if target.resolve() == pathlib.Path(folder).resolve():
        raise UserError(f"{out}: give another folder than that of the data")
    target.mkdir(parents=True, exist_ok=True)

    def with_maps(message: bytes) -> bytes:
        record = records.Record.from_bytes(message)
        maps = draw_note_maps(model.config.timbre, params["timbre"], record.notes, 0.0,
                              len(record.mel), grid)
        return dataclasses.replace(record, maps=maps).to_bytes()

    shards = sorted(pathlib.Path(folder).glob("*.array_record"))
    for i, shard in enumerate(shards):
        if not (target / shard.name).exists():
            records.write_shard(target / shard.name, map(with_maps, records.read_shard(shard)))
        progress(i + 1, len(shards))
    records.write_manifest(target, **facts)
