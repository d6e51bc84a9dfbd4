"""A folder with ten seeded faults: the doctor names all ten and nothing else."""

import dataclasses
import functools
import json
import os
import pickle

import numpy as np
import pytest
from layouts import faulty_folder
from layouts.common import scale, tones, write_wav

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data import doctor, records
from music_diffusion.data.checks.findings import ADVICE, KINDS
from music_diffusion.data.items import Item, Listing, Stem
from music_diffusion.data.sets.paired_folder import PairedFolder
from music_diffusion.data.sounds import AudioFile
from music_diffusion.errors import UserError
from music_diffusion.notes.notes import Notes

CODEC = MelCodec()


def pickled(task, items, workers, progress):
    """Runs tasks as processes would get them."""
    task = pickle.dumps(task)
    results = []
    for item in items:
        results.append(pickle.loads(task)(pickle.loads(pickle.dumps(item))))
        progress(len(results), len(items))
    return results


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faulty")
    return folder, faulty_folder.build(folder)


@pytest.fixture(scope="module")
def diagnosis(faulty):
    return doctor.examine(PairedFolder(folder=str(faulty[0])), codec=CODEC,
                          presence=faulty_folder.HearBow(), run=pickled)


def test_all_ten_faults_are_named_and_nothing_else(faulty, diagnosis):
    _, faults = faulty
    assert len(set(faults.values())) == 10  # one of each kind
    assert [*{f.item: f.kind for f in diagnosis.findings}.items()] == sorted(
        faults.items(), key=lambda x: KINDS.index(x[1]))
    assert len(diagnosis.findings) == 10
    assert diagnosis.items == len(faulty_folder.HEALTHY) + 10
    assert len(faulty_folder.HEALTHY) >= 10


@pytest.mark.parametrize("item, said", [
    ("train/late", "0.60 s later"),
    ("train/hot", "-3.1 dBFS"),  # 0.7
    ("train/mute", "100 %"),
    ("train/other_instrument", "(Violin), but what is heard is piano"),
    ("train/telephone", "8000 Hz"),
    ("train/flac_inside", "FLAC"),
    ("train/even", "velocity 64"),
    ("train/noteless", "noteless.mid has no notes"),
])
def test_what_was_measured_is_said(diagnosis, item, said):
    finding = next(f for f in diagnosis.findings if f.item == item)
    assert said in finding.measured
    assert finding.advice


def test_findings_of_two_items_name_the_other(diagnosis):
    others = {f.item: f.others for f in diagnosis.findings if f.others}
    assert others == {"train/healthy_0_again": ("train/healthy_0",),
                      "validation/healthy_1_transposed": ("train/healthy_1",)}


def test_as_json_table_and_line(diagnosis):
    plain = json.loads(json.dumps(diagnosis.to_dict()))
    assert plain["items"] == diagnosis.items
    assert [f["item"] for f in plain["findings"]] == [f.item for f in diagnosis.findings]
    assert all(len(row) == len(doctor.COLUMNS) and all(row) for row in diagnosis.rows())
    assert "10 findings" in diagnosis.summary() and "1 leak" in diagnosis.summary()


def test_without_a_tagger_it_says_what_was_not_looked_for(tmp_path):
    notes = faulty_folder.melody(5, program=faulty_folder.PIANO)
    samples = faulty_folder.play(notes, bowed=True)
    data_set = Items(items=(item(tmp_path, "a", samples, notes),))
    with_tagger = doctor.examine(data_set, codec=CODEC, presence=faulty_folder.HearBow())
    without = doctor.examine(data_set, codec=CODEC)
    assert [f.kind for f in with_tagger.findings] == ["mis-programmed"] and not with_tagger.unchecked
    assert not without.findings and "mis-programmed" in without.unchecked[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Items:
    """A reader of what it is given."""

    items: tuple[Item, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    folder: str | None = None

    def list(self):
        if not self.items:
            raise UserError(f"{self.folder}: nothing to read")
        return Listing(items=self.items, skipped=self.skipped)

    def identity(self):
        return {}


def item(folder, name, samples, notes, rate=faulty_folder.RATE, **options) -> Item:
    path = folder / f"{name}.wav"
    write_wav(path, samples, rate)
    return Item(**{"name": name, "split": None, "audio": AudioFile(path=str(path)),
                   "notes": functools.partial(Notes, *dataclasses.astuple(notes))} | options)


def kinds(*items, **options) -> list[tuple[str, str]]:
    found = doctor.examine(Items(items=items), codec=CODEC, **options).findings
    return [(f.item, f.kind) for f in found]


def refuse():
    raise UserError("song.mid: truncated; export it again")


def test_what_cannot_be_read(tmp_path):
    notes = scale(count=4)
    good = item(tmp_path, "good", tones(notes, 2.0, 22050), notes)
    contents = {"noise": b"RIFF but no audio at all", "nothing": b"",
                "phone": b"\0\0\0 ftypM4A " + bytes(90),
                "pointer": b"version https://git-lfs.github.com/spec/v1\n"}
    items = [good, dataclasses.replace(good, name="missing", audio=AudioFile(path="/no/such.wav")),
             dataclasses.replace(good, name="notes", notes=refuse)]
    for name, content in contents.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        items.append(dataclasses.replace(good, name=name, audio=AudioFile(path=str(path))))
    diagnosis = doctor.examine(Items(items=tuple(items), skipped=(("lonely.wav", "has no MIDI file"),)),
                               codec=CODEC)
    assert {f.item: f.kind for f in diagnosis.findings} == {
        "missing": "unreadable", "notes": "unreadable", "noise": "unreadable",
        "lonely.wav": "unreadable", "nothing": "empty", "phone": "wrong codec",
        "pointer": "wrong codec"}


def test_empty_items(tmp_path):
    notes = scale(count=4)
    samples = tones(notes, 2.0, 22050)
    assert kinds(
        item(tmp_path, "fine", samples, notes),
        item(tmp_path, "no_notes", samples, Notes.empty()),
        item(tmp_path, "beyond", samples, notes.shift(2.5)),
        item(tmp_path, "no_samples", samples[:0], notes),
        dataclasses.replace(item(tmp_path, "audio_only", samples[::-1], notes), notes=None),
    ) == [("no_notes", "empty"), ("beyond", "empty"), ("no_samples", "empty")]


def test_silence_is_not_taken_for_another_piece(tmp_path):
    notes = faulty_folder.melody(6)
    samples = faulty_folder.play(notes)
    half = np.where(np.arange(len(samples)) > 0.7 * len(samples), samples, 0)
    other = faulty_folder.play(faulty_folder.melody(11, 24.0), 24.0)
    other[:round(0.6 * len(other))] = 0
    # Silent audio is no duplicate of other silent audio.
    assert kinds(item(tmp_path, "none", 0 * samples, faulty_folder.melody(8)),
                 item(tmp_path, "faint", 1e-3 * samples, faulty_folder.melody(9)),
                 item(tmp_path, "faint too", 1e-3 * samples, faulty_folder.melody(10)),
                 item(tmp_path, "some", half, notes),
                 item(tmp_path, "other", other, faulty_folder.melody(12, 24.0))) == [
        (name, "silent") for name in ("none", "faint", "faint too", "some", "other")]
    # Audio that begins late is shifted, and mostly silent for that alone.
    late = np.concatenate([np.zeros(6 * faulty_folder.RATE, np.float32), samples])
    assert kinds(item(tmp_path, "late", late, notes)) == [("late", "misaligned")]


def test_notes_that_go_on_after_the_audio(tmp_path):
    notes = faulty_folder.melody(7)
    samples = faulty_folder.play(notes)
    assert kinds(item(tmp_path, "cut", samples[:6 * faulty_folder.RATE], notes)) == [
        ("cut", "misaligned")]
    assert kinds(item(tmp_path, "tail", samples[:-faulty_folder.RATE], notes)) == []


def test_a_data_set_may_have_no_velocities(tmp_path):
    notes = faulty_folder.melody(13)
    notes = dataclasses.replace(notes, velocity=np.full(len(notes), 64))
    even = item(tmp_path, "even", faulty_folder.play(notes), notes)
    assert kinds(even) == [("even", "velocity-less")]
    assert kinds(dataclasses.replace(even, velocities=False)) == []


def test_a_source_of_another_length_does_not_fit(tmp_path):
    notes = faulty_folder.melody(3)
    samples = faulty_folder.play(notes)
    whole = item(tmp_path, "whole", samples, notes)
    short = item(tmp_path, "short", samples[:-22050], notes)
    assert kinds(dataclasses.replace(whole, source=short.audio)) == [("whole", "misaligned")]
    assert kinds(dataclasses.replace(whole, source=whole.audio)) == []


def test_stems_are_heard_one_by_one(tmp_path):
    notes = faulty_folder.melody(4)
    struck = item(tmp_path, "struck", faulty_folder.play(notes), notes)
    mixed = dataclasses.replace(struck, notes=None, stems=(
        Stem(program=0, audio=struck.audio), Stem(program=73, audio=struck.audio)))
    found = doctor.examine(Items(items=(mixed,)), codec=CODEC, presence=faulty_folder.HearBow()).findings
    assert [f.kind for f in found] == ["mis-programmed"] and "73 (Flute)" in found[0].measured


def test_a_prepared_folder_of_another_codec(tmp_path):
    records.write_manifest(tmp_path, codec=MelCodec(hop=256).to_dict(), complete=True)
    found = doctor.examine(Items(items=(), folder=str(tmp_path)), codec=CODEC).findings
    assert [f.kind for f in found] == ["wrong codec"] and "hop" in found[0].measured
    with pytest.raises(UserError, match="nothing to read"):
        doctor.examine(Items(items=(), folder=str(tmp_path)), codec=MelCodec(hop=256))
    (tmp_path / records.MANIFEST).write_text('{"codec": "of something else"}')
    with pytest.raises(UserError, match="nothing to read"):
        doctor.examine(Items(items=(), folder=str(tmp_path)), codec=CODEC)


def test_every_kind_has_its_advice():
    assert all(ADVICE.values()) and len(KINDS) == 11


def test_progress_and_names_stay_relative(faulty, diagnosis):
    told = []
    notes = scale(count=3)
    folder = faulty[0]
    write_wav(folder / "x" / "a.wav", tones(notes, 1.5, 16000), 16000)
    only = item(folder / "x", "a", tones(notes, 1.5, 16000), notes)
    doctor.examine(Items(items=(only,)), codec=CODEC, progress=lambda *a: told.append(a))
    assert told == [(1, 1)]
    assert not any(os.path.isabs(f.item) for f in diagnosis.findings)
    assert np.isclose(diagnosis.seconds, 8 * 19 + 8.8, atol=0.01)  # of one no notes can be read
