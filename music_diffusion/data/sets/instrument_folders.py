"""Recordings sorted by instrument, as for style transfer (Prioteasa and Stempel-Hauburger 2025)."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sets.plain_audio import SPLIT_OF, folder_split
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstrumentFolders:
    """A folder for each instrument, with its recordings: `downloads/piano/piano_solo_00.mp3`.

    The layout is that of PrioteasaAndrei/music-style-transfer-ldm, which has one long recording
    each of piano, guitar, violin and harp, and takes the first 1800 s of each, as long as the
    shortest is (section 3.3 of the report). Any number of instruments and recordings will do;
    their style is the instrument. Folders named after a split may lie above or below those of
    the instruments. Files are used in the order of their names.

    The durations of files are read only where an option needs them.
    """

    folder: str  # holds the folders of the instruments, or the folder `downloads` that does
    max_seconds_per_instrument: float | None = None  # later ones are left out; None: all are used
    equalize: bool = False  # use of each instrument as many seconds as there are of the rarest
    # Share of an instrument's seconds, the last ones, that are for validation, 0..1; 0 leaves whole
    # recordings to the builder. Files in folders of a split keep to that.
    held_out: float = 0.0

    def __post_init__(self):
        limit = self.max_seconds_per_instrument
        if limit is not None and not limit > 0:
            raise UserError(f"max_seconds_per_instrument {limit} must be above 0, e.g. 1800")
        if not 0 <= self.held_out < 1:
            raise UserError(f"held_out {self.held_out} must be at least 0 and below 1")

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        root = pathlib.Path(self.folder)
        root = root / "downloads" if (root / "downloads").is_dir() else root
        files, skipped = find_audio(str(root))
        paths, passed_over = _by_instrument(file.path for file in files)
        passed_over += [(path, reason) for path, reason in skipped]
        if not paths:
            raise UserError(f"{self.folder}: no folder of an instrument there; put its recordings "
                            "into one, e.g. piano/recording.mp3")
        if self.max_seconds_per_instrument is None and not self.equalize and not self.held_out:
            items = [_item(root, instrument, path) for instrument in paths
                     for path in paths[instrument]]
        else:
            lengths, damaged = _lengths(root, paths)
            passed_over += damaged
            items = [item for instrument, taken in self._taken(lengths).items()
                     for item in self._parts(root, instrument, taken, lengths[instrument])]
        if not items:
            raise UserError("{}: nothing there can be used ({}: {})".format(
                self.folder, *passed_over[0]))
        return Listing(items=tuple(items), skipped=tuple(sorted(passed_over)))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"max_seconds_per_instrument": self.max_seconds_per_instrument,
                "equalize": self.equalize, "held_out": self.held_out}

    def _taken(self, lengths: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        """Returns instrument → file → seconds from its start that are used."""
        limits = [] if self.max_seconds_per_instrument is None else [self.max_seconds_per_instrument]
        if self.equalize:
            limits += [sum(files.values()) for files in lengths.values()]
        limit = min(limits, default=float("inf"))
        taken: dict[str, dict[str, float]] = {}
        for instrument, files in lengths.items():
            left = limit
            taken[instrument] = {}
            for path, seconds in files.items():
                if left > 0:
                    taken[instrument][path] = min(seconds, left)
                left -= seconds
        return taken

    def _parts(self, root: pathlib.Path, instrument: str, taken: Mapping[str, float],
               lengths: Mapping[str, float]) -> Iterator[Item]:
        """Yields the items of an instrument; one file is cut in two where validation begins."""
        free = {path: s for path, s in taken.items() if not folder_split(path)}
        train = (1 - self.held_out) * sum(free.values())  # seconds left of them for training
        for path, seconds in taken.items():
            end = None if seconds == lengths[path] else seconds
            if path not in free or not self.held_out:
                yield _item(root, instrument, path, end=end)
                continue
            first = min(max(train, 0.0), seconds)
            train -= seconds
            if first:
                yield _item(root, instrument, path, "train", end=end if first == seconds else first)
            if first < seconds:
                part = "#validation" if first else ""
                yield _item(root, instrument, path, "validation", part=part, start=first, end=end)


def _by_instrument(paths: Iterator[str]) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """Returns instrument → its files, and the files that lie in no instrument's folder, with the reason."""
    found, outside = collections.defaultdict(list), []
    for path in paths:
        folders = [part for part in path.split("/")[:-1] if part.lower() not in SPLIT_OF]
        if folders:
            found[folders[0]].append(path)
        else:
            outside.append((path, "lies in no instrument's folder; move it into one"))
    return found, outside


def _lengths(root: pathlib.Path, paths: Mapping[str, list[str]]
             ) -> tuple[dict[str, dict[str, float]], list[tuple[str, str]]]:
    """Returns instrument → file → seconds, and the damaged files with their reasons."""
    lengths: dict[str, dict[str, float]] = {}
    damaged = []
    for instrument, files in paths.items():
        for path in files:
            full = str(root / path)
            try:
                seconds = AudioFile(path=full).facts().seconds
            except UserError as e:
                damaged.append((path, str(e).removeprefix(f"{full}: ")))
            else:
                lengths.setdefault(instrument, {})[path] = seconds
    return lengths, damaged


def _item(root: pathlib.Path, instrument: str, path: str, split: str | None = None, *,
          part: str = "", start: float = 0.0, end: float | None = None) -> Item:
    return Item(name=path + part, split=split or folder_split(path), style=instrument,
                audio=AudioFile(path=str(root / path), start=start, end=end))
