"""The reader of URMP against a small one of known content."""

import numpy as np
import pytest
from layouts.compare import assert_reads
from layouts.urmp import build

from music_diffusion.data.sets.urmp import MT3_VALIDATION, PROGRAMS, Urmp, read_players
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import PROGRAM_NAMES

LEVEL = 2**-22  # of 24 bit


def by_name(listing):
    return {item.name: item for item in listing.items}


def test_finds_what_is_there(tmp_path):
    truths = build(tmp_path)
    listing = Urmp(folder=str(tmp_path)).list()
    assert listing.skipped == ()
    items = by_name(listing)
    assert set(items) == {truth.name for truth in truths}
    for truth in truths:
        if truth.stems:
            assert_reads(items[truth.name], truth, LEVEL)


def test_the_folder_tells_the_trombone_that_its_files_call_a_trumpet(tmp_path):
    truth = next(truth for truth in build(tmp_path) if truth.name.startswith("15"))
    item = by_name(Urmp(folder=str(tmp_path)).list())[truth.name]
    assert [stem.program for stem in item.stems] == [56, 56, 57]
    assert sorted(set(item.notes().program)) == [56, 57]
    total = sum(read_sound(stem.audio, truth.sample_rate) for stem in item.stems)
    np.testing.assert_allclose(total / 3, truth.samples, atol=LEVEL)


def test_instruments_have_general_midi_names():
    names = {"vn": "Violin", "va": "Viola", "vc": "Cello", "db": "Contrabass", "fl": "Flute",
             "ob": "Oboe", "cl": "Clarinet", "sax": "Soprano Sax", "bn": "Bassoon", "tpt": "Trumpet",
             "hn": "French Horn", "tbn": "Trombone", "tba": "Tuba"}
    assert {name: PROGRAM_NAMES[program] for name, program in PROGRAMS.items()} == names
    assert MT3_VALIDATION < set(range(1, 45)) and len(MT3_VALIDATION) == 9


@pytest.mark.parametrize("gone, kind", [
    ("AuMix_01_Jupiter_vn_vc.wav", "AuMix_01_*.wav"), ("AuSep_2_vc_01_Jupiter.wav", "AuSep_2_*.wav"),
    ("Notes_1_vn_01_Jupiter.txt", "Notes_1_*.txt")])
def test_incomplete_pieces_are_named(tmp_path, gone, kind):
    build(tmp_path)
    (tmp_path / "01_Jupiter_vn_vc" / gone).unlink()
    listing = Urmp(folder=str(tmp_path)).list()
    assert "01_Jupiter_vn_vc" not in by_name(listing) and len(listing.items) == 2
    ((name, why),) = listing.skipped
    assert name == "01_Jupiter_vn_vc" and f"one file each of {kind};" in why


def test_two_files_of_one_player_are_named(tmp_path):
    build(tmp_path)
    folder = tmp_path / "01_Jupiter_vn_vc"
    (folder / "AuSep_1_va_01_Jupiter.wav").write_bytes(b"")
    ((name, why),) = Urmp(folder=str(tmp_path)).list().skipped
    assert name == folder.name and "AuSep_1_*.wav;" in why


@pytest.mark.parametrize("name", ["45_New_xx_vn", "46_New"])
def test_unknown_instruments_are_named(tmp_path, name):
    build(tmp_path)
    (tmp_path / name).mkdir()
    ((found, why),) = Urmp(folder=str(tmp_path)).list().skipped
    assert found == name and "instruments among vn" in why


def test_wrong_folders_are_refused(tmp_path):
    (tmp_path / "Supplementary_Files").mkdir()
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UserError, match="01_Jupiter_vn_vc"):
            Urmp(folder=str(folder)).list()


def test_pitches_are_rounded(tmp_path):
    file = tmp_path / "Notes_1_vn_01_Jupiter.txt"
    cents = (-49, 0, 49, 51)
    file.write_text("".join(f"{k} {440 * 2 ** (c / 1200):.6f} 0.5\n\n" for k, c in enumerate(cents)))
    notes = read_players((str(file),), (40,))
    assert notes.pitch.tolist() == [69, 69, 69, 70]
    assert notes.start.tolist() == [0, 1, 2, 3] and notes.end.tolist() == [0.5, 1.5, 2.5, 3.5]


@pytest.mark.parametrize("text", ["0.1 440\n", "0.1 440 0.2 1\n", "a b c\n", "0.1 0 0.2\n",
                                  "0.1 440 -1\n", "0.1 40000 1\n", "nan 440 1\n"])
def test_damaged_notes_are_named(tmp_path, text):
    file = tmp_path / "Notes_1_vn_01_Jupiter.txt"
    file.write_text("1.0 440 0.5\n" + text)
    with pytest.raises(UserError, match=r"Notes_1_vn_01_Jupiter\.txt: not lines of onset"):
        read_players((str(file),), (40,))


def test_notes_that_are_gone_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.txt: cannot be read"):
        read_players((str(tmp_path / "gone.txt"),), (40,))
