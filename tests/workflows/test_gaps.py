"""Gaps in recordings: figures of fillings whose quality is known, and what a model is asked."""

import dataclasses
import json

import numpy as np
import pytest
from reference.tiny_generator import tiny_generator
from reference.tiny_release import MODEL, tiny_params

from music_diffusion.audio.io import write_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.errors import UserError
from music_diffusion.notes.heard import level
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.workflows import gaps as module
from music_diffusion.workflows.gaps import Gap, measure_gaps, scores
from music_diffusion.workflows.monitor import Monitor
from music_diffusion.workflows.requests import GapsRequest

FIRST, LAST, FRAMES, BINS = 40, 60, 100, 12


def walk(seed):
    """A spectrogram that changes by about as much from each frame to the next."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.normal(0, 0.1, (FRAMES, BINS)), axis=0).astype(np.float32)


@pytest.fixture
def gaps():
    return [Gap(mel=walk(k), first=FIRST, last=LAST, elsewhere=walk(50 + k)[:LAST - FIRST])
            for k in range(20)]


def test_what_was_there_has_no_edges_and_no_error(gaps):
    truth = scores(gaps, [gap.mel for gap in gaps])
    assert truth.error == truth.outside == 0 and truth.spread == pytest.approx(1)
    assert 0.9 < truth.edges < 1.1 and truth.p > 0.05


def test_a_line_is_dull_and_another_place_has_edges(gaps):
    line = scores(gaps, [module._line(gap) for gap in gaps])
    other = scores(gaps, [module._elsewhere(gap) for gap in gaps])
    assert line.spread < 0.8 and line.edges < 0.8 and other.edges > 3 and other.p < 0.01
    assert other.error > line.error > 0.01 and line.outside == other.outside == 0
    filled = module._line(gaps[0])
    np.testing.assert_allclose(np.diff(filled[FIRST - 1:LAST + 1], n=2, axis=0), 0, atol=1e-5)


def test_what_is_changed_outside_is_seen(gaps):
    filled = [gap.mel.copy() for gap in gaps]
    filled[3][FIRST - 5, 2] += 0.25
    assert scores(gaps, filled).outside == pytest.approx(0.25, abs=1e-6)


@pytest.fixture
def recordings(tmp_path):
    rng = np.random.default_rng(0)
    for k, seconds in enumerate((4.0, 3.0, 0.5)):
        time = np.arange(round(16000 * seconds)) / 16000
        samples = 0.2 * np.sin(2 * np.pi * (300 + 100 * k) * time) * (1 + np.sin(7 * time))
        write_audio(tmp_path / f"{k}.wav", Waveform((samples + 0.01 * rng.normal(size=len(time))).astype(
            np.float32), 16000))
    return tmp_path


def test_every_way_fills_the_same_gaps(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load", lambda name: tiny_generator())
    drawn = []
    real = module.scores
    monkeypatch.setattr(module, "scores", lambda gaps, filled, seed: drawn.append((gaps, filled)) or real(
        gaps, filled, seed))
    request = GapsRequest(reference=str(recordings), model="tiny", gap=0.4, passes=(1, 2), steps=2)
    facts = measure_gaps(request, str(tmp_path / "out"), Monitor())
    assert json.loads((tmp_path / "out" / "gaps.json").read_text()) == facts
    assert list(facts["rows"]) == [
        "seen by the network", "projected, 1 pass", "projected, 2 passes", "a line from edge to edge",
        "another place of the recording", "what was there"]
    assert facts["gaps"] == 2  # the third is too short
    gap = drawn[0][0][0]
    assert (gap.first, gap.last, len(gap.mel)) == (22, 42, 64)
    seen, once, twice = (filled[0][gap.first:gap.last] for _, filled in drawn[:3])
    assert np.abs(seen - once).max() > 1e-3 < np.abs(once - twice).max()
    assert all(row["outside"] < 1e-5 for row in facts["rows"].values())
    assert facts["rows"]["what was there"]["error"] == 0 < facts["rows"]["projected, 1 pass"]["error"]


def test_recordings_are_at_the_level_that_was_learned(recordings):
    generator = tiny_generator()
    request = GapsRequest(reference=str(recordings), model="tiny", gap=0.4)
    drawn = module._draw(request, generator, generator.model)
    # An excerpt of 1.3 s of a tone that swings once a second, at the level of the whole recording.
    assert [level(gap.mel) for gap in drawn] == pytest.approx([LEVEL] * 2, abs=0.4)


def test_what_cannot_be_measured_says_why(recordings, monkeypatch):
    generator = tiny_generator()
    monkeypatch.setattr(module, "load", lambda name: generator)
    with pytest.raises(UserError, match="0.64 s or less"):
        measure_gaps(GapsRequest(reference=str(recordings), model="tiny", gap=5.0))
    long = dataclasses.replace(generator, model=dataclasses.replace(generator.model, frames=1024))
    monkeypatch.setattr(module, "load", lambda name: long)
    with pytest.raises(UserError, match="no recording of"):
        measure_gaps(GapsRequest(reference=str(recordings), model="tiny", gap=0.4))
    of_notes = Synthesizer(name="t", model=MODEL, params=tiny_params())
    monkeypatch.setattr(module, "load", lambda name: of_notes)
    with pytest.raises(UserError, match="nothing from noise"):
        measure_gaps(GapsRequest(reference=str(recordings), model="tiny", gap=0.4))
