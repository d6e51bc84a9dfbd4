"""`music-diffusion prepare` and `render`: what is handed on, what is printed, and the old spellings."""

import json
import types

import pytest

from music_diffusion.data.sets.catalogue import CATALOGUE
from music_diffusion.workflows import doctor, prepare
from music_diffusion.workflows.requests import (
    AudioFolderRequest,
    DataSetRequest,
    ReferencesRequest,
    ScoresRequest,
)

MANIFEST = {"hours": {"train": 1.5}, "records": {"train": 2}, "notes": {"train": 7}, "classes": {},
            "skipped": [["a.wav", "no MIDI file"]]}


@pytest.fixture
def seen(monkeypatch):
    """The requests; every workflow answers at once."""
    seen = []

    def answer(result):
        def workflow(request, *_):
            seen.append(request)
            return result
        return workflow

    for name, result in (("prepare_data_set", MANIFEST), ("prepare_audio", MANIFEST),
                         ("prepare_references", {"train": 1, "test": 2}), ("render_scores", [])):
        monkeypatch.setattr(prepare, name, answer(result))
    monkeypatch.setattr(doctor, "examine_source", answer(None))
    return seen


def test_the_name_of_a_data_set_is_a_command(program, seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = program("prepare", "gtzan", "in", "out")
    assert (code, out) == (0, f"{tmp_path / 'out'}: 1.50 h and 7 notes for train; skipped 1 (see "
                              "manifest.json)\n")
    assert err == "  skipped a.wav: no MIDI file\n"
    code, out, err = program("prepare", "maestro", "in", "out", "--json")
    assert (code, err) == (0, "") and json.loads(out) == {"folder": str(tmp_path / "out")} | MANIFEST
    assert seen == [DataSetRequest(kind="gtzan", source="in", destination="out"),
                    DataSetRequest(kind="maestro", source="in", destination="out")]


def test_every_option_of_a_data_set_is_handed_on(program, seen):
    assert program(
        "prepare", "soundfont", "in", "out", "--option", "a=1", "--option", "b = x=y", "--transpose", "3",
        "--codec", "24k", "--stems", "--format", "tfrecord", "--shards", "9", "--refuse",
        "--runner", "DirectRunner", "--runner_option=--x=1", "--runner-option=--y", "--soundfont", "a.sf2",
        "--soundfont", "b.sf2", "--hours", "5", "--test", "--solo", "0.3", "--workers", "3",
        "--seed", "4")[0] == 0
    assert seen == [DataSetRequest(
        kind="soundfont", source="in", destination="out", options=(("a", "1"), ("b", "x=y")), transpose=3,
        codec="24k", stems=True, container="tfrecord", shards=9, refuse=True, runner="DirectRunner",
        runner_options=("--x=1", "--y"), soundfonts=("a.sf2", "b.sf2"), hours=5.0, test=True, solo=0.3,
        workers=3, seed=4)]
    code, _, err = program("prepare", "gtzan", "in", "out", "--option", "genre")
    assert code == 2 and "--option genre: write it as NAME=VALUE" in err


def test_the_doctor_exits_with_1_where_there_is_something(program, seen, monkeypatch):
    code, out, _ = program("prepare", "gtzan", "in", "--doctor")
    assert (code, out) == (0, "in: prepared, every shard is as it was written\n")
    assert json.loads(program("prepare", "gtzan", "in", "--doctor", "--json")[1]) == {
        "folder": "in", "changed": []}
    assert seen[0] == DataSetRequest(kind="gtzan", source="in")
    for found, want in ((("x",), 1), ((), 0)):
        diagnosis = types.SimpleNamespace(
            findings=found, rows=lambda: [["a"] * 4], summary=lambda: "so it is",
            to_dict=lambda found=found: {"findings": list(found)})
        monkeypatch.setattr(doctor, "examine_source", lambda *_, diagnosis=diagnosis: diagnosis)
        code, out, _ = program("prepare", "gtzan", "in", "--doctor")
        assert code == want and out.endswith("so it is\n")
        code, out, _ = program("prepare", "gtzan", "in", "--doctor", "--json")
        assert code == want and json.loads(out) == {"findings": list(found)}


def test_other_sources(program, seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = program("prepare", "audio_folder", "in", "out", "--rate", "4000", "--mono", "--workers",
                           "3", "--seed", "4", "--json")
    assert code == 0 and json.loads(out)["summary"].startswith("1.50 h for train; skipped 1, e.g. a.wav: ")
    code, out, _ = program("prepare", "references", "in", "out", "--dataset", "gtzan", "--splits", "test",
                           "--minutes", "2")
    assert code == 0 and out == (
        f"{tmp_path / 'out'}: 1 file for train, 2 files for test; performances.csv\n")
    assert seen == [
        AudioFolderRequest(source="in", destination="out", rate=4000, mono=True, workers=3, seed=4),
        ReferencesRequest(source="in", destination="out", dataset="gtzan", splits="test", minutes=2.0)]


def test_render_hands_on_every_option(program, seen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = program("render", "in", "out", "--soundfont", "a.sf2", "--hours", "5", "--rate", "44100",
                           "--sampler", "x@0-7", "--sampler", "y", "--sampler_fallback", "b.sf2",
                           "--room_responses", "rooms", "--room-licence", "CC0", "--room_licence", "A B",
                           "--test", "--solo", "0.3", "--midi", "--workers", "3", "--seed", "4",
                           "--tuning", "30", "--vibrato", "0.2", "--degraded", "0.4")
    assert (code, out) == (0, f"{tmp_path / 'out'}: done\n")
    assert json.loads(program("render", "in", "out", "--json")[1]) == {"folder": str(tmp_path / "out")}
    assert seen == [ScoresRequest(
        scores="in", destination="out", soundfonts=("a.sf2",), hours=5.0, rate=44100, test=True, solo=0.3,
        samplers=("x@0-7", "y"), fallback="b.sf2", room_responses="rooms", room_licences=("CC0", "A B"),
        midi=True, workers=3, seed=4, tuning=30.0, vibrato=0.2, degraded=0.4),
        ScoresRequest(scores="in", destination="out")]


def test_excerpts_that_render_skips_are_told(program, monkeypatch):
    monkeypatch.setattr(prepare, "render_scores", lambda *_: [("train/00001", "no bell"), ("b", "c")])
    code, _, err = program("render", "in", "out")
    assert code == 0 and "skipped 2 excerpts, e.g. train/00001: no bell" in err
    told = json.loads(program("render", "in", "out", "--json")[1])["skipped"]
    assert told == [["train/00001", "no bell"], ["b", "c"]]


def test_sets_are_listed(program):
    out = program("prepare", "sets")[1]
    assert all(name in out for name in CATALOGUE)
    assert json.loads(program("prepare", "sets", "--json")[1]).keys() == CATALOGUE.keys()
    for entry in CATALOGUE.values():
        assert entry.load().__name__ == entry.reader


@pytest.mark.parametrize("old, new", [
    ("renders", "render SCORES OUT"), ("release", "models release RUN OUT"),
    ("note_rows", "models note-rows SOUNDFONT OUT"), ("note_maps", "models note-maps DATA OUT"),
    ("performances", "models performances DATA FILE.json")])
def test_old_spellings_name_the_new_ones_in_one_line(program, seen, old, new):
    code, out, err = program("prepare", old, "in", "out", "--soundfont", "a.sf2")
    assert code == 2 and not out and err.count("\n") == 1 and not seen
    assert err.startswith(f"error: prepare {old}: is now music-diffusion {new}")


@pytest.mark.parametrize("arguments, word", [
    (["everything", "in", "out"], "prepare everything: unknown; choose a data set of"),
    (["gtzan"], "SRC"), (["audio_folder", "in"], "DST"), (["references", "in", "out"], "--dataset"),
    (["soundfont", "in", "out", "--solo", "1.5"], "--solo"),
    (["soundfont", "in", "--solo", "some"], "--solo"),
    (["audio_folder", "in", "out", "--soundfont", "a.sf2"], "--soundfont")], ids=" ".join)
def test_what_does_not_fit_is_code_2(program, seen, arguments, word):
    code, out, err = program("prepare", *arguments)
    assert code == 2 and not out and word in err and "Traceback" not in err and not seen
