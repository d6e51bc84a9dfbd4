"""Any folder of audio, without notes."""

from __future__ import annotations

import dataclasses
import os

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile

# What folders of a split are called.
SPLIT_OF = {"train": "train", "validation": "validation", "valid": "validation",
            "val": "validation", "dev": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlainAudio:
    """Every audio file below a folder is an item, named by its relative path.

    Files below a folder named train, validation (valid, val, dev) or test belong to that split.
    """

    folder: str  # with all that lies below it

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        files, skipped = find_audio(self.folder)
        return Listing(
            items=tuple(Item(name=file.path, split=folder_split(file.path),
                             audio=AudioFile(path=os.path.join(self.folder, file.path)))
                        for file in files),
            skipped=tuple((path, reason) for path, reason in skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {}


def folder_split(path: str) -> str | None:
    """Returns the split after which a folder of a relative path is named; the outermost counts."""
    return next((SPLIT_OF[part.lower()] for part in path.split("/")[:-1]
                 if part.lower() in SPLIT_OF), None)
