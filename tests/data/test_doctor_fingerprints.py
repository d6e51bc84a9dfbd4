"""Fingerprints: what is the same is found in another guise, what is not is not."""

import dataclasses

import numpy as np
import pytest
import soundfile
import soxr
from layouts.faulty_folder import melody, play

from music_diffusion.data.checks import across, fingerprints, maps
from music_diffusion.data.checks.hearing import RATE, Stretch
from music_diffusion.notes.notes import Notes

LENGTH = 12.0


def sketch(samples):
    return fingerprints.sketch_audio(maps.spectra((Stretch(start=0.0, samples=np.float32(samples)),)))


@pytest.fixture(scope="module")
def music():
    return play(melody(1, LENGTH), LENGTH, RATE)


def through_mp3(samples, path):
    soundfile.write(path, samples, RATE, format="MP3")
    return soundfile.read(path, dtype="float32")[0]


@pytest.mark.parametrize("change, shift", [
    (lambda x, path: 0.01 * x, 0.0),
    (lambda x, path: soxr.resample(soxr.resample(x, RATE, 11025), 11025, RATE), 0.0),
    (through_mp3, 0.0),
    (lambda x, path: np.concatenate([np.zeros(20000), x]), 1.25),
    (lambda x, path: x[4 * RATE:], -4.0),
], ids=["level", "rate", "mp3", "later", "cut"])
def test_the_same_audio_in_another_guise(music, tmp_path, change, shift):
    sketches = [sketch(music), sketch(play(melody(2, LENGTH), LENGTH, RATE)),
                sketch(change(music, tmp_path / "x.mp3"))]
    found = fingerprints.matches(sketches, shifted=True)
    assert [(m.first, m.second) for m in found] == [(0, 2)]
    assert found[0].share >= across.SAME_AUDIO
    assert found[0].shift == pytest.approx(shift, abs=0.1)


def test_the_same_notes_played_otherwise_are_other_audio(music):
    bowed = play(melody(1, LENGTH), LENGTH, RATE, bowed=True)
    assert not [m for m in fingerprints.matches([sketch(music), sketch(bowed)], shifted=True)
                if m.share >= across.SAME_AUDIO]


def phrases(notes):
    return fingerprints.sketch_notes(notes)


@pytest.mark.parametrize("change", [
    lambda n: n,
    lambda n: dataclasses.replace(n, pitch=n.pitch - 5),
    lambda n: n.shift(12.3),
    lambda n: dataclasses.replace(n, start=0.77 * n.start, end=0.77 * n.end),
    lambda n: dataclasses.replace(n, velocity=np.full(len(n), 64), program=np.full(len(n), 70)),
    lambda n: n[len(n) // 3:],
], ids=["equal", "transposed", "shifted", "faster", "other part", "cut"])
def test_the_same_notes_in_another_guise(change):
    notes = melody(1, 40.0)
    found = fingerprints.matches([phrases(notes), phrases(melody(2, 40.0)), phrases(change(notes))],
                                 shifted=False)
    assert [(m.first, m.second) for m in found] == [(0, 2)]
    assert found[0].share > 0.9


def test_scales_and_drums_are_no_fingerprint():
    start = 0.1 * np.arange(200)
    up = Notes(start, start + 0.1, 30 + np.arange(200) % 24, np.full(200, 80), np.zeros(200),
               np.zeros(200, bool))
    drums = dataclasses.replace(melody(1, 40.0), is_drum=np.ones(len(melody(1, 40.0)), bool))
    for notes in (up, drums, Notes.empty(), melody(1)[:5]):
        assert len(phrases(notes).hashes) == 0


def test_the_kept_hashes_estimate_what_is_shared():
    rng = np.random.default_rng(0)
    common, a, b = (rng.integers(0, 2 ** 60, n).astype(np.uint64) for n in (6000, 4000, 14000))
    times = np.zeros(20000)
    first = fingerprints.sketch(np.concatenate([common, a]), times)
    second = fingerprints.sketch(np.concatenate([b, common]), times)
    assert len(first.hashes) == len(second.hashes) == fingerprints.KEPT
    [match] = fingerprints.matches([first, second], shifted=False)
    # 6000 of the 10000 of the one that has fewer; of about 256 samples, three standard deviations.
    assert match.share == pytest.approx(0.6, abs=3 * (0.24 / 256) ** 0.5)


def portrait(name, split, samples=None, notes=None, piece=None):
    nothing = fingerprints.sketch(np.zeros(0, np.uint64), np.zeros(0))
    return across.Portrait(
        name=name, split=split, piece=piece, sample_rate=RATE, digest=None,
        audio=nothing if samples is None else sketch(samples),
        notes=nothing if notes is None else phrases(notes))


def kinds(*portraits):
    return [(f.kind, f.item, f.others) for f in across.check_across(portraits)]


def test_all_but_one_of_equal_items_are_named(music):
    assert kinds(*(portrait(name, "train", music) for name in "abc")) == [
        ("duplicated", "b", ("a",)), ("duplicated", "c", ("a",))]
    assert kinds(portrait("a", "test", music), portrait("b", "train", music)) == [
        ("leak", "a", ("b",))]  # the one that should be new to the model
    assert kinds(portrait("a", None, music), portrait("b", None, music)) == [
        ("duplicated", "b", ("a",))]
    assert kinds(portrait("a", None, music), portrait("b", "train", music)) == [
        ("leak", "a", ("b",))]
    assert kinds(portrait("a", "train", music), portrait("b", "test", music),
                 portrait("c", "train", music)) == [("duplicated", "c", ("a",)), ("leak", "b", ("a",))]


def test_the_same_notes_matter_only_between_splits():
    notes = melody(1, 40.0)
    up = dataclasses.replace(notes, pitch=notes.pitch + 1)
    assert kinds(portrait("a", "train", notes=notes), portrait("b", "train", notes=up)) == []
    assert kinds(portrait("a", "train", notes=notes), portrait("b", "test", notes=up)) == [
        ("leak", "b", ("a",))]
    # Without splits nothing is known to be apart.
    assert kinds(portrait("a", None, notes=notes), portrait("b", None, notes=up)) == []
    assert kinds(portrait("a", None, notes=notes), portrait("b", "test", notes=up)) == [
        ("leak", "a", ("b",))]


def test_a_piece_in_two_splits():
    assert kinds(portrait("t", "test", piece="p"), portrait("a", "train", piece="p"),
                 portrait("b", "train", piece="p"), portrait("c", "validation", piece="p"),
                 portrait("d", "test", piece="q"), portrait("u", "test", piece="p")) == [
        ("leak", "c", ("a",)), ("leak", "t", ("a",)), ("leak", "u", ("a",))]


def test_equal_samples_without_a_fingerprint():
    short = [dataclasses.replace(portrait(name, "train"), digest="0123") for name in "ab"]
    assert kinds(*short, portrait("c", "train")) == [("duplicated", "b", ("a",))]
