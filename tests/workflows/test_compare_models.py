"""Copies of tiny models compared: what stays, what moves, and by how much."""

import math
import types

import jax
import numpy as np
import pytest
from flax.core import unfreeze
from flax.traverse_util import flatten_dict
from reference import compiled
from reference.tiny_release import tiny_params, write_release
from reference.tiny_transcriber import write_transcriber
from reference.toy_listeners import RATE, ToyTranscriber, play, sine_notes

from music_diffusion.audio.vggish_mel import VGGishMel
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.models.tagger import TaggerModel
from music_diffusion.models.weights import CONFIG, WEIGHTS, load_safetensors, save_safetensors
from music_diffusion.networks.vggish import VGGishConfig
from music_diffusion.notes.midi import write_midi
from music_diffusion.synthesis import hub
from music_diffusion.synthesis.released_copy import release_copy
from music_diffusion.workflows import compare_models as module
from music_diffusion.workflows.compare_models import Figure, compare_models
from music_diffusion.workflows.requests import CompareRequest

SECONDS = 4.0
PLAYER = types.SimpleNamespace(
    codec=types.SimpleNamespace(sample_rate=RATE),
    synthesize=lambda notes, seed: Waveform(play(notes, SECONDS).astype(np.float32), RATE))


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "midi").mkdir()
    for seed in range(3):
        write_midi(sine_notes(seed, SECONDS), tmp_path / "midi" / f"{seed}.mid")
    return str(tmp_path / "midi")


def compared(model, other, notes):
    request = CompareRequest(model=str(model), other=str(other), notes=notes, seconds=SECONDS)
    found = compare_models(request)
    assert found.pieces == 3 and (found.model, found.other) == (str(model), str(other))
    return found, {figure.name.partition(" (")[0]: figure for figure in found.figures}


@pytest.fixture
def generator(tmp_path, monkeypatch):
    """A tiny generator that a toy listens to."""
    monkeypatch.setattr(module, "load", lambda name: hub.load(name, "griffin_lim_hop"))
    monkeypatch.setattr(module, "load_transcriber", ToyTranscriber)
    return write_release(tmp_path / "model", tiny_params())


def test_a_copy_in_eight_bits_plays_as_the_model_does(generator, notes, tmp_path):
    release_copy(generator, tmp_path / "copy", dtype="int8")
    found, figures = compared(generator, tmp_path / "copy", notes)
    assert found.same
    size = figures["size of the weights"]
    assert size.values[1] < 0.8 * size.values[0] and not size.moved
    a, b = (flatten_dict(load_safetensors(tmp_path / name / WEIGHTS)) for name in ("model", "copy"))
    want = math.sqrt(sum(np.square(a[k] - b[k]).sum() for k in a)
                     / sum(np.square(x).sum() for x in a.values()))
    assert figures["weights, relative"].difference == pytest.approx(want, rel=1e-4) and 0 < want < 0.01
    mel = figures["log-mel"]
    assert 0 < mel.difference < mel.error


@pytest.mark.slow
def test_a_model_with_other_weights_moves(generator, notes, tmp_path):
    other = write_release(tmp_path / "other", jax.tree.map(lambda x: 1.5 * x, tiny_params()))
    found, figures = compared(generator, other, notes)
    assert not found.same and figures["log-mel"].moved
    assert figures["weights, relative"].difference == pytest.approx(0.5, rel=1e-3)
    assert found.facts()["same"] is False


@pytest.mark.slow
def test_a_model_does_not_differ_from_itself(generator, notes):
    found, _ = compared(generator, generator, notes)
    assert found.same and all(figure.difference == 0 for figure in found.figures)


def test_transcribers_are_compared_by_what_they_hear(tmp_path, notes, monkeypatch):
    """One hears all; its copy nothing above the octave of A4."""
    folders = [write_transcriber(tmp_path / name) for name in ("model", "copy")]

    class Deaf(ToyTranscriber):
        def transcribe(self, samples):
            heard = super().transcribe(samples).notes
            return types.SimpleNamespace(notes=heard[heard.pitch < 69])

    monkeypatch.setattr(module, "load", lambda: PLAYER)
    monkeypatch.setattr(module, "load_transcriber",
                        lambda name: Deaf() if name.endswith("copy") else ToyTranscriber())
    _, figures = compared(folders[0], folders[1], notes)
    scores = [sine_notes(seed, SECONDS) for seed in range(3)]
    total, low = sum(len(n) for n in scores), sum(int((n.pitch < 69).sum()) for n in scores)
    assert 0 < low < total
    onset = figures["onset F1"]
    assert onset.values == pytest.approx((1, 2 * low / (total + low)), abs=0.02)
    assert onset.moved and onset.error == pytest.approx(0, abs=0.05)
    assert figures["notes that both hear, 1 - onset F1"].difference == pytest.approx(
        1 - onset.values[1], abs=0.02)
    assert "drum onset F1" not in figures  # there are no drums


@pytest.mark.slow
def test_taggers_are_compared_by_their_embeddings(tmp_path, notes, monkeypatch):
    front = VGGishMel(sample_rate=4000, hop=40, window=100, fft=128, mels=8, fmin=60.0, fmax=2000.0,
                      patch_frames=8, patch_hop=8)
    model = TaggerModel(fonts=("a.sf2",), front=front, network=VGGishConfig(
        frames=8, mels=8, channels=((8,), (12,)), hidden=(16,), embedding=6))
    params = unfreeze(compiled.init(model)["params"])
    opened = {"model": params, "copy": jax.tree.map(lambda x: x * (1 + 1e-4), params)}
    for name, its in opened.items():
        (tmp_path / name).mkdir()
        save_safetensors(tmp_path / name / WEIGHTS, its, dtype="float32")
        (tmp_path / name / CONFIG).write_text("")
    monkeypatch.setattr(module, "load", lambda: PLAYER)
    monkeypatch.setattr(module, "load_trained", lambda name, *_: (name, model, opened[name.split("/")[-1]]))
    found, figures = compared(tmp_path / "model", tmp_path / "copy", notes)
    distance = figures["embeddings, distance"]
    assert found.same and 0 < distance.difference < distance.error
    assert abs(figures["embeddings, 1 - cosine"].difference) < 1e-6
    assert 0 < figures["probability of an instrument, greatest"].difference < 0.01


def test_inverters_are_compared_by_their_audio(tmp_path, notes, monkeypatch):
    from reference import tiny_inverter

    folder = tiny_inverter.write_inverter(tmp_path / "model")
    release_copy(folder, tmp_path / "copy", dtype="int8")
    codec = tiny_inverter.MODEL.codec
    player = types.SimpleNamespace(
        codec=codec,
        stream_mel=lambda n, settings: iter([codec.encode(play(n, SECONDS, codec.sample_rate))]))
    monkeypatch.setattr(module, "load", lambda: player)
    monkeypatch.setattr(module, "load_transcriber", ToyTranscriber)
    found, figures = compared(folder, tmp_path / "copy", notes)
    assert found.same
    assert figures["log-mel of the audio"].difference < figures["log-mel of the audio"].error


def test_different_kinds_and_missing_models_are_one_line(generator, tmp_path, notes):
    other = write_transcriber(tmp_path / "ear")
    for names, reason in (((generator, other), "give two copies of one model"),
                          ((generator, tmp_path / "none"), "none: no such model")):
        with pytest.raises(UserError, match=reason) as error:
            compare_models(CompareRequest(model=str(names[0]), other=str(names[1]), notes=notes))
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="nowhere"):
        compare_models(CompareRequest(model=str(generator), other=str(generator), notes="nowhere"))


def test_a_figure_without_an_error_does_not_move():
    assert not Figure(name="a", difference=9.0).moved
    assert Figure(name="a", difference=9.0, error=1.0).moved
    assert Figure(name="a", difference=math.nan, error=1.0).facts()["difference"] is None


def test_the_made_up_piece_is_taken_without_notes(generator, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "_kind", lambda model: lambda request, pieces, progress: (
        seen.append(pieces) or []))
    found = compare_models(CompareRequest(model=str(generator), other=str(generator), seconds=5.0))
    assert found.pieces == 1 and seen[0][0].end.max() == 5.0
