import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
from layouts import cerberus4, slakh

from music_diffusion.data.sets.cerberus4 import Cerberus4
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

# 16-bit files round to steps of 2^-15 of full scale; four are added.
ROUNDING = 4 * 2**-15


def test_items_are_all_quartets(tmp_path):
    truths = cerberus4.build(tmp_path)
    listing = Cerberus4(folder=str(tmp_path)).list()
    assert not listing.skipped
    for item, truth in zip(listing.items, truths, strict=True):
        assert (item.name, item.split, item.piece) == (truth.name, truth.split, truth.piece)
        for copy in (item, pickle.loads(pickle.dumps(item))):
            assert slakh.rows(copy.notes()) == slakh.rows(truth.notes)
            np.testing.assert_allclose(read_sound(copy.audio, slakh.RATE), truth.samples, atol=ROUNDING)
            for stem, (program, samples) in zip(copy.stems, truth.stems.items(), strict=True):
                assert stem.program == program
                np.testing.assert_allclose(read_sound(stem.audio, slakh.RATE), samples, atol=ROUNDING)


def test_stems_can_keep_their_programs_and_basses_sound_as_they_do(tmp_path):
    songs = slakh.build_songs(tmp_path)
    reader = Cerberus4(folder=str(tmp_path), group_programs=False, sounding_bass=True)
    for item, (song, keys) in zip(reader.list().items, cerberus4.QUARTETS, strict=True):
        stems = [songs[song][key] for key in keys]
        assert [s.program for s in item.stems] == [s.program for s in stems]
        lowered = [dataclasses.replace(s.notes, pitch=s.notes.pitch - 12 * (s.program in (32, 33)))
                   for s in stems]
        assert slakh.rows(item.notes()) == slakh.rows(Notes.concatenate(lowered))


def test_grouping_does_not_hide_which_bass_was_raised(tmp_path):
    # 36 is played by the patch that sounds as written, 32 and 33 are not.
    slakh.build_songs(tmp_path)
    readers = (Cerberus4(folder=str(tmp_path), sounding_bass=sounding) for sounding in (False, True))
    written, sounding = (reader.list().items for reader in readers)
    shifts = []
    for a, b in zip(written, sounding, strict=True):
        bass = [item.notes()[item.notes().program == 32].pitch for item in (a, b)]
        shifts.append(set(bass[0] - bass[1]))
    assert shifts == [{12}, {12}, {0}, {12}]


def test_tracks_without_one_of_the_four_give_nothing(tmp_path):
    slakh.build_songs(tmp_path)
    table = tmp_path / "test/Track01876/metadata.yaml"
    table.write_text(table.read_text().replace("program_num: 27", "program_num: 40"))
    listing = Cerberus4(folder=str(tmp_path)).list()
    assert {i.split for i in listing.items} == {"train", "validation"} and not listing.skipped
    for split in ("train", "validation"):
        shutil.rmtree(tmp_path / split)
    with pytest.raises(UserError, match="none of its 1 tracks has piano, guitar, bass and drums"):
        Cerberus4(folder=str(tmp_path)).list()


def test_damaged_tracks_are_skipped_as_of_slakh(tmp_path):
    slakh.build_songs(tmp_path)
    (tmp_path / "test/Track01876/stems/S00.flac").unlink()
    (name, reason), = Cerberus4(folder=str(tmp_path)).list().skipped
    assert name == "test/Track01876" and "S00.flac" in reason
    with pytest.raises(UserError, match="no train/Track00001"):
        Cerberus4(folder=str(tmp_path / "nowhere")).list()


def test_options_identify_the_items():
    identities = [Cerberus4(folder=".", **o).identity() for o in
                  ({}, dict(group_programs=False), dict(sounding_bass=True))]
    assert len({json.dumps(i, sort_keys=True) for i in identities}) == 3
