"""Scores → audio files, with two SoundFonts of sines an octave apart, so that files tell theirs."""

import csv
import dataclasses
import json
import struct

import numpy as np
import pytest
import soundfile
from reference import needs
from reference.soundfont_file import RATE, expected_hertz, soundfont

from music_diffusion.data import audio_renders
from music_diffusion.data.audio_folder import AudioFolderPlan, prepare_audio_folder
from music_diffusion.data.audio_renders import AudioRenderPlan, render_audio, row_of
from music_diffusion.data.augment import Augmentation, split_parts
from music_diffusion.data.items import SPLITS
from music_diffusion.data.rooms import Room, Shelf
from music_diffusion.data.sets.soundfont_excerpts import Recording
from music_diffusion.data.sets.soundfont_scores import find_scores
from music_diffusion.data.soundfont import SoundFontRenderer
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASSES

needs.module("fluidsynth")

PITCH = {"tones": 60, "drums": 40}


def piece(drum):
    """One key, over and over, for 6 s."""
    start = 0.05 + 0.1 * np.arange(60)
    pitch = PITCH["drums" if drum else "tones"]
    return Notes(start, start + 0.095, np.full(60, pitch), np.full(60, 100), np.zeros(60),
                 np.full(60, drum))


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    low = soundfont()
    # The same font whose samples claim to be an octave deeper, and so are played an octave higher.
    high = low.replace(struct.pack("<IB", RATE, 69), struct.pack("<IB", RATE, 57))
    (folder / "low.sf2").write_bytes(low)
    (folder / "high.sf2").write_bytes(high)
    table = ["path,source,split"]
    for split in ("train", "validation", "test"):
        for name in PITCH:
            write_midi(piece(name == "drums"), folder / f"{split}-{name}.mid")
            table.append(f"{split}-{name}.mid,{name},{split}")
    (folder / "manifest.csv").write_text("\n".join(table) + "\n")
    return AudioRenderPlan(
        scores=str(folder), soundfonts=(str(folder / "low.sf2"), str(folder / "high.sf2")),
        train_hours=6 / 3600, validation_hours=2 / 3600, seconds=1.0, workers=1, seed=1,
        augmentation=Augmentation(reorchestrate=0.0, subset=0.0, transpose=0))


def rows_of(folder):
    with (folder / "renders.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def loudest_hertz(samples, rate):
    return np.argmax(np.abs(np.fft.rfft(samples, rate * 2))) / 2


def expected(row):
    drums = row["source"] == "drums"
    base = expected_hertz(0, PITCH[row["source"]], drums)
    # The fonts' drums follow neither the key nor the claimed pitch.
    return base * (2 if row["soundfont"] == "high.sf2" and not drums else 1)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_files_are_what_their_rows_say(plan, tmp_path, rate):
    plan = dataclasses.replace(plan, sample_rate=rate, test_hours=1 / 3600)
    render_audio(plan, str(tmp_path))
    rows = rows_of(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.flac")) == sorted(
        r["file"] for r in rows)
    assert [r["split"] for r in rows] == 6 * ["train"] + 2 * ["validation"] + ["test"]
    for row in rows:
        samples, its_rate = soundfile.read(tmp_path / row["file"])
        assert its_rate == rate and samples.shape == (rate,)
        assert loudest_hertz(samples, rate) == pytest.approx(expected(row), rel=0.02), row
        assert 20 * np.log10(np.abs(samples).max()) == pytest.approx(float(row["peak_db"]), abs=0.01)
    assert {r["soundfont"] for r in rows} == {"low.sf2", "high.sf2"}
    assert {r["source"] for r in rows} == {"tones", "drums"}


def excerpts(plan, split, count):
    sources = find_scores(plan.scores)[split]
    return [plan.renders.excerpt(split, i, sources) for i in range(count)]


def test_a_file_is_the_fonts_sound_of_its_notes_in_its_conditions(plan, tmp_path):
    plan = dataclasses.replace(plan, room=1.0)
    render_audio(plan, str(tmp_path))
    excerpt = excerpts(plan, "train", 4)[3]
    recording, notes = excerpt.recording, excerpt.notes()
    assert len(notes) > 5 and notes.duration <= 1.3
    dry = SoundFontRenderer(path=recording.soundfont)(notes).samples[:16000]
    want = recording.room(dry, 16000)
    want = want if recording.shelf is None else recording.shelf(want, 16000)
    got = soundfile.read(tmp_path / "train/00003.flac")[0]
    scale = 10 ** (recording.peak_db / 20) / np.abs(want).max()
    np.testing.assert_allclose(got, scale * want, atol=2 / 32768)  # FLAC of 16 bit


def test_finished_files_are_kept_and_lost_ones_come_back_as_they_were(plan, tmp_path):
    done = []
    render_audio(plan, str(tmp_path), lambda i, n: done.append((i, n)))
    assert done == [(i + 1, 8) for i in range(8)]
    table = (tmp_path / "renders.csv").read_text()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.flac")}
    lost = tmp_path / "train/00002.flac"
    was = soundfile.read(lost)[0]
    lost.unlink()
    done.clear()
    render_audio(plan, str(tmp_path), lambda i, n: done.append((i, n)))
    assert done == [(1, 1)]
    assert {p for p, t in before.items() if p.stat().st_mtime_ns != t} == {lost}
    np.testing.assert_array_equal(soundfile.read(lost)[0], was)
    assert (tmp_path / "renders.csv").read_text() == table

    # More hours add files, fewer take none away and none from the table.
    render_audio(dataclasses.replace(plan, train_hours=7 / 3600), str(tmp_path))
    longer = rows_of(tmp_path)
    assert len(longer) == 9 and all(p.stat().st_mtime_ns == t for p, t in before.items()
                                    if p != lost)
    render_audio(dataclasses.replace(plan, train_hours=2 / 3600), str(tmp_path))
    assert rows_of(tmp_path) == longer


@pytest.mark.parametrize("changes, name", [
    ({"sample_rate": 8000}, "sample_rate"), ({"seed": 2}, "seed"),
    ({"augmentation": Augmentation()}, "augmentation"), ({"solo": 0.5}, "solo"),
    ({"midi": True}, "midi")])
def test_a_folder_of_another_plan_is_left_alone(plan, tmp_path, changes, name):
    plan = dataclasses.replace(plan, train_hours=1e-9, validation_hours=0)
    render_audio(plan, str(tmp_path))
    held = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=f"other {name}; choose another folder"):
        render_audio(dataclasses.replace(plan, **changes), str(tmp_path))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == held
    (tmp_path / "renders.json").unlink()
    with pytest.raises(UserError, match="other audio"):
        render_audio(plan, str(tmp_path))


def test_a_folder_of_an_earlier_drawing_is_left_alone(plan, tmp_path):
    plan = dataclasses.replace(plan, train_hours=1e-9, validation_hours=0)
    render_audio(plan, str(tmp_path))
    note = tmp_path / "renders.json"
    earlier = json.loads(note.read_text())
    del earlier["drawing"]
    note.write_text(json.dumps(earlier))
    with pytest.raises(UserError, match="other drawing; choose another folder"):
        render_audio(plan, str(tmp_path))


def test_conditions_are_drawn_evenly_and_by_number(plan):
    plan = dataclasses.replace(plan, room=0.3, shelf=0.7)
    drawn = [e.recording for e in excerpts(plan, "train", 600)]
    # Binomial of 600: ± 0.02.
    origins = [e.origin for e in excerpts(plan, "train", 600)]
    assert np.mean([o == "drums" for o in origins]) == pytest.approx(0.5, abs=0.07)
    assert np.mean([r.room is not None for r in drawn]) == pytest.approx(0.3, abs=0.07)
    assert np.mean([r.shelf is not None for r in drawn]) == pytest.approx(0.7, abs=0.07)
    assert np.mean([r.soundfont.endswith("low.sf2") for r in drawn]) == pytest.approx(0.5, abs=0.08)
    peaks = np.array([r.peak_db for r in drawn])
    assert -20 <= peaks.min() < -19.5 and -1.5 < peaks.max() <= -1
    assert np.mean(peaks) == pytest.approx(-10.5, abs=1)
    assert [e.recording for e in excerpts(plan, "train", 600)] == drawn
    others = [excerpts(plan, "validation", 600), excerpts(dataclasses.replace(plan, seed=5), "train", 600)]
    for other in others:
        assert not {e.recording.peak_db for e in other} & set(peaks)


def test_training_excerpts_are_varied_and_others_are_as_written(plan):
    plan = dataclasses.replace(plan, augmentation=Augmentation(
        reorchestrate=0, subset=0, transpose=0, onset_jitter=0, velocity_jitter=0, stretch=0.15))

    def steps(split):
        return {round(float(np.median(np.diff(e.notes().start))), 3) for e in excerpts(plan, split, 8)}

    assert steps("validation") == {0.1} and len(steps("train")) > 4


@pytest.fixture
def folder_of(tmp_path, plan):
    """A plan for a folder of one piece."""
    def make(notes):
        write_midi(notes, tmp_path / "piece.mid")
        (tmp_path / "manifest.csv").write_text("path,source,split\n" + "".join(
            f"piece.mid,band,{split}\n" for split in SPLITS))
        return dataclasses.replace(plan, scores=str(tmp_path))
    return make


def part(program, pitch, count=60, drum=False):
    """One key, `count` times within 6 s."""
    start = 0.05 + 6 / count * np.arange(count)
    return Notes(start, start + 0.08, np.full(count, pitch), np.full(count, 100),
                 np.full(count, program), np.full(count, drum))


# Pitch classes tell three parts and the drums; that of the flute, A, has too few notes for a solo.
BAND = [part(0, 60), part(32, 40), part(40, 67), part(73, 81, count=6),
        part(0, 38, drum=True)]


@pytest.mark.parametrize("split", SPLITS)
def test_solos_are_one_part_on_instruments_of_all_classes(folder_of, split):
    plan = dataclasses.replace(folder_of(Notes.concatenate(BAND)), solo=1.0,
                               augmentation=Augmentation(transpose=0))
    kinds, steps, pitches = [], [], set()
    for excerpt in excerpts(plan, split, 600):
        notes = excerpt.notes()
        assert excerpt.solo and len(split_parts(notes)) == 1 and len(notes) >= 5
        assert notes.start.max() < plan.seconds
        kinds.append(34 if notes.is_drum.all() else next(
            i for i, c in enumerate(SLAKH_CLASSES) if notes.program[0] in c.programs))
        pitches |= set(notes.pitch[notes.is_drum]) | set(notes.pitch[~notes.is_drum] % 12)
        steps.append(np.median(np.diff(notes.start)))
        assert (set(notes.velocity) == {100}) == (split != "train")
    count = np.bincount(kinds, minlength=35)
    # One in four of the parts that are long enough is the drums; 450 ± 11 others over 34 classes.
    assert count[34] == pytest.approx(150, abs=50)
    assert 1 <= count[:34].min() and count[:34].max() <= 32  # 13 ± 3.6
    assert pitches == {38, 60 % 12, 40 % 12, 67 % 12}
    # Only training excerpts are played faster and slower.
    spread = np.ptp(steps)
    assert spread > 0.02 if split == "train" else spread < 0.003


def test_a_share_plays_alone_and_the_table_says_so(folder_of):
    plan = dataclasses.replace(folder_of(Notes.concatenate(BAND)), solo=0.3,
                               augmentation=Augmentation(subset=0.0))
    rows = []
    for excerpt in excerpts(plan, "validation", 400):
        rows.append(row_of(excerpt, plan))
        assert (len(split_parts(excerpt.notes())) == 1) == excerpt.solo
    assert {(r["solo"], r["source"]) for r in rows} == {("1", ""), ("0", "band")}
    assert np.mean([r["solo"] == "1" for r in rows]) == pytest.approx(0.3, abs=0.09)  # ± 0.023


def test_without_solos_all_parts_play(folder_of):
    plan = folder_of(Notes.concatenate(BAND))
    for excerpt in excerpts(plan, "validation", 20):
        assert not excerpt.solo and row_of(excerpt, plan)["solo"] == "0"
        assert len(split_parts(excerpt.notes())) >= 4


@pytest.mark.parametrize("solo", [0.0, 1.0])
def test_no_file_is_without_notes(folder_of, solo):
    """Places are drawn anew if their notes begin only behind the end of the file."""
    start = 5 + np.arange(240) / 240
    late = Notes(start, start + 0.01, *np.array([60, 100, 0, 0])[:, None].repeat(240, 1))
    plan = dataclasses.replace(folder_of(late), solo=solo, augmentation=Augmentation(stretch=0.3))
    for split in ("train", "validation"):
        for excerpt in excerpts(plan, split, 150):
            notes = excerpt.notes()
            assert len(notes) and notes.start.min() < plan.seconds


def test_notes_lie_beside_the_audio_to_a_tick(folder_of, tmp_path):
    # Without jitter no note reaches into the next of its pitch.
    plan = dataclasses.replace(folder_of(Notes.concatenate(BAND)), solo=0.5, midi=True,
                               augmentation=Augmentation(onset_jitter=0.0))
    out = tmp_path / "out"
    render_audio(plan, str(out))
    rows = rows_of(out)
    assert {r["solo"] for r in rows} == {"0", "1"}
    assert sorted(out.rglob("*.mid")) == sorted((out / r["file"]).with_suffix(".mid") for r in rows)
    for split in ("train", "validation"):
        of_split = [r for r in rows if r["split"] == split]
        for row, excerpt in zip(of_split, excerpts(plan, split, len(of_split)), strict=True):
            assert row_of(excerpt, plan) == row
            got, want = read_midi((out / row["file"]).with_suffix(".mid")), excerpt.notes()
            assert len(got) == len(want)
            got, want = (n[np.lexsort((n.start, n.pitch, n.program, n.is_drum))] for n in (got, want))
            for name in ("pitch", "velocity", "program", "is_drum"):
                np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
            for name in ("start", "end"):  # half a tick of 1/960 s
                np.testing.assert_allclose(getattr(got, name), getattr(want, name), atol=0.53e-3)


def test_notes_are_there_before_the_audio_that_tells_that_a_file_is_finished(
        plan, tmp_path, monkeypatch):
    notes_there = []
    monkeypatch.setattr(audio_renders, "write_audio", lambda path, _: notes_there.append(
        len(read_midi(path.with_suffix(".mid"))) > 0))
    (tmp_path / "train").mkdir()
    excerpt, = excerpts(plan, "train", 1)
    audio_renders.render_file(str(tmp_path), dataclasses.replace(plan, midi=True), excerpt)
    assert notes_there == [True]


def test_without_midi_there_are_no_notes_beside_the_audio(plan, tmp_path):
    render_audio(dataclasses.replace(plan, train_hours=1e-9, validation_hours=0), str(tmp_path))
    assert not list(tmp_path.rglob("*.mid"))


def recording(room=None, shelf=None, peak_db=-6.0):
    return Recording(soundfont="a.sf2", room=room, shelf=shelf, peak_db=peak_db)


def test_recording_sets_the_peak_after_room_and_tone_and_keeps_attacks():
    click = np.zeros(8000, np.float32)
    click[3000] = 0.1
    room, shelf = Room(wet_db=-12.0), Shelf(low_db=6.0, high_db=-3.0)
    for heard in (recording(), recording(room), recording(room, shelf)):
        got = heard(click, 16000)
        assert np.abs(got).max() == pytest.approx(10 ** (-6 / 20), rel=1e-5)
        assert np.argmax(np.abs(got)) == 3000 and np.abs(got[:3000]).max() < 1e-5
    assert np.abs(recording(room)(click, 16000)[3100:]).max() > 1e-3


def test_a_recording_is_the_room_and_then_the_tone():
    noise = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    room, shelf = Room(wet_db=-6.0, seed=1), Shelf(low_db=-4.0, high_db=4.0)
    for heard, want in [(recording(), noise), (recording(room), room(noise, 16000)),
                        (recording(None, shelf), shelf(noise, 16000)),
                        (recording(room, shelf), shelf(room(noise, 16000), 16000))]:
        np.testing.assert_allclose(
            heard(noise, 16000), want * 10 ** (-6 / 20) / np.abs(want).max(), atol=1e-6)
        loud = dataclasses.replace(heard, peak_db=None)  # at the synthesizer's level
        np.testing.assert_allclose(loud(noise, 16000), want, atol=1e-5)


def test_silence_stays_silence():
    got = recording(Room(), Shelf(high_db=3.0))(np.zeros(1000, np.float32), 16000)
    assert not got.any()


def test_renders_become_records(plan, tmp_path):
    render_audio(plan, str(tmp_path / "renders"))
    manifest = prepare_audio_folder(AudioFolderPlan(
        source=str(tmp_path / "renders"), workers=1), str(tmp_path / "data"))
    assert manifest["records"] == {"train": 6, "validation": 2, "test": 0}
    assert manifest["skipped"] == []


@pytest.mark.parametrize("changes, reason", [
    ({"soundfonts": ()}, "needs a SoundFont"), ({"sample_rate": 4000}, "4000"),
    ({"seconds": 0.5}, "0.5"), ({"solo": 1.5}, "1.5 solo"), ({"solo": float("nan")}, "nan solo"),
    ({"peak_db": (-3.0, 1.0)}, "dBFS"),
    ({"soundfonts": ("nowhere.sf2",)}, "nowhere.sf2"), ({"scores": "nowhere"}, "nowhere")])
def test_impossible_plans_are_one_line_errors_before_anything_is_written(
        plan, tmp_path, changes, reason):
    with pytest.raises(UserError, match=reason):
        render_audio(dataclasses.replace(plan, **changes), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("before", ["nothing", "folder", "file"])
def test_renders_of_which_none_can_be_made_leave_nothing_behind(plan, tmp_path, monkeypatch, before):
    def fails(folder, plan, excerpt):
        raise UserError("no sample")

    monkeypatch.setattr(audio_renders, "render_file", fails)
    out = tmp_path / "a" / "out"
    if before != "nothing":
        (out / "train").mkdir(parents=True)
    if before == "file":
        (out / "train" / "mine.txt").write_text("")
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="no excerpt can be rendered .*no sample"):
        render_audio(plan, str(out))
    assert sorted(tmp_path.rglob("*")) == there
