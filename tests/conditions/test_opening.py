"""What users give to render from."""

import math

import numpy as np
import pytest
from reference.excerpts import CODECS, MELS, random_notes

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.opening import notes_source, recording_source
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

WAVE = Waveform(np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32), 16000)


@pytest.mark.parametrize("codec", CODECS)
def test_a_piece_of_notes_ends_a_tail_after_the_last(codec):
    notes = random_notes(2.0)
    source = notes_source(notes, codec, 1.5)
    assert source.notes is notes and source.mel is None and source.performance is None
    assert source.frames == math.ceil((notes.end.max() + 1.5) * codec.frame_rate)
    assert notes_source(source, codec, 0.0) is source
    for conditions in (NoteFrames(), NoteTokens()):
        assert conditions.open(notes, codec, 1.5).frames == source.frames


def test_midi_files_are_read(tmp_path):
    write_midi(Notes([0.5], [1.0], [60], [90], [40], [False]), tmp_path / "a.mid")
    for given in (tmp_path / "a.mid", str(tmp_path / "a.mid")):
        source = notes_source(given, CODECS[0], 1.0)
        assert source.notes.pitch.tolist() == [60] and source.frames == pytest.approx(100, abs=1)


def test_audio_files_are_read_in_the_codecs_rate(tmp_path):
    write_audio(tmp_path / "a.wav", WAVE)
    source = recording_source(tmp_path / "a.wav", CODECS[0])
    assert source.frames == len(source.mel) == 25 and source.notes is None
    np.testing.assert_allclose(source.mel, CODECS[0].encode(WAVE.samples), atol=0.1)  # of 16 bits
    assert recording_source(WAVE, CODECS[1]).frames == math.ceil(0.5 * CODECS[1].frame_rate)
    assert recording_source(source, CODECS[0]) is source


def test_what_is_of_another_kind_is_refused(tmp_path):
    mel = Source(codec=CODECS[0], frames=8, mel=np.zeros((8, MELS)))
    for given in (None, WAVE, mel):
        with pytest.raises(UserError, match="this model plays notes"):
            notes_source(given, CODECS[0], 1.0)
    for given in (Notes.empty(), Source(codec=CODECS[0], frames=8, notes=Notes.empty())):
        with pytest.raises(UserError, match="no notes to render"):
            notes_source(given, CODECS[0], 1.0)
    for given in (None, random_notes(1.0), Source(codec=CODECS[0], frames=8, notes=random_notes(1.0))):
        with pytest.raises(UserError, match="this model changes recordings"):
            recording_source(given, CODECS[0])
    for read in (lambda: notes_source(tmp_path / "none.mid", CODECS[0], 1.0),
                 lambda: recording_source(tmp_path / "none.wav", CODECS[0])):
        with pytest.raises(UserError, match="none"):
            read()
