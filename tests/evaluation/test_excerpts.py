"""Excerpts to compare samples with, and noise like them: lengths, folders, spectra, levels."""

import csv

import numpy as np
import pytest

from music_diffusion.audio.io import read_audio, write_audio
from music_diffusion.audio.loudness import LoudnessMeter
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.evaluation.excerpts import (
    COLUMNS,
    TABLE,
    ExcerptPlan,
    mean_spectrum,
    noise_of_spectrum,
    with_random_phases,
    write_excerpts,
)

RATE, SECONDS = 8000, 6.0


def beats(hertz):
    """A decaying sine, twice a second, after two seconds of nothing."""
    time = np.arange(round(SECONDS * RATE)) / RATE
    beat = np.exp(-8 * (time % 0.5)) * (time >= 2)
    return (0.4 * np.sin(2 * np.pi * hertz * time) * beat).astype(np.float32)


@pytest.fixture
def recordings(tmp_path):
    for k, (folder, hertz) in enumerate((("low", 200), ("low", 250), ("high", 2000))):
        (tmp_path / "music" / folder).mkdir(parents=True, exist_ok=True)
        write_audio(tmp_path / "music" / folder / f"{k}.wav", Waveform(beats(hertz), RATE))
    write_audio(tmp_path / "music" / "high" / "short.wav", Waveform(beats(2000)[-RATE // 2:], RATE))
    return tmp_path / "music"


def plan(recordings, **changes):
    usual = {"seconds": 1.0, "count": 10, "sample_rate": RATE}
    return ExcerptPlan(source=str(recordings), **usual | changes)


def written(folder):
    with open(folder / TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [read_audio(folder / row["file"]).samples for row in rows]


def loudest(samples):
    return np.abs(np.fft.rfft(samples)).argmax() / len(samples) * RATE


def test_excerpts_are_of_their_recordings(recordings, tmp_path):
    counts = write_excerpts(plan(recordings), str(tmp_path / "out"))
    rows, sounds = written(tmp_path / "out")
    assert tuple(rows[0]) == COLUMNS and counts["low"] == 5
    # The recording that is too short gives none.
    assert len(rows) == sum(counts.values()) and counts["high"] in (2, 3)
    for row, samples in zip(rows, sounds, strict=True):
        begin = round(float(row["seconds"]) * RATE)
        source = read_audio(recordings / row["source"]).samples[begin:begin + RATE]
        assert len(samples) == RATE and row["file"].split("/")[0] == row["source"].split("/")[0]
        assert np.corrcoef(samples, source)[0, 1] > 0.99
    assert len({row["seconds"] for row in rows}) > 5
    write_excerpts(plan(recordings), str(tmp_path / "same"))
    write_excerpts(plan(recordings, seed=1), str(tmp_path / "other"))
    assert written(tmp_path / "same")[0] == rows != written(tmp_path / "other")[0]


@pytest.mark.parametrize("noise", ["phases", "spectrum"])
def test_noise_has_the_spectrum_and_no_beats(recordings, tmp_path, noise):
    write_excerpts(plan(recordings), str(tmp_path / "out"))
    write_excerpts(plan(recordings, noise=noise), str(tmp_path / "noise"))
    (rows, sounds), (noise_rows, noises) = written(tmp_path / "out"), written(tmp_path / "noise")
    assert rows == noise_rows

    def swing(samples):
        """Spread of the levels of 50 ms, dB."""
        power = np.square(samples.reshape(20, -1)).mean(axis=1)
        return 10 * np.log10(np.percentile(power, 90) / max(np.percentile(power, 10), 1e-9))

    assert np.median([swing(x) for x in sounds]) > 15 > 8 > np.median([swing(x) for x in noises])
    for row, samples, other in zip(rows, sounds, noises, strict=True):
        if noise == "phases":
            assert abs(loudest(other) - loudest(samples)) < 10
        else:  # of all recordings
            power = np.square(np.abs(np.fft.rfft(other)))
            hertz = np.fft.rfftfreq(len(other), 1 / RATE)
            parts = [power[np.abs(hertz - h) < 60].sum() / power.sum() for h in (225, 2000)]
            assert min(parts) > 0.1 and sum(parts) > 0.8, row
        assert loudness(other) == pytest.approx(-14.0, abs=1.0)  # LUFS, as renderings


def loudness(samples):
    meter = LoudnessMeter(RATE)
    meter.push(samples[:, None])
    return meter.integrated


def test_random_phases_change_nothing_but_phases():
    samples = np.random.default_rng(0).normal(size=4001).astype(np.float32)
    other = with_random_phases(samples, np.random.default_rng(1))
    own, made = (np.abs(np.fft.rfft(x))[1:-1] for x in (samples, other))
    np.testing.assert_allclose(made, own, rtol=2e-3)
    assert abs(np.corrcoef(samples, other)[0, 1]) < 0.1


def test_noise_of_a_spectrum_has_it():
    power = np.linspace(2.0, 0.1, 512)
    noise = noise_of_spectrum(power, 200_000, np.random.default_rng(0))
    found = mean_spectrum([noise])
    np.testing.assert_allclose(found.reshape(16, -1).mean(1), power.reshape(16, -1).mean(1), rtol=0.1)


@pytest.mark.parametrize("changes, words", [
    ({"noise": "pink"}, "--noise pink: choose phases or spectrum"),
    ({"seconds": 60.0}, "no recording of 60 s or more")])
def test_bad_plans_say_why(recordings, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        write_excerpts(plan(recordings, **changes), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_nothing_of_others_is_replaced(recordings, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        write_excerpts(plan(recordings), str(tmp_path / "out"))
