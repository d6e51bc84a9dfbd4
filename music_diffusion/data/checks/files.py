"""Checks of files: does their content fit their name, and of what codec is a prepared folder?"""

from __future__ import annotations

import json
import os
import pathlib

import soundfile

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import native_path
from music_diffusion.data.checks.findings import CODEC, EMPTY, UNREADABLE, Finding
from music_diffusion.data.items import Item
from music_diffusion.data.records import MANIFEST
from music_diffusion.errors import UserError
from music_diffusion.notes.channels import NOTE_ON, merge
from music_diffusion.notes.smf import parse_smf

# Extension → the formats of libsndfile that may stand behind it.
FORMATS = {
    ".wav": {"WAV", "WAVEX", "RF64"}, ".flac": {"FLAC"}, ".mp3": {"MP3"},
    ".ogg": {"OGG"}, ".oga": {"OGG"}, ".opus": {"OGG"}, ".aiff": {"AIFF"}, ".aif": {"AIFF"},
    ".aifc": {"AIFF"}, ".au": {"AU"}, ".caf": {"CAF"}, ".w64": {"W64"}, ".rf64": {"RF64"}}
# What files of other formats have at some byte.
FOREIGN = (
    (4, b"ftyp", "MPEG-4 (AAC or ALAC)"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media"),
    (0, b"MAC ", "Monkey's Audio"), (0, b"wvpk", "WavPack"), (0, b"\x1a\x45\xdf\xa3", "Matroska"),
    (0, b"MThd", "MIDI"), (0, b"<!DOCTYPE", "HTML"), (0, b"<html", "HTML"), (0, b"PK\x03\x04", "ZIP"),
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file itself"))


def check_names(item: Item) -> list[Finding]:
    """Finds audio files whose extension names another format than they have."""
    for path in item.audio.files:
        allowed = FORMATS.get(os.path.splitext(path)[1].lower())
        if allowed is None:
            continue
        try:
            with soundfile.SoundFile(native_path(path)) as file:
                its = file.format
        except (soundfile.LibsndfileError, TypeError, ValueError, RuntimeError):
            continue  # said by who reads it
        if its not in allowed:
            name = os.path.basename(path)
            return [Finding(item=item.name, kind=CODEC,
                            measured=f"{name} is a file of the format {its}, against its name",
                            advice="give it the extension of its format, or convert it: other "
                                   "readers go by the name")]
    return []


def unreadable(item: Item, error: UserError) -> Finding:
    """Returns the finding that an error of reading an item stands for."""
    for path in item.files:
        if not os.path.isfile(path):
            continue
        if os.path.getsize(path) == 0:
            return Finding(item=item.name, kind=EMPTY,
                           measured=f"{os.path.basename(path)} has no bytes")
        if path in item.note_files:
            if _without_notes(path):
                return Finding(item=item.name, kind=EMPTY,
                               measured=f"{os.path.basename(path)} has no notes")
        elif (foreign := _foreign(path)) and path in str(error):
            return Finding(item=item.name, kind=CODEC,
                           measured=f"{os.path.basename(path)} is {foreign}: it cannot be read")
    return Finding(item=item.name, kind=UNREADABLE, measured=str(error))


def _foreign(path: str) -> str | None:
    with open(path, "rb") as f:
        head = f.read(64)
    return next((name for at, magic, name in FOREIGN if head[at:at + len(magic)] == magic), None)


def _without_notes(path: str) -> bool:
    """Returns whether it is a whole MIDI file in which no note begins."""
    try:
        with open(path, "rb") as f:
            file = parse_smf(f.read(), path)
    except (OSError, UserError):
        return False
    events = merge(file.tracks)
    return not file.warnings and not ((events.kind == NOTE_ON) & (events.second > 0)).any()


def check_prepared(folder: str | os.PathLike, codec: MelCodec) -> list[Finding]:
    """Finds whether a folder that `prepare` made is of another codec. Other folders have no findings."""
    path = pathlib.Path(folder) / MANIFEST
    try:
        its = json.loads(path.read_text())["codec"]
        its = MelCodec.from_dict(its)
    except (OSError, ValueError, TypeError, KeyError, UserError):
        return []  # not made by `prepare`, or of other things than spectrograms
    try:
        codec.check_same(its)
    except UserError as error:
        return [Finding(item=MANIFEST, kind=CODEC, measured=str(error).partition(";")[0],
                        advice="train with the codec of the folder, or prepare it again with this one")]
    return []
