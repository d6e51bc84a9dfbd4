"""Records → the list of their performances."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.audio.codec import MelCodec
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.note_tokens import NoteTokens
from music_diffusion.conditions.performance_numbers import PerformanceNumbers
from music_diffusion.conditions.performances import write_performances
from music_diffusion.data import records
from music_diffusion.data.examples import Examples
from music_diffusion.data.performances import add_performances, performances_of, read_descriptions
from music_diffusion.data.pipeline import RecordSource
from music_diffusion.data.shards import ShardMember, ShardPlan, write_shards
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(mels=3)
every_member = pytest.mark.parametrize("conditions", [NoteFrames(slots=0), NoteTokens()],
                                       ids=["frames", "tokens"])
# name of the item, performance, frames, program (or None for drums), seconds that its note sounds
ROWS = (("a", "hall", 3000, 40, 30.0), ("a+1", "hall", 2900, 40, 29.0), ("b", "hall", 1500, None, 2.0),
        ("c-2", "booth", 600, 0, 5.0))


def folder_of(path, rows=ROWS, label="performance"):
    def maker(member, account):
        name, performance, frames, program, seconds = member.content
        account.lengths.append(frames)
        if label:
            account.labels[label].add(performance)
        drum = program is None
        notes = Notes(*(np.array([x]) for x in (0.0, seconds, 60, 90, program or 0, drum)))
        yield records.Record(mel=np.zeros((frames, 3)), notes=notes,
                             labels={"name": name} | ({label: performance} if label else {})).to_bytes()

    members = [ShardMember(name=f"{split}{i}", split=split, state=(), content=row)
               for split in ("train", "validation") for i, row in enumerate(rows)]
    plan = ShardPlan(kind=records.EXAMPLES, options={}, maker=maker, workers=1)
    write_shards(plan, members, str(path), more={"codec": CODEC.to_dict()})
    return str(path)


def test_minutes_and_instruments(tmp_path):
    told = {"hall": {"soundfont": "x.sf2", "room": "large"}}
    booth, hall = performances_of(folder_of(tmp_path / "d"), told)
    assert (booth.name, hall.name) == ("booth", "hall")
    assert hall.minutes == pytest.approx((3000 + 1500) / 50 / 60, abs=0.05)  # without the transposed copy
    assert booth.minutes == pytest.approx(600 / 50 / 60, abs=0.05)  # no copy: there is no c
    assert hall.instruments == ("Violin", "Drums")  # by how long they sound
    assert (hall.source, hall.room, booth.source) == ("x.sf2", "large", "")


def test_folders_add_up_in_order(tmp_path):
    path = tmp_path / "p.json"
    write_performances(path, add_performances(folder_of(tmp_path / "one"), path, default="hall"))
    more = folder_of(tmp_path / "two", [("z", "attic", 500, 0, 1.0), ("a", "hall", 500, 0, 1.0)])
    listed = add_performances(more, path)
    assert listed.names == ("booth", "hall", "attic") and listed.default == "hall"


def numbered(conditions, **options):
    """The same conditions with numbers of performances."""
    return dataclasses.replace(conditions, performance=PerformanceNumbers(**options))


@every_member
def test_file_numbers_the_examples(tmp_path, conditions):
    """Not the order of the folder's own names."""
    folder, path = folder_of(tmp_path / "d"), tmp_path / "p.json"
    more = folder_of(tmp_path / "more", [("z", "attic", 500, 0, 1.0)])
    write_performances(path, add_performances(more, path))
    write_performances(path, add_performances(folder, path))
    wanted = dict(folder=folder, split="train", codec=CODEC)
    examples = Examples(**wanted, conditions=numbered(conditions, file=str(path)))
    found = {int(examples.segment(i, 0)["performance"]) for i in range(len(ROWS))}
    assert found == {1, 2}
    with pytest.raises(UserError, match="'booth' is no performance"):
        Examples(**wanted, conditions=numbered(conditions, file=str(write_one(tmp_path))))


def write_one(tmp_path):
    path = tmp_path / "one.json"
    folder = folder_of(tmp_path / "x", [("z", "hall", 500, 0, 1.0)])
    write_performances(path, add_performances(folder, path))
    return path


@every_member
def test_names_and_rows_must_be_as_many(tmp_path, conditions):
    folder, path = folder_of(tmp_path / "d"), tmp_path / "p.json"
    write_performances(path, add_performances(folder, path))
    for file in (None, str(path)):
        right, wrong = (RecordSource(folder=folder, codec=CODEC, conditions=numbered(
            conditions, file=file, count=count)) for count in (2, 3))
        next(right.train_iterator(2, seed=0))
        with pytest.raises(UserError, match="names 2 performances, and the model has 3; set NUM_PERF"):
            wrong.train_iterator(2, seed=0)


@every_member
def test_all_of_one_number(tmp_path, conditions):
    folder = folder_of(tmp_path / "d", label=None)
    batch = next(RecordSource(folder=folder, codec=CODEC, conditions=numbered(conditions, only=4))
                 .train_iterator(3, seed=0))
    assert batch["performance"].tolist() == [4, 4, 4] and batch["performance"].dtype == np.int32


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="have no performance"):
        performances_of(folder_of(tmp_path / "d", label=None))
    (tmp_path / "t.csv").write_text("nam\nx\n")
    for path, message in ((tmp_path / "t.csv", "column `name`"), (tmp_path / "none.csv", "cannot be read")):
        with pytest.raises(UserError, match=message):
            read_descriptions(path)
