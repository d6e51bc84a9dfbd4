"""Batches from a folder whose spectrograms say which record and which frame they are."""

import collections
import dataclasses

import numpy as np
import pytest
from reference.sharded import check_loads, check_shards

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performances import Performance, Performances, write_performances
from music_diffusion.conditions.spectrograms import Nothing
from music_diffusion.data import examples, pipeline, records
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.data.pipeline import (
    MixtureSource,
    NoteRowSource,
    PerformedNoteSource,
    RecordSource,
)
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import FrameGrid, roll_features, slot_features
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=3)
LENGTH, FRAMES, TRAIN, VALIDATION = 64, 16, 10, 5
STEP = 1 / 16  # nat a frame, exact in half precision


def clock_record(number, with_maps):
    """Frame t has mel[t, 0] = t steps and mel[t, 1] = number steps above the floor of -11.5; at
    t * 0.02 s begins a note of pitch t."""
    mel = np.full((LENGTH, 3), -11.5)
    mel[:, 0] += STEP * np.arange(LENGTH)
    mel[:, 1] += STEP * number
    start = 0.02 * np.arange(LENGTH) + 0.003
    notes = Notes(start, start + 0.01, np.arange(LENGTH), np.full(LENGTH, 127),
                  np.full(LENGTH, number), np.zeros(LENGTH))
    maps = np.broadcast_to(np.arange(LENGTH)[:, None, None] / 64, (LENGTH, 2, 3))
    return records.Record(mel=mel, notes=notes, maps=maps if with_maps else None).to_bytes()


def write_folder(folder, with_maps=False):
    folder.mkdir()
    for shard in range(2):
        records.write_shard(
            folder / f"train-{shard:05d}.array_record",
            (clock_record(n, with_maps) for n in range(5 * shard, 5 * shard + 5)))
    records.write_shard(folder / "validation-00000.array_record",
                        (clock_record(100 + n, with_maps) for n in range(VALIDATION)))
    records.write_manifest(folder, codec=CODEC.to_dict())
    return RecordSource(folder=str(folder), codec=CODEC, frames=FRAMES,
                        conditions=NoteFrames(slots=2, ring=0.0))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data") / "plain")


def places(batch):
    """(record, first frame) of every example, from its spectrogram."""
    mel = (CODEC.unscale(batch["targets"].astype(np.float64)) + 11.5) / STEP
    assert np.allclose(np.diff(mel[:, :, 0], axis=1), 1, atol=1e-3)
    return [(round(float(m[0, 1])), round(float(m[0, 0]))) for m in mel]


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def flat(batches):
    return [place for batch in batches for place in places(batch)]


def test_spectrogram_and_notes_are_cut_at_the_same_frame(source):
    for batch in [*take(source.train_iterator(4, 0), 5), *source.eval_batches(2)]:
        assert batch["targets"].shape == (4, FRAMES, 3) or len(batch["targets"]) == 2
        for example, (record, first) in enumerate(places(batch)):
            onsets = batch["roll"][example, :, :128]
            # In frame i begins the note whose pitch is the frame's number in the record.
            np.testing.assert_array_equal(onsets.argmax(1), first + np.arange(FRAMES))
            np.testing.assert_array_equal(onsets.sum(1), 1)
            slots = batch["slot_program"][example]
            assert set(slots[slots >= 0].tolist()) == {record}


def test_features_are_those_of_the_frame_functions():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 0.5, 9)
    notes = Notes(start, start + 0.1, rng.integers(0, 128, 9), rng.integers(1, 128, 9),
                  rng.integers(0, 128, 9), np.zeros(9))
    grid = FrameGrid()
    got = NoteFrames(slots=3).of_notes(notes, 0.1, 8, CODEC, slots=3)
    want = slot_features(notes, 0.1, 8, grid, 3)
    want.pop("dropped")
    assert got.keys() == {"roll"} | {f"slot_{k}" for k in want}
    for name, value in want.items():
        np.testing.assert_array_equal(got[f"slot_{name}"], value)
    np.testing.assert_array_equal(got["roll"], roll_features(notes, 0.1, 8, grid))
    assert NoteFrames().of_notes(notes, 0.1, 8, CODEC).keys() == {"roll"}


def test_the_same_seed_gives_the_same_batches_and_another_others(source):
    a, b, c = (flat(take(source.train_iterator(4, seed), 4)) for seed in (1, 1, 2))
    assert a == b != c


def test_an_epoch_has_every_record_as_often_as_it_has_segments_and_crops_anew(source):
    batches = take(source.train_iterator(5, 0), 16)
    first, second = flat(batches[:8]), flat(batches[8:])
    for epoch in (first, second):
        assert collections.Counter(r for r, _ in epoch) == {r: LENGTH // FRAMES for r in range(TRAIN)}
    assert [r for r, _ in first] != [r for r, _ in second]
    assert sorted(first) != sorted(second)
    assert all(0 <= f <= LENGTH - FRAMES for _, f in first + second)


def test_crops_reach_both_ends(source):
    small = dataclasses.replace(source, frames=LENGTH - 2)
    assert {f for _, f in flat(take(small.train_iterator(4, 0), 15))} == {0, 1, 2}


def test_without_shuffling_come_all_segments_in_order(source):
    ordered = dataclasses.replace(source, shuffle=False, frames=24)
    got = flat(take(ordered.train_iterator(3, 0), 11))
    # Three segments cover 64 frames; the last one ends with the record.
    want = [(r, first) for r in range(TRAIN) for first in (0, 24, LENGTH - 24)]
    assert got == (want + want)[:33]


def test_iterators_resume_where_they_were(source):
    iterator = source.train_iterator(3, 5)
    take(iterator, 4)
    state = iterator.get_state()
    want = flat(take(iterator, 5))
    other = source.train_iterator(3, 5)
    next(other)
    other.set_state(state)
    assert flat(take(other, 5)) == want


def test_shards_are_parts_of_the_one_stream(source):
    check_shards(source)
    check_shards(dataclasses.replace(source, shuffle=False, conditions=NoteTokens(context=True)))
    check_loads(source, examples._Crops, "__call__", lambda _, position: position)


def test_shards_of_a_mixture_are_parts_of_the_one_stream(source):
    ordered = dataclasses.replace(source, shuffle=False)
    check_shards(MixtureSource(sources=[source, ordered], weights=[2, 1]))


def test_evaluation_is_spread_over_the_validation_split_and_the_same_every_time(source):
    a, b = (flat(source.eval_batches(2)) for _ in range(2))
    assert a == b and len(a) == 16  # eight batches
    grid = [(100 + n, first) for n in range(VALIDATION) for first in range(0, LENGTH, FRAMES)]
    assert set(a) < set(grid) and a == sorted(a) and {r for r, _ in a} == {100 + n for n in range(5)}
    assert flat(dataclasses.replace(source, eval_batch_count=100).eval_batches(2)) == grid
    one = dataclasses.replace(source, eval_batch_count=1)
    assert len(list(one.eval_batches(2))) == 1
    # One batch even of a split that is smaller.
    (few,) = source.eval_batches(32)
    assert places(few) == grid + grid[:12]


def test_maps_are_cut_with_the_spectrogram(tmp_path):
    source = write_folder(tmp_path / "mapped", with_maps=True)
    source = dataclasses.replace(source, conditions=NoteFrames(slots=0))
    batch = next(source.train_iterator(4, 0))
    assert set(batch) == {"targets", "roll", "maps"} and batch["maps"].dtype == np.float32
    for maps, (_, first) in zip(batch["maps"], places(batch), strict=True):
        want = (first + np.arange(FRAMES))[:, None, None] / 64
        np.testing.assert_allclose(maps, np.broadcast_to(want, maps.shape), atol=1e-3)


def test_targets_are_in_the_models_range(source):
    targets = next(source.train_iterator(4, 0))["targets"]
    assert targets.dtype == np.float32
    assert targets.min() == pytest.approx(-1, abs=0.01) and targets.max() <= 1


def test_wrong_folders_are_one_line_errors(source, tmp_path):
    with pytest.raises(UserError, match="codecs differ"):
        next(dataclasses.replace(source, codec=MelCodec(mels=3, hop=160)).train_iterator(2, 0))
    with pytest.raises(UserError, match="prepare"):
        dataclasses.replace(source, folder=str(tmp_path)).train_iterator(2, 0)
    records.write_manifest(tmp_path, codec=CODEC.to_dict())
    with pytest.raises(UserError, match="no shards"):
        dataclasses.replace(source, folder=str(tmp_path)).train_iterator(2, 0)


def test_records_shorter_than_segments_are_followed_by_silence(source):
    source = dataclasses.replace(source, conditions=Nothing())
    long = dataclasses.replace(source, frames=LENGTH + 5)
    short, whole = (next(dataclasses.replace(source, frames=n).eval_batches(1))["targets"]
                    for n in (LENGTH + 5, LENGTH))
    np.testing.assert_array_equal(short[:, :LENGTH], whole)
    np.testing.assert_array_equal(short[:, LENGTH:], np.float32(CODEC.scale(np.log(CODEC.clip_min))))
    assert next(long.train_iterator(2, 0))["targets"].shape == (2, LENGTH + 5, 3)


@pytest.fixture(scope="module")
def rows_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    rows = np.zeros(1000, ROW_DTYPE)
    rows["age"] = np.arange(1000)  # the row's number
    rows["pitch"] = np.arange(1000) % 128
    rows["mel"][:, 0] = np.arange(1000) % 7
    np.save(folder / "note_rows.npy", rows)
    return NoteRowSource(folder=str(folder), holdout=5, block=20)


def test_held_out_rows_are_whole_blocks_that_training_never_sees(rows_source):
    seen = {int(a) for batch in take(rows_source.train_iterator(64, 0), 60) for a in batch["age"]}
    held = {int(a) for batch in rows_source.eval_batches(20) for a in batch["age"]}
    want = {i for i in range(1000) if i // 20 % 5 == 0}
    assert held < want and len(held) == 160  # eight batches
    assert not seen & want and len(seen) > 750  # of 800


def test_rows_keep_together_and_have_the_networks_types(rows_source):
    batch = next(rows_source.train_iterator(50, 0))
    number = batch["age"].astype(int)
    np.testing.assert_array_equal(batch["pitch"], number % 128)
    np.testing.assert_array_equal(batch["mel"][:, 0], number % 7)
    assert {k: v.dtype for k, v in batch.items()} == {
        "program": np.int32, "pitch": np.int32, "velocity": np.int32, "age": np.float32,
        "release": np.float32, "mel": np.float32}
    assert batch["mel"].shape == (50, 128)


def test_shards_of_rows_are_parts_of_the_one_stream(rows_source, monkeypatch):
    check_shards(rows_source)
    read, row_batch = [], pipeline._row_batch
    monkeypatch.setattr(pipeline, "_row_batch",
                        lambda rows, index: read.append(len(index)) or row_batch(rows, index))
    next(rows_source.train_iterator(8, 1, shard_index=1, shard_count=4))
    assert 8 in read and 32 not in read  # all shards together; others may still be read ahead


def test_rows_are_deterministic_and_resumable(rows_source):
    def ages(iterator, count):
        return [tuple(b["age"].tolist()) for b in take(iterator, count)]

    iterator = rows_source.train_iterator(8, 1)
    want = ages(iterator, 6)
    assert ages(rows_source.train_iterator(8, 1), 6) == want
    assert ages(rows_source.train_iterator(8, 2), 6) != want
    other = rows_source.train_iterator(8, 1)
    ages(other, 2)
    state = other.get_state()
    ages(other, 3)
    other.set_state(state)
    assert ages(other, 4) == want[2:]
    a, b = ([tuple(x["age"].tolist()) for x in rows_source.eval_batches(16)] for _ in range(2))
    assert a == b


@pytest.fixture(scope="module")
def performed_source(tmp_path_factory):
    """Two folders: rows of the first have pitch 1, of the second 2; the second is played by b and c."""
    root = tmp_path_factory.mktemp("performed")
    for number in (1, 2):
        rows = np.zeros(1000, ROW_DTYPE)
        rows["age"], rows["pitch"] = np.arange(1000), number
        (root / str(number)).mkdir()
        np.save(root / str(number) / "note_rows.npy", rows)
    write_performances(root / "names.json", Performances(default="a", performances=tuple(
        Performance(name=name) for name in "cab")))
    return PerformedNoteSource(folders=(str(root / "1"), str(root / "2")), names=(("a",), ("b", "c")),
                               performances=str(root / "names.json"), group=16, holdout=2)


def test_groups_of_notes_are_of_one_performance(performed_source):
    batches = take(performed_source.train_iterator(40, 0), 5)
    pitch, weights = (np.concatenate([b[k] for b in batches]) for k in ("pitch", "performance"))
    assert pitch.shape == (200, 16) and weights.shape == (200, 3)
    assert (pitch == pitch[:, :1]).all()
    kinds = collections.Counter((int(p), tuple(w)) for p, w in zip(pitch[:, 0], weights, strict=True))
    # a's folder half the time without performance.
    assert set(kinds) == {(1, (0, 1, 0)), (1, (0, 0, 0)), (2, (0, 0, 1)), (2, (1, 0, 0))}
    assert all(30 <= count <= 70 for count in kinds.values())
    ages = {int(a) for b in batches for a in b["age"].ravel()}
    held = {int(a) for b in performed_source.eval_batches(9) for a in b["age"].ravel()}
    assert not ages & held
    check_shards(performed_source)


def test_held_out_notes_of_every_folder(performed_source):
    first, second = performed_source.eval_batches(2)
    assert (first["pitch"] == 1).all() and (second["pitch"] == 2).all()
    assert first["performance"].tolist() == [[0, 1, 0]] * 2
    assert second["performance"].tolist() == [[0, 0, 1]] * 2
    assert second["mel"].shape == (2, 16, 128)


def test_performed_notes_need_names_of_every_folder(performed_source):
    with pytest.raises(UserError, match="2 folders and names for 1"):
        dataclasses.replace(performed_source, names=(("a",),))
    with pytest.raises(UserError, match="set NUM_PERFORMANCES=3"):
        next(dataclasses.replace(performed_source, performance_count=2).train_iterator(2, 0))
    with pytest.raises(UserError, match="d: no such performance"):
        next(dataclasses.replace(performed_source, names=(("a",), ("d",))).train_iterator(2, 0))


def test_missing_or_foreign_rows_are_one_line_errors(tmp_path):
    with pytest.raises(UserError, match="note_rows.npy.*prepare"):
        next(NoteRowSource(folder=str(tmp_path)).train_iterator(2, 0))
    np.save(tmp_path / "note_rows.npy", np.zeros(4000))
    with pytest.raises(UserError, match="note_rows.npy"):
        next(NoteRowSource(folder=str(tmp_path)).train_iterator(2, 0))
    np.save(tmp_path / "note_rows.npy", np.zeros(100, ROW_DTYPE))  # all in the held-out block
    with pytest.raises(UserError, match="too few"):
        next(NoteRowSource(folder=str(tmp_path)).train_iterator(2, 0))
