"""Folders of records against the sounds and notes that they are made of."""

import collections
import dataclasses
import errno
import functools
import hashlib
import os
import pathlib
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layouts.memory import Failing, Formula, MemorySet, Samples, fail, item, sine

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.data import build as build_module
from music_diffusion.data import records
from music_diffusion.data.build import BuildPlan, build
from music_diffusion.data.items import DRUM_PROGRAM, Stem
from music_diffusion.data.shards import Account, ShardMember, read_facts
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

RATE = 1000
CODEC = MelCodec(sample_rate=RATE, hop=20, window=40, fft=64, mels=4, fmax=500.0)
STEP = 0.02  # seconds a frame
HALF = 0.008  # nat: half precision below 16, with a rounding to the other side
SUFFIXES = (records.ARRAY_RECORD, records.TF_RECORD)


def plan_of(**more):
    return BuildPlan(**dict(codec=CODEC, frames=20, shards=3, workers=1) | more)


def noise(samples, seed=0, level=0.5):
    return Samples(samples=np.random.default_rng(seed).uniform(-level, level, samples).astype(np.float32),
                   sample_rate=RATE, block=333)


def random_notes(seconds, count=60, seed=0):
    """Notes on the grid of 10 ms, some of them long, struck again while they sound, or drums."""
    rng = np.random.default_rng(seed)
    start = np.round(rng.uniform(0, seconds, count), 2)
    length = np.round(rng.exponential(rng.choice([0.1, 2.0], count)), 2)
    drum = rng.random(count) < 0.2
    return Notes(start, start + length, rng.integers(60, 66, count), rng.integers(1, 128, count),
                 np.where(drum, 0, rng.choice([0, 40], count)), drum)


OTHER = item("other", noise(700, 99), split="validation")  # so that there is one


def make(folder, items, plan=None, **more):
    plan = plan_of() if plan is None else plan
    return build(MemorySet(items=tuple(items)), "memory", plan, str(folder), **more)


def records_of(folder, name=None, split="train", suffix=records.ARRAY_RECORD):
    found = [records.Record.from_bytes(message, suffix) for path in records.shard_paths(folder, split)
             for message in records.read_shard(path)]
    return [r for r in found if name in (None, r.labels["name"])]


def files(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir()}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.sampled_from([2, 3, 7, 20]), samples=st.integers(1, 1500),
       block=st.sampled_from([1, 59, 4000]))
def test_the_records_joined_are_the_spectrogram_of_the_whole(frames, samples, block):
    sound = dataclasses.replace(noise(samples), block=block)
    account = Account()
    member = ShardMember(name="a", split="train", state=(), content=item("a", sound))
    messages = list(build_module._messages(plan_of(frames=frames), member, account))
    found = [records.Record.from_bytes(m) for m in messages]
    joined = np.concatenate([r.mel for r in found])
    np.testing.assert_allclose(joined, CODEC.encode(sound.samples), atol=HALF)
    lengths = [len(r.mel) for r in found]
    assert account.lengths == lengths and sum(lengths) == -(-samples // 20)
    assert all(n == frames for n in lengths[:-1])
    assert lengths[-1] < 1.5 * frames and (lengths[-1] >= 0.5 * frames or len(lengths) == 1)
    np.testing.assert_allclose([r.start for r in found], STEP * frames * np.arange(len(found)))
    assert account.totals["seconds"] == pytest.approx(STEP * sum(lengths))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_records_come_in_order_with_their_labels_through_the_folder(tmp_path, suffix):
    sounds = {"album/Ünïcode – 1": noise(3000, 1), "album/b": noise(100, 2),
              "c 'x' \"y\" \\": noise(900, 3)}
    make(tmp_path, [*(item(name, sound, style=f"of {name}", piece="p", performance="hall")
                      for name, sound in sounds.items()), OTHER], plan_of(suffix=suffix))
    for name, sound in sounds.items():
        found = records_of(tmp_path, name, suffix=suffix)
        np.testing.assert_allclose(np.concatenate([r.mel for r in found]), CODEC.encode(sound.samples),
                                   atol=HALF)
        for r in found:
            assert r.labels == {"name": name, "style": f"of {name}", "piece": "p", "performance": "hall"}
            assert r.source is None and r.stems is None and r.maps is None and len(r.notes) == 0
    manifest = records.read_manifest(tmp_path, CODEC)
    assert manifest["classes"] == {"performance": ["hall"], "style": sorted(f"of {n}" for n in sounds)}
    assert manifest["data_set"] == "memory"


@pytest.mark.parametrize("features", [
    functools.partial(NoteFrames().of_notes, slots=40), NoteTokens(tokens=4000).of_notes],
    ids=["frames", "tokens"])
def test_every_segment_has_the_features_of_the_whole_pieces_notes(tmp_path, features):
    notes = random_notes(6.0)
    make(tmp_path, [item("a", noise(6000), notes), OTHER], plan_of(frames=60))
    found = records_of(tmp_path, "a")
    assert len(found) > 3
    for record in found:
        for first in (0, 7, 30, 41, len(record.mel) - 16):
            start = record.start + first * STEP
            got, want = (features(n, start, 16, CODEC) for n in (record.notes, notes))
            for name, value in want.items():
                np.testing.assert_array_equal(got[name], value, err_msg=f"{name} at {start}")


def test_a_record_has_no_notes_but_those_of_its_time(tmp_path):
    start = np.arange(0, 30, 0.1)
    notes = Notes(start, start + 0.05, *(np.full(300, n) for n in (60, 80, 0, False)))
    make(tmp_path, [item("a", noise(30000), notes), OTHER], plan_of(frames=100))
    for record in records_of(tmp_path, "a"):
        last = record.start + STEP * len(record.mel)
        assert record.notes.start.min() >= record.start - 2.1 and record.notes.start.max() < last + 0.05
        assert set(np.round(record.notes.start, 3)) <= set(np.round(start, 3))  # at the item's times
        inside = (start >= record.start) & (start < last)
        assert set(start[inside]) <= set(record.notes.start)


def test_notes_that_sound_across_a_border_are_in_both_records(tmp_path):
    notes = Notes([0.1, 0.39, 0.4], [5.0, 0.41, 0.45], [60, 61, 62], [9, 9, 9], [0, 0, 0], [False] * 3)
    make(tmp_path, [item("a", noise(1200), notes), OTHER])
    first, second, third = records_of(tmp_path, "a")
    assert second.start == pytest.approx(0.4)
    assert first.notes.pitch.tolist() == [60, 61, 62]  # the last begins in the last frame's window
    assert second.notes.pitch.tolist() == [60, 61, 62] and second.notes.end[0] == 5.0
    assert third.notes.pitch.tolist() == [60, 61, 62]  # they still ring


@pytest.mark.parametrize("length", [600, 1100, 1500], ids=["shorter", "equal", "longer"])
def test_source_and_stems_are_cut_as_the_audio_and_followed_by_silence(tmp_path, length):
    audio, source, stems = noise(1100), noise(length, 1), [noise(length + 20 * i, 2 + i) for i in (0, 1)]
    one = item("a", audio, source=source, stems=(Stem(program=40, audio=stems[0]),
                                                 Stem(program=DRUM_PROGRAM, audio=stems[1])))
    make(tmp_path, [one, OTHER], plan_of(stems=True))
    found = records_of(tmp_path, "a")
    assert len(found) > 1

    def want(sound):
        mel = CODEC.encode(sound.samples)[:55]
        return np.pad(mel, ((0, 55 - len(mel)), (0, 0)), constant_values=np.log(CODEC.clip_min))

    np.testing.assert_allclose(np.concatenate([r.source for r in found]), want(source), atol=HALF)
    for i in (0, 1):
        np.testing.assert_allclose(np.concatenate([r.stems[i] for r in found]), want(stems[i]), atol=HALF)
    for r in found:
        assert r.stem_programs.tolist() == [40, 128]
        assert r.mel.shape == r.source.shape == r.stems.shape[1:]
    make(tmp_path / "without", [one, OTHER])
    assert all(r.stems is None and r.stem_programs is None for r in records_of(tmp_path / "without", "a"))


def test_pieces_and_items_keep_to_their_split(tmp_path):
    sound = noise(100)
    items = [item(f"{i}/{take}", sound, split=None, piece=f"piece {i}")
             for i in range(40) for take in "abc"]
    items += [item(f"fixed/{split}", sound, split=split) for split in ("train", "validation", "test")]
    share = []
    for seed in range(3):
        out = tmp_path / str(seed)
        make(out, items, plan_of(validation=0.3, seed=seed))
        pieces = {split: {r.labels.get("piece") for r in records_of(out, split=split)} - {None}
                  for split in ("train", "validation", "test")}
        assert not pieces["train"] & pieces["validation"] and not pieces["test"]
        assert len(pieces["train"] | pieces["validation"]) == 40
        share.append(len(pieces["validation"]))
        for split in ("train", "validation", "test"):
            assert records_of(out, f"fixed/{split}", split)
    assert len(set(share)) > 1 and 4 <= min(share) and max(share) <= 22  # of 12 ± 3


def test_new_items_do_not_move_old_ones_between_splits_or_shards(tmp_path):
    old = [item(f"{i}", noise(100, i), split=None) for i in range(20)]
    new = [item(f"+{i}", noise(100), split=None) for i in range(20)]
    for name, items in (("old", old), ("new", old + new)):
        make(tmp_path / name, items, plan_of(validation=0.3))
    where = [{row[0]: path.name for path in records.find_shards(tmp_path / name)
              for row in read_facts(path).members} for name in ("old", "new")]
    assert len(where[0]) == 20 and where[0].items() < where[1].items()


def failing(error, blocks_before=0):
    return Failing(sound=noise(3000), error=error, blocks_before=blocks_before)


def without_notes(name, error):
    return dataclasses.replace(item(name, noise(900)), notes=functools.partial(fail, error))


# What is wrong with an item → the item, and what is told of it
BAD = {
    "silent": (item("silent", noise(900, level=1e-4)), "silent .*-60 dBFS"),
    "empty": (item("empty", noise(0)), "no samples"),
    "noteless": (item("noteless", noise(900), Notes.empty()), "no notes"),
    "damaged": (item("damaged", failing(UserError("x.wav: not audio"))), "x.wav: not audio"),
    "vanished": (item("vanished", failing(OSError(errno.EIO, "gone"))), "gone"),
    "missing": (item("missing", AudioFile(path="/nowhere/a.wav")), "/nowhere/a.wav: no such file"),
    "midi": (without_notes("midi", UserError("a.mid: odd")), "a.mid: odd"),
    "negative": (without_notes("negative", ValueError("notes must start\nat 0")),
                 "notes cannot be read.*must start at 0"),
    "nan": (item("nan", Samples(samples=np.full(900, np.nan), sample_rate=RATE)), "NaN"),
}


@pytest.mark.parametrize("which", BAD)
def test_items_that_cannot_be_used_are_named_and_left_out_or_refused(tmp_path, which):
    bad, reason = BAD[which]
    good = item("good", noise(900))
    manifest = make(tmp_path / "out", [bad, good, OTHER])
    ((name, why),) = manifest["skipped"]
    assert name == which and "\n" not in why
    with pytest.raises(UserError, match=reason) as error:
        raise UserError(why)
    assert {r.labels["name"] for r in records_of(tmp_path / "out")} == {"good"}
    assert manifest["files"]["train"] == 2
    silent = 0.9 if which == "silent" else 0.0
    assert manifest["silent_hours"]["train"] * 3600 == pytest.approx(silent, abs=0.2)
    with pytest.raises(UserError, match=f"^{which}: .*{reason}") as error:
        make(tmp_path / "refused", [bad, good, OTHER], plan_of(refuse=True))
    assert "\n" not in str(error.value)


def test_what_the_reader_left_out_is_told_or_refused(tmp_path):
    left = MemorySet(items=(item("a", noise(900)), OTHER), skipped=(("b", "no notes for it"),))
    manifest = build(left, "memory", plan_of(), str(tmp_path / "out"))
    assert manifest["skipped"] == [["b", "no notes for it"]]
    with pytest.raises(UserError, match="^b: no notes for it$"):
        build(left, "memory", plan_of(refuse=True), str(tmp_path / "refused"))
    assert not (tmp_path / "refused").exists()


def test_the_sound_before_a_damage_is_used_with_its_labels(tmp_path):
    broken = item("a", failing(UserError("damaged"), 5), style="folk", performance="hall")
    manifest = make(tmp_path, [broken, OTHER])
    # 1665 samples before: records of 20 frames are complete while 30 are there.
    assert [len(r.mel) for r in records_of(tmp_path, "a")] == [20, 20, 20]
    assert manifest["skipped"] == [["a", "damaged; its first 1 s are used"]]
    assert manifest["classes"] == {"style": ["folk"], "performance": ["hall"]}


def test_quiet_beginnings_stay_and_quiet_items_go(tmp_path):
    samples = np.zeros(5000)
    samples[4500:] = 0.01
    late = Samples(samples=samples, sample_rate=RATE)
    manifest = make(tmp_path, [item("late", late), OTHER])
    assert sum(len(r.mel) for r in records_of(tmp_path, "late")) == 250
    assert manifest["silent_hours"]["train"] == 0
    with pytest.raises(UserError, match="nothing usable for train .*late: silent"):
        make(tmp_path / "loud", [item("late", late), OTHER], plan_of(silence_db=-30.0))


def test_items_of_any_loudness_are_brought_to_one_level(tmp_path):
    items = [item(name, noise(1500, level=level)) for name, level in (("soft", 0.01), ("loud", 0.9))]
    make(tmp_path / "plain", [*items, OTHER])
    make(tmp_path / "levelled", [*items, OTHER], plan_of(level=True))

    def loudness(folder, name):
        mel = np.concatenate([r.mel for r in records_of(tmp_path / folder, name)]).astype(np.float64)
        return 0.5 * np.log(np.exp(2 * mel).sum(axis=1).mean())

    assert loudness("plain", "loud") - loudness("plain", "soft") > 4
    for name in ("soft", "loud"):
        assert loudness("levelled", name) == pytest.approx(LEVEL, abs=0.01)
    with pytest.raises(UserError, match="another folder|other"):
        make(tmp_path / "plain", [*items, OTHER], plan_of(level=True))


def test_hours_notes_and_lengths_are_those_of_the_records(tmp_path):
    notes = random_notes(9.0, 200)
    manifest = make(tmp_path, [item("a", noise(9000), notes), item("b", noise(3456, 1)), OTHER])
    frames = {s: sum(len(r.mel) for r in records_of(tmp_path, split=s)) for s in ("train", "validation")}
    assert frames == {"train": 450 + 173, "validation": 35}
    for split, count in frames.items():
        assert manifest["hours"][split] == pytest.approx(count * STEP / 3600, abs=5e-5)
    assert manifest["notes"] == {"train": 200, "validation": 0, "test": 0}
    for split in ("train", "validation"):
        for path in records.shard_paths(tmp_path, split):
            assert read_facts(path).lengths == [
                len(records.Record.from_bytes(m).mel) for m in records.read_shard(path)]


def many(count=6):
    return [item(f"{i}", Formula(wave=functools.partial(sine, hertz=40.0 * (i + 1)), seconds=1.0 + i),
                 random_notes(1.0 + i, seed=i), split="validation" if i == 1 else "train")
            for i in range(count)]


def test_the_folder_is_the_same_for_any_order_and_any_number_of_processes(tmp_path):
    make(tmp_path / "one", many())
    make(tmp_path / "reversed", many()[::-1])
    make(tmp_path / "two", many(), plan_of(workers=2))
    assert files(tmp_path / "one") == files(tmp_path / "reversed") == files(tmp_path / "two")


def test_a_changed_file_or_label_changes_its_shard_alone(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(8):
        soundfile.write(tmp_path / "in" / f"{i}.wav", noise(800, i).samples, RATE)

    def rebuilt(folder="in", **more):
        items = [item(str(i), AudioFile(path=str(tmp_path / folder / f"{i}.wav")),
                      split="validation" if i == 7 else "train") for i in range(8)]
        items[3] = dataclasses.replace(items[3], **more)
        held = {p.name: p.stat().st_ino for p in records.find_shards(tmp_path / "out")} if (
            tmp_path / "out").exists() else {}
        make(tmp_path / "out", items, plan_of(shards=9))
        now = {p.name: p.stat().st_ino for p in records.find_shards(tmp_path / "out")}
        return [name for name in now if now[name] != held.get(name)]

    assert len(rebuilt()) > 3
    assert rebuilt() == []
    (shard,) = (p.name for p in records.find_shards(tmp_path / "out")
                if "3" in [row[0] for row in read_facts(p).members])
    os.utime(tmp_path / "in" / "3.wav", ns=(0, 5))
    assert rebuilt() == [shard] and rebuilt() == []
    assert rebuilt(style="folk") == [shard]
    assert rebuilt(style="folk", audio=AudioFile(path=str(tmp_path / "in" / "3.wav"), end=0.5)) == [shard]
    assert rebuilt() == [shard]
    os.rename(tmp_path / "in", tmp_path / "moved")  # another place of the same files is no change
    assert rebuilt("moved") == []


def test_other_plans_and_readers_need_another_folder(tmp_path):
    items = [item("a", noise(900)), OTHER]
    make(tmp_path, items)
    held = files(tmp_path)
    for more in (dict(frames=30), dict(codec=dataclasses.replace(CODEC, mels=5)), dict(seed=1),
                 dict(stems=True), dict(suffix=records.TF_RECORD), dict(validation=0.1),
                 dict(silence_db=-50.0), dict(shards=4)):
        with pytest.raises(UserError, match="was made with"):
            make(tmp_path, items, plan_of(**more))
    with pytest.raises(UserError, match="was made with reader"):
        build(MemorySet(items=tuple(items), options={"part": 2}), "memory", plan_of(), str(tmp_path))
    with pytest.raises(UserError, match="was made with data_set memory, not another"):
        build(MemorySet(items=tuple(items)), "another", plan_of(), str(tmp_path))
    assert files(tmp_path) == held
    # Nothing that records depend on:
    assert plan_of(workers=2).options() == plan_of().options()
    make(tmp_path, items, plan_of(refuse=True))


@pytest.mark.parametrize("more", [dict(frames=1), dict(shards=0), dict(workers=0), dict(validation=0.0),
                                  dict(validation=1.0), dict(suffix=".wav")])
def test_impossible_plans_are_refused(more):
    with pytest.raises(UserError):
        plan_of(**more)


def test_memory_is_that_of_a_record_however_long_the_item_is():
    def peak(minutes):
        # As many notes: they are the only thing that grows.
        one = item("a", Formula(wave=sine, seconds=60.0 * minutes), random_notes(60.0 * minutes))
        messages = build_module._messages(plan_of(frames=500), ShardMember(
            name="a", split="train", state=(), content=one), Account())
        next(messages)
        tracemalloc.start()
        count = sum(1 for _ in messages)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return count, used

    (few, short), (many_, long) = peak(2), peak(20)
    assert many_ > 8 * few
    assert long < 1.5 * short, f"{short} bytes for 2 minutes, {long} for 20"


def test_every_message_counts_once(tmp_path):
    """What the manifest tells of a folder is what someone counts who reads it."""
    manifest = make(tmp_path, many())
    counted = collections.Counter(r.labels["name"] for r in records_of(tmp_path))
    assert sum(counted.values()) == manifest["records"]["train"] and set(counted) == set("02345")
