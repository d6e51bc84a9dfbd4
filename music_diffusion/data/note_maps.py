"""Adds note maps to rendered excerpts: a frozen network need not draw them at every step."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from music_diffusion.conditions.note_frames import NoteFrames, frame_grid
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.data import records
from music_diffusion.data.shards import checksum, facts_path, read_facts, write_facts
from music_diffusion.errors import UserError
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.notes.frames import warn_if_crowded
from music_diffusion.types import Params, StepProgress


def add_note_maps(folder: str, out: str, config: NoteTimbreConfig, timbre: Params,
                  progress: StepProgress = lambda i, n: None, *,
                  ring: float = NoteFrames.ring,
                  row_of: Callable[[records.Record], int | None] = lambda record: None) -> None:
    """Copies the shards of `folder` to `out`, every record with its maps.

    Resumable: finished shards are kept, those of records that have changed are made anew.

    Args:
      folder, out: of the records.
      config, timbre: the note timbre network and its parameters.
      progress: takes (finished shards, shards in all).
      ring: seconds that a note is heard after its end; a model's `ring`.
      row_of: a record's performance, in a network that has some; None for none. Records then have
        the two maps drawn with it and, behind them, the two without.
    """
    manifest = records.read_manifest(folder, config.codec)
    grid = frame_grid(config.codec, ring)
    target = pathlib.Path(out)
    if target.resolve() == pathlib.Path(folder).resolve():
        raise UserError(f"{out}: give another folder than that of the data")
    target.mkdir(parents=True, exist_ok=True)

    def with_maps(message: bytes, suffix: str) -> bytes:
        record = records.Record.from_bytes(message, suffix)
        warn_if_crowded(record.notes, record.start, len(record.mel), grid)
        maps = draw_note_maps(config, timbre, record.notes, record.start, len(record.mel), grid)
        if config.performances is not None:
            row = row_of(record)
            own = maps if row is None else draw_note_maps(
                config, timbre, record.notes, record.start, len(record.mel), grid,
                np.eye(config.performances.count)[row])
            maps = np.concatenate([own, maps], 1)
        return dataclasses.replace(record, maps=maps).to_bytes(suffix)

    (target / records.MANIFEST).unlink(missing_ok=True)  # unfinished from here
    paths = records.find_shards(folder)
    for other in {p.name for p in records.find_shards(target)} - {p.name for p in paths}:
        (target / other).unlink()
        facts_path(target / other).unlink(missing_ok=True)
    checksums = {}
    for i, path in enumerate(paths):
        made, facts = target / path.name, read_facts(path)
        if not made.exists() or read_facts(made) != facts:  # of records that have changed since
            made.unlink(missing_ok=True)
            facts_path(made).unlink(missing_ok=True)
            records.write_shard(made, (with_maps(m, path.suffix) for m in records.read_shard(path)))
            if facts is not None:
                write_facts(made, facts)
        checksums[path.name] = checksum(made)
        progress(i + 1, len(paths))
    if "checksums" in manifest:
        manifest["checksums"] = checksums
    records.write_manifest(target, **manifest)
