"""Opening of what a user gives to render from: notes and recordings."""

from __future__ import annotations

import os

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Given, Source
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import MidiFile, read_midi_file
from music_diffusion.notes.notes import Notes


def notes_source(given: Given, codec: MelCodec, tail: float) -> Source:
    """Returns notes, or those of a MIDI file, as a source that ends `tail` seconds after them.

    Raises UserError: no notes, no MIDI file, or a file that cannot be read.
    """
    if given is None or isinstance(given, Waveform) or isinstance(given, Source) and given.notes is None:
        raise UserError("this model plays notes: give notes or a MIDI file")
    if isinstance(given, Source):
        source = given
    elif isinstance(given, Notes):
        source = Source(codec=codec, notes=given, frames=_frames(given, codec, tail))
    else:
        file = given if isinstance(given, MidiFile) else read_midi_file(given)
        source = Source(codec=codec, notes=file.notes, frames=_frames(file.notes, codec, tail),
                        name=file.path, ignored=file.ignored, warnings=file.warnings)
    if not source.notes:
        raise UserError("there are no notes to render")
    return source


def _frames(notes: Notes, codec: MelCodec, tail: float) -> int:
    return int(np.ceil((notes.duration + tail) * codec.frame_rate))


def recording_source(given: Given, codec: MelCodec) -> Source:
    """Returns a recording, or that of an audio file, as the source of a spectrogram as long.

    Raises UserError: no recording, or a file that cannot be read.
    """
    if isinstance(given, Source):
        if given.mel is None:
            raise UserError("this model changes recordings: give audio")
        return given
    if given is None or isinstance(given, Notes | MidiFile):
        raise UserError("this model changes recordings: give a waveform or an audio file")
    wave = given if isinstance(given, Waveform) else read_audio(given)
    mel = codec.encode(wave.mono().resample(codec.sample_rate).samples)
    name = "" if isinstance(given, Waveform) else os.fspath(given)
    return Source(codec=codec, mel=mel, frames=len(mel), name=name)
