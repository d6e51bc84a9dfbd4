"""Made-up batches have the shapes and dtypes of those that true data give."""

import csv
import dataclasses

import numpy as np
import pytest
from reference.tiny_records import CODEC, write_records

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.performances import Performance, Performances, write_performances
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram, StyleSpectrogram
from music_diffusion.data import records
from music_diffusion.data.audio_records import AudioRecord
from music_diffusion.data.audio_renders import COLUMNS
from music_diffusion.data.audio_source import AudioSource
from music_diffusion.data.note_renders import ROW_DTYPE
from music_diffusion.data.pipeline import (
    MixtureSource,
    NoteRowSource,
    PerformedNoteSource,
    RecordSource,
)
from music_diffusion.data.recording_source import RecordingSource, TagTargets, TranscriptionTargets
from music_diffusion.data.synthetic import SyntheticSource
from music_diffusion.notes.midi import write_midi
from music_diffusion.workflows.benchmark.batches import made_up_batch
from music_diffusion.workflows.benchmark.piece import piece

SIZE = 3
CONDITIONS = {
    "frames": NoteFrames(slots=3, ring=0.0), "tokens": NoteTokens(tokens=700),
    "tokens, context": NoteTokens(tokens=700, context=True), "nothing": Nothing(),
    "source": SourceSpectrogram(), "style": StyleSpectrogram(),
    "frames, performance": NoteFrames(slots=3, performance=PerformanceNumbers()),
    "tokens, performance": NoteTokens(tokens=700, performance=PerformanceNumbers()),
    "one performance": NoteTokens(tokens=700, performance=PerformanceNumbers(only=0))}


def check(made, true):
    """The same names, shapes and dtypes; finite."""
    assert {k: (v.shape, v.dtype) for k, v in made.items()} == {
        k: (np.shape(v), v.dtype) for k, v in true.items()}
    assert all(np.isfinite(v).all() and len(v) == SIZE for v in made.values())


def elsewhere(source):
    """The same source, without its folder."""
    return dataclasses.replace(source, folder=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("records") / "data")


@pytest.mark.parametrize("name", CONDITIONS)
def test_records(folder, name):
    source = RecordSource(folder=folder, codec=CODEC, frames=40, conditions=CONDITIONS[name])
    true = next(source.train_iterator(SIZE, 0))
    made = made_up_batch(elsewhere(source), SIZE)
    check(made, true)
    assert all(np.abs(v).max() <= 1 for k, v in made.items() if k.startswith("targets"))
    assert not np.array_equal(made["targets"][0], made["targets"][1])
    mixture = MixtureSource(sources=[elsewhere(source), elsewhere(source)])
    check(made_up_batch(mixture, SIZE), true)


def test_note_maps_stand_for_the_slots(tmp_path):
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record", [records.Record(
            mel=np.zeros((600, 128)), notes=piece(10.0), maps=np.zeros((600, 2, 128))).to_bytes()])
    records.write_manifest(tmp_path, codec=dataclasses.replace(CODEC, mels=128).to_dict())
    source = RecordSource(folder=str(tmp_path), codec=dataclasses.replace(CODEC, mels=128), frames=40,
                          conditions=NoteFrames(slots=0))
    true = next(source.train_iterator(SIZE, 0))
    assert "maps" in true
    check(made_up_batch(elsewhere(source), SIZE), true)


@pytest.mark.parametrize("slots", [0, 3])
def test_tails_come_with_the_maps_that_they_are_of(tmp_path, slots):
    codec = dataclasses.replace(CODEC, mels=128)
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record", [records.Record(
            mel=np.zeros((600, 128)), notes=piece(10.0), maps=np.zeros((600, 2, 128))).to_bytes()])
    records.write_manifest(tmp_path, codec=codec.to_dict())
    source = RecordSource(folder=str(tmp_path), codec=codec, frames=40,
                          conditions=NoteFrames(slots=slots, tails=(0.3, 1.0)))
    true = next(source.train_iterator(SIZE, 0))
    assert true["tails"].shape == (SIZE, 40, 2, 128)
    check(made_up_batch(elsewhere(source), SIZE), true)


def test_note_maps_of_performances(tmp_path):
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record", [records.Record(
            mel=np.zeros((600, 128)), notes=piece(10.0), maps=np.zeros((600, 4, 128)),
            labels={"performance": "a"}).to_bytes()])
    records.write_manifest(tmp_path, codec=dataclasses.replace(CODEC, mels=128).to_dict(),
                           classes={"performance": ["a"]})
    source = RecordSource(folder=str(tmp_path), codec=dataclasses.replace(CODEC, mels=128), frames=40,
                          conditions=NoteFrames(slots=0, performance=PerformanceNumbers()))
    true = next(source.train_iterator(SIZE, 0))
    assert "base_maps" in true
    check(made_up_batch(elsewhere(source), SIZE), true)


@pytest.mark.parametrize("tokens", [32, 2048])
def test_tokens_leave_no_padding_and_are_ids(tokens):
    conditions = NoteTokens(tokens=tokens)
    for source in (RecordSource(folder=None, conditions=conditions), SyntheticSource(
            conditions=conditions, notes=2)):
        ids = made_up_batch(source, SIZE)["inputs"]
        assert ids.shape == (SIZE, tokens) and ids.min() > 0
        assert ids.max() < 1491  # special ids, shift, pitch, velocity, tie, program, drum


def test_made_up_segments_are_of_the_synthetic_source():
    source = SyntheticSource(frames=16)
    check(made_up_batch(source, SIZE), next(source.train_iterator(SIZE, 0)))


def test_audio(tmp_path):
    for split in ("train", "validation"):
        records.write_shard(tmp_path / f"{split}-00000.array_record",
                            [AudioRecord(audio=np.ones((900, 1), np.int16)).to_bytes()])
    records.write_manifest(tmp_path, kind="audio", complete=True, options={"sample_rate": 16000})
    source = AudioSource(folder=str(tmp_path), samples=200)
    check(made_up_batch(elsewhere(source), SIZE), next(source.train_iterator(SIZE, 0)))


@pytest.mark.parametrize("features", [TranscriptionTargets(), TagTargets(fonts=("a.sf2",))],
                         ids=["notes", "tags"])
def test_recordings(tmp_path, features):
    write_midi(piece(3.0), tmp_path / "a.mid")
    write_audio(tmp_path / "a.wav", Waveform(0.1 * np.ones(48000, np.float32), 16000))
    with (tmp_path / "renders.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS)
        writer.writeheader()
        writer.writerow(dict.fromkeys(COLUMNS, "") | {"file": "a.wav", "split": "train"})
    source = RecordingSource(folder=str(tmp_path), features=features, samples=16000)
    check(made_up_batch(elsewhere(source), SIZE), next(source.train_iterator(SIZE, 0)))


def test_rows_of_notes(tmp_path):
    np.save(tmp_path / "note_rows.npy", np.zeros(1100, ROW_DTYPE))
    source = NoteRowSource(folder=str(tmp_path), holdout=5, block=20)
    check(made_up_batch(elsewhere(source), SIZE), next(source.train_iterator(SIZE, 0)))


def test_groups_of_notes(tmp_path):
    np.save(tmp_path / "note_rows.npy", np.zeros(1100, ROW_DTYPE))
    write_performances(tmp_path / "names.json", Performances(default="a", performances=(
        Performance(name="a"), Performance(name="b"))))
    source = PerformedNoteSource(folders=(str(tmp_path),), names=(("b",),), group=7, holdout=2,
                                 performances=str(tmp_path / "names.json"), performance_count=2)
    made = made_up_batch(dataclasses.replace(source, folders=("elsewhere",), performances=None), SIZE)
    check(made, next(source.train_iterator(SIZE, 0)))


def test_an_unknown_source_gives_its_own_batch():
    class Mine:
        def train_iterator(self, batch_size, seed, *, shard_index=0, shard_count=1):
            return iter([{"x": np.full((batch_size, 2), 7.0)}])

    np.testing.assert_array_equal(made_up_batch(Mine(), SIZE)["x"], np.full((SIZE, 2), 7.0))


def test_large_batches_are_made_of_the_same_examples():
    source = AudioSource(folder=None, samples=5)
    small, large = (made_up_batch(source, n)["audio"] for n in (16, 40))
    assert len(np.unique(small, axis=0)) == 16
    np.testing.assert_array_equal(large, np.concatenate([small, small, small[:8]]))
