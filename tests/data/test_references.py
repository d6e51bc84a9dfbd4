"""References of performances as files, and their table."""

import csv
import functools

import pytest
from layouts.common import scale
from layouts.memory import Formula, MemorySet, item, sine

from music_diffusion.audio.io import read_audio
from music_diffusion.data.references import choose_references, write_references
from music_diffusion.errors import UserError
from music_diffusion.evaluation.pairing import GroupTable
from music_diffusion.notes.midi import read_midi

RATE = 4000


def recording(name, performance, seconds=2.0, split="train"):
    return item(name, Formula(wave=functools.partial(sine, hertz=300.0), seconds=seconds),
                scale(count=3), split=split, performance=performance)


SET = MemorySet(items=(
    *(recording(f"a/{i}", "studio") for i in range(5)), recording("b", "church", 9.0),
    recording("c", "studio", split="test"), recording("d", None, split="test"),
    item("mute", Formula(wave=sine, seconds=1.0), performance="church")))


def test_at_most_so_many_seconds_of_each_performance():
    chosen = choose_references(SET.items, "train", minutes=5 / 60)
    seconds = {"studio": 0.0, "church": 0.0}
    for one, length in chosen:
        seconds[one.performance] += length
    assert seconds == pytest.approx({"studio": 5.0, "church": 5.0})
    assert sorted(length for one, length in chosen if one.performance == "studio") == [1.0, 2.0, 2.0]
    draws = {tuple(one.name for one, _ in choose_references(SET.items, "train", 5 / 60, seed))
             for seed in range(6)}
    assert len(draws) > 1  # a seed draws


def test_files_and_the_table_that_evaluation_reads(tmp_path):
    counts = write_references(SET.list(), str(tmp_path), minutes=5 / 60, sample_rate=RATE)
    assert counts == {"train": 4, "test": 2}
    table = GroupTable(str(tmp_path / "performances.csv"), "group")
    files = sorted((tmp_path / "train").glob("*.flac"))
    assert {table.of(str(path)) for path in files} == {"studio", "church"}
    assert table.of(str(tmp_path / "test" / "c.flac")) == "studio"
    assert table.of(str(tmp_path / "test" / "d.flac")) is None
    with open(tmp_path / "performances.csv", newline="") as f:
        for row in csv.DictReader(f):
            audio = read_audio(tmp_path / row["file"])
            assert audio.sample_rate == RATE and len(audio) / RATE == pytest.approx(float(row["seconds"]))
            assert len(read_midi((tmp_path / row["file"]).with_suffix(".mid")))


@pytest.mark.parametrize("options, word", [
    (dict(splits=("validation",)), "no item with notes for validation"),
    (dict(splits=("tests",)), "'tests' is none of"), (dict(minutes=0.0), "above 0")])
def test_what_cannot_be_written_is_said(tmp_path, options, word):
    with pytest.raises(UserError, match=word):
        write_references(SET.list(), str(tmp_path / "out"), **options)
    twice = MemorySet(items=(recording("x/y", "p"), recording("x_y", "p")))
    with pytest.raises(UserError, match="2 items of train would be files called x_y"):
        write_references(twice.list(), str(tmp_path / "out"), splits=("train",))
    assert not (tmp_path / "out").exists()
