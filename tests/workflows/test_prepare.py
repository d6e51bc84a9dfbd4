"""Preparing data: what is handed on, what is made, and what is refused."""

import pathlib

import numpy as np
import pytest
import soundfile
from layouts.common import scale, tones, write_wav

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import audio_renders, records
from music_diffusion.data.audio_records import read_audio_manifest
from music_diffusion.data.audio_renders import AudioRenderPlan
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows import prepare
from music_diffusion.workflows.doctor import examine_source
from music_diffusion.workflows.requests import AudioFolderRequest, DataSetRequest, ScoresRequest


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return str(tmp_path / "source")


@pytest.fixture
def asked(source, tmp_path):
    """A request for a data set."""
    return lambda kind, **more: DataSetRequest(**(dict(
        kind=kind, source=source, destination=str(tmp_path / "out"), workers=1) | more))


def test_scores_take_several_soundfonts_and_hold_a_share_out(source, monkeypatch):
    seen, shares = [], []
    monkeypatch.setattr(audio_renders, "render_audio", lambda plan, folder, progress: seen.append(
        (plan, folder)) or progress(1, 2))

    def run(**more):
        prepare.render_scores(ScoresRequest(scores=source, destination="out", **more), shares.append)

    run(soundfonts=("a.sf2", "b.sf3"), hours=2.0, rate=44100, workers=1, seed=9)
    run(soundfonts=("a.sf2",), hours=2.0, test=True)
    run(soundfonts=("a.sf2",), solo=0.25, midi=True)
    (plan, folder), (tested, _), (alone, _) = seen
    assert plan == AudioRenderPlan(
        scores=source, soundfonts=("a.sf2", "b.sf3"), train_hours=2.0,
        validation_hours=0.1, test_hours=0.0, sample_rate=44100, workers=1, seed=9)
    assert folder == "out" and tested.test_hours == 0.1 and shares == [0.5] * 3
    assert (plan.solo, plan.midi, alone.solo, alone.midi) == (0.0, False, 0.25, True)


@pytest.mark.parametrize("source", ["scores", "notes", "rooms"])
@pytest.mark.parametrize("place", [".", "..", "below/it", "link", "../beside"])
def test_scores_are_not_rendered_into_what_is_read(tmp_path, monkeypatch, source, place):
    rendered = []
    monkeypatch.setattr(audio_renders, "render_audio", lambda plan, folder, _: rendered.append(folder))
    for name in ("scores", "notes", "rooms"):
        (tmp_path / "sources" / name / "a" / "b").mkdir(parents=True)
    out = tmp_path / "sources" / source / "a" / place
    (tmp_path / "sources" / source / "a" / "link").symlink_to(tmp_path / "sources" / source)
    scores, notes, rooms = (str(tmp_path / "sources" / name / "a") for name in ("scores", "notes", "rooms"))
    request = ScoresRequest(scores=scores, samplers=(f"{notes}@0-7",), room_responses=rooms,
                            destination=str(out))
    if place == "../beside":
        prepare.render_scores(request)
        assert rendered == [str(out)]
        return
    with pytest.raises(UserError, match="is, contains or lies in .*choose a folder beside it"):
        prepare.render_scores(request)
    assert not rendered


def test_soundfont_is_a_data_set_with_options_of_its_own(asked, source):
    renders = prepare.open_data_set(asked(
        "soundfont", soundfonts=("a.sf2", "b.sf3"), hours=2.0, test=True, solo=0.5, seed=3,
        options=(("room", "0.5"), ("pair", "other"))))
    assert (renders.folder, renders.soundfonts, renders.train_hours, renders.validation_hours,
            renders.test_hours, renders.solo, renders.seed, renders.room, renders.pair) == (
        source, ("a.sf2", "b.sf3"), 2.0, 0.1, 0.1, 0.5, 3, 0.5, ("other",))


def test_recorded_notes_and_rooms_are_handed_on(asked, source, monkeypatch):
    seen = []
    monkeypatch.setattr(audio_renders, "render_audio", lambda plan, *_: seen.append(plan))
    prepare.render_scores(ScoresRequest(
        scores=source, destination="out", samplers=("notes",), fallback="a.sf2", room_responses="rooms",
        room_licences=("CC0",), tuning=30.0, vibrato=0.25, degraded=0.5))
    (plan,) = seen
    assert (plan.tuning, plan.vibrato, plan.degraded) == (30.0, 0.25, 0.5)
    assert (plan.samplers, plan.soundfonts, plan.fallback, plan.room_responses, plan.room_licences) == (
        ("notes",), (), "a.sf2", "rooms", ("CC0",))
    renders = prepare.open_data_set(asked(
        "soundfont", samplers=("notes",), options=(("room_responses", "rooms"),
                                                   ("room_licences", "CC0, CC BY 4.0"))))
    assert (renders.samplers, renders.fallback, renders.room_responses, renders.room_licences) == (
        ("notes",), "", "rooms", ("CC0", "CC BY 4.0"))
    with pytest.raises(UserError, match="--sampler_fallback a.sf2: goes with --sampler"):
        prepare.open_data_set(asked("soundfont", soundfonts=("b.sf2",), fallback="a.sf2"))


def test_a_data_set_is_built_with_transposed_copies(asked, tmp_path):
    for i, split in enumerate(("train", "train", "validation")):
        folder = tmp_path / "source" / split
        folder.mkdir(exist_ok=True)
        write_midi(scale(pitch=60 + i), folder / f"{i}.mid")
        write_wav(folder / f"{i}.wav", tones(scale(pitch=60 + i), 2.0, 16000), 16000)
    write_wav(tmp_path / "source" / "train" / "alone.wav", np.zeros(100), 16000)
    request = asked("paired_folder", transpose=1, options=(("program", "40"),))
    manifest = prepare.prepare_data_set(request)
    assert prepare.contents(manifest) == (
        "0.00 h and 36 notes for train, 0.00 h and 6 notes for validation; skipped 1 (see manifest.json)")
    assert manifest["skipped"] == [["train/alone.wav", manifest["skipped"][0][1]]]
    assert "no MIDI file" in manifest["skipped"][0][1]
    assert records.read_manifest(tmp_path / "out", MelCodec())["records"] == {
        "train": 6, "validation": 1, "test": 0}
    (record,) = [records.Record.from_bytes(m) for p in records.shard_paths(tmp_path / "out", "validation")
                 for m in records.read_shard(p)]
    assert set(record.notes.program) == {40}
    assert prepare.prepare_data_set(request)["checksums"] == manifest["checksums"]
    with pytest.raises(UserError, match="alone.wav"):
        prepare.prepare_data_set(asked("paired_folder", transpose=1, options=(("program", "40"),),
                                       refuse=True))


def test_a_prepared_folder_is_as_it_was_written_or_not(asked, tmp_path):
    for split in ("train", "validation"):
        (tmp_path / "source" / split).mkdir()
        write_midi(scale(), tmp_path / "source" / split / "a.mid")
        write_wav(tmp_path / "source" / split / "a.wav", tones(scale(), 2.0, 16000), 16000)
    prepare.prepare_data_set(asked("paired_folder"))
    prepared = asked("paired_folder", source=str(tmp_path / "out"), destination=None)
    assert examine_source(prepared) is None
    shard = pathlib.Path(records.shard_paths(tmp_path / "out", "train")[0])
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{shard.name} differ from their checksums"):
        examine_source(prepared)


def test_audio_folder_reports_what_it_gave_and_what_it_skipped(source, tmp_path):
    tone = np.sin(np.arange(32000) / 5)
    for name in ("train/a", "validation/b"):
        (tmp_path / "source" / name).parent.mkdir()
        soundfile.write(tmp_path / "source" / f"{name}.wav", np.stack([tone, -tone / 2], 1), 8000)
    (tmp_path / "source" / "c.mp3").touch()
    request = AudioFolderRequest(source=source, destination=str(tmp_path / "out"), rate=4000, mono=True,
                                 workers=1)
    assert prepare.audio_contents(prepare.prepare_audio(request)) == (
        "0.00 h for train, 0.00 h for validation; skipped 1, e.g. c.mp3: the file is empty "
        "(see manifest.json)")
    options = read_audio_manifest(tmp_path / "out", 4000)["options"]
    assert options["mono"] and options["seed"] == 0
    (tmp_path / "source" / "c.mp3").unlink()
    assert prepare.audio_contents(prepare.prepare_audio(request)).endswith("0.00 h for validation")


@pytest.mark.parametrize("kind, arguments, reason", [
    ("soundfont", {"source": "/no/such/folder"}, "/no/such/folder: no such folder"),
    ("soundfont", {}, "--soundfont FILE.sf2 or --sampler FOLDER, once or several times"),
    ("paired_folder", {"destination": None}, "DST is missing"),
    ("maestro", {}, "maestro"),
    ("gtzan", {"options": (("genres", "1"),)}, "gtzan: has no option 'genres'; there are genre"),
    ("paired_folder", {"container": "zip"}, "--format zip"),
    ("paired_folder", {"codec": "11k"}, "codec 11k: no such gin file; there are 16k"),
    ("everything", {}, "prepare everything: unknown; choose a data set of")])
def test_bad_requests_are_one_line_errors_before_anything_is_written(
        asked, tmp_path, kind, arguments, reason):
    with pytest.raises(UserError, match=reason) as error:
        prepare.prepare_data_set(asked(kind, **arguments))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workflow, request_, reason", [
    (prepare.render_scores, ScoresRequest(scores="/tmp", destination="/none/out"),
     "--soundfont FILE.sf2 or --sampler FOLDER, once"),
    (prepare.render_scores, ScoresRequest(scores="/none", destination="out"), "/none: no such"),
    (prepare.prepare_audio, AudioFolderRequest(source="/none", destination="out"), "/none: no such")],
    ids=lambda x: x if isinstance(x, str) else "")
def test_bad_folders_are_one_line_errors(workflow, request_, reason):
    with pytest.raises(UserError, match=reason):
        workflow(request_)


def test_a_folder_without_audio(source):
    with pytest.raises(UserError, match="source: no audio files there"):
        prepare.prepare_audio(AudioFolderRequest(source=source, destination="out"))
