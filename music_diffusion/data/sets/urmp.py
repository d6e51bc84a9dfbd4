"""URMP (Li et al., 2018): 44 chamber pieces whose players were recorded one by one.

The archive (doi.org/10.5061/dryad.ng3r749) has a folder for each piece:

    01_Jupiter_vn_vc/AuMix_01_Jupiter_vn_vc.wav   all players, 48 kHz, 24 bit
                     AuSep_1_vn_01_Jupiter.wav    player 1
                     Notes_1_vn_01_Jupiter.txt    a note a line: onset (s), pitch (Hz), duration (s)
                     AuSep_2_vc_01_Jupiter.wav, Notes_2_vc_01_Jupiter.txt,
                     F0s_*.txt, Sco_*.mid, Sco_*.pdf, Vid_*.mp4   (not read)

Notes were annotated from the recordings, without velocities.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re

import numpy as np

from music_diffusion.data.items import Item, Listing, Stem
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes
from music_diffusion.tables import read_text

# The data set's names of instruments → General MIDI programs from 0, as MT3 has them (which
# saxophone plays is not known).
PROGRAMS = {"vn": 40, "va": 41, "vc": 42, "db": 43, "tpt": 56, "tbn": 57, "tba": 58, "hn": 60,
            "sax": 64, "ob": 68, "bn": 70, "cl": 71, "fl": 73}
# MT3's pieces for validation (Gardner et al., 2022); all others are for training. Some of the
# music is in both, in another arrangement.
MT3_VALIDATION = frozenset((1, 2, 12, 13, 24, 25, 31, 38, 39))
VELOCITY = 100  # of all notes, as MT3 has it: the annotations have none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Urmp:
    """The pieces, under their folders' names, each with its players as stems."""

    folder: str  # the one that holds 01_Jupiter_vn_vc and so on

    def list(self) -> Listing:
        if not os.path.isdir(self.folder):
            raise UserError(f"{self.folder}: no such folder; give the one with 01_Jupiter_vn_vc in it")
        items, skipped = [], []
        for name in sorted(os.listdir(self.folder)):
            if not (re.match(r"\d\d_", name) and os.path.isdir(os.path.join(self.folder, name))):
                continue  # the data set's documentation, supplementary files
            found = _find(self.folder, name)
            if isinstance(found, Item):
                items.append(found)
            else:
                skipped.append((name, found))
        if not items:
            reasons = f" ({skipped[0][0]}: {skipped[0][1]})" if skipped else ""
            raise UserError(f"{self.folder}: no folders like 01_Jupiter_vn_vc there{reasons}; give the "
                            "folder that holds URMP's pieces")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def identity(self) -> dict:
        return {}


def _find(root: str, name: str) -> Item | str:
    """Returns the item of a piece's folder, or why there is none."""
    number, title, *instruments = name.split("_")
    unknown = [i for i in instruments if i not in PROGRAMS]
    if unknown or not instruments:
        return f"its name does not end in instruments among {', '.join(PROGRAMS)}; restore the name"
    folder = os.path.join(root, name)
    files = sorted(os.listdir(folder))

    def one(prefix: str, extension: str) -> str:
        matches = [f for f in files if f.startswith(prefix) and f.endswith(extension)]
        return os.path.join(folder, matches[0]) if len(matches) == 1 else ""

    mix = one(f"AuMix_{number}_", ".wav")
    # By the players' numbers alone: of 15_Surprise_tpt_tpt_tbn, the trombone's files are named tpt.
    players = range(1, len(instruments) + 1)
    stems = [one(f"AuSep_{player}_", ".wav") for player in players]
    notes = [one(f"Notes_{player}_", ".txt") for player in players]
    kinds = [f"AuMix_{number}_*.wav", *(f"AuSep_{p}_*.wav" for p in players),
             *(f"Notes_{p}_*.txt" for p in players)]
    lacks = [kind for kind, path in zip(kinds, (mix, *stems, *notes), strict=True) if not path]
    if lacks:
        return f"there must be one file each of {', '.join(lacks)}; unpack the archive again"
    programs = tuple(PROGRAMS[i] for i in instruments)
    return Item(
        name=name, split="validation" if int(number) in MT3_VALIDATION else "train",
        audio=AudioFile(path=mix), notes=functools.partial(read_players, tuple(notes), programs),
        note_files=tuple(notes), velocities=False,
        stems=tuple(Stem(program=program, audio=AudioFile(path=path))
                    for program, path in zip(programs, stems, strict=True)),
        performance=f"URMP {' '.join(instruments)}", piece=f"URMP {title}")


def read_players(paths: tuple[str, ...], programs: tuple[int, ...]) -> Notes:
    """Reads the notes of all players of a piece.

    Raises:
      UserError: a file is missing or damaged.
    """
    return Notes.concatenate([_read_player(path, program)
                              for path, program in zip(paths, programs, strict=True)])


def _read_player(path: str, program: int) -> Notes:
    rows, advice = [], "unpack the archive again"
    text = read_text(path, advice)
    try:
        for line in filter(str.strip, text.splitlines()):
            onset, hertz, seconds = (float(word) for word in line.split())
            rows.append((onset, onset + seconds, _pitch(hertz)))
        start, end, pitch = np.array(rows, np.float64).reshape(-1, 3).T
        same = np.ones(len(rows), int)
        return Notes(start, end, pitch, VELOCITY * same, program * same, 0 * same)
    except ValueError as e:
        raise UserError(f"{path}: not lines of onset, pitch and duration ({e}); {advice}") from e


def _pitch(hertz: float) -> int:
    """Returns the nearest key of a piano tuned to 440 Hz."""
    if hertz <= 0:
        raise ValueError(f"a pitch of {hertz} Hz")
    return round(69 + 12 * float(np.log2(hertz / 440)))
