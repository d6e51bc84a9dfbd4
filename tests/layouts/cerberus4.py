"""Cerberus4 has no layout of its own: the quartets of a Slakh2100."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
from layouts import slakh
from layouts.common import Truth

from music_diffusion.notes.notes import Notes

# Written out by hand from slakh.SONGS: piano, guitar, bass, drums.
QUARTETS = (
    ("train/Track00001", ("S02", "S00", "S03", "S01")),
    ("train/Track00001", ("S02", "S07", "S03", "S01")),
    ("validation/Track01501", ("S00", "S02", "S01", "S03")),
    ("test/Track01876", ("S03", "S02", "S01", "S00")),
)
PROGRAMS = (0, 24, 32, 128)


def build(folder: pathlib.Path) -> list[Truth]:
    """All quartets, with the programs of MT3."""
    songs = slakh.build_songs(folder)
    truths = []
    for song, keys in QUARTETS:
        stems = [songs[song][key] for key in keys]
        notes = [dataclasses.replace(s.notes, program=np.full(len(s.notes), p % 128))
                 for s, p in zip(stems, PROGRAMS, strict=True)]
        truths.append(Truth(
            name=f"{song}/{'-'.join(keys)}", split=song.split("/")[0], sample_rate=slakh.RATE,
            samples=sum(s.samples for s in stems), notes=Notes.concatenate(notes),
            stems={p: s.samples for s, p in zip(stems, PROGRAMS, strict=True)}, piece=slakh.uuid(song)))
    return truths
