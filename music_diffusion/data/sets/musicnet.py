"""MusicNet (Thickstun, Harchaoui and Kakade, 2017): 330 recordings of classical music.

The archive `musicnet.tar.gz` (zenodo.org/records/5120004) unpacks to

    musicnet/train_data/1727.wav     44.1 kHz, one channel
    musicnet/train_labels/1727.csv   one note a row, times in samples of 44.1 kHz
    musicnet/test_data, musicnet/test_labels

and `musicnet_metadata.csv`, a file of its own there, belongs into it or beside it.
Scores were aligned to the recordings, hence notes without velocities.
"""

from __future__ import annotations

import dataclasses
import functools
import os

import numpy as np

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.tables import read_table

METADATA = "musicnet_metadata.csv"
COLUMNS = ("id", "composer", "composition", "movement", "ensemble", "source", "catalog_name")
LABEL_RATE = 44100  # Hz, of the times in the labels
VELOCITY = 100  # of all notes, as note-seq has it: the labels have none

# MT3's recordings (Gardner et al., 2022), as the code of YourMT3+ (Chang et al., 2024) lists
# them; all others are for training. They were drawn at random, so movements of one work, and
# two recordings of one movement, are in different splits.
MT3_VALIDATION = frozenset((1733, 1765, 1790, 1818, 2160, 2198, 2289, 2300, 2308, 2315, 2336, 2466,
                            2477, 2504, 2611))
MT3_TEST = frozenset((1729, 1776, 1813, 1893, 2118, 2186, 2296, 2431, 2432, 2487, 2497, 2501, 2507,
                      2537, 2621))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MusicNet:
    """The recordings, under their numbers."""

    folder: str  # musicnet, or the folder around it
    mt3_splits: bool = True  # MT3's splits; False: the test folder, and the builder's validation

    def __post_init__(self):
        if not isinstance(self.mt3_splits, bool):
            raise UserError(f"{self.mt3_splits=} must be True or False")

    def list(self) -> Listing:
        root = self._root()
        table = _read_metadata(root)
        items, skipped = [], []
        for part in ("train", "test"):
            sounds = _files(os.path.join(root, f"{part}_data"), ".wav")
            labels = _files(os.path.join(root, f"{part}_labels"), ".csv")
            for name in sorted(sounds.keys() | labels.keys()):
                lack = (f"no {part}_data/{name}.wav; unpack the archive again" if name not in sounds else
                        f"no {part}_labels/{name}.csv; unpack the archive again" if name not in labels
                        else f"no row in {METADATA}; download it again" if name not in table else None)
                if lack is not None:
                    skipped.append((name, lack))
                else:
                    items.append(self._item(name, part, sounds[name], labels[name], table[name]))
        if not items:
            raise UserError(f"{self.folder}: no recording there that is whole; unpack the archive "
                            f"again and put {METADATA} beside train_data")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict:
        return {"mt3_splits": self.mt3_splits}

    def _root(self) -> str:
        for root in (self.folder, os.path.join(self.folder, "musicnet")):
            if any(os.path.isdir(os.path.join(root, f"{p}_labels")) for p in ("train", "test")):
                return root
        raise UserError(f"{self.folder}: no train_data and train_labels there; give the folder "
                        "musicnet that musicnet.tar.gz unpacks to")

    def _item(self, name: str, part: str, sound: str, labels: str, row: dict[str, str]) -> Item:
        number = int(name)
        split: str | None
        if not self.mt3_splits:
            split = "test" if part == "test" else None
        elif number in MT3_TEST:
            split = "test"
        else:
            split = "validation" if number in MT3_VALIDATION else "train"
        work = f"{row['composer']}/{row['composition']} ({row['catalog_name']})"
        return Item(
            name=name, split=split, audio=AudioFile(path=sound),
            notes=functools.partial(read_labels, labels), note_files=(labels,), velocities=False,
            performance=f"{row['ensemble']}, {row['source']}", style=row["ensemble"],
            piece=f"{work}/{row['movement']}")


def read_labels(path: str) -> Notes:
    """Reads the notes of one recording. MusicNet's instruments are General MIDI programs from 1.

    Raises:
      UserError: the file is missing, or no table of MusicNet's labels.
    """
    columns, advice = ("start_time", "end_time", "note", "instrument"), "unpack the archive again"
    table = read_table(path, columns, advice=advice)
    try:
        rows = [[int(row[c]) for c in columns] for row in table]
        start, end, pitch, instrument = np.array(rows, np.int64).reshape(-1, 4).T
        return Notes(start / LABEL_RATE, end / LABEL_RATE, pitch, np.full(len(rows), VELOCITY),
                     instrument - 1, np.zeros(len(rows), bool))
    except ValueError as e:
        raise UserError(f"{path}: damaged ({e}); {advice}") from e


def _read_metadata(root: str) -> dict[str, dict[str, str]]:
    """Reads recording → its row."""
    places = [os.path.join(root, METADATA), os.path.join(root, os.pardir, METADATA)]
    path = next((p for p in places if os.path.isfile(p)), None)
    if path is None:
        raise UserError(f"{root}: no {METADATA} there or beside it; download it from "
                        "https://zenodo.org/records/5120004")
    table = read_table(path, COLUMNS, advice="download it again")
    if not all(row[c] for row in table for c in COLUMNS):
        raise UserError(f"{path}: empty cells in some rows; download it again")
    return {row["id"]: row for row in table}


def _files(folder: str, extension: str) -> dict[str, str]:
    """Finds number of a recording → path in a folder, which may be missing."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {name.removesuffix(extension): os.path.join(folder, name) for name in names
            if name.endswith(extension) and name.removesuffix(extension).isdecimal()}
