"""Scores played by recorded notes, in recorded rooms: without SoundFonts, and beside them."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import soundfile
from layouts import scores
from layouts.scores import part
from reference import recorded_notes as made
from reference.recorded_notes import cents, hertz, measured_hertz

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.io import read_audio
from music_diffusion.conditions.note_frames import frame_grid
from music_diffusion.data.audio_renders import AudioRenderPlan, render_audio
from music_diffusion.data.augment import split_parts
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DRUM_PROGRAM
from music_diffusion.data.note_renders import NoteRowPlan, NoteSampling, note_rows, write_note_rows
from music_diffusion.data.pairs import write_pairs
from music_diffusion.data.recorded_rooms import RecordedRoom, read_rooms
from music_diffusion.data.renderers import open_renderer
from music_diffusion.data.sets import soundfont_excerpts
from music_diffusion.data.sets.soundfont_performances import read_performances
from music_diffusion.data.sets.soundfont_renders import SoundFontRenders
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import DRUMS
from music_diffusion.notes.midi import read_midi
from music_diffusion.notes.notes import Notes

RATE = 16000
STILL = dict(reorchestrate=0.0, subset=0.0, transpose=0, stretch=0.0, onset_jitter=0.0,
             velocity_jitter=0.0, part_level=0.0)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A piano, a clarinet and a drum of one key, as a folder."""
    folder = tmp_path_factory.mktemp("samples")
    made.instrument(folder / "piano", range(45, 80, 6), decay=3.0, seconds=0.8)
    made.instrument(folder / "clarinet", range(50, 76, 6), seconds=0.6)
    made.instrument(folder / "drum", (50,), (("Snare", 0.5),), decay=20.0, seconds=0.3)
    (folder / "instruments.csv").write_text(
        "instrument,programs,kind,keys\npiano,0-7,,\nclarinet,71,,\ndrum,drums,,38=Snare\n")
    return str(folder)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    rng = np.random.default_rng(0)
    for name in ("hall", "cave"):
        response = rng.normal(size=8000) * np.exp(-np.arange(8000) / 1500) * 0.05
        response[:200], response[50] = 0, 1
        soundfile.write(folder / f"{name}.wav", 0.9 * response, RATE)
    (folder / "impulse_responses.csv").write_text("file,licence\nhall.wav,CC0\ncave.wav,CC BY-SA 3.0\n")
    return str(folder)


@pytest.fixture
def of(tmp_path, samples):
    """A data set of one piece, in training and validation, without variation unless it is asked for."""
    def make(notes, **options):
        folder = scores.build(tmp_path / "scores", [(f"{s}.mid", "a", s, notes)
                                                    for s in ("train", "validation")])
        hours = dict(train_hours=8 / 3600, validation_hours=2 / 3600)
        return SoundFontRenders(folder=folder, **(
            dict(samplers=(samples,), seconds=2.0) | hours | STILL | options))
    return make


BAND = Notes.concatenate([part(0, 64), part(71, 60, gap=0.2), part(0, 38, gap=0.3, drum=True)])


def tones(samples, notes):
    """Yields pitch and the measured pitch of notes that sound long enough."""
    whole = notes[(notes.end < 2.0) & (notes.end - notes.start > 0.3)]
    for start, end, pitch in zip(whole.start, whole.end, whole.pitch, strict=True):
        tone = samples[round((start + 0.03) * RATE):round((end - 0.01) * RATE)]
        yield pitch, pitch + cents(measured_hertz(tone, RATE, hertz(pitch)), hertz(pitch)) / 100


@pytest.mark.parametrize("program", [0, 71])
def test_items_sound_like_their_notes(of, program):
    for item in of(part(program, 64, count=10, gap=0.8)).list().items:
        audio, notes = read_sound(item.audio, RATE), item.notes()
        assert set(notes.program.tolist()) == {program}
        assert sum(abs(a - b) < 0.05 for a, b in tones(audio, notes)) >= 1
        assert all(abs(a - b) < 0.05 for a, b in tones(audio, notes))


def test_stems_sum_to_the_audio(of, rooms):
    data_set = of(BAND, stems=True, room=1.0, room_responses=rooms, room_recorded=1.0, peak_db=(-6.0, -3.0))
    for item in data_set.list().items:
        assert isinstance(item.audio.excerpt.recording.room, RecordedRoom)
        assert {stem.program for stem in item.stems} == {0, 71, DRUM_PROGRAM}
        audio = read_sound(item.audio, RATE)
        np.testing.assert_allclose(sum(read_sound(s.audio, RATE) for s in item.stems), audio, atol=1e-6)


def test_parts_go_to_programs_and_ranges_that_are_recorded(of, samples):
    """Violin and a bass below the samples: both are played, in octaves that the samples reach."""
    data_set = of(Notes.concatenate([part(40, 90), part(33, 24)]), train_hours=40 / 3600)
    programs = set()
    for item in data_set.list().items:
        notes = item.notes()
        programs |= set(notes.program.tolist())
        for one in split_parts(notes):
            keys = open_renderer(samples).keys(int(one.program[0]))
            assert set(one.pitch.tolist()) <= set(keys)
        assert np.abs(read_sound(item.audio, RATE)).max() > 0.01
    assert len(programs) > 2 and programs <= {*range(8), 71}


def test_the_other_timbre_is_one_that_is_recorded(of):
    for item in of(part(0, 64), pair=("other",)).list().items:
        paired = item.source.excerpt.paired_notes()
        assert set(paired.program.tolist()) <= {2, 4, 5, 6, 7, 71}  # of other classes than a grand piano's
        np.testing.assert_array_equal(paired.pitch, item.notes().pitch)
        assert all(abs(a - b) < 0.05 for a, b in tones(read_sound(item.source, RATE), item.notes()))


def test_drums_that_are_not_recorded_are_named(of):
    item = of(Notes.concatenate([part(0, 64), part(0, 56, drum=True)])).list().items[0]
    with pytest.raises(UserError, match="drum key 56"):
        read_sound(item.audio, RATE)


def test_tuning_and_vibrato_are_drawn(of):
    data_set = of(part(71, 64, count=10, gap=0.8), tuning=50.0, vibrato=0.5, train_hours=40 / 3600)
    items = data_set.list().items
    tunings = [item.audio.excerpt.recording.tuning for item in items]
    assert min(tunings) < -15 and max(tunings) > 15 and max(np.abs(tunings)) <= 50
    assert {item.audio.excerpt.recording.vibrato is None for item in items} == {True, False}
    for item in items[:4]:
        if item.audio.excerpt.recording.vibrato is None:
            found = [b - a for a, b in tones(read_sound(item.audio, RATE), item.notes())]
            assert np.median(found) == pytest.approx(item.audio.excerpt.recording.tuning / 100, abs=0.04)


def test_rooms_are_drawn_by_licence(of, rooms):
    def names(**options):
        data_set = of(part(0, 64), room=1.0, room_responses=rooms, train_hours=60 / 3600, **options)
        items = data_set.list().items
        return {getattr(item.audio.excerpt.recording.room, "name", "made") for item in items}

    assert names() == {"hall", "cave", "made"}
    assert names(room_licences=("cc0",), room_recorded=1.0) == {"hall"}
    for options, message in ((dict(room_licences=("CC9",)), "'CC9'"),
                             (dict(room_recorded=2.0), "2.0 room_rec")):
        with pytest.raises(UserError, match=message):
            names(**options)
    with pytest.raises(UserError, match="give a folder of them"):
        of(part(0, 64), room_licences=("CC0",))


def test_what_came_later_leaves_older_data_sets_as_they_are(of, samples, rooms):
    fonts = of(part(0, 64), samplers=(), soundfonts=("a.sf2",))
    assert not {"samplers", "tuning", "room_responses", "vibrato", "fallback"} & set(fonts.identity())
    mine = of(part(0, 64), room=0.5, room_responses=rooms)
    assert mine.identity()["samplers"] == [samples.rsplit("/", 1)[1]]
    assert mine.identity()["room_responses"] == ["hall", "cave"]
    assert rooms not in json.dumps(mine.identity())
    first = of(part(0, 64)).list().items
    assert any(path.endswith("piano/notes.csv") for path in first[0].audio.files)


def test_table_of_recordings(of, rooms, samples, tmp_path):
    table = tmp_path / "recordings.csv"
    name = samples.rsplit("/", 1)[1]
    table.write_text("name,soundfont,response,wet_db,rt60,tuning\n"
                     f"near,{name},,,,\nfar,{name},hall,-3,,12\nmade,{name},,,0.4,\n")
    renders = of(part(0, 60), recordings_table=str(table), room_responses=rooms, train_hours=30 / 3600)
    found = dict(renders.recordings)
    assert found["near"].room is None and found["made"].room.rt60 == 0.4
    assert (found["far"].room.name, found["far"].room.wet_db, found["far"].tuning) == ("hall", -3, 12)
    assert {item.performance for item in renders.list().items} == {"near", "far", "made"}
    assert rooms not in json.dumps(renders.identity())
    table.write_text(f"name,soundfont,response,rt60\nx,{name},hall,1\n")
    with pytest.raises(UserError, match="line 2: has response and rt60"):
        read_performances(str(table), (samples,), read_rooms(rooms))
    table.write_text(f"name,soundfont,response\nx,{name},attic\n")
    with pytest.raises(UserError, match="line 2: 'attic' is no impulse response"):
        read_performances(str(table), (samples,), read_rooms(rooms))


def test_items_become_records_and_pairs_of_files(of, tmp_path):
    data_set = of(BAND, performances=1)
    manifest = build(data_set, "soundfont", BuildPlan(frames=100, workers=1), str(tmp_path / "out"))
    assert manifest["records"]["train"] == 4 and not manifest["skipped"]
    items = [item for item in data_set.list().items if item.split == "validation"]
    (name,) = write_pairs(items, str(tmp_path / "a"), str(tmp_path / "n"), RATE, 60.0)
    audio = read_audio(tmp_path / "a" / f"{name}.flac").samples
    np.testing.assert_allclose(audio, read_sound(items[0].audio, RATE), atol=1e-6)
    assert len(read_midi(str(tmp_path / "n" / f"{name}.mid"))) == len(items[0].notes())


def test_audio_is_rendered_with_recorded_notes_in_recorded_rooms(of, rooms, samples, tmp_path):
    folder = of(BAND).folder
    plan = AudioRenderPlan(scores=folder, samplers=(samples,), train_hours=6 / 3600, validation_hours=0.0,
                           seconds=2.0, room=1.0, room_responses=rooms, room_licences=("CC0",), workers=1,
                           augmentation=dataclasses.replace(of(BAND).augmentation))
    render_audio(plan, str(tmp_path / "out"))
    with (tmp_path / "out" / "renders.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 3 and {r["soundfont"] for r in rows} == {samples.rsplit("/", 1)[1]}
    assert {r["response"] for r in rows} <= {"hall", ""} and all(float(r["rt60"]) > 0 for r in rows)
    assert all(np.abs(read_audio(tmp_path / "out" / r["file"]).samples).max() > 0.05 for r in rows)
    with pytest.raises(UserError, match="other room_responses"):
        render_audio(dataclasses.replace(plan, room_licences=()), str(tmp_path / "out"))


def test_what_nothing_plays_is_skipped_with_the_reason_and_the_rest_is_rendered(samples, tmp_path):
    bell = Notes.concatenate([part(0, 64), part(0, 56, gap=0.2, drum=True)])
    folder = scores.build(tmp_path / "scores", [("a.mid", "a", "train", part(0, 64)),
                                                ("b.mid", "a", "train", bell)])
    plan = AudioRenderPlan(scores=folder, samplers=(samples,), train_hours=24 / 3600, validation_hours=0.0,
                           seconds=2.0, room=0.0, midi=True, workers=1, solo=0.0)
    skipped = render_audio(plan, str(tmp_path / "out"))
    with (tmp_path / "out" / "renders.csv").open() as f:
        made = [row["file"] for row in csv.DictReader(f)]
    assert made and skipped and len(made) + len(skipped) == 12
    assert not {f"{name}.flac" for name, _ in skipped} & set(made)
    assert all("key 56" in why for _, why in skipped), skipped[0]
    assert sorted(p.stem for p in (tmp_path / "out" / "train").glob("*.mid")) == sorted(
        m[6:-5] for m in made)


def test_some_excerpts_are_degraded_with_the_same_notes(of, samples, tmp_path):
    plan = AudioRenderPlan(scores=of(BAND).folder, samplers=(samples,), train_hours=24 / 3600,
                           validation_hours=0.0, seconds=2.0, room=0.0, midi=True, workers=1)
    audio = {}
    for name, share in (("clean", 0.0), ("degraded", 0.6)):
        render_audio(dataclasses.replace(plan, degraded=share), str(tmp_path / name))
        with (tmp_path / name / "renders.csv").open() as f:
            audio[name] = {row["file"]: (row["degraded"], read_audio(tmp_path / name / row["file"]).samples)
                           for row in csv.DictReader(f)}
    changed = 0
    for file, (chain, samples) in audio["degraded"].items():
        told, clean = audio["clean"][file]
        assert told == "" and len(clean) == len(samples)
        assert (chain == "") == np.array_equal(clean, samples)
        changed += chain != ""
        notes = [read_midi(str((tmp_path / n / file).with_suffix(".mid"))) for n in audio]
        np.testing.assert_array_equal(notes[0].start, notes[1].start)
    assert 2 <= changed <= 10
    with pytest.raises(UserError, match="other degraded"):
        render_audio(plan, str(tmp_path / "degraded"))


def test_note_rows_are_of_what_is_recorded(samples, tmp_path):
    sampling = NoteSampling(longest=0.3, steady_kept=1.0, silence_kept=0.0)
    plan = NoteRowPlan(soundfont=samples, notes_per_program=2, workers=1, sampling=sampling)
    write_note_rows(plan, str(tmp_path))
    rows = np.load(tmp_path / "note_rows.npy")
    assert set(rows["program"].tolist()) == {*range(8), 71, DRUMS}
    assert set(rows["pitch"][rows["program"] == DRUMS].tolist()) == {38}
    some = note_rows(71, 60, 1, renderer=plan.renderer, codec=MelCodec(),
                     grid=frame_grid(plan.codec, plan.ring), sampling=sampling)
    assert set(some["pitch"].tolist()) <= set(range(46, 79)) and len(set(some["pitch"].tolist())) > 25


def test_renders_do_not_depend_on_what_is_kept(of):
    item = of(BAND, performances=1).list().items[0]
    first = read_sound(item.audio, RATE)
    soundfont_excerpts.forget()
    np.testing.assert_array_equal(read_sound(item.audio, RATE), first)
