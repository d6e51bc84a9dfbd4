import json
import pickle

import numpy as np
import pytest
import soundfile
from layouts import guitarset

from music_diffusion.data.sets.guitarset import GuitarSet, read_jams
from music_diffusion.data.sounds import read_sound
from music_diffusion.errors import UserError

# A 16-bit file rounds to steps of 2^-15 of full scale.
ROUNDING = 2**-15


def check_notes(notes, truth):
    for name in ("start", "end"):  # JSON keeps all digits; an end is a sum
        np.testing.assert_allclose(getattr(notes, name), getattr(truth, name), atol=1e-12)
    for name in ("pitch", "program", "is_drum"):
        np.testing.assert_array_equal(getattr(notes, name), getattr(truth, name))
    assert len(set(notes.velocity)) == 1


def test_items_are_the_excerpts(tmp_path):
    truths = guitarset.build(tmp_path)
    listing = GuitarSet(folder=str(tmp_path)).list()
    assert not listing.skipped
    for item, truth in zip(listing.items, truths, strict=True):
        assert (item.name, item.split, item.performance, item.style, item.piece) == (
            truth.name, truth.split, truth.performance, truth.style, truth.piece)
        assert not item.velocities
        for copy in (item, pickle.loads(pickle.dumps(item))):
            check_notes(copy.notes(), truth.notes)
            np.testing.assert_allclose(read_sound(copy.audio, truth.sample_rate), truth.samples,
                                       atol=ROUNDING)


def test_the_split_goes_by_progression(tmp_path):
    names = [f"0{player}_{style}{progression}-90-C#_{mode}" for player in (1, 5)
             for style in ("BN", "Funk", "Jazz", "Rock", "SS") for progression in (1, 2, 3)
             for mode in ("comp", "solo")]
    for name in names:
        for file in (f"annotation/{name}.jams", f"audio_mono-mic/{name}_mic.wav"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_bytes(b"")  # listing does not open them
    items = {item.name.removesuffix("_mic"): item for item in GuitarSet(folder=str(tmp_path)).list().items}
    assert items.keys() == set(names)
    for name, item in items.items():
        assert item.split == ("validation" if "3-90" in name else "train")
    # A lead sheet is in one split only, whoever plays it and however.
    assert len({item.piece for item in items.values()}) == 15


def test_every_published_recording_can_be_chosen(tmp_path):
    (truth, *_) = guitarset.build(tmp_path)
    name = truth.name.removesuffix("_mic")
    strings = np.stack([truth.samples * weight for weight in (0, 0, 0.5, 0, 0.25, 0)], axis=-1)
    for folder, suffix in (("audio_hex-pickup_original", "hex"), ("audio_hex-pickup_debleeded", "hex_cln")):
        (tmp_path / folder).mkdir()
        soundfile.write(tmp_path / folder / f"{name}_{suffix}.wav", strings, guitarset.RATE)
    scale = {"mic": 1, "mix": -0.5, "hex": 0.75 / 6, "hex_cln": 0.75 / 6}  # of the microphone's samples
    listing = GuitarSet(folder=str(tmp_path), recordings=tuple(scale)).list()
    mine = [item for item in listing.items if item.name.startswith(name)]
    assert [i.name for i in mine] == [f"{name}_{kind}" for kind in scale]
    for item, (kind, factor) in zip(mine, scale.items(), strict=True):
        np.testing.assert_allclose(read_sound(item.audio, truth.sample_rate), factor * truth.samples,
                                   atol=ROUNDING)
        assert item.performance == f"{truth.performance}_{kind}"
    # The other two excerpts lack both kinds of hexaphonic recordings.
    assert len(listing.skipped) == 4
    assert all("audio_hex-pickup_" in reason and ".zip" in reason for _, reason in listing.skipped)


def test_late_excerpts_are_left_out_unless_asked_for(tmp_path):
    guitarset.build(tmp_path)
    truth = guitarset.build_excerpt(tmp_path, "04_Jazz1-200-B_comp", "train", "Jazz")
    listing = GuitarSet(folder=str(tmp_path)).list()
    (name, reason), = listing.skipped
    assert name == truth.name and "0.309 s late" in reason and len(listing.items) == 3
    assert truth.name in [i.name for i in GuitarSet(folder=str(tmp_path), late=True).list().items]


def test_the_program_is_an_option(tmp_path):
    guitarset.build(tmp_path)
    item = GuitarSet(folder=str(tmp_path), program=25).list().items[0]
    assert set(item.notes().program) == {25}


def test_odd_files_are_skipped(tmp_path):
    first, second, third = guitarset.build(tmp_path)
    path = tmp_path / "audio_mono-mic" / f"{first.name}.wav"
    path.unlink()
    (tmp_path / "annotation/notes.jams").write_text("{}")
    (tmp_path / "annotation/00_Polka1-90-C_solo.jams").write_text("{}")
    (tmp_path / "annotation/._00_BN1-129-Eb_comp.jams").write_bytes(b"\0")  # unpacked on a Mac
    listing = GuitarSet(folder=str(tmp_path)).list()
    assert [i.name for i in listing.items] == [second.name, third.name]
    reasons = dict(listing.skipped)
    assert reasons.keys() == {first.name, "notes_mic", "00_Polka1-90-C_solo_mic"}
    assert "unpack audio_mono-mic.zip" in reasons[first.name]
    assert all("published name" in reasons[n] for n in reasons if n != first.name)


def test_another_folder_is_refused(tmp_path):
    guitarset.build(tmp_path)
    with pytest.raises(UserError, match=r"no annotation/\*\.jams there"):
        GuitarSet(folder=str(tmp_path / "annotation")).list()
    for path in tmp_path.glob("audio*/*.wav"):
        path.unlink()
    with pytest.raises(UserError, match="none of 3 recordings can be used"):
        GuitarSet(folder=str(tmp_path)).list()


def jams(path, *annotations):
    content = {"annotations": [{"namespace": "note_midi", "data": data} for data in annotations]}
    path.write_text(json.dumps(content))
    return str(path)


def note(time, duration, value):
    return {"time": time, "duration": duration, "value": value, "confidence": None}


def test_pitches_round_to_the_nearest_semitone(tmp_path):
    values = [59.51, 60.0, 60.49, 60.5, 61.49, 61.51]
    path = jams(tmp_path / "a.jams", [note(i, 0.5, v) for i, v in enumerate(values)])
    assert read_jams(path, 24).pitch.tolist() == [60, 60, 60, 61, 61, 62]


def test_notes_of_all_strings_are_read_by_note_or_by_column(tmp_path):
    rows = [[note(0.5, 0.25, 52.1)], [note(0.25, 0.001, 64.9), note(2.0, 0.5, 64.0)], []]
    columns = [{key: [n[key] for n in data] for key in ("time", "duration", "value")} for data in rows]
    for number, data in enumerate((rows, columns)):
        notes = read_jams(jams(tmp_path / f"{number}.jams", *data), 24)
        assert notes.start.tolist() == [0.25, 0.5, 2.0]
        assert notes.end.tolist() == [0.26, 0.75, 2.5]  # the first would be shorter than 10 ms
        assert notes.pitch.tolist() == [65, 52, 64]


@pytest.mark.parametrize("content, complaint", [
    (b"{", "not a JAMS file"), (b"[]", "not a JAMS file"), (b"\xff\xfe\0", "not a JAMS file"),
    (b'{"annotations": []}', "no note_midi annotation"),
    (b'{"annotations": [{"namespace": "note_midi", "data": []}]}', "no note_midi annotation"),
    (b'{"annotations": [{"namespace": "note_midi", "data": [{"time": 1}]}]}', "not a JAMS file"),
])
def test_other_files_are_refused(tmp_path, content, complaint):
    (tmp_path / "a.jams").write_bytes(content)
    with pytest.raises(UserError, match=complaint):
        read_jams(str(tmp_path / "a.jams"), 24)


@pytest.mark.parametrize("odd, complaint", [
    ((0.0, -0.1, 60.0), "without time, duration or pitch"),
    ((0.0, 0.5, None), "without time, duration or pitch"),
    ((float("nan"), 0.5, 60.0), "without time, duration or pitch"),
    ((-1.0, 0.5, 60.0), "start at or after 0"),
    ((0.0, 0.5, 140.0), "pitch must be in 0..127"),
])
def test_impossible_notes_are_refused(tmp_path, odd, complaint):
    with pytest.raises(UserError, match=f"a.jams: .*{complaint}"):
        read_jams(jams(tmp_path / "a.jams", [note(0, 1, 60), note(*odd)]), 24)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_jams(str(tmp_path / "nowhere.jams"), 24)


def test_options_are_checked_and_identify_the_items():
    for wrong in (dict(recordings=()), dict(recordings=("mono",)), dict(program=128)):
        with pytest.raises(UserError):
            GuitarSet(folder=".", **wrong)
    identities = [GuitarSet(folder=".", **o).identity() for o in
                  ({}, dict(recordings=("mix",)), dict(program=25), dict(late=True))]
    assert len({json.dumps(i, sort_keys=True) for i in identities}) == 4
