"""GTZAN: a thousand excerpts of ten genres (Tzanetakis and Cook 2002)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.tables import read_text

# Of the folder with the genres' folders: in the archive of Kaggle, in the others; the folder itself.
PLACES = ("genres_original", "Data/genres_original", "genres", ".")
# Lists of Kereliuk, Sturm and Larsen (2015).
LISTS = {"train": "train_filtered.txt", "validation": "valid_filtered.txt",
         "test": "test_filtered.txt"}
DAMAGED = {"jazz.00054.wav": "is known to be damaged in the WAV edition; leave it out, or use its "
                             ".au file"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gtzan:
    """30 seconds each, 22050 Hz, one channel; the style is the genre. There are no notes.

        genres/GENRE/GENRE.00000.wav (or .au; the folder may be called genres_original)

    There is no published split, and some excerpts are repeated or distorted (Sturm 2013). The
    lists of Kereliuk et al. (2015), lines such as `blues/blues.00029.wav`, leave those out and keep
    artists to one split: train_filtered.txt, valid_filtered.txt and test_filtered.txt beside or in
    the folder of the genres are followed, and excerpts that they do not name are left out.
    """

    folder: str  # with the folder of the genres, or that folder
    genre: str | None = None  # the only one to use, e.g. classical; None: all
    filtered: bool = True  # follow the lists where they are there

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        root, genres = _genres(self.folder)
        if self.genre is not None and self.genre not in genres:
            raise UserError(f"{root}: no genre {self.genre!r}; choose from {', '.join(genres)}")
        genres = genres if self.genre is None else {self.genre: genres[self.genre]}
        lists = _read_lists(pathlib.Path(self.folder), root) if self.filtered else {}
        items, skipped = [], []
        for genre, files in genres.items():
            for name, file in files.items():
                if lists and name not in lists:
                    continue
                if file in DAMAGED:
                    skipped.append((f"{genre}/{file}", DAMAGED[file]))
                    continue
                items.append(Item(name=f"{genre}/{name}", split=lists.get(name), style=genre,
                                  audio=AudioFile(path=str(root / genre / file))))
        there = {name for files in genres.values() for name in files}
        skipped += [(name, "is on a filtered list, but not there; unpack the data set again")
                    for name in lists if name.partition(".")[0] in genres and name not in there]
        if not items:
            raise UserError(f"{root}: the filtered lists name no excerpt that is there; "
                            "remove the lists or give filtered=False")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"genre": self.genre, "filtered": self.filtered}


def _genres(folder: str) -> tuple[pathlib.Path, dict[str, dict[str, str]]]:
    """Finds the folder of the genres; genre → excerpt (blues.00000) → file, WAV rather than AU."""
    for root in (pathlib.Path(folder, place) for place in PLACES):
        found = {}
        for genre in sorted(os.listdir(root)) if root.is_dir() else ():
            pattern = re.compile(rf"({re.escape(genre)}\.\d{{5}})\.(au|wav)")
            names = sorted(os.listdir(root / genre)) if (root / genre).is_dir() else ()
            files = {match[1]: match[0] for name in names if (match := pattern.fullmatch(name))}
            if files:
                found[genre] = files
        if found:
            return root, found
    raise UserError(f"{folder}: no excerpts of GTZAN there; give the folder that its archive unpacks "
                    "to, with genres/blues/blues.00000.wav and so on")


def _read_lists(folder: pathlib.Path, root: pathlib.Path) -> dict[str, str]:
    """Reads excerpt (blues.00000) → split; empty where there are no lists."""
    places = (folder, root.parent, root)
    paths = {split: next((place / name for place in places if (place / name).is_file()), None)
             for split, name in LISTS.items()}
    if not any(paths.values()):
        return {}
    splits: dict[str, str] = {}
    for split, path in paths.items():
        if path is None:
            raise UserError(f"{folder}: {LISTS[split]} is missing; put all three filtered lists "
                            "there, or give filtered=False")
        for line in filter(None, read_text(path, "fetch the lists again").split()):
            name = pathlib.PurePosixPath(line).stem
            if splits.setdefault(name, split) != split:
                raise UserError(f"{path}: {line} stands on two lists; fetch the lists again")
    return splits
