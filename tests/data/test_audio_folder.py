"""Folders of made audio: every file is a tone of its own pitch, so that it is known again."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.io import AudioReader
from music_diffusion.audio.waveform import Waveform
from music_diffusion.data import audio_folder, records, shards
from music_diffusion.data.audio_folder import (
    AudioFolderPlan,
    SourceAudio,
    cut_pieces,
    find_audio,
    prepare_audio_folder,
    split_files,
)
from music_diffusion.data.audio_records import AudioRecord, read_audio_manifest
from music_diffusion.data.audio_source import AudioSource
from music_diffusion.errors import UserError

RATE = 16000


def tone(hertz, seconds=2.0, rate=RATE, level=0.5):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def write(path, samples, rate=RATE, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **more)


def pieces(folder, split):
    return [AudioRecord.from_bytes(m).audio for p in records.shard_paths(folder, split)
            for m in records.read_shard(p)]


def pitch(samples, rate=RATE):
    return np.argmax(np.abs(np.fft.rfft(samples, rate * 4))) / 4  # Hz


def plan_of(source, **more):
    return AudioFolderPlan(**dict(source=str(source), piece_seconds=1.0, workers=1) | more)


@pytest.fixture
def folder(tmp_path):
    """Eight tones of 2 s in nested folders, two of them for validation."""
    for i in range(8):
        split = "validation" if i > 5 else "train"
        write(tmp_path / "in" / split / f"album {i % 2}" / f"{i}.wav", tone(300 + 50 * i))
    return tmp_path / "in"


def pitches(folder, split):
    return {float(pitch(p[:, 0])) for p in pieces(folder, split)}


FORMATS = {
    "wav": dict(rate=RATE), "24.wav": dict(rate=48000, subtype="PCM_24"),
    "float.wav": dict(rate=22050, subtype="FLOAT"), "flac": dict(rate=44100),
    "ogg": dict(rate=44100), "mp3": dict(rate=32000), "aiff": dict(rate=8000),
    "opus": dict(rate=48000, format="OGG", subtype="OPUS"), "AU": dict(rate=RATE, format="AU")}


def test_every_format_and_rate_arrives_at_the_plans_rate(tmp_path):
    for i, (name, more) in enumerate(FORMATS.items()):
        write(tmp_path / "in" / "train" / "deep" / f"{i}.{name}",
              tone(300 + 50 * i, rate=more["rate"]), **more)
    write(tmp_path / "in" / "validation" / "v.wav", tone(1000))
    manifest = prepare_audio_folder(plan_of(tmp_path / "in"), str(tmp_path / "out"))
    assert manifest["skipped"] == []
    assert manifest["files"] == {"train": len(FORMATS), "validation": 1, "test": 0}
    by_pitch = {}
    for piece in pieces(tmp_path / "out", "train"):
        assert piece.shape[1] == 1
        by_pitch.setdefault(round(pitch(piece[:, 0])), []).append(len(piece) / RATE)
        steady = piece[1000:-1000, 0] / 32768
        assert np.sqrt(np.mean(steady ** 2)) == pytest.approx(0.5 / 2 ** 0.5, rel=0.05)
    assert sorted(by_pitch) == [300 + 50 * i for i in range(len(FORMATS))]
    for seconds in by_pitch.values():
        assert sum(seconds) == pytest.approx(2.0, abs=0.1)  # MP3 pads
    hours = sum(map(sum, by_pitch.values())) / 3600
    assert manifest["hours"]["train"] == pytest.approx(hours, abs=1e-4)
    assert pitches(tmp_path / "out", "validation") == {1000}
    assert read_audio_manifest(tmp_path / "out", RATE) == manifest


@pytest.mark.parametrize("seconds, want", [
    (0.7, [0.7]), (1.4, [1.4]), (1.6, [1.0, 0.6]), (2.0, [1.0, 1.0]), (2.4, [1.0, 1.4]),
    (3.7, [1.0, 1.0, 1.0, 0.7])])
def test_pieces_are_the_whole_file_in_order_and_none_is_short(tmp_path, seconds, want):
    values = np.random.default_rng(0).integers(-9000, 9000, round(seconds * RATE)).astype(np.int16)
    write(tmp_path / "a.wav", values)
    with AudioReader(tmp_path / "a.wav") as reader:
        got = list(cut_pieces(reader, plan_of(tmp_path)))
    assert [len(p) / RATE for p in got] == pytest.approx(want)
    np.testing.assert_array_equal(np.concatenate(got)[:, 0], values)  # bit by bit


def test_resampling_in_a_stream_is_that_of_the_whole(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44100, 2))
    write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader:
        got = np.concatenate(list(cut_pieces(reader, plan_of(tmp_path))))
    want = Waveform(noise, 44100).resample(RATE).samples
    np.testing.assert_allclose(got / 32768, want, atol=0.6 / 32768)


def test_memory_is_that_of_two_pieces():
    class Endless:
        """A reader of an hour that counts how much was taken."""
        sample_rate, channels, taken = 44100, 2, 0

        def blocks(self):
            for _ in range(3600):
                self.taken += 1
                yield np.full((44100, 2), 0.1, np.float32)

    reader = Endless()
    cut = cut_pieces(reader, plan_of("x", piece_seconds=12.0))
    for count in range(1, 4):
        next(cut)
        assert reader.taken <= 12 * (count + 0.5) + 2


def test_stereo_is_kept_or_mixed_and_equal_or_many_channels_become_one(tmp_path):
    left, right = tone(300), tone(500)
    write(tmp_path / "in/train/stereo.wav", np.stack([left, right], 1))
    write(tmp_path / "in/train/double.wav", np.stack([left, left], 1))
    write(tmp_path / "in/train/six.wav", np.stack([left, right, *4 * [0 * left]], 1))
    write(tmp_path / "in/validation/v.wav", left)

    def means(mono):
        out = tmp_path / f"out-{mono}"
        plan = plan_of(tmp_path / "in", piece_seconds=2.0, mono=mono)
        prepare_audio_folder(plan, str(out))
        return pieces(out, "train")

    kept = sorted(means(False), key=lambda p: (p.shape[1], p.std()))
    assert [p.shape[1] for p in kept] == [1, 1, 2]
    np.testing.assert_allclose(kept[0][:, 0] / 32768, (left + right) / 6, atol=1e-4)
    np.testing.assert_allclose(kept[1][:, 0] / 32768, left, atol=1e-4)
    np.testing.assert_allclose(kept[2] / 32768, np.stack([left, right], 1), atol=1e-4)
    mixed = means(True)
    assert {p.shape[1] for p in mixed} == {1}
    assert sum(np.allclose(p[:, 0] / 32768, (left + right) / 2, atol=1e-4) for p in mixed) == 1


def made_up(*paths):
    return [SourceAudio(p, 1, 1) for p in paths]


def paths_of(splits):
    return {s: [f.path for f in files] for s, files in splits.items()}


def test_folders_name_splits_and_the_outermost_counts():
    files = made_up("train/a.wav", "x/Validation/b.wav", "test/train/c.wav", "x/train/test/d.wav")
    assert paths_of(split_files(files, plan_of("x"))) == {
        "train": ["train/a.wav", "x/train/test/d.wav"], "validation": ["x/Validation/b.wav"],
        "test": ["test/train/c.wav"]}
    # A file's own name is no split, and neither is part of a folder's.
    files = made_up(*(f"training/validation {i}.wav" for i in range(50)), "train.wav")
    assert not split_files(files, plan_of("x"))["test"]
    assert len(split_files(files, plan_of("x"))["train"]) > 40


def test_of_the_others_a_share_goes_to_validation_and_new_files_move_none():
    files = made_up(*(f"{i}.wav" for i in range(2000)))
    few, all_ = (split_files(f, plan_of("x")) for f in (files[:1000], files))
    assert len(all_["validation"]) / 2000 == pytest.approx(0.05, abs=0.02)  # binomial: ± 0.005
    for split in ("train", "validation"):
        assert set(few[split]) == set(all_[split]) & set(files[:1000])
    other = split_files(files, plan_of("x", seed=1))["validation"]
    assert set(other) != set(all_["validation"])


def test_two_files_are_enough_and_one_is_not():
    for names in (("a.wav", "b.wav"), ("c.wav", "d.wav")):
        got = split_files(made_up(*names), plan_of("x"))
        assert len(got["train"]) == len(got["validation"]) == 1
    with pytest.raises(UserError, match="no file for validation|no file for train"):
        split_files(made_up("a.wav"), plan_of("x"))
    with pytest.raises(UserError, match="no file for validation.*subfolder named validation"):
        split_files(made_up("train/a.wav", "train/b.wav"), plan_of("x"))


def test_files_that_give_nothing_are_named_with_a_reason(folder, tmp_path):
    train = folder / "train"
    write(train / "silent.wav", np.zeros(4 * RATE))
    write(train / "short.wav", tone(440, 0.3))
    (train / "empty.mp3").touch()
    (train / "text.flac").write_text("no audio at all")
    (train / "song.m4a").write_bytes(b"abc")
    (train / "notes.txt").write_text("not audio, and nobody thinks so")
    (train / "._hidden.wav").write_text("")
    (train / "link.wav").symlink_to(train / "nowhere.wav")
    broken = tone(900, 30).astype(np.float32)
    broken[-100] = np.nan
    write(train / "broken.wav", broken, subtype="FLOAT")
    manifest = prepare_audio_folder(plan_of(folder), str(tmp_path / "out"))
    reasons = {file: reason for file, reason in manifest["skipped"]}
    assert sorted(reasons) == [f"train/{n}" for n in (
        "broken.wav", "empty.mp3", "link.wav", "short.wav", "silent.wav", "song.m4a", "text.flac")]
    for name, words in [("silent", "silent"), ("short", "shorter than 0.5 s"),
                        ("empty", "empty"), ("text", "cannot be read"), ("song", "WAV or FLAC"),
                        ("link", "link"), ("broken", "NaN.*first 2[0-9] s are used")]:
        assert any(name in f and re.search(words, r) for f, r in reasons.items())
    assert str(tmp_path) not in json.dumps(manifest["skipped"])
    assert pitches(tmp_path / "out", "train") == {300, 350, 400, 450, 500, 550, 900}
    assert manifest["silent_hours"]["train"] == pytest.approx(4 / 3600, abs=1e-4)


def test_long_silences_inside_a_file_are_left_out(tmp_path):
    gap = np.concatenate([tone(300), np.zeros(5 * RATE), tone(300, level=0.002)])
    write(tmp_path / "in/train/a.wav", gap)
    write(tmp_path / "in/validation/b.wav", tone(400))
    manifest = prepare_audio_folder(plan_of(tmp_path / "in"), str(tmp_path / "out"))
    assert manifest["records"]["train"] == 4 and manifest["skipped"] == []
    assert manifest["silent_hours"]["train"] == pytest.approx(5 / 3600, abs=1e-4)


def stamps(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("*.array_record")}


def test_a_second_run_writes_only_what_has_changed(folder, tmp_path):
    out, done = tmp_path / "out", []
    first = prepare_audio_folder(plan_of(folder), str(out), lambda i, n: done.append((i, n)))
    before = stamps(out)
    assert done == [(i + 1, len(before)) for i in range(len(before))]
    assert prepare_audio_folder(plan_of(folder), str(out)) == first and stamps(out) == before

    write(folder / "train" / "new.wav", tone(2000))
    second = prepare_audio_folder(plan_of(folder), str(out))
    assert second["records"]["train"] == first["records"]["train"] + 2
    changed = {n for n, s in stamps(out).items() if before.get(n) != s}
    assert len(changed) == 1 and 2000 in pitches(out, "train")

    (folder / "train" / "new.wav").unlink()
    write(folder / "train" / "album 0" / "0.wav", tone(2500))
    assert prepare_audio_folder(plan_of(folder), str(out))["records"] == first["records"]
    assert pitches(out, "train") == {350, 400, 450, 500, 550, 2500}


def test_an_interrupted_run_goes_on_and_ends_like_an_uninterrupted_one(
        folder, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    manifest = prepare_audio_folder(plan_of(folder), str(whole))
    read = audio_folder.AudioReader
    opened = []

    def dying(path):
        opened.append(path)
        if len(opened) == 4:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(audio_folder, "AudioReader", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare_audio_folder(plan_of(folder), str(out))
    with pytest.raises(UserError, match="unfinished"):
        AudioSource(folder=str(out)).train_iterator(1, 0)
    assert stamps(out)
    assert prepare_audio_folder(plan_of(folder), str(out)) == manifest
    assert len(opened) < 4 + 8  # finished shards were not read again
    assert {p.name: p.read_bytes() for p in out.glob("*.array_record")} == {
        p.name: p.read_bytes() for p in whole.glob("*.array_record")}
    assert not list(out.glob("*.part"))


def test_a_shard_that_was_written_but_not_noted_is_written_again(folder, tmp_path, monkeypatch):
    out, file = tmp_path / "out", folder / "train" / "album 0" / "0.wav"
    prepare_audio_folder(plan_of(folder), str(out))
    was, stamp = file.read_bytes(), file.stat().st_mtime_ns
    write_json = shards._write_json

    def dying(path, content):
        if path.name.startswith("train"):
            raise KeyboardInterrupt
        write_json(path, content)

    write(file, tone(2500))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shards, "_write_json", dying)
        prepare_audio_folder(plan_of(folder), str(out))
    file.write_bytes(was)  # back to what the facts of the first run tell
    os.utime(file, ns=(stamp, stamp))
    prepare_audio_folder(plan_of(folder), str(out))
    assert pitches(out, "train") == {300, 350, 400, 450, 500, 550}


def test_more_processes_give_the_same_records(folder, tmp_path):
    a, b = (prepare_audio_folder(plan_of(folder, workers=w), str(tmp_path / f"{w}")) for w in (1, 2))
    assert a == b
    assert {p.name: p.read_bytes() for p in (tmp_path / "1").glob("*.array_record")} == {
        p.name: p.read_bytes() for p in (tmp_path / "2").glob("*.array_record")}


def test_links_to_folders_are_followed_and_loops_end(folder, tmp_path):
    write(tmp_path / "elsewhere" / "a.wav", tone(3000))
    (folder / "train" / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "loop").symlink_to(folder)
    (tmp_path / "alias").symlink_to(folder)
    prepare_audio_folder(plan_of(folder), str(tmp_path / "out"))
    prepare_audio_folder(plan_of(tmp_path / "alias"), str(tmp_path / "out"))  # the same folder
    files, skipped = find_audio(str(folder))
    assert len(files) == 9 and skipped == []
    assert "train/linked/a.wav" in [f.path for f in files]


def test_folders_that_cannot_be_listed_are_named(folder, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("album 0"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    files, skipped = find_audio(str(folder))
    assert all("album 1" in f.path for f in files) and len(files) == 4
    assert skipped == [[f"{s}/album 0", "cannot be listed (Permission denied)"]
                       for s in ("train", "validation")]


def test_folders_without_audio_are_one_line_errors(tmp_path):
    for name, reason in [("a.txt", "no audio files there; put WAV"), ("b.m4a", "b.m4a.*convert")]:
        (tmp_path / name).write_text("x")
        with pytest.raises(UserError, match=reason):
            prepare_audio_folder(plan_of(tmp_path), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_where_nothing_remains_the_reason_is_given(tmp_path):
    write(tmp_path / "in/train/a.wav", tone(300))
    write(tmp_path / "in/validation/b.wav", np.zeros(RATE))
    with pytest.raises(UserError, match="nothing usable for validation.*b.wav: silent"):
        prepare_audio_folder(plan_of(tmp_path / "in"), str(tmp_path / "out"))
    write(tmp_path / "in/validation/b.wav", tone(400))
    assert prepare_audio_folder(plan_of(tmp_path / "in"), str(tmp_path / "out"))["complete"]


def test_destinations_that_hold_other_things_are_left_alone(folder, tmp_path):
    out = tmp_path / "out"
    prepare_audio_folder(plan_of(folder), str(out))
    held = stamps(out)
    with pytest.raises(UserError, match="sample_rate 16000, not 44100"):
        prepare_audio_folder(plan_of(folder, sample_rate=44100), str(out))
    write(tmp_path / "in2" / "a.wav", tone(300))
    write(tmp_path / "in2" / "b.wav", tone(300))
    with pytest.raises(UserError, match="was made with source .*in, not .*in2"):
        prepare_audio_folder(plan_of(tmp_path / "in2"), str(out))
    assert stamps(out) == held and read_audio_manifest(out)["complete"]

    (out / "manifest.json").unlink()
    with pytest.raises(UserError, match="holds other data"):
        prepare_audio_folder(plan_of(folder), str(out))
    records.write_manifest(out, codec={})
    with pytest.raises(UserError, match="holds other data"):
        prepare_audio_folder(plan_of(folder), str(out))
    assert stamps(out) == held
    with pytest.raises(UserError, match="another folder"):
        prepare_audio_folder(plan_of(folder), os.path.join(folder, "."))


def test_a_full_disk_is_a_one_line_error_and_no_manifest(folder, tmp_path, monkeypatch):
    def full(path, messages):
        list(messages)
        raise OSError("write() failed: No space left on device;\n at byte 0")

    monkeypatch.setattr(records, "write_shard", full)
    with pytest.raises(UserError, match="No space left on device.*Run the command") as e:
        prepare_audio_folder(plan_of(folder), str(tmp_path / "out"))
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="unfinished"):
        read_audio_manifest(tmp_path / "out")


@pytest.mark.parametrize("field, value", [
    ("sample_rate", 0), ("piece_seconds", 0.1), ("validation", 0.0), ("validation", 1.0)])
def test_impossible_plans_are_refused(field, value):
    with pytest.raises(UserError, match=str(value)):
        dataclasses.replace(AudioFolderPlan(source="x"), **{field: value})


def test_a_source_trains_on_what_was_prepared(folder, tmp_path):
    prepare_audio_folder(plan_of(folder), str(tmp_path / "out"))
    source = AudioSource(folder=str(tmp_path / "out"), samples=8000)
    batch = next(source.train_iterator(6, 0))["audio"]
    assert {float(pitch(x)) for x in batch} <= {300, 350, 400, 450, 500, 550}
    assert {float(pitch(x)) for b in source.eval_batches(2) for x in b["audio"]} == {600, 650}
