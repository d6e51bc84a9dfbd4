"""What a reference is like: recordings, and performances of the package."""

import types

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.programs import program_range
from music_diffusion.synthesis import hearing as module
from music_diffusion.synthesis.hearing import (
    hear_likeness,
    open_hearing,
    open_style,
    performed_likeness,
)

RATE = 16000

def synthesizer(**abilities):
    return types.SimpleNamespace(name="model", model=types.SimpleNamespace(
        **{"hears": True, "restyles": False, "likes": True} | abilities))


MODEL = synthesizer()


@pytest.fixture
def played(monkeypatch):
    """Notes and performance that the package's model was asked for; it answers with noise."""
    played = []

    class Player:
        performances = module.load_performances(module.PERFORMANCES)

        def synthesize(self, notes, *, performance):
            played.append((notes, performance))
            return Waveform(np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32), RATE)

    monkeypatch.setattr(module, "load", lambda name: Player())
    return played


def test_a_performance_is_heard_on_the_instruments_that_are_wanted(played):
    hearing = open_hearing(MODEL, "violin=flute,rest=harp", like="kim")
    (notes, performance), = played
    assert performance == "kim" and set(notes.program.tolist()) == {73, 46}
    for program in (73, 46):
        low, high = program_range(program)
        pitch = notes.pitch[notes.program == program]
        assert len(set(pitch.tolist())) > 3 and low <= pitch.min() and pitch.max() <= high
    assert hearing.reference.shape == (128,) and hearing.casting.rest == 46


def test_what_it_plays_is_what_is_heard(played, tmp_path):
    """The embedding is that of a recording of the same sound."""
    performed = performed_likeness("kim", [40])
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    soundfile.write(tmp_path / "same.wav", samples, RATE, subtype="FLOAT")
    recorded = hear_likeness(str(tmp_path / "same.wav"))
    np.testing.assert_allclose(performed.embedding, recorded.embedding, atol=1e-4)
    assert performed.program == recorded.program


def test_mixtures_of_performances_are_performances(played):
    open_hearing(MODEL, "piano", like="fluid_church:0.7+kim:0.3")
    assert played[0][1] == "fluid_church:0.7+kim:0.3"
    with pytest.raises(UserError, match="kimm"):
        open_hearing(MODEL, "piano", like="fluid_church+kimm")


def test_a_file_comes_before_a_performance_of_its_name(played, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("kim.wav", 0.1 * np.random.default_rng(1).normal(size=2 * RATE), RATE)
    (tmp_path / "kim.wav").rename("kim")
    open_hearing(MODEL, "piano", like="kim")
    assert not played


def test_a_performance_does_not_say_who_plays(played):
    with pytest.raises(UserError, match="is a performance; say who plays, such as --to violin"):
        open_hearing(MODEL, like="kim")


def test_a_model_of_embeddings_is_told_a_style_by_its_own(tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 2 * RATE)
    soundfile.write(tmp_path / "style.wav", samples, RATE, subtype="FLOAT")
    path = str(tmp_path / "style.wav")
    style, like = open_style(MODEL, path), open_hearing(MODEL, like=path)
    np.testing.assert_array_equal(style.reference, like.reference)
    assert style.casting == like.casting and style.style is None
    deaf = synthesizer(likes=False)
    with pytest.raises(UserError, match="takes no style's recording"):
        open_style(deaf, path)
    with pytest.raises(UserError, match="leave --like out"):
        open_hearing(deaf, "piano", like=path)
