"""`music-diffusion prepare`: what is handed on, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import soundfile
from layouts.common import scale, tones, write_wav
from reference import compiled
from typer.testing import CliRunner

from music_diffusion.audio.codec import MelCodec
from music_diffusion.cli import main, prepare
from music_diffusion.cli.prepare import Request
from music_diffusion.data import audio_renders, note_maps, records
from music_diffusion.data.audio_records import read_audio_manifest
from music_diffusion.data.audio_renders import AudioRenderPlan
from music_diffusion.data.records import Record, write_manifest
from music_diffusion.data.sets.catalogue import CATALOGUE
from music_diffusion.errors import UserError
from music_diffusion.models.frame_diffusion import NoteTimbreModel
from music_diffusion.models.performances import Performance, Performances, write_performances
from music_diffusion.models.weights import save_safetensors
from music_diffusion.networks.note_timbre import NoteTimbreConfig
from music_diffusion.networks.performance import PerformanceConfig
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes


@pytest.fixture
def run(tmp_path):
    (tmp_path / "source").mkdir()

    def run(kind, **arguments):
        defaults = dict(source=str(tmp_path / "source"), destination=str(tmp_path / "out"))
        prepare.run(Request(kind=kind, **(defaults | arguments)))

    return run


def test_renders_take_several_soundfonts_and_hold_a_share_out(run, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(audio_renders, "render_audio", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 2))
    run("renders", soundfonts=("a.sf2", "b.sf3"), hours=2.0, rate=44100, workers=1, seed=9)
    run("renders", soundfonts=("a.sf2",), hours=2.0, test=True)
    run("renders", soundfonts=("a.sf2",), solo=0.25, midi=True)
    (plan, folder), (tested, _), (alone, _) = seen
    assert plan == AudioRenderPlan(
        scores=str(tmp_path / "source"), soundfonts=("a.sf2", "b.sf3"), train_hours=2.0,
        validation_hours=0.1, test_hours=0.0, sample_rate=44100, workers=1, seed=9)
    assert folder == str(tmp_path / "out") and tested.test_hours == 0.1
    assert (plan.solo, plan.midi, alone.solo, alone.midi) == (0.0, False, 0.25, True)


def test_soundfont_is_a_data_set_with_options_of_its_own(tmp_path):
    asked = Request(kind="soundfont", source="scores", destination="out", soundfonts=("a.sf2", "b.sf3"),
                    hours=2.0, test=True, solo=0.5, seed=3, options=(("room", "0.5"), ("pair", "other")))
    renders = prepare.open_request(asked)
    assert (renders.folder, renders.soundfonts, renders.train_hours, renders.validation_hours,
            renders.test_hours, renders.solo, renders.seed, renders.room, renders.pair) == (
        "scores", ("a.sf2", "b.sf3"), 2.0, 0.1, 0.1, 0.5, 3, 0.5, ("other",))


def test_a_data_set_is_built_with_transposed_copies_and_told_in_a_line(run, tmp_path, capsys):
    for i, split in enumerate(("train", "train", "validation")):
        folder = tmp_path / "source" / split
        folder.mkdir(exist_ok=True)
        write_midi(scale(pitch=60 + i), folder / f"{i}.mid")
        write_wav(folder / f"{i}.wav", tones(scale(pitch=60 + i), 2.0, 16000), 16000)
    write_wav(tmp_path / "source" / "train" / "alone.wav", np.zeros(100), 16000)
    run("paired_folder", transpose=1, workers=1, options=(("program", "40"),))
    out, err = capsys.readouterr()
    assert out == (f"{tmp_path / 'out'}: 0.00 h and 36 notes for train, 0.00 h and 6 notes for "
                   "validation; skipped 1 (see manifest.json)\n")
    assert "skipped train/alone.wav: no MIDI file" in err
    manifest = records.read_manifest(tmp_path / "out", MelCodec())
    assert manifest["records"] == {"train": 6, "validation": 1, "test": 0}
    (record,) = [records.Record.from_bytes(m) for p in records.shard_paths(tmp_path / "out", "validation")
                 for m in records.read_shard(p)]
    assert set(record.notes.program) == {40}
    run("paired_folder", transpose=1, workers=1, options=(("program", "40"),), json=True)
    assert json.loads(capsys.readouterr().out)["checksums"] == manifest["checksums"]
    with pytest.raises(UserError, match="alone.wav"):
        run("paired_folder", transpose=1, options=(("program", "40"),), refuse=True)


def test_sets_are_listed(run, capsys):
    run("sets", source=None, destination=None)
    out = capsys.readouterr().out
    assert all(name in out for name in CATALOGUE)
    run("sets", source=None, json=True)
    assert json.loads(capsys.readouterr().out).keys() == CATALOGUE.keys()
    for entry in CATALOGUE.values():
        assert entry.load().__name__ == entry.reader


def test_audio_folder_tells_what_it_gave_and_what_it_skipped(run, tmp_path, capsys):
    tone = np.sin(np.arange(32000) / 5)
    for name in ("train/a", "validation/b"):
        (tmp_path / "source" / name).parent.mkdir()
        soundfile.write(tmp_path / "source" / f"{name}.wav", np.stack([tone, -tone / 2], 1), 8000)
    (tmp_path / "source" / "c.mp3").touch()
    run("audio_folder", rate=4000, mono=True, workers=1)
    assert capsys.readouterr().out == (
        f"{tmp_path / 'out'}: 0.00 h for train, 0.00 h for validation; skipped 1, e.g. c.mp3: "
        "the file is empty (see manifest.json)\n")
    options = read_audio_manifest(tmp_path / "out", 4000)["options"]
    assert options["mono"] and options["seed"] == 0
    (tmp_path / "source" / "c.mp3").unlink()
    run("audio_folder", rate=4000, mono=True, workers=1)
    assert capsys.readouterr().out.endswith(": 0.00 h for train, 0.00 h for validation\n")


@pytest.fixture
def mapped(run, tmp_path, monkeypatch):
    """(path of a note timbre network's weights, what `add_note_maps` is asked)."""
    def make(count: int | None, **more):
        config = NoteTimbreConfig(width=8, layers=2, performances=None if count is None else (
            PerformanceConfig(count=count, features=4)))
        params = compiled.init(NoteTimbreModel(config=config))["params"]
        save_safetensors(tmp_path / "timbre.safetensors", {"timbre": params})
        run("note_maps", weights=str(tmp_path / "timbre.safetensors"), **more)
        (source, out, *given), = seen
        assert source.endswith("source") and out.endswith("out")
        return config, params, given

    seen: list = []
    monkeypatch.setattr(note_maps, "add_note_maps", lambda *args, progress, row_of=None: seen.append(
        (*args, row_of)))
    return make


def test_note_maps_use_the_given_weights(mapped):
    config, params, (its_config, timbre, row_of) = mapped(None)
    assert its_config == config and row_of is None
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(timbre), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-2)


def test_note_maps_of_performances_are_found_by_name(mapped, tmp_path):
    names = tmp_path / "names.json"
    write_performances(names, Performances(default="b", performances=tuple(
        Performance(name=name) for name in "abc")))
    write_manifest(tmp_path / "source", codec=MelCodec().to_dict(), classes={"performance": ["c", "a"]})
    config, _, (its_config, _, row_of) = mapped(3, performances=str(names))
    assert its_config == config
    empty = Record(mel=np.zeros((1, 128)), notes=Notes.empty())
    rows = [row_of(dataclasses.replace(empty, labels=labels)) for labels in (
        {"performance": "c"}, {"performance": "a"}, {})]
    assert rows == [2, 0, None]


@pytest.mark.parametrize(("count", "classes", "reason"), [
    (3, ["c", "chello"], "chello: no such performance"), (2, ["c"], "names 3 performances"),
    (None, ["c"], "give their names by --performances")])
def test_note_maps_with_names_that_do_not_fit(mapped, tmp_path, count, classes, reason):
    names = tmp_path / "names.json"
    write_performances(names, Performances(default="b", performances=tuple(
        Performance(name=name) for name in "abc")))
    write_manifest(tmp_path / "source", codec=MelCodec().to_dict(), classes={"performance": classes})
    more = {} if count is None else {"performances": str(names)}
    with pytest.raises(UserError, match=reason) as error:
        mapped(count or 3, **more)
    assert "\n" not in str(error.value)


def test_release_hands_on_its_bindings(run, monkeypatch):
    seen = []
    monkeypatch.setattr("music_diffusion.synthesis.release.release",
                        lambda *args, **more: seen.append((args, more)))
    run("release", bindings=("FrameDiffusionModel.num_steps = 8",), performances="names.json")
    (source, out), more = seen[0]
    assert source.endswith("source") and out.endswith("out")
    assert more == {"bindings": ["FrameDiffusionModel.num_steps = 8"], "performances": "names.json"}


@pytest.mark.parametrize("kind, arguments, reason", [
    ("soundfont", {"source": "/no/such/folder"}, "/no/such/folder: no such folder"),
    ("soundfont", {}, "--soundfont FILE.sf2, once or several times"),
    ("soundfont", {"soundfonts": ("nowhere.sf2",)}, "nowhere.sf2"),
    ("renders", {}, "--soundfont FILE.sf2, once or several times"),
    ("renders", {"soundfonts": (__file__,)}, "source"),
    ("audio_folder", {}, "source: no audio files there"),
    ("note_maps", {}, "--weights"),
    ("note_maps", {"weights": "nowhere.safetensors"}, "nowhere.safetensors"),
    ("note_maps", {"destination": None}, "DST is missing"),
    ("paired_folder", {"source": None}, "SRC is missing"),
    ("release", {}, "source"),
    ("release", {"doctor": True}, "only data sets are examined"),
    ("maestro", {}, "maestro"),
    ("gtzan", {"options": (("genres", "1"),)}, "gtzan: has no option 'genres'; there are genre"),
    ("paired_folder", {"container": "zip"}, "--format zip"),
    ("paired_folder", {"codec": "11k"}, "codec 11k: no such gin file; there are 16k"),
    ("everything", {}, "prepare everything: unknown; choose a data set of")])
def test_bad_arguments_are_one_line_errors_before_anything_is_written(
        run, tmp_path, kind, arguments, reason, monkeypatch):
    with pytest.raises(UserError, match=reason) as error:
        run(kind, **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line_hands_on_every_option(monkeypatch):
    seen = []
    monkeypatch.setattr(prepare, "run", seen.append)
    runner = CliRunner()
    assert runner.invoke(main.app, ["prepare", "renders", "in", "out"]).exit_code == 0
    assert runner.invoke(main.app, ["prepare", "gtzan", "in", "--doctor"]).exit_code == 0
    changed = dict(
        doctor=True, options=(("a", "1"), ("b", "x=y")), transpose=3, codec="24k", stems=True,
        container="tfrecord", shards=9, refuse=True, runner="DirectRunner", runner_options=("--x=1", "--y"),
        soundfonts=("a.sf2", "b.sf2"), hours=5.0, test=True, solo=0.3, midi=True, rate=44100, mono=True,
        notes_per_program=7, weights="w", bindings=("a=1", "b=2"), performances="p.json",
        workers=3, seed=4, json=True)
    assert runner.invoke(main.app, [
        "prepare", "renders", "in", "out", "--doctor", "--option", "a=1", "--option", "b = x=y",
        "--transpose", "3", "--codec", "24k", "--stems", "--format", "tfrecord",
        "--shards", "9", "--refuse",
        "--runner", "DirectRunner", "--runner_option=--x=1", "--runner-option=--y",
        "--soundfont", "a.sf2", "--soundfont", "b.sf2", "--hours", "5", "--rate", "44100", "--test",
        "--solo", "0.3", "--midi", "--mono", "--notes-per-program", "7", "--weights", "w",
        "--binding", "a=1", "--binding", "b=2", "--performances", "p.json",
        "--workers", "3", "--seed", "4", "--json"]).exit_code == 0
    assert seen == [
        Request(kind="renders", source="in", destination="out"),
        Request(kind="gtzan", source="in", destination=None, doctor=True),
        Request(kind="renders", source="in", destination="out", **changed)]
    # No option was forgotten.
    names = {f.name for f in dataclasses.fields(Request)}
    assert changed.keys() == names - {"kind", "source", "destination"}
    wrong = runner.invoke(main.app, ["prepare", "gtzan", "in", "out", "--option", "genre"])
    assert isinstance(wrong.exception, UserError) and "NAME=VALUE" in str(wrong.exception)


@pytest.mark.parametrize("share", ["1.5", "-0.1", "some"])
def test_a_share_of_solos_is_between_none_and_all(share, monkeypatch):
    monkeypatch.setattr(prepare, "run", lambda request: pytest.fail("was run"))
    result = CliRunner().invoke(main.app, ["prepare", "renders", "in", "out", "--solo", share])
    assert result.exit_code == 2 and "--solo" in result.output
