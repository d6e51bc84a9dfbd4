"""Saraga: concerts of Indian art music (Bozkurt, Srinivasamurthy, Gulati and Serra 2018)."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.tables import read_text

MULTITRACK = ".multitrack-"
STEMS = ("ghatam", "mridangam-left", "mridangam-right", "violin", "vocal", "vocal-s")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saraga:
    """Saraga 1.5, Carnatic (249 songs, 168 with multitrack audio) or Hindustani. There are no notes.

    Layout (Zenodo 4301737), with the concert's folder named after concert and artist:

        saraga1.5_carnatic/CONCERT by ARTIST/SONG/SONG.mp3.mp3   the mix; of some concerts
                                                   `ARTIST - SONG.mp3`
        saraga1.5_carnatic/…/SONG/SONG.json        title, artists, concert, work …
        saraga1.5_carnatic/…/SONG/SONG.multitrack-STEM.mp3       of `STEMS`, where recorded

    Songs of one work belong together. There is no published split.
    """

    folder: str  # that the archive unpacks to
    stem: str | None = None  # of STEMS: takes the songs' track of it, as its style; None: the mix
    performance: str = "concert"  # concert or artist: which of them names the item's performance

    def __post_init__(self):
        if self.stem is not None and self.stem not in STEMS:
            raise UserError(f"Saraga has no stem {self.stem!r}; choose from {', '.join(STEMS)}")
        if self.performance not in ("concert", "artist"):
            raise UserError(f"performance {self.performance!r}: choose concert or artist")

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        found, unread = find_audio(self.folder)
        skipped = [(path, reason) for path, reason in unread]
        items = []
        songs: dict[str, list[str]] = collections.defaultdict(list)
        for file in found:
            songs[os.path.dirname(file.path)].append(os.path.basename(file.path))
        known = False
        for song, files in songs.items():
            try:
                facts = _read_metadata(pathlib.Path(self.folder, song))
                known = True
                if (file := self._choose(files)) is not None:
                    items.append(self._item(song, file, facts))
            except UserError as e:
                skipped.append((song or ".", str(e)))
        if not known:
            raise UserError(f"{self.folder}: no songs of Saraga there; give the folder that its archive "
                            "unpacks to, with CONCERT by ARTIST/SONG/SONG.mp3.mp3 and SONG.json")
        if not items:
            raise UserError(f"{self.folder}: no song there has a {self.stem or 'mix'}; choose another "
                            "stem, or none")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"stem": self.stem, "performance": self.performance}

    def _choose(self, files: Sequence[str]) -> str | None:
        """Returns a song's file; None where the stem was not recorded."""
        if self.stem is not None:
            return next((f for f in files if f.endswith(f"{MULTITRACK}{self.stem}.mp3")), None)
        mixes = [f for f in files if MULTITRACK not in f]
        if len(mixes) != 1:
            raise UserError(f"has {len(mixes)} mixes ({', '.join(mixes)}); keep one" if mixes
                            else "lacks its mix; unpack the data set again")
        return mixes[0]

    def _item(self, song: str, file: str, facts: dict) -> Item:
        concert = pathlib.Path(os.path.abspath(self.folder), song).parent.name
        artists = [a["name"] for a in facts.get("album_artists", ())]
        artist = " & ".join(artists) or concert.rpartition(" by ")[2]
        works = [w["title"] for w in facts.get("work", ())]
        name = song or os.path.basename(os.path.abspath(self.folder))
        return Item(name=name, split=None,
                    audio=AudioFile(path=os.path.join(self.folder, song, file)), style=self.stem,
                    performance=concert if self.performance == "concert" else artist,
                    piece=" & ".join(works) or os.path.basename(name))


def _read_metadata(folder: pathlib.Path) -> dict:
    """Reads the song's JSON file. Raises UserError if there is none, or it is damaged."""
    names = sorted(name for name in os.listdir(folder)
                   if name.endswith(".json") and not name.startswith("."))
    if len(names) != 1:
        raise UserError(f"has {len(names)} .json files instead of one; unpack the data set again")
    try:
        facts = json.loads(read_text(folder / names[0], "unpack the data set again"))
        if isinstance(facts, dict):
            return facts
        reason = "no object"
    except ValueError as e:
        reason = str(e)
    raise UserError(f"{names[0]} is damaged ({reason}); unpack the data set again")
