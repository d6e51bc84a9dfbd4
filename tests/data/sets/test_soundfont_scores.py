"""Folders of MIDI files as sources of renders: tables, splits, and what is wrong with them."""

import collections

import pytest
from layouts import scores
from layouts.scores import part
from reference import needs
from reference.soundfont_file import soundfont

from music_diffusion.data.sets.soundfont_renders import SoundFontRenders
from music_diffusion.data.sets.soundfont_scores import find_scores
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes

needs.module("fluidsynth")


@pytest.fixture(scope="module")
def fonts(tmp_path_factory):
    path = tmp_path_factory.mktemp("fonts") / "sines.sf2"
    path.write_bytes(soundfont())
    return (str(path),)


def test_sources_are_drawn_evenly_and_splits_do_not_leak(tmp_path, fonts):
    rows = [(f"{split[:1]}{i}.mid", "big" if i else "small", split, part(0, 60)) for i in range(4)
            for split in ("train", "validation", "test")]
    rows.append(("unused.mid", "other", "unused", part(0, 60)))
    folder = scores.build(tmp_path, rows)
    data_set = SoundFontRenders(folder=folder, soundfonts=fonts, seconds=1.0, train_hours=200 / 3600,
                                validation_hours=40 / 3600, test_hours=40 / 3600)
    pieces = collections.defaultdict(collections.Counter)
    for item in data_set.list().items:
        assert item.split[0] == item.piece[0] and item.note_files == (f"{folder}/{item.piece}",)
        pieces[item.split][item.piece] += 1
    assert {s: len(c) for s, c in pieces.items()} == {"train": 4, "validation": 4, "test": 4}
    assert pieces["train"]["t0.mid"] == pytest.approx(100, abs=25)  # binomial: ± 7


def test_a_folder_without_a_table_is_split_by_its_names(tmp_path, fonts):
    for i in range(600):
        (tmp_path / f"{i % 7}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 7}/song {i}.{'mid' if i % 2 else 'MIDI'}").touch()
    (tmp_path / "0/notes.txt").touch()
    found = find_scores(str(tmp_path))
    paths = {split: set(path for p in of_split.values() for path in p) for split, of_split in found.items()}
    assert sum(map(len, paths.values())) == 600 == len(set.union(*paths.values()))
    for split in ("validation", "test"):  # binomial: 30 ± 5
        assert len(paths[split]) == pytest.approx(30, abs=18)
    (tmp_path / "more.mid").touch()
    more = find_scores(str(tmp_path))
    for split, before in paths.items():
        now = {path for p in more[split].values() for path in p}
        assert before <= now and now - before <= {"more.mid"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_even_a_few_files_have_one_for_validation(tmp_path, fonts, count):
    for i in range(count):
        write_midi(part(0, 60), tmp_path / f"{i}.mid")
    items = SoundFontRenders(folder=str(tmp_path), soundfonts=fonts, seconds=1.0, train_hours=30 / 3600,
                             validation_hours=5 / 3600).list().items
    pieces = {split: {i.piece for i in items if i.split == split} for split in ("train", "validation")}
    assert pieces["validation"] and pieces["train"] and not pieces["train"] & pieces["validation"]
    assert len(items[0].notes())


def test_scores_that_are_missing_or_empty_are_told(tmp_path, fonts):
    rows = [("a.mid", "a", "train", part(0, 60)), ("b.mid", "a", "train", None),
            ("v.mid", "a", "validation", Notes.empty())]
    data_set = SoundFontRenders(folder=scores.build(tmp_path, rows), soundfonts=fonts, seconds=1.0,
                                train_hours=20 / 3600, validation_hours=1 / 3600)
    listing = data_set.list()
    assert len(listing.items) + len(listing.skipped) == 21
    assert {reason for _, reason in listing.skipped} == {
        "b.mid: no such file; correct the table of the scores"}
    empty, = [item for item in listing.items if item.split == "validation"]
    with pytest.raises(UserError, match="v.mid: the file has no notes"):
        empty.notes()


def test_folders_without_scores_are_one_line_errors(tmp_path, fonts):
    data_set = SoundFontRenders(folder=str(tmp_path), soundfonts=fonts)
    with pytest.raises(UserError, match="neither manifest.csv nor MIDI files"):
        data_set.list()
    (tmp_path / "manifest.csv").write_text("file,split\nx.mid,train\n")
    with pytest.raises(UserError, match="columns path, source, split"):
        data_set.list()
    (tmp_path / "manifest.csv").write_bytes(b"path,source,split\n\0\0,a,train\n")
    with pytest.raises(UserError, match="manifest.csv: is no text"):
        data_set.list()
