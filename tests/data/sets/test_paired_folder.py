"""The reader of a user's pairs against its fixture."""

import os

import numpy as np
import pytest
from layouts import paired_folder as layout
from layouts.agree import assert_notes, assert_same
from layouts.common import scale, write_wav

from music_diffusion.data.sets.paired_folder import PairedFolder
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes


def pair(folder, name, notes):
    """Writes song.mid and song.wav."""
    write_wav(folder / f"{name}.wav", np.zeros(800, np.float32), 800)
    write_midi(notes, folder / f"{name}.mid")


def test_pairs_are_found(tmp_path):
    truths = layout.build(tmp_path)
    items = {item.name: item for item in PairedFolder(folder=str(tmp_path)).list().items}
    lossy = [t for t in truths if t.name == "train/solo/deep/er/b"]
    assert_same([items.pop(t.name) for t in lossy], lossy, lossy=True)
    assert_same(list(items.values()), [t for t in truths if t not in lossy])


def test_files_without_a_pair_are_named(tmp_path):
    layout.build(tmp_path)
    skipped = dict(PairedFolder(folder=str(tmp_path)).list().skipped)
    assert skipped.keys() == {"quartet/unplayed.mid", "quartet/unwritten.wav", "quartet/phone.m4a",
                              "twice.mid", "twice.wav", "audio/twice.flac"}
    assert "no audio file" in skipped["quartet/unplayed.mid"]
    assert "no MIDI file" in skipped["quartet/unwritten.wav"]
    assert "twice.mid, audio/twice.flac, twice.wav" in skipped["twice.wav"]


def test_one_folder_is_no_performance(tmp_path):
    (tmp_path / "one" / "deeper").mkdir(parents=True)
    (tmp_path / "train").mkdir()
    pair(tmp_path / "one", "a", scale())
    pair(tmp_path / "one" / "deeper", "b", scale())
    pair(tmp_path / "train", "c", scale())
    items = PairedFolder(folder=str(tmp_path)).list().items
    assert [item.performance for item in items] == [None, None, None]


def test_program_can_be_told(tmp_path):
    notes = Notes.concatenate([scale(program=0, count=3), scale(drum=True, pitch=36, count=2)])
    pair(tmp_path, "a", notes)
    melodic, drum = notes[~notes.is_drum], notes[notes.is_drum]
    violin = PairedFolder(folder=str(tmp_path), program=40).list().items[0].notes()
    assert_notes(violin, Notes.concatenate([
        Notes(melodic.start, melodic.end, melodic.pitch, melodic.velocity, np.full(3, 40),
              melodic.is_drum), drum]))
    drums = PairedFolder(folder=str(tmp_path), program=128).list().items[0].notes()
    assert drums.is_drum.all() and not drums.program.any()
    assert sorted(drums.pitch) == sorted(notes.pitch)


def test_damaged_midi_is_told_when_it_is_read(tmp_path):
    pair(tmp_path, "a", scale())
    (tmp_path / "a.mid").write_bytes(b"MThd")
    with pytest.raises(UserError, match="a.mid"):
        PairedFolder(folder=str(tmp_path)).list().items[0].notes()


def test_wrong_use_is_refused(tmp_path):
    with pytest.raises(UserError, match="no audio"):
        PairedFolder(folder=str(tmp_path)).list()
    write_wav(tmp_path / "a.wav", np.zeros(800, np.float32), 800)
    with pytest.raises(UserError, match="no MIDI file with a recording"):
        PairedFolder(folder=str(tmp_path)).list()
    for program in (-1, 129):
        with pytest.raises(UserError, match="0..127"):
            PairedFolder(folder="x", program=program)


@pytest.mark.parametrize("recording", ["caf\u00e9", "cafe\u0301", os.fsdecode(b"caf\xe9")])
@pytest.mark.parametrize("notes", ["caf\u00e9", "cafe\u0301", os.fsdecode(b"caf\xe9")])
def test_names_that_look_alike_belong_together(tmp_path, recording, notes):
    (tmp_path / f"{recording}.wav").touch()
    (tmp_path / f"{notes}.mid").touch()
    [item] = PairedFolder(folder=str(tmp_path)).list().items
    assert item.name == "caf\u00e9"
    assert (*item.audio.files, *item.note_files) == tuple(
        str(tmp_path / name) for name in (f"{recording}.wav", f"{notes}.mid"))
