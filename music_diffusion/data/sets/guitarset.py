"""GuitarSet: six guitarists play thirty lead sheets, in chords and in solos, on an acoustic guitar.

Xi et al., "GuitarSet: A Dataset for Guitar Transcription", ISMIR 2018; version
1.1.0 of zenodo.org/record/3371780. Each archive unpacks into a folder of its
name:

    annotation/00_BN1-129-Eb_comp.jams     player _ style, progression - tempo - key _ comp or solo
    audio_mono-mic/…_mic.wav               a condenser microphone
    audio_mono-pickup_mix/…_mix.wav        the sum of the six strings' pickups
    audio_hex-pickup_original/…_hex.wav    one channel a string
    audio_hex-pickup_debleeded/…_hex_cln.wav

A JAMS file is JSON with, among others, six annotations `note_midi`, one a
string: time and duration in seconds, and a fractional MIDI number.

There is no published split. MT3's (Gardner et al., 2022, appendix B.4) takes of every
style the first two progressions for training, the third for validation. It
counts 478 and 238 tracks: with two recordings of each, all but one excerpt of
either, which fits the two of LATE.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re

import numpy as np

from music_diffusion.data.items import Item, Listing
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import MIN_NOTE_SECONDS
from music_diffusion.notes.notes import Notes

# Kind of recording → its folder; the kind also ends its files' names.
RECORDINGS = {"mic": "audio_mono-mic", "mix": "audio_mono-pickup_mix",
              "hex": "audio_hex-pickup_original", "hex_cln": "audio_hex-pickup_debleeded"}
STYLES = {"BN": "Bossa Nova", "Funk": "Funk", "Jazz": "Jazz", "Rock": "Rock",
          "SS": "Singer-Songwriter"}
NAME = re.compile(r"(?P<player>\d\d)_(?P<piece>(?P<style>[A-Za-z]+)(?P<progression>[123])-\d+-[A-G][b#]?)"
                  r"_(?:comp|solo)")
# Their notes are late by seconds (github.com/marl/GuitarSet, issue 5).
LATE = {"04_BN3-154-E_comp": 0.409, "04_Jazz1-200-B_comp": 0.309}
VELOCITY = 100  # of every note, as the annotations have none


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuitarSet:
    """Reader of GuitarSet, in MT3's split. Every recording of an excerpt is an item of its own."""

    folder: str  # with annotation and audio_mono-mic, or the other folders of audio
    recordings: tuple[str, ...] = ("mic",)  # of RECORDINGS; hex and hex_cln as the mean of six channels
    program: int = 24  # of all notes, 0..127; MT3's, the first guitar. Steel strings would be 25
    late: bool = False  # keep the two excerpts whose notes are late, too

    def __post_init__(self):
        if not self.recordings or not set(self.recordings) <= set(RECORDINGS):
            raise UserError(f"recordings {self.recordings}: choose among {', '.join(RECORDINGS)}")
        if not 0 <= self.program <= 127:
            raise UserError(f"{self.program=} must be in 0..127")

    def list(self) -> Listing:
        """Raises UserError: no annotations there, or none that has audio."""
        root = pathlib.Path(self.folder)
        paths = sorted(p for p in root.glob("annotation/*.jams") if not p.name.startswith("."))
        if not paths:
            raise UserError(f"{self.folder}: no annotation/*.jams there; give the folder where each "
                            "archive is unpacked into a folder of its name (annotation, audio_mono-mic)")
        items, skipped = [], []
        for path in paths:
            for kind in self.recordings:
                found = self._item(root, path, kind)
                if isinstance(found, Item):
                    items.append(found)
                else:
                    skipped.append((f"{path.stem}_{kind}", found))
        if not items:
            raise UserError(f"{self.folder}: none of {len(skipped)} recordings can be used "
                            f"({skipped[0][0]}: {skipped[0][1]})")
        return Listing(items=tuple(items), skipped=tuple(skipped))

    def _item(self, root: pathlib.Path, path: pathlib.Path, kind: str) -> Item | str:
        """Returns an item, or the reason to skip it."""
        match = NAME.fullmatch(path.stem)
        if match is None or match["style"] not in STYLES:
            return "not named like 00_BN1-129-Eb_comp.jams; give it its published name"
        if path.stem in LATE and not self.late:
            return f"its notes are {LATE[path.stem]} s late; late=True keeps it"
        audio = root / RECORDINGS[kind] / f"{path.stem}_{kind}.wav"
        if not audio.is_file():
            return f"no {RECORDINGS[kind]}/{audio.name}; unpack {RECORDINGS[kind]}.zip into that folder"
        player = match["player"]
        return Item(
            name=f"{path.stem}_{kind}",
            split="validation" if match["progression"] == "3" else "train",
            audio=AudioFile(path=str(audio)),
            notes=functools.partial(read_jams, str(path), self.program), note_files=(str(path),),
            velocities=False,
            # Microphone and pickup sound too different for one label.
            performance=player if len(self.recordings) == 1 else f"{player}_{kind}",
            style=STYLES[match["style"]], piece=match["piece"])

    def identity(self) -> dict[str, object]:
        return {"recordings": [*self.recordings], "program": self.program, "late": self.late}


def read_jams(path: str, program: int) -> Notes:
    """Reads the notes of a JAMS file's `note_midi` annotations, at the nearest semitones.

    Args:
      path: a JAMS file.
      program: of all notes, 0..127.

    Returns:
      The notes in seconds, at VELOCITY; shorter ones than 10 ms last 10 ms.

    Raises:
      UserError: the file is missing, not JAMS, or has no notes or impossible ones.
    """
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
        strings = [_columns(annotation["data"]) for annotation in content["annotations"]
                   if annotation["namespace"] == "note_midi"]
        table = np.concatenate([np.zeros((0, 3)), *strings])
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file") from e
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: not a JAMS file of notes ({type(e).__name__}: "
                        f"{' '.join(str(e).split())[:120]}); unpack annotation.zip again") from e
    if not len(table):
        raise UserError(f"{path}: no note_midi annotation with notes; unpack annotation.zip again")
    start, duration, value = table.T
    if not np.isfinite(table).all() or (duration < 0).any():
        raise UserError(f"{path}: a note without time, duration or pitch; unpack annotation.zip again")
    same = np.ones(len(table))
    try:
        return Notes(start, start + np.maximum(duration, MIN_NOTE_SECONDS), np.floor(value + 0.5),
                     VELOCITY * same, program * same, np.zeros(len(table), bool))
    except ValueError as e:
        raise UserError(f"{path}: {e}; unpack annotation.zip again") from e


def _columns(data: list | dict) -> np.ndarray:
    """Returns [N, 3] time, duration, value of an annotation, which JAMS writes by note or by column."""
    names = ("time", "duration", "value")
    columns = [data[n] for n in names] if isinstance(data, dict) else [[o[n] for o in data] for n in names]
    return np.stack([np.asarray(column, np.float64) for column in columns], axis=-1)
