"""The data sets that can be prepared, by name."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import typing
from collections.abc import Mapping

from music_diffusion.data.items import DataSet
from music_diffusion.errors import UserError


class Entry(typing.NamedTuple):
    """A data set's reader, by its place in the package."""

    module: str  # below music_diffusion.data.sets
    reader: str  # class in it
    about: str  # a line for people
    source: str  # what SRC is

    def load(self) -> type:
        """Imports the reader's class."""
        return getattr(importlib.import_module(f"music_diffusion.data.sets.{self.module}"), self.reader)


CATALOGUE: dict[str, Entry] = {
    "paired_folder": Entry("paired_folder", "PairedFolder", "your own recordings with their MIDI files",
                           "a folder of song.wav beside song.mid"),
    "recording_list": Entry("recording_list", "RecordingList",
                            "a table of your recordings: audio, notes, performance, style, split",
                            "a CSV file, or the folder of recordings.csv"),
    "plain_audio": Entry("plain_audio", "PlainAudio", "any audio, without notes", "a folder of audio"),
    "soundfont": Entry("soundfont_renders", "SoundFontRenders",
                       "scores played by SoundFonts or recorded notes, in rooms, varied, in pairs",
                       "a folder of MIDI files, with a manifest.csv or without"),
    "maestro": Entry("maestro", "Maestro", "MAESTRO v3: piano competitions", "maestro-v3.0.0"),
    "slakh": Entry("slakh", "Slakh", "Slakh2100: rendered multitracks, ten random subsets of each",
                   "slakh2100_flac_redux"),
    "cerberus4": Entry("cerberus4", "Cerberus4", "Cerberus4: piano, guitar, bass and drums of Slakh2100",
                       "slakh2100_flac_redux"),
    "guitarset": Entry("guitarset", "GuitarSet", "GuitarSet: six players, solo and comping",
                       "a folder with annotation and audio_mono-mic"),
    "musicnet": Entry("musicnet", "MusicNet", "MusicNet: classical recordings", "musicnet"),
    "urmp": Entry("urmp", "Urmp", "URMP: chamber music, part by part", "Dataset of URMP"),
    "mt3_records": Entry("mt3_records", "Mt3Records", "MT3's TFRecords of NoteSequence and audio",
                         "a folder of .tfrecord files; --option config=NAME"),
    "starnet": Entry("starnet", "StarNet", "StarNet: the same notes in two timbres", "starnet"),
    "gtzan": Entry("gtzan", "Gtzan", "GTZAN: ten genres, without notes", "a folder of genres"),
    "saraga": Entry("saraga", "Saraga", "Saraga: Carnatic concerts, without notes", "saraga1.5_carnatic"),
    "instrument_folders": Entry("instrument_folders", "InstrumentFolders",
                                "a folder of recordings for each instrument, without notes",
                                "a folder of instruments"),
    "bach_violin": Entry("bach_violin", "BachViolin", "Bach Violin Dataset: solo violin, aligned",
                         "a folder with info.csv, audio, notes and alignments"),
}


def open_set(name: str, folder: str, options: Mapping[str, typing.Any]) -> DataSet:
    """Makes the reader of a data set.

    Args:
      name: of CATALOGUE.
      folder: where it lies.
      options: of the reader's fields; text is read as their types.

    Raises:
      UserError: unknown data set or option, or a value that does not fit.
    """
    if name not in CATALOGUE:
        close = difflib.get_close_matches(name, CATALOGUE, 1)
        hint = f"did you mean {close[0]}?" if close else "see `music-diffusion prepare sets`"
        raise UserError(f"{name}: no such data set; {hint}")
    reader = CATALOGUE[name].load()
    known = {f.name: f.type for f in dataclasses.fields(reader) if f.name != "folder"}
    values = {}
    for option, value in options.items():
        if option not in known:
            raise UserError(f"{name}: has no option {option!r}; there are {', '.join(known) or 'none'}")
        values[option] = _parsed(value, str(known[option])) if isinstance(value, str) else value
    try:
        return reader(folder=folder, **values)
    except (TypeError, ValueError) as e:
        shown = ", ".join(f"{k}={v}" for k, v in options.items())
        raise UserError(f"{name}: the options {shown} do not fit: {e}") from e


def _parsed(text: str, kind: str):
    """Returns a value of the type of its field's annotation: text stays text, lists may lack brackets."""
    if kind.startswith("str"):
        return None if text == "None" else text
    if kind.startswith("tuple[str"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    if kind.startswith("tuple"):
        return tuple(value) if isinstance(value, tuple | list) else (value,)
    return value
