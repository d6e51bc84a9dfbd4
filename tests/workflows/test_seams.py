"""Seams: overlapping and independent renderings of one piece."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
from reference.tiny_generator import tiny_generator
from reference.tiny_release import MODEL, tiny_params

from music_diffusion.errors import UserError
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis.generate import free_source
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.workflows import seams as seams_module
from music_diffusion.workflows.monitor import Monitor
from music_diffusion.workflows.requests import SeamsRequest

SECONDS = 12.0


def piece_of(seconds=SECONDS):
    start = np.arange(0, seconds, 0.45)
    pitch = 60 + np.arange(len(start)) % 12
    return Notes(start, start + 0.4, pitch, np.full(len(start), 80), np.zeros(len(start)),
                 np.zeros(len(start), bool))


@pytest.fixture(scope="module")
def synthesizer():
    windows = Windows(frames=128, overlap=32, group=2)
    return Synthesizer(name="tiny", model=MODEL, params=tiny_params(),
                       joining=OverlapJoining(windows=windows))


@pytest.fixture(scope="module")
def pair(synthesizer):
    return seams_module.render_pair(synthesizer, piece_of(), RenderSettings(seed=3))


def test_segments_are_cut_from_two_seeds_where_others_overlap(synthesizer, pair):
    faded, cut = pair
    whole = np.concatenate(list(synthesizer.stream_mel(piece_of(), RenderSettings(seed=3))))
    np.testing.assert_array_equal(faded.mel, whole)
    assert faded.joins.tolist() == cut.joins.tolist() == list(range(96, len(whole) - 32, 96))
    assert (faded.overlap, cut.overlap) == (32, 0) and cut.mel.shape == whole.shape
    assert np.abs(cut.mel[96:192] - faded.mel[96:192]).max() > 0.1


def test_windows_apart_are_not_faded():
    x0 = np.ones((1, 128, 4))
    apart = seams_module.Apart(frames=128, overlap=32, group=1)
    assert apart.fade(x0, np.zeros((32, 4)), np.ones(())) is x0
    assert apart.for_length(1000) == apart != Windows(frames=128, overlap=32, group=1)


def test_every_piece_is_compared_and_written(pair, synthesizer, tmp_path, monkeypatch):
    (tmp_path / "midi").mkdir()
    for name in "ab":
        write_midi(piece_of(), tmp_path / "midi" / f"{name}.mid")
    asked, shares = [], []
    monkeypatch.setattr(seams_module, "load", lambda name: synthesizer)

    def render_pair(_, notes, settings, progress):
        asked.append((round(notes.duration, 2), settings))
        progress(1.0)
        return pair

    @contextlib.contextmanager
    def bar(title):
        yield shares.append

    monkeypatch.setattr(seams_module, "render_pair", render_pair)
    request = SeamsRequest(notes=str(tmp_path / "midi"), steps=3, seed=4, max_minutes=0.1)
    facts = seams_module.measure_seams(request, str(tmp_path / "out"), Monitor(bar=bar))
    assert asked == [(6.0, RenderSettings(steps=3, seed=4))] * 2 and shares == [0.5, 1.0]
    assert json.loads((tmp_path / "out" / "seams.json").read_text()) == facts
    assert list(facts["rows"]) == ["overlap, where segments begin", "overlap, all along", "independent"]
    assert (facts["model"], facts["pieces"], facts["joins"]) == ("tiny", 2, 2 * len(pair[0].joins))
    assert 0 < facts["rows"]["independent"]["change"]["p"] <= 1


def test_models_without_overlaps_are_refused(synthesizer):
    class Joining:
        name = "context"

    with pytest.raises(UserError, match="do not overlap"):
        seams_module.render_pair(dataclasses.replace(synthesizer, joining=Joining()), piece_of(),
                                   RenderSettings())


@pytest.fixture(scope="module")
def generator():
    return tiny_generator()


def test_sound_from_noise_goes_on_or_does_not(generator):
    going_on, apart = seams_module.generate_pair(generator, 10.0, RenderSettings(seed=2))
    source = free_source(generator, 10.0)
    np.testing.assert_array_equal(
        going_on.mel, np.concatenate(list(generator.stream_mel(source, RenderSettings(seed=2)))))
    assert going_on.joins.tolist() == list(range(64, 500, 32)) and apart.joins.tolist() == list(
        range(32, 500, 32))
    assert len(going_on.mel) == len(apart.mel) == 500
    facts = seams_module.compare([(going_on, apart)])
    assert set(facts["rows"]) == {"context", "independent"} and facts["joins"] == 14


def test_model_without_context_has_no_segments_that_go_on(synthesizer, generator):
    with pytest.raises(UserError, match="nothing from noise"):
        seams_module.generate_pair(synthesizer, 10.0, RenderSettings())
    alone = dataclasses.replace(generator, model=dataclasses.replace(generator.model, context=0))
    with pytest.raises(UserError, match="go on from each other"):
        seams_module.generate_pair(alone, 10.0, RenderSettings())
