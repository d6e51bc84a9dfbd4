import collections
import dataclasses
import hashlib
import itertools
import json
import pickle
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from layouts import slakh

from music_diffusion.data.sets.slakh import Slakh, draw_subsets, read_stem_notes
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

# 16-bit files round to steps of 2^-15 of full scale; at most six are added.
ROUNDING = 6 * 2**-15
TRAIN, VALIDATION, TEST = list(slakh.SONGS)[:3]


def check(item, truth):
    assert (item.name, item.split, item.piece) == (truth.name, truth.split, truth.piece)
    assert item.velocities and item.performance is None
    for copy in (item, pickle.loads(pickle.dumps(item))):
        assert slakh.rows(copy.notes()) == slakh.rows(truth.notes)
        np.testing.assert_allclose(read_sound(copy.audio, slakh.RATE), truth.samples, atol=ROUNDING)
        assert [s.program for s in copy.stems] == [*truth.stems]
        for stem in copy.stems:
            np.testing.assert_allclose(read_sound(stem.audio, slakh.RATE), truth.stems[stem.program],
                                       atol=ROUNDING)


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_whole_mixes(tmp_path, suffix):
    truths = slakh.build(tmp_path, suffix)
    listing = Slakh(folder=str(tmp_path), subsets=0).list()
    assert not listing.skipped
    for item, truth in zip(listing.items, truths, strict=True):
        check(item, truth)
        assert item.audio.files == (str(tmp_path / item.name / f"mix{suffix}"),)
        assert set(item.note_files) == {str(p) for p in (tmp_path / item.name / "MIDI").glob("S*.mid")}


def test_validation_and_test_are_whole_mixes_also_with_subsets(tmp_path):
    truths = slakh.build(tmp_path)
    items = [i for i in Slakh(folder=str(tmp_path)).list().items if i.split != "train"]
    assert [i.split for i in items] == ["validation", "test"]
    for item, truth in zip(items, truths[1:], strict=True):
        check(item, truth)


def test_training_items_are_sums_of_four_or_more_stems(tmp_path):
    stems = slakh.build_songs(tmp_path)[TRAIN]
    items = [i for i in Slakh(folder=str(tmp_path)).list().items if i.split == "train"]
    assert [i.name for i in items] == [f"{TRAIN}/{n}" for n in range(10)]
    by_program = {s.program: s for s in stems.values()}
    chosen = [tuple(s.program for s in item.stems) for item in items]
    assert len(set(chosen)) == 10
    for item, programs in zip(items, chosen, strict=True):
        assert len(programs) >= 4
        mine = [by_program[p] for p in programs]
        np.testing.assert_allclose(read_sound(item.audio, slakh.RATE), sum(s.samples for s in mine),
                                   atol=ROUNDING)
        assert slakh.rows(item.notes()) == slakh.rows(Notes.concatenate([s.notes for s in mine]))
        assert item.piece == slakh.uuid(TRAIN)


def test_subsets_are_the_same_wherever_it_lies_and_differ_with_the_seed(tmp_path):
    def chosen(place, **options):
        reader = Slakh(folder=str(tmp_path / place), **options)
        return [[s.program for s in item.stems] for item in reader.list().items]

    for place in ("here", "there"):
        slakh.build_songs(tmp_path / place)
    assert chosen("here") == chosen("there") != chosen("here", seed=1)
    assert len(chosen("here", subsets=12)) == 12 + 2


def every_set(stems, least):
    return [s for k in range(least, stems + 1) for s in itertools.combinations(range(stems), k)]


@given(stems=st.integers(1, 7), least=st.integers(1, 8), count=st.integers(1, 40), seed=st.integers(0, 9))
def test_drawn_subsets_differ_where_they_can(stems, least, count, seed):
    drawn = draw_subsets("Track00001", stems, count=count, least=least, seed=seed)
    possible = every_set(stems, min(least, stems))
    assert len(drawn) == count and set(drawn) <= set(possible)
    often = collections.Counter(drawn).values()
    assert len(often) == min(count, len(possible)) and max(often) - min(often) <= 1


def test_a_draw_is_the_hash_of_the_name():
    possible = every_set(9, 4)
    for track in ("Track00001", "Track02100"):
        digests = [hashlib.sha256(f"7 {track} {n}".encode()).digest() for n in range(20)]
        numbers = dict.fromkeys(int.from_bytes(d, "big") % len(possible) for d in digests)
        assert draw_subsets(track, 9, count=10, least=4, seed=7) == [possible[n] for n in numbers][:10]


def test_all_subsets_are_equally_likely():
    possible = every_set(5, 2)
    draws = 200 * len(possible)
    counts = collections.Counter(
        draw_subsets(f"Track{n:05d}", 5, count=1, least=2, seed=0)[0] for n in range(draws))
    # 26 counts of mean 200 and standard deviation 14: five deviations are out of reach of chance.
    assert all(abs(counts[s] - 200) < 70 for s in possible)


def test_basses_can_be_read_as_they_sound(tmp_path):
    songs = slakh.build_songs(tmp_path)
    items = Slakh(folder=str(tmp_path), subsets=0, sounding_bass=True).list().items
    for item in items:
        heard = [dataclasses.replace(s.notes, pitch=s.notes.pitch - 12 * (s.program in (32, 33)))
                 for s in songs[item.name].values()]  # the patch of 36 sounds as written
        assert slakh.rows(item.notes()) == slakh.rows(Notes.concatenate(heard))
    assert {36, 33, 32} <= {s.program for item in items for s in item.stems}


def test_a_bass_note_that_cannot_sound_is_an_error(tmp_path):
    slakh.build_songs(tmp_path)
    with pytest.raises(UserError, match="a bass note below pitch 12"):
        read_stem_notes(((str(tmp_path / TRAIN / "MIDI" / "S03.mid"), 33, -72),))


def test_metadata_tells_programs_and_drums_not_the_midi(tmp_path):
    slakh.build_songs(tmp_path)
    path = str(tmp_path / TRAIN / "MIDI" / "S00.mid")
    assert set(read_stem_notes(((path, 12, 0),)).program) == {12}
    drums = read_stem_notes(((path, 128, 0),))
    assert set(drums.program) == {0} and drums.is_drum.all()
    kit = read_stem_notes(((str(tmp_path / TRAIN / "MIDI" / "S01.mid"), 47, 0),))
    assert set(kit.program) == {47} and not kit.is_drum.any()


def test_babyslakh_has_no_splits_and_false_flags(tmp_path):
    slakh.build_songs(tmp_path / "slakh", ".wav")
    baby = tmp_path / "babyslakh_16k"
    baby.mkdir()
    for name in (TRAIN, TEST):
        (tmp_path / "slakh" / name).rename(baby / name.split("/")[1])
    for path in baby.glob("*/metadata.yaml"):
        path.write_text(path.read_text().replace("rendered: true", "rendered: false")
                        .replace("saved: true", "saved: false"))
    items = Slakh(folder=str(baby)).list().items
    assert [(i.name, i.split, len(i.stems)) for i in items] == [("Track00001", None, 6),
                                                                ("Track01876", None, 4)]


def test_stems_published_without_audio_are_left_out(tmp_path):
    slakh.build_songs(tmp_path)
    (tmp_path / TEST / "stems" / "S02.flac").unlink()
    edit(tmp_path / TEST, lambda m: m["stems"]["S02"].update(audio_rendered=False))
    item = Slakh(folder=str(tmp_path)).list().items[-1]
    assert [s.program for s in item.stems] == [128, 32, 0] and 27 not in item.notes().program


def edit(track, change):
    path = track / "metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    change(metadata)
    path.write_text(yaml.safe_dump(metadata))


@pytest.mark.parametrize("damage, reason", [
    (lambda t: (t / "metadata.yaml").unlink(), "no metadata.yaml"),
    (lambda t: (t / "metadata.yaml").write_text("stems: ["), "metadata.yaml cannot be read"),
    (lambda t: (t / "metadata.yaml").write_text(""), "metadata.yaml cannot be read"),
    (lambda t: (t / "mix.flac").unlink(), "no mix.flac or mix.wav"),
    (lambda t: (t / "stems" / "S01.flac").unlink(), "no stems/S01.flac"),
    (lambda t: (t / "MIDI" / "S01.mid").unlink(), "no MIDI/S01.mid"),
    (lambda t: edit(t, lambda m: m["stems"]["S01"].update(program_num=128)), "program_num of S01 is 128"),
    (lambda t: edit(t, lambda m: m["stems"]["S01"].update(program_num=None)), "program_num of S01 is None"),
    (lambda t: edit(t, lambda m: m["stems"].update(S01="bass")), "S01 is no stem"),
    (lambda t: edit(t, lambda m: m.update(stems={})), "no stem with audio"),
])
def test_a_damaged_track_is_skipped(tmp_path, damage, reason):
    slakh.build_songs(tmp_path)
    damage(tmp_path / TEST)
    listing = Slakh(folder=str(tmp_path), subsets=0).list()
    assert [i.name for i in listing.items] == [TRAIN, VALIDATION]
    (name, why), = listing.skipped
    assert name == TEST and reason in why and "unpack the archive again" in why


def test_without_a_whole_track_it_says_why(tmp_path):
    slakh.build_songs(tmp_path)
    for path in tmp_path.glob("*/*/metadata.yaml"):
        path.unlink()
    with pytest.raises(UserError, match=r"none of 3 tracks can be used \(train/Track00001: no metadata"):
        Slakh(folder=str(tmp_path)).list()


def test_another_folder_is_refused(tmp_path):
    slakh.build_songs(tmp_path)
    for folder in (tmp_path / TRAIN, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no train/Track00001 or the like there"):
            Slakh(folder=str(folder)).list()


def test_without_pyyaml_it_says_how_to_install_it(tmp_path, monkeypatch):
    slakh.build_songs(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UserError, match=r"pip install 'music-diffusion\[data\]'"):
        Slakh(folder=str(tmp_path)).list()


def test_options_are_checked_and_identify_the_items():
    for wrong in (dict(subsets=-1), dict(least=0)):
        with pytest.raises(UserError, match="must be at least"):
            Slakh(folder=".", **wrong)
    identity = Slakh(folder="/a", seed=3).identity()
    assert identity == Slakh(folder="/b", seed=3).identity() != Slakh(folder="/a").identity()
    assert json.loads(json.dumps(identity)) == identity
