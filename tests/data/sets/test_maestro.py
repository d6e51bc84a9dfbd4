import json
import pickle

import numpy as np
import pytest
from layouts import maestro

from music_diffusion.data.sets.maestro import Maestro
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError

# A 16-bit file rounds to steps of 2^-15 of full scale.
ROUNDING = 2**-15


@pytest.mark.parametrize("version, table", [
    ("v3.0.0", "csv"), ("v3.0.0", "json"), ("v2.0.0", "csv"), ("v2.0.0", "json")])
def test_items_are_the_recordings(tmp_path, version, table):
    truths = maestro.build(tmp_path, version, (table,))
    listing = Maestro(folder=str(tmp_path)).list()
    assert not listing.skipped
    for item, truth in zip(listing.items, truths, strict=True):
        assert (item.name, item.split, item.piece) == (truth.name, truth.split, truth.piece)
        assert item.performance is None and item.velocities and not item.stems
        for copy in (item, pickle.loads(pickle.dumps(item))):
            assert maestro.rows(copy.notes()) == maestro.rows(truth.notes)
            np.testing.assert_allclose(read_sound(copy.audio, truth.sample_rate), truth.samples,
                                       atol=ROUNDING)
        assert item.files == (str(tmp_path / f"{truth.name}.wav"), str(tmp_path / f"{truth.name}.midi"))
        facts = item.audio.facts()
        assert (facts.channels, facts.sample_rate, facts.seconds) == (2, maestro.RATE, maestro.SECONDS)


def test_the_pedal_lengthens_notes(tmp_path):
    # The fixture's truth is only worth something if pedal and keys tell different ends.
    truth, *_ = maestro.build(tmp_path)
    seconds = truth.notes.end - truth.notes.start
    assert (seconds > 0.25).sum() == 2 and np.isclose(seconds, 0.24).sum() == 3


def test_years_are_performances_when_asked_for(tmp_path):
    maestro.build(tmp_path)
    reader = Maestro(folder=str(tmp_path), years=True)
    assert [item.performance for item in reader.list().items] == ["2018", "2004", "2011"]
    assert json.loads(json.dumps(reader.identity())) == {"years": True}


def test_names_do_not_depend_on_where_it_lies(tmp_path):
    names = []
    for place in ("here", "there/below"):
        (tmp_path / place).mkdir(parents=True)
        maestro.build(tmp_path / place)
        names.append([i.name for i in Maestro(folder=str(tmp_path / place)).list().items])
    assert names[0] == names[1]


def test_the_newest_table_counts(tmp_path):
    maestro.build(tmp_path, "v2.0.0")
    maestro.build(tmp_path, "v3.0.0")
    text = (tmp_path / "maestro-v2.0.0.csv").read_text(encoding="utf-8")
    (tmp_path / "maestro-v2.0.0.csv").write_text(text.replace("Tango in D", "Waltz"), encoding="utf-8")
    pieces = [item.piece for item in Maestro(folder=str(tmp_path)).list().items]
    assert pieces[2] == "Isaac Albéniz / Leopold Godowsky/Tango in D"


@pytest.mark.parametrize("suffix", ["wav", "midi"])
def test_a_recording_that_lacks_a_file_is_skipped(tmp_path, suffix):
    truths = maestro.build(tmp_path)
    (tmp_path / f"{truths[1].name}.{suffix}").unlink()
    listing = Maestro(folder=str(tmp_path)).list()
    assert [item.name for item in listing.items] == [truths[0].name, truths[2].name]
    (name, reason), = listing.skipped
    assert name == f"{truths[1].name}.midi" and f"{truths[1].name}.{suffix}" in reason
    assert "unpack" in reason


def test_another_folder_is_refused(tmp_path):
    maestro.build(tmp_path)
    for folder in (tmp_path / "2018", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no maestro-v3\.0\.0\.csv there; give the folder"):
            Maestro(folder=str(folder)).list()


def test_the_archive_without_audio_is_refused(tmp_path):
    maestro.build(tmp_path)
    for path in tmp_path.glob("*/*.wav"):
        path.unlink()
    with pytest.raises(UserError, match="none of its 3 recordings"):
        Maestro(folder=str(tmp_path)).list()


@pytest.mark.parametrize("name, content, complaint", [
    ("maestro-v3.0.0.csv", "canonical_composer,canonical_title\nBach,Fugue\n", "row 1 has no split"),
    ("maestro-v3.0.0.csv", b"\xff\xfe\0", "damaged UTF-16"),
    ("maestro-v3.0.0.json", "{", "cannot be read as JSON"),
    ("maestro-v3.0.0.json", '"rows"', "neither rows nor columns"),
    ("maestro-v3.0.0.json", '{"midi_filename": {"0": "a.midi"}}', "row 1 has no canonical_composer"),
    ("maestro-v3.0.0.json", "[1]", "neither rows nor columns"),
])
def test_another_table_is_refused(tmp_path, name, content, complaint):
    maestro.build(tmp_path, tables=())
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=complaint):
        Maestro(folder=str(tmp_path)).list()


def test_another_split_is_refused(tmp_path):
    maestro.build(tmp_path)
    table = tmp_path / "maestro-v3.0.0.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",test,", ",tests,"), encoding="utf-8")
    with pytest.raises(UserError, match="'tests' is none of train, validation, test"):
        Maestro(folder=str(tmp_path)).list()
