"""A folder of recordings in another timbre: every file once, what is done is kept, what is bad is named."""

import json
import types

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.io import read_audio
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM
from music_diffusion.synthesis.hearing import hear_likeness
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.workflows import transfer as module
from music_diffusion.workflows.requests import TransferRequest
from music_diffusion.workflows.transfer import LOG, hearing, transfer, transfer_folder

RATE = 16000


def model_that(*, of=("source",), **abilities):
    conditions = types.SimpleNamespace(needs=of)
    model = types.SimpleNamespace(conditions=conditions, restyles=False, likes=True, **abilities)
    return types.SimpleNamespace(name="model", model=model)


@pytest.fixture
def made(monkeypatch):
    """Files that the model was asked for; it copies them."""
    made = []

    def copy(model, source, target, *, settings, mono, progress, **_):
        samples = read_audio(source).samples
        if not np.any(samples):
            raise UserError(f"{source}: is silent")
        made.append(source.rsplit("/", 1)[-1])
        soundfile.write(target, samples, RATE)

    monkeypatch.setattr(module, "transfer_file", copy)
    monkeypatch.setattr(module, "load", lambda *_: model_that(hears=False))
    monkeypatch.setattr(module, "_state", lambda name: [name])
    return made


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "b.wav", "b.flac", "below/c.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * np.ones(RATE // 10), RATE)
    return tmp_path / "in"


def request(folder, **more):
    return TransferRequest(**{"source": str(folder), "model": "model",
                              "out_dir": str(folder.parent / "out")} | more)


def test_every_file_is_made_once_and_kept_until_something_changes(folder, made):
    want = {"a.wav", "b.wav.wav", "b.flac.wav", "below/c.wav"}
    done = transfer_folder(request(folder))
    assert set(done.made) == want and (done.kept, done.skipped) == (0, ())
    assert {p.relative_to(folder.parent / "out").as_posix()
            for p in (folder.parent / "out").rglob("*.wav")} == want
    made.clear()
    assert transfer_folder(request(folder)).kept == 4 and made == []
    soundfile.write(folder / "a.wav", 0.2 * np.ones(RATE // 10), RATE)
    (folder.parent / "out" / "below" / "c.wav").unlink()
    assert transfer_folder(request(folder)).kept == 2 and sorted(made) == ["a.wav", "c.wav"]


@pytest.mark.parametrize("other", [{"settings": RenderSettings(seed=1)}, {"mono": True}, {"model": "other"},
                                   {"inverter": "griffin_lim"}])
def test_what_other_settings_made_is_not_replaced(folder, made, other):
    transfer_folder(request(folder))
    made.clear()
    other = dict(other)
    settings = other.pop("settings", RenderSettings())
    with pytest.raises(UserError, match="made with other options; give another"):
        transfer_folder(request(folder, **other), settings)
    assert made == []


def test_what_others_made_is_not_replaced(folder, made):
    own = folder.parent / "out" / "a.wav"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(UserError, match="a.wav: is there already, and not by this command"):
        transfer_folder(request(folder))
    assert made == [] and own.read_bytes() == b"mine"


def test_every_file_gets_a_name_of_its_own(folder, made):
    for name in ("b.flac.wav", "B.WAV"):
        soundfile.write(folder / name, 0.1 * np.ones(RATE // 10), RATE, format="WAV")
    done = transfer_folder(request(folder))
    assert len(done.made) == len({name.lower() for name in done.made}) == 6
    assert all((folder.parent / "out" / name).is_file() for name in done.made)
    assert transfer_folder(request(folder)).kept == 6


def test_a_performance_may_be_what_it_should_sound_like(folder, made, monkeypatch):
    monkeypatch.setattr(module, "hearing", lambda *_: None)
    assert transfer_folder(request(folder, like="kim")).kept == 0
    assert transfer_folder(request(folder, like="kim")).kept == 4


def test_an_interrupted_call_goes_on(folder, made, monkeypatch):
    good = module.transfer_file

    def stops(model, source, *arguments, **more):
        if len(made) == 2:
            raise KeyboardInterrupt
        good(model, source, *arguments, **more)

    monkeypatch.setattr(module, "transfer_file", stops)
    with pytest.raises(KeyboardInterrupt):
        transfer_folder(request(folder))
    monkeypatch.setattr(module, "transfer_file", good)
    assert transfer_folder(request(folder)).kept == 2 and len(made) == 4


def test_a_damaged_log_replaces_nothing(folder, made):
    transfer_folder(request(folder))
    assert len(json.loads((folder.parent / "out" / LOG).read_text())) == 4
    (folder.parent / "out" / LOG).write_text("{")
    made.clear()
    with pytest.raises(UserError, match="is there already"):
        transfer_folder(request(folder))
    assert made == []


def test_what_cannot_be_used_is_named_and_the_rest_is_made(folder, made):
    soundfile.write(folder / "quiet.wav", np.zeros(RATE), RATE)
    (folder / "text.wma").write_text("no audio")
    done = transfer_folder(request(folder))
    assert len(done.made) == 4 and {name: why.split()[0] for name, why in done.skipped} == {
        "quiet.wav": "is", "text.wma": ".wma"}


def test_a_folder_without_a_file_that_can_be_used_is_an_error(tmp_path, made):
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match="no audio files"):
        transfer_folder(request(tmp_path / "in"))
    soundfile.write(tmp_path / "in" / "quiet.wav", np.zeros(RATE), RATE)
    with pytest.raises(UserError, match="quiet.wav: is silent"):
        transfer_folder(request(tmp_path / "in"))


@pytest.mark.parametrize("change, word", [
    ({"output": "a.wav"}, "leave -o"), ({"plot": "a.png"}, "leave -o"), ({"out_dir": "IN"}, "beside it"),
    ({"out_dir": "IN/below/out"}, "beside it"), ({"source": "IN/a.wav"}, "is no folder"),
    ({"source": "nowhere"}, "is no folder")])
def test_bad_requests_say_what_to_do(folder, made, change, word):
    change = {k: v.replace("IN", str(folder)) for k, v in change.items()}
    with pytest.raises(UserError, match=word):
        transfer_folder(request(folder, **change))


def test_one_file_needs_an_output_and_is_no_folder(folder):
    with pytest.raises(UserError, match="-o OUT.wav"):
        transfer(request(folder, source=str(folder / "a.wav"), out_dir=None))
    with pytest.raises(UserError, match="--out-dir"):
        transfer(request(folder, out_dir=None, output="out.wav"))


@pytest.mark.parametrize("told, word", [
    ({}, "say what"), ({"source_instruments": "piano"}, "say what"),
    ({"to": "pianno"}, "did you mean piano"),
    ({"to": "piano", "source_instruments": "vilin"}, "--from"), ({"like": "short.wav"}, "0.50 s"),
    ({"like": "quiet.wav"}, "is silent"), ({"like": "none.wav"}, "no such file")])
def test_a_model_that_hears_has_to_be_told_what_is_wanted(tmp_path, monkeypatch, told, word):
    monkeypatch.chdir(tmp_path)
    soundfile.write("short.wav", 0.1 * np.ones(RATE // 2), RATE)
    soundfile.write("quiet.wav", np.zeros(2 * RATE), RATE)
    asked = TransferRequest(source="in.wav", model="model", **told)
    with pytest.raises(UserError, match=word):
        hearing(asked, model_that(hears=True))


@pytest.mark.parametrize("told", [{"to": "piano"}, {"like": "x.wav"}, {"source_instruments": "piano"}])
def test_a_model_of_one_timbre_is_told_nothing(told):
    flag = {"source_instruments": "--from"}.get(*told, f"--{next(iter(told))}")
    with pytest.raises(UserError, match=f"one timbre.*{flag}"):
        hearing(TransferRequest(source="in.wav", model="model", **told), model_that(hears=False))
    assert hearing(TransferRequest(source="in.wav", model="model"), model_that(hears=False)) is None


def test_a_model_that_changes_no_recordings():
    with pytest.raises(UserError, match="changes no recordings"):
        hearing(TransferRequest(source="in.wav", model="model", to="piano"), model_that(of=(), hears=False))


def test_what_is_told_reaches_the_model(tmp_path):
    asked = TransferRequest(source="in.wav", model="model", to="violin=flute,piano=vibraphone")
    told = hearing(asked, model_that(hears=True))
    assert dict(told.casting.of_class)[int(SLAKH_CLASS_OF_PROGRAM[40])] == 73 and told.reference is None
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "ref.wav", 0.1 * rng.normal(size=3 * RATE), RATE)
    both = TransferRequest(source="in.wav", model="model", to="harp", like=str(tmp_path / "ref.wav"))
    told = hearing(both, model_that(hears=True))
    assert told.casting.rest == 46 and told.reference.shape == (128,)
    like = TransferRequest(source="in.wav", model="model", like=str(tmp_path / "ref.wav"))
    assert hearing(like, model_that(hears=True)).casting.rest in range(128)
    # The same sound at another level is like it, too.
    louder = 5 * read_audio(tmp_path / "ref.wav").samples
    soundfile.write(tmp_path / "loud.wav", louder, RATE, subtype="FLOAT")
    loud = hear_likeness(str(tmp_path / "loud.wav"))
    np.testing.assert_allclose(loud.embedding, told.reference, rtol=0.05, atol=0.05)


def test_the_reference_is_not_replaced(folder, made):
    ref = folder / "a.wav"
    with pytest.raises(UserError, match="is the file that is read"):
        transfer(TransferRequest(source=str(folder / "b.wav"), model="model", output=str(ref),
                                 like=str(ref)))
    assert made == []


def test_files_are_checked_before_the_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(module, "load", lambda *_: pytest.fail("loaded"))
    for source, output, word in (("none.wav", "out.wav", "no such file"),
                                 (str(folder / "a.wav"), "out.doc", "extension")):
        with pytest.raises(UserError, match=word):
            transfer(request(folder, source=source, out_dir=None, output=output))
