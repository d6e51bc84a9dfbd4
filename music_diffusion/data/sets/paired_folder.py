"""A user's own folder of MIDI files and recordings of them."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib

import numpy as np

from music_diffusion.data.audio_folder import find_audio
from music_diffusion.data.items import DRUM_PROGRAM, Item, Listing
from music_diffusion.data.sets.plain_audio import SPLIT_OF, folder_split
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.paths import name_key

MIDI_EXTENSIONS = frozenset({".mid", ".midi", ".kar"})
# Folders that part the two kinds of files: a file is looked for as if they were not there.
KINDS = frozenset({"midi", "midis", "mid", "notes", "scores", "labels", "annotations",
                   "audio", "audios", "recordings", "wav", "wavs", "flac", "mp3", "ogg"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedFolder:
    """Pairs of a MIDI file and the recording that it is aligned with, found by their names.

    `song.mid` belongs to `song.wav` in the same folder, at any depth, or in a parallel one:
    `train/midi/song.mid` to `train/audio/song.wav`, `midi/train/song.mid` to
    `audio/train/song.wav` (folders of `KINDS`). Names must match in case, though not in how é is
    spelled (`paths.name_key`). MIDI files end in .mid, .midi or .kar, audio files as in
    `data.audio_folder.EXTENSIONS`.

    Files below a folder named train, validation (valid, val, dev) or test belong to that split. If
    the pairs lie in several folders at the top (those of splits and of `KINDS` aside), these are
    their performances. For other labels write a table: see `data.sets.recording_list`.
    """

    folder: str  # with all that lies below it
    program: int | None = None  # of all notes, 0..127 or 128 for drums; None: as in the MIDI files
    velocities: bool = True  # False: the MIDI files do not say how hard notes are struck

    def __post_init__(self):
        if self.program is not None and not 0 <= self.program <= DRUM_PROGRAM:
            raise UserError(f"program {self.program}: give 0..127 of General MIDI (0 is the piano), "
                            f"or {DRUM_PROGRAM} for drums")

    def list(self) -> Listing:
        """See `data.items.DataSet`."""
        files, found = find_audio(self.folder)
        skipped = [(path, reason) for path, reason in found]
        audio = _by_key(file.path for file in files)
        midi = _by_key(find_midi(self.folder))
        pairs = []
        for key in sorted(audio.keys() | midi.keys()):
            recordings, notes = audio.get(key, ()), midi.get(key, ())
            if len(recordings) == len(notes) == 1:
                pairs.append((key, recordings[0], notes[0]))
            elif recordings and notes:
                skipped += [(path, "is not alone: {} go together; keep one of each".format(
                    ", ".join((*notes, *recordings)))) for path in (*notes, *recordings)]
            else:
                missing = "MIDI file" if recordings else "audio file"
                skipped += [(path, f"no {missing} of that name; add it beside")
                            for path in (*notes, *recordings)]
        if not pairs:
            raise UserError(f"{self.folder}: no MIDI file with a recording of the same name; give "
                            "each song.mid its song.wav, in the same folder or in midi and audio")
        several = len({_top(recording) for _, recording, _ in pairs} - {None}) > 1
        return Listing(items=tuple(self._item(*pair, several) for pair in pairs),
                       skipped=tuple(sorted(skipped)))

    def identity(self) -> dict[str, object]:
        """See `data.items.DataSet`."""
        return {"program": self.program, "velocities": self.velocities}

    def _item(self, key: str, recording: str, notes: str, several: bool) -> Item:
        path = os.path.join(self.folder, notes)
        return Item(name=key, split=folder_split(recording),
                    audio=AudioFile(path=os.path.join(self.folder, recording)),
                    notes=functools.partial(read_as, path, self.program), note_files=(path,),
                    velocities=self.velocities, performance=_top(recording) if several else None)


def read_as(path: str, program: int | None) -> Notes:
    """Reads a MIDI file's notes, all of one program unless it is None; see `read_midi` for errors."""
    notes = read_midi(path)
    if program is None:
        return notes
    drum = np.full(len(notes), True) if program == DRUM_PROGRAM else notes.is_drum
    return dataclasses.replace(notes, program=np.where(drum, 0, program), is_drum=drum)


def find_midi(folder: str) -> list[str]:
    """Finds the relative paths, with '/', of the MIDI files below a folder; links are followed."""
    found, seen = [], set()
    for at, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(at) in seen:  # a link back up
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        found += [pathlib.Path(at, name).relative_to(folder).as_posix() for name in names
                  if pathlib.PurePath(name).suffix.lower() in MIDI_EXTENSIONS
                  and not name.startswith(".")]
    return sorted(found)


def _by_key(paths) -> dict[str, list[str]]:
    """Groups files by the part of their paths that files of a pair have in common."""
    found = collections.defaultdict(list)
    for path in paths:
        *folders, name = path.split("/")
        kept = [part for part in folders if part.lower() not in KINDS]
        found[name_key("/".join((*kept, pathlib.PurePath(name).stem)))].append(path)
    return found


def _top(path: str) -> str | None:
    """Returns the first folder of a relative path that stands for no split and no kind of file."""
    return next((part for part in path.split("/")[:-1]
                 if part.lower() not in KINDS and part.lower() not in SPLIT_OF), None)
