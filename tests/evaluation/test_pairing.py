"""Which files belong together, by name, and every kind of mismatch that names tell."""

import dataclasses
import os
import pathlib

import pytest

from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import (
    AUDIO,
    KINDS,
    GroupTable,
    find_files,
    match_names,
    pair_files,
)
from music_diffusion.evaluation.plan import EvaluationPlan


@pytest.fixture
def folders(tmp_path):
    """A function that makes empty files in folders gen, ref and mid, and returns a plan."""
    def make(gen, ref, mid=None, **settings):
        for name, files in (("gen", gen), ("ref", ref), ("mid", mid or [])):
            for file in files:
                path = tmp_path / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return EvaluationPlan(generated=str(tmp_path / "gen"), reference=str(tmp_path / "ref"),
                              notes=str(tmp_path / "mid") if mid else None, **settings)

    return make


def names(plan):
    """Items as (name, generated, reference, notes), files by their names."""
    def base(path):
        return path and pathlib.Path(path).name

    return [(i.name, base(i.generated), base(i.reference), base(i.notes)) for i in pair_files(plan).items]


def kinds(plan):
    return sorted((p.kind, pathlib.Path(p.file).name) for p in pair_files(plan).problems)


def test_files_of_one_path_belong_together_whatever_their_suffix(folders):
    plan = folders(["a.wav", "x/b.MP3", "x/c.ogg"], ["a.flac", "x/b.wav", "x/c.opus"],
                   ["a.mid", "x/b.midi", "x/c.MID"])
    assert names(plan) == [("a", "a.wav", "a.flac", "a.mid"), ("x/b", "b.MP3", "b.wav", "b.midi"),
                           ("x/c", "c.ogg", "c.opus", "c.MID")]
    assert kinds(plan) == []


def test_dots_in_names_are_no_suffixes(folders):
    plan = folders(["op. 10 no. 1.wav", "op. 10 no. 2.wav"], ["op. 10 no. 1.flac", "op. 10 no. 2.flac"])
    assert [item[:3] for item in names(plan)] == [
        ("op. 10 no. 1", "op. 10 no. 1.wav", "op. 10 no. 1.flac"),
        ("op. 10 no. 2", "op. 10 no. 2.wav", "op. 10 no. 2.flac")]


def test_bare_names_match_where_they_are_single():
    assert match_names({"x/a": "", "b": ""}, {"y/a": "", "b": ""}) == {"x/a": "y/a", "b": "b"}
    # Equal paths come first, and what is ambiguous stays alone.
    assert match_names({"x/a": "", "y/a": "", "c": ""}, {"x/a": "", "z/a": "", "d": ""}) == {
        "x/a": "x/a", "y/a": "z/a"}
    assert match_names({"x/a": "", "y/a": "", "c": ""}, {"z/a": "", "d": ""}) == {}
    assert match_names({"mine": ""}, {"yours": ""}) == {"mine": "yours"}  # one file each


def test_single_files_instead_of_folders(folders, tmp_path):
    plan = dataclasses.replace(folders(["take.wav", "other.wav"], ["original.flac"], ["song.mid"]),
                               generated=str(tmp_path / "gen" / "take.wav"))
    assert names(plan) == [("take", "take.wav", "original.flac", "song.mid")]
    assert kinds(plan) == [("one_file", "ref"), ("one_file", "take.wav")]


def test_what_is_no_audio_and_hidden_is_left_out(folders, tmp_path):
    plan = folders(["a.wav", ".b.wav", "c.txt", ".d/e.wav", "f.wav.part"], ["a.wav", "g.wav"])
    assert list(find_files(plan.generated, AUDIO, "audio")[0]) == ["a"]


def test_missing_pairs_are_named_and_count_in_the_sets(folders):
    plan = folders(["a.wav", "b.wav", "only.wav"], ["a.wav", "b.wav", "other.wav"])
    assert kinds(plan) == [("missing_pair", "only.wav"), ("missing_pair", "other.wav")]
    assert ("only", "only.wav", None, None) in names(plan)
    assert ("other", None, "other.wav", None) in names(plan)
    assert "set metrics" in pair_files(plan).problems[0].advice


def test_without_common_names_there_is_one_problem_and_two_sets(folders):
    plan = folders(["a.wav", "b.wav"], ["c.wav", "d.wav"])
    assert kinds(plan) == [("unpaired", "gen")] and len(names(plan)) == 4


def test_two_files_of_one_name(folders):
    plan = folders(["a.flac", "a.wav", "b.wav"], ["a.wav", "b.wav"])
    assert kinds(plan) == [("ambiguous", "a.wav")] and names(plan)[0][1] == "a.flac"


def test_notes_may_be_shared_missing_ambiguous_and_unused(folders):
    plan = folders(["p/a.wav", "q/a.wav", "b.wav", "c.wav"], ["p/a.wav", "q/a.wav", "b.wav", "c.wav"],
                   ["a.mid", "y/b.mid", "z/b.mid", "unused.mid"])
    assert [(n, notes) for n, _, _, notes in names(plan)] == [
        ("b", None), ("c", None), ("p/a", "a.mid"), ("q/a", "a.mid")]
    assert kinds(plan) == [("notes_missing", "b.wav"), ("notes_missing", "c.wav"), ("notes_unused", "mid")]
    assert {p.what for p in pair_files(plan).problems} == {
        "2 MIDI files have its name", "no MIDI file of this name", "3 of 4 MIDI files have no audio"}


@pytest.mark.parametrize("gen, ref, mid, word", [
    ([], ["a.wav"], None, "gen: no such folder"), (["a.txt"], ["a.wav"], None, "no audio files"),
    (["a.wav"], ["a.wav"], ["a.txt"], "no MIDI files")])
def test_a_folder_without_files_is_an_error(folders, gen, ref, mid, word):
    with pytest.raises(UserError, match=word):
        pair_files(folders(gen, ref, mid))


def group_table(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "groups.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


def test_a_row_is_about_the_files_whose_path_ends_like_it(tmp_path):
    table = GroupTable(group_table(
        tmp_path, "file,font\ntrain/00000.flac,A\ntest/00000.flac,B\nsolo/op. 3.wav,C\nwin\\x.wav,D\n"
        "bare,E\n"), "font")
    assert table.of("/data/train/00000.wav") == "A" and table.of("/data/test/00000.flac") == "B"
    assert table.of("/made/00000.wav") is None  # ambiguous
    assert table.of("/made/op. 3.flac") == "C" and table.of("/y/win/x.ogg") == "D"
    assert table.of("/any/where/bare.wav") == "E" and table.of("/z/other.wav") is None
    assert table.of(None) is None


def test_groups_are_the_folders_of_the_files(folders):
    plan = folders(["calm/1.wav", "loud/2.wav"], ["calm/a.wav", "deep/loud/b.wav"], groups="folders")
    pairing = pair_files(plan)
    found = {pathlib.Path(i.generated or i.reference).name: i.group for i in pairing.items}
    assert found == {"1.wav": "calm", "a.wav": "calm", "2.wav": "loud", "b.wav": "loud"}
    assert not [problem for problem in pairing.problems if problem.kind == "no_group"]


def test_groups_come_from_either_side_and_gaps_are_named(folders, tmp_path):
    path = group_table(tmp_path, "file,group\nref/a.wav,A\ngen/b.wav,B\n", "utf-8-sig")
    plan = folders(["a.wav", "b.wav", "c.wav"], ["a.wav", "b.wav", "c.wav"], groups=path)
    assert [i.group for i in pair_files(plan).items] == ["A", "B", None]
    assert kinds(plan) == [("no_group", "c.wav")]


@pytest.mark.parametrize("text, word", [
    ("name,group\na,A\n", "no column 'file'; it has name, group"),
    ("", "no column 'file', 'group'; it has none"),
    ("file,band\na,A\n", "no column 'group'"), ("file,group\n,A\n", "no row names a file"),
    ("file,group\nzzz,A\n", "no row is about a file")])
def test_unusable_tables_are_refused(folders, tmp_path, text, word):
    plan = folders(["a.wav", "b.wav"], ["a.wav", "b.wav"], groups=group_table(tmp_path, text))
    with pytest.raises(UserError, match=word):
        pair_files(plan)


def test_a_table_that_is_missing_or_in_another_encoding(folders, tmp_path):
    plan = folders(["a.wav"], ["a.wav"], groups=str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="none.csv: cannot be read .No such file"):
        pair_files(plan)
    with pytest.warns(UserWarning, match="is not UTF-8"):
        table = GroupTable(group_table(tmp_path, "file,group\nä,A\n", "latin-1"), "group")
    assert table.of("x/ä.wav") == "A"


def test_every_problem_has_a_heading(folders):
    plan = folders(["a.wav"], ["b.wav"], ["x.mid", "y.mid"])
    assert {p.kind for p in pair_files(plan).problems} <= set(KINDS)


@pytest.mark.parametrize("settings, word", [
    ({"generated": None}, "nothing to evaluate"), ({"reference": None}, "no reference"),
    ({"generated": None, "model": "m"}, "folder of MIDI"), ({"embeddings": ()}, "embeddings is empty"),
    ({"max_minutes": 0.0}, "max_minutes"), ({"max_minutes": float("nan")}, "max_minutes"),
    ({"draws": -1}, "draws"), ({"level": 1.0}, "level"), ({"workers": 0}, "workers"),
    ({"steps": 0}, "steps"), ({"examples": 11}, "examples"),
    ({"min_seconds": 60.0, "max_minutes": 1.0}, "leaves nothing")])
def test_settings_that_cannot_be_are_refused(settings, word):
    with pytest.raises(UserError, match=word):
        EvaluationPlan(**({"generated": "a", "reference": "b"} | settings))


def test_embeddings_are_named_once():
    plan = EvaluationPlan(generated="a", reference="b", embeddings=["x", "y", "x"])
    assert plan.embeddings == ("x", "y")


SPELLINGS = ["caf\u00e9", "cafe\u0301", os.fsdecode(b"caf\xe9")]  # the two normal forms, and Latin-1


@pytest.mark.parametrize("generated", SPELLINGS)
@pytest.mark.parametrize("reference", SPELLINGS)
def test_names_that_look_alike_belong_together(folders, tmp_path, generated, reference):
    plan = folders([f"{generated}.wav", "b.wav"], [f"{reference}.wav", "b.wav"],
                   [f"{reference}.mid", "b.mid"],
                   groups=group_table(tmp_path, f"file,group\n{SPELLINGS[0]}.wav,A\nb,B\n"))
    pairing = pair_files(plan)
    assert not pairing.problems
    for item, name, group in zip(pairing.items, ("b", SPELLINGS[0]), "BA", strict=True):
        assert item.paired and item.notes and item.name == name and item.group == group
        assert os.path.exists(item.generated)
