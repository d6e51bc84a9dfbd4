"""StarNet: pieces in two timbres, for timbre transfer (Alinoori and Tzerpos 2022)."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Mapping

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.items import Item, Listing, Stem
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError

# What the second part of a file's name stands for.
FILES = {"clarinet_vibraphone": 0, "clarinet": 1, "vibraphone": 2,
         "strings_piano": 3, "strings": 4, "piano": 5}
PROGRAMS = {"clarinet": 71, "vibraphone": 11, "strings": 48, "piano": 0}  # General MIDI, from 0
# Source and target of each, as the six models of Comanducci et al. (2023), section 4.3.
CONVERSIONS = {f"{source}_to_{target}": (source, target) for source, target in (
    ("vibraphone", "piano"), ("piano", "vibraphone"),
    ("clarinet", "strings"), ("strings", "clarinet"),
    ("clarinet_vibraphone", "strings_piano"), ("strings_piano", "clarinet_vibraphone"))}
# Tracks that Comanducci et al. train without: the last fifth of a permutation of all 104,
# numpy.random.default_rng(12345).choice(104, 104, replace=False), in lucacoma/DiffTransfer.
VALIDATION = (4, 8, 11, 15, 18, 21, 22, 30, 37, 39, 42, 43, 47, 56, 62, 63, 70, 75, 93, 96)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StarNet:
    """104 pieces played by strings and piano and by clarinet and vibraphone, about 22 hours.

    Layout (Zenodo 6917099), 44.1 kHz stereo, tracks 001 to 104, half of them in either archive:

        starnet-p1/001.0.wav   clarinet and vibraphone    starnet-p1/001.3.wav   strings and piano
        starnet-p1/001.1.wav   clarinet                   starnet-p1/001.4.wav   strings
        starnet-p1/001.2.wav   vibraphone                 starnet-p1/001.5.wav   piano

    The reduced version (16 kHz, one channel; `starnet_reduced` in lucacoma/DiffTransfer) has
    the same names. Folders may have any names, as long as no track lies in two of them. Files of
    one track differ in length by up to some milliseconds.

    The ten excerpts of 10 s that both papers test with (001 to 010, in lucacoma/DiffTransfer as
    music_star_test) are no part of the archives, though some are taken from tracks of it; it is
    not published which. Put them into a folder with `test` in its name.
    """

    folder: str  # with all that lies below it
    conversion: str = "all"  # of CONVERSIONS, from what timbre to which
    validation: tuple[int, ...] = VALIDATION  # tracks; (): the builder chooses

    def __post_init__(self):
        if self.conversion != "all" and self.conversion not in CONVERSIONS:
            raise UserError(f"no conversion {self.conversion!r}; choose from all, "
                            f"{', '.join(CONVERSIONS)}")

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        tracks, skipped = _find_tracks(self.folder)
        items = []
        for conversion in CONVERSIONS if self.conversion == "all" else (self.conversion,):
            for track, files in tracks.items():
                lacking = [f"{track[-3:]}.{FILES[kind]}.wav" for kind in CONVERSIONS[conversion]
                           if FILES[kind] not in files]
                if lacking:
                    skipped.append((f"{conversion}/{track}", f"{' and '.join(lacking)} missing; "
                                                             "unpack the data set again"))
                else:
                    items.append(self._item(conversion, track, files))
        if not items:
            raise UserError("{}: no track can be used ({}: {})".format(self.folder, *skipped[0]))
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"conversion": self.conversion, "validation": [*self.validation]}

    def _item(self, conversion: str, track: str, files: Mapping[int, str]) -> Item:
        source, target = CONVERSIONS[conversion]
        sounds = {kind: AudioFile(path=files[i]) for kind, i in FILES.items() if i in files}
        parts = target.split("_")
        mixed = len(parts) > 1 and all(part in sounds for part in parts)
        if track.startswith("test-"):
            split: str | None = "test"
        elif self.validation:
            split = "validation" if int(track) in self.validation else "train"
        else:
            split = None
        return Item(name=f"{conversion}/{track}", split=split, audio=sounds[target],
                    source=sounds[source], style=target, piece=track,
                    casting=functools.partial(_casting, source, target),
                    stems=tuple(Stem(program=PROGRAMS[part], audio=sounds[part])
                                for part in parts if mixed))


def _casting(source: str, target: str) -> dict[int, int]:
    """Returns which program of the target plays what each of the source plays, in the order of names."""
    pairs = zip(source.split("_"), target.split("_"), strict=True)
    return {PROGRAMS[one]: PROGRAMS[other] for one, other in pairs}


def _find_tracks(folder: str) -> tuple[dict[str, dict[int, str]], list[tuple[str, str]]]:
    """Finds track (001, test-001) → number of FILES → path; and the files that are none, with reasons."""
    found, unread = find_audio(folder)
    tracks: dict[str, dict[int, str]] = collections.defaultdict(dict)
    skipped = [(path, reason) for path, reason in unread]
    for path in (file.path for file in found):
        *above, name = path.split("/")
        match = re.fullmatch(r"(\d{3})\.([0-5])\.\w+", name)
        if not match:
            skipped.append((path, "is not named as StarNet's files, e.g. 001.0.wav; move it away"))
            continue
        test = any("test" in part.lower() for part in above)
        files, part = tracks["test-" * test + match[1]], int(match[2])
        full = str(pathlib.Path(folder, path))
        if part in files:
            raise UserError(f"{full}: the same file as {files[part]}; give the folder of the full or "
                            "the reduced version of StarNet, not of both")
        files[part] = full
    if not tracks:
        raise UserError(f"{folder}: no files of StarNet there; give the folder that its archives "
                        "unpack to, with starnet-p1/001.0.wav and so on")
    return dict(sorted(tracks.items())), skipped
