"""From a folder of recordings to a model that plays, with a tiny model."""

import pathlib

import numpy as np
import pytest
from layouts.common import scale, tones, write_wav
from reference.tiny_release import (
    NAMES,
    tiny_params,
    write_release,
    write_release_with_performances,
)

from music_diffusion.data import records
from music_diffusion.errors import UserError
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors
from music_diffusion.notes.midi import read_midi, write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.hub import load
from music_diffusion.workflows import own_data
from music_diffusion.workflows.fine_tuning import best_step
from music_diffusion.workflows.monitor import Monitor
from music_diffusion.workflows.own_data import choose, train_on_recordings
from music_diffusion.workflows.own_data_card import Card, card_text, figure_rows, verdict
from music_diffusion.workflows.requests import OwnDataRequest

RATE = 16000
SMALL = ("TrainConfig.eval_every = 2", "TrainConfig.checkpoint_every = 2", "RecordSource.frames = 32")


@pytest.fixture
def data(tmp_path):
    """Three pieces for training and one held out, and one recording without its notes."""
    folder = tmp_path / "data"
    for i in range(4):
        split = "validation" if i == 3 else "train"
        notes = scale(pitch=60 + i, program=40)
        (folder / split).mkdir(parents=True, exist_ok=True)
        write_midi(notes, folder / split / f"{i}.mid")
        write_wav(folder / split / f"{i}.wav", tones(notes, 2.5, RATE), RATE)
    write_wav(folder / "train" / "alone.wav", tones(notes, 1.0, RATE), RATE)
    return folder


@pytest.fixture
def base(tmp_path):
    return write_release(tmp_path / "base", tiny_params())


def request(_data, _base, tmp_path, **more):
    return OwnDataRequest(**dict(data=str(_data), base=str(_base), output=str(tmp_path / "model"), steps=4,
                           batch=2, transpose=1, examine=False, evaluate=False, bindings=SMALL,
                           workers=1) | more)


@pytest.mark.slow
def test_a_folder_becomes_a_model_that_plays_and_the_same_command_goes_on(data, base, tmp_path):
    asked, said = request(data, base, tmp_path), []
    made = train_on_recordings(asked, Monitor(say=said.append))
    model = tmp_path / "model"
    assert made.model == str(model) and made.step in (2, 4) and made.figures == {}
    assert [line[:5] for line in said if line[0] == "["] == ["[1/4]", "[2/4]", "[3/4]", "[4/4]"]
    assert any("left out: train/alone.wav" in line for line in said)
    before, after = (load_safetensors(folder / WEIGHTS) for folder in (base, model))
    # The note timbre network stays as it was.
    for a, b in zip(_leaves(before["timbre"]), _leaves(after["timbre"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(_leaves(before["unet"]), _leaves(after["unet"]), strict=True))
    wave = load(str(model), "griffin_lim").synthesize(read_midi(data / "train" / "0.mid"))
    assert np.abs(wave.samples).max() > 0
    card = (model / "README.md").read_text()
    assert "validation/3" in card and str(base) in card and "alone" in card
    # Each training piece, and a copy of it a semitone up and one down.
    manifest = records.read_manifest(tmp_path / "model.work" / "records")
    assert manifest["records"] == {"train": 9, "validation": 1, "test": 0}
    config = (model / CONFIG).read_text()
    assert "RecordSource" not in config and "num_steps = 2" in config

    # Again: nothing is made anew; other settings need another folder.
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "model.work").rglob("*.array_record")}
    checkpoints = sorted(p.name for p in (tmp_path / "model.work/run/checkpoints").iterdir())
    train_on_recordings(asked)
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    assert sorted(p.name for p in (tmp_path / "model.work/run/checkpoints").iterdir()) == checkpoints
    with pytest.raises(UserError, match="begun with other transpose"):
        train_on_recordings(request(data, base, tmp_path, transpose=0))


def _leaves(tree):
    import jax

    return [np.asarray(x) for x in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_from_none_every_parameter_is_learned(data, base, tmp_path, monkeypatch):
    monkeypatch.setattr(own_data, "find", lambda name: base)  # instead of the large default
    train_on_recordings(request(data, "none", tmp_path, steps=2, transpose=0))
    before, after = (load_safetensors(folder / WEIGHTS) for folder in (base, tmp_path / "model"))
    assert any(np.any(a != b) for a, b in
               zip(_leaves(before["timbre"]), _leaves(after["timbre"]), strict=True))
    assert "train_timbre = True" in (tmp_path / "model" / CONFIG).read_text()


@pytest.mark.slow
def test_of_a_model_with_performances_one_is_left(data, tmp_path):
    """The one that plays by default becomes the recordings'; nothing else is kept of the others."""
    base = write_release_with_performances(tmp_path / "base")
    train_on_recordings(request(data, base, tmp_path, steps=2, transpose=0))
    model = load(str(tmp_path / "model"), "griffin_lim_hop")
    assert model.performances.names == ("model",) == (model.performances.default,)
    assert model.performances.performances[0].source == "data"
    before, after = (load_safetensors(folder / WEIGHTS)["performances"]["embedding"]
                     for folder in (base, tmp_path / "model"))
    assert after.shape == (1, before.shape[1])
    np.testing.assert_allclose(after[0], before[NAMES.index("studio")], atol=0.05)  # two small steps
    assert np.abs(model.synthesize(read_midi(data / "train" / "0.mid")).samples).max() > 0


def test_the_best_checkpoint_is_that_of_the_lowest_validation_loss(tmp_path):
    for step in (10, 20, 30):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    (tmp_path / "eval.csv").write_text("step,loss,other\n10,0.5,1\n20,0.25,1\n25,0.1,1\n30,0.3,1\n")
    assert best_step(str(tmp_path)) == (20, 0.25)  # step 25 has no checkpoint
    (tmp_path / "eval.csv").write_text("step,loss\n")
    with pytest.raises(UserError, match="begin anew"):
        best_step(str(tmp_path))


@pytest.mark.slow
def test_what_is_held_out_is_judged_by_an_ear_that_was_asked_first(data, base, tmp_path):
    for i in range(4):  # long enough for the check of the ears
        split = "validation" if i == 3 else "train"
        parts = [scale(pitch=60 + i, program=40).shift(2.5 * k) for k in range(4)]
        notes = Notes.concatenate(parts)
        write_midi(notes, data / split / f"{i}.mid")
        write_wav(data / split / f"{i}.wav", tones(notes, 10.0, RATE), RATE)
    said = []
    made = train_on_recordings(request(data, base, tmp_path, evaluate=True), Monitor(say=said.append))
    found = made.figures
    assert set(found["ears"]) == {"tagger", "mfcc"} and found["ear"] == max(found["ears"],
                                                                            key=found["ears"].get)
    assert all(0 <= share <= 1 for share in found["ears"].values())
    assert {"fad:tagger", "fad:mfcc", "onset_f1"} <= set(found["before"]) & set(found["after"])
    assert 0 <= found["recordings"]["onset_f1"] <= 1 and "fad:tagger" not in found["recordings"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert all(f"- {line}" in card for line in verdict(found, str(base)))
    assert "temperature = " in (tmp_path / "model" / CONFIG).read_text()


def candidate(tagger, mfcc, f1):
    return {"fad:tagger": tagger, "fad:mfcc": mfcc, "onset_f1": f1}


COOL, WARM, HOT = ("t = 0.1",), ("t = 0.5",), ("t = 0.9",)
CANDIDATES = {COOL: candidate(300.0, 9.0, 0.7), WARM: candidate(200.0, 10.0, 0.65),
              HOT: candidate(100.0, 5.0, 0.5)}


@pytest.mark.parametrize("least, ear, taken", [
    (0.6, "tagger", WARM), (0.6, "mfcc", COOL), (0.7, "tagger", COOL), (0.65, "tagger", WARM),
    (None, "tagger", HOT), (0.4, "mfcc", HOT), (0.9, "tagger", COOL), (0.9, "mfcc", COOL)])
def test_the_ear_chooses_among_those_whose_notes_are_heard(least, ear, taken):
    assert choose(CANDIDATES, least, ear) == taken


def test_what_has_no_value_is_not_taken():
    assert choose(CANDIDATES | {HOT: candidate(None, None, 0.9)}, 0.6, "tagger") == WARM
    assert choose(CANDIDATES | {HOT: candidate(1.0, 1.0, None)}, 0.6, "tagger") == WARM
    assert choose({WARM: candidate(1.0, 1.0, None), COOL: candidate(2.0, 2.0, 0.1)}, 0.6) == COOL


FOUND = {"before": candidate(400.0, 4.0, 0.95), "after": candidate(500.0, 3.0, 0.64),
         "recordings": {"onset_f1": 0.62}, "ears": {"tagger": 0.71, "mfcc": 0.95}, "ear": "mfcc",
         "labels": {"fad:tagger": "FAD, tagger", "fad:mfcc": "FAD, mfcc", "onset_f1": "Note F1"}}


def test_each_sentence_names_the_ear_that_says_it():
    chose, other, notes = verdict(FOUND, "default")
    assert chose.startswith("By mfcc, which puts 0.95") and "nearer to" in chose and "It chose" in chose
    assert other.startswith("By tagger, which puts 0.71") and "farther from" in other
    assert "do not rely on it" in other and "do not rely" not in chose and "did not choose" in other
    assert "0.64" in notes and "0.62" in notes
    # From nothing there is no model to compare with; recordings of some seconds check no ear.
    alone, = verdict(FOUND | {"before": {}, "recordings": {}, "ears": {}}, "none")
    assert alone.startswith("By mfcc, this model is 3")
    assert verdict({}, "default") == []


def test_the_card_shows_what_the_recordings_score_themselves():
    head, *rows = figure_rows(FOUND, "default")
    assert head == ("held-out items", "default", "this model", "the recordings")
    assert rows[0] == ("FAD, tagger", "400", "500", "") and rows[2][0] == "Note F1"
    assert [float(cell) for cell in rows[2][1:]] == pytest.approx([0.95, 0.64, 0.62])
    manifest = {"hours": {"train": 1.0}, "records": {"train": 3}, "notes": {"train": 9}, "skipped": []}
    asked = OwnDataRequest(data="d", output="m")
    text = card_text(Card(request=asked, manifest=manifest, step=3, loss=0.5, figures=FOUND, minutes=1.0,
                          held_out=("x",)))
    assert "| Note F1 |" in text and all(f"- {line}" in text for line in verdict(FOUND, asked.base))
    assert "Not evaluated" in card_text(Card(request=asked, manifest=manifest, step=3, loss=0.5, figures={},
                                             minutes=1.0, held_out=("x",)))


@pytest.mark.parametrize("more, reason", [
    ({"data": "/no/such"}, "/no/such"), ({"base": "nothing"}, "no such model"),
    ({"layout": "cds"}, "no such data set"), ({"options": (("x", "1"),)}, "no option 'x'"),
    ({"bindings": ("STEPS = 3",)}, "STEPS")])
def test_bad_input_is_one_line(data, base, tmp_path, more, reason):
    with pytest.raises(UserError, match=reason) as error:
        train_on_recordings(request(data, base, tmp_path, **more))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()
    if "bindings" not in more:  # found before anything is written
        assert not (tmp_path / "model.work").exists()


def test_a_folder_that_holds_other_things_is_left_alone(data, base, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "diary.txt").write_text("dear")
    with pytest.raises(UserError, match="holds other things"):
        train_on_recordings(request(data, base, tmp_path))
    assert [p.name for p in pathlib.Path(tmp_path / "model").iterdir()] == ["diary.txt"]


def test_one_recording_cannot_be_held_out(data, base, tmp_path):
    for path in [*(data / "train").iterdir(), *(data / "validation").glob("*.mid")]:
        path.unlink()
    write_midi(scale(), data / "train" / "0.mid")
    write_wav(data / "train" / "0.wav", tones(scale(), 2.5, RATE), RATE)
    with pytest.raises(UserError, match="no item for validation"):
        train_on_recordings(request(data, base, tmp_path))
