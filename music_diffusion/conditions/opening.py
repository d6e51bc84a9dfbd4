"""Opening of what a user gives to render from: notes and recordings."""

from __future__ import annotations

import numpy as np

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Given, Source
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes


def notes_source(given: Given, codec: MelCodec, tail: float) -> Source:
    """Returns notes, or those of a MIDI file, as a source that ends `tail` seconds after them.

    Raises UserError: no notes, no MIDI file, or a file that cannot be read.
    """
    if isinstance(given, Source):
        notes = given.notes
    elif isinstance(given, Waveform) or given is None:
        notes = None
    else:
        notes = given if isinstance(given, Notes) else read_midi(given)
    if notes is None:
        raise UserError("this model plays notes: give notes or a MIDI file")
    if not len(notes):
        raise UserError("there are no notes to render")
    if isinstance(given, Source):
        return given
    return Source(codec=codec, notes=notes,
                  frames=int(np.ceil((notes.duration + tail) * codec.frame_rate)))


def recording_source(given: Given, codec: MelCodec) -> Source:
    """Returns a recording, or that of an audio file, as the source of a spectrogram as long.

    Raises UserError: no recording, or a file that cannot be read.
    """
    if isinstance(given, Source):
        if given.mel is None:
            raise UserError("this model changes recordings: give audio")
        return given
    if isinstance(given, Notes) or given is None:
        raise UserError("this model changes recordings: give a waveform or an audio file")
    wave = given if isinstance(given, Waveform) else read_audio(given)
    mel = codec.encode(wave.mono().resample(codec.sample_rate).samples)
    return Source(codec=codec, mel=mel, frames=len(mel))
