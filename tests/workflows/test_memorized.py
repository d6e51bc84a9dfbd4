"""Copies are found whatever became of them; music of the same kind is no copy."""

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.evaluation.memorization import WINDOW, Search, memorization, windows_of
from music_diffusion.workflows.memorized import memorized
from music_diffusion.workflows.requests import MemorizedRequest

CODEC, RATE = MelCodec(), 16000


def music(seed, seconds):
    """Decaying notes of a scale at random times: alike in kind, not in course."""
    rng, time = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    samples = 1e-3 * rng.normal(size=len(time))
    for start in np.sort(rng.uniform(0, seconds, round(6 * seconds))):
        hertz = 110 * 2 ** (rng.integers(0, 36) / 12)
        part = time >= start
        age = time[part] - start
        for k in range(1, 6):
            samples[part] += 0.1 / k * np.exp(-4 * age) * np.sin(2 * np.pi * k * hertz * age)
    return samples.astype(np.float32)


@pytest.fixture(scope="module")
def library():
    return {f"{seed}.wav": music(seed, 20) for seed in range(4)}


def nearest(samples, library):
    search = Search([CODEC.encode(s) for s in samples], CODEC.frame_rate)
    for name, audio in library.items():
        search.push(name, CODEC.encode(audio))
    return search.neighbours()


def test_copies_are_found_where_they_are(library):
    first = 5.37
    part = library["2.wav"][round(first * RATE):][:8 * RATE]
    tone = np.convolve(part, [0.6, 0.3, 0.2])[:len(part)].astype(np.float32)
    copies = [part, 0.05 * part, tone, part + 0.003 * np.random.default_rng(0).normal(size=len(part))]
    for found in nearest(copies, library):
        assert found.similarity > 0.9 and found.file == "2.wav"
        assert found.file_at - found.at == pytest.approx(first, abs=0.09)
    others = [n.similarity for n in nearest([music(seed, 8) for seed in range(20, 32)], library)]
    assert max(others) < 0.8


def test_level_and_tone_play_no_part():
    mel = CODEC.encode(music(0, 8))
    tilted = mel + np.linspace(-1, 1, mel.shape[1]) + 0.7
    similarity = (windows_of(mel, 50) * windows_of(tilted, 50)).sum(axis=1)
    assert similarity.min() > 0.97
    np.testing.assert_allclose(np.linalg.norm(windows_of(mel, 50), axis=1), 1, rtol=1e-5)


def test_windows_are_pooled_as_it_is_said():
    rng = np.random.default_rng(0)
    mel = (4 * rng.normal(size=(WINDOW + 9, 64))).astype(np.float32)  # so that some lies below the range
    windows = windows_of(mel, 3)
    assert windows.shape == (4, 2048)
    cells = mel[6:6 + WINDOW].reshape(64, 4, 32, 2).mean(axis=(1, 3))
    cells = np.maximum(cells, cells.max() - 5)
    cells -= cells.mean(axis=0)
    cells -= cells.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(windows[2], (cells / np.linalg.norm(cells)).ravel(), atol=1e-5)


def test_strokes_of_all_bands_make_no_copy():
    """Different sounds that begin and die at the same times."""
    rng, course = np.random.default_rng(0), np.zeros((300, 1))
    for start in (20, 90, 150, 230):
        course[start:] = np.maximum(course[start:], 6 - 0.05 * np.arange(300 - start)[:, None])
    one, two = (windows_of((course + rng.normal(size=(300, 128)) + rng.normal(size=128)).astype(np.float32),
                           300) for _ in range(2))
    assert abs((one * two).sum()) < 0.3


def test_silence_and_held_sounds_are_like_nothing():
    silent, held = np.full((400, 128), -11.5, np.float32), np.zeros((400, 128), np.float32)
    assert not windows_of(silent, 10).any() and not windows_of(held, 10).any()
    assert windows_of(silent[:200], 10).shape == (0, 2048)
    search = Search([silent, silent[:50]], 50.0)
    assert search.neighbours() == [None, None]
    search.push("a", CODEC.encode(music(0, 6)))
    assert search.neighbours() == [None, None]


def test_figures():
    figures = memorization([0.4, 0.9, 0.5], [0.3, 0.6], [0.95, 0.5])
    assert (figures.threshold, figures.replicas, figures.share) == (0.6, 1, pytest.approx(1 / 3))
    assert (figures.median, figures.null_median, figures.found) == (0.5, pytest.approx(0.45), 0.5)
    with pytest.raises(ValueError, match="at least 1"):
        memorization([], [0.1], [])


@pytest.fixture(scope="module")
def folders(library, tmp_path_factory):
    root = tmp_path_factory.mktemp("audio")
    made = {"training": library,
            "generated": {"copy.wav": 0.3 * library["1.wav"][48000:144000], "own.wav": music(50, 6)},
            "reference": {f"{s}.wav": music(s, 25) for s in (60, 61)}}
    for folder, sounds in made.items():
        (root / folder).mkdir()
        for name, samples in sounds.items():
            soundfile.write(root / folder / name, samples, RATE)
    return {folder: str(root / folder) for folder in made}


def test_report_of_folders(folders, tmp_path):
    facts = memorized(MemorizedRequest(**folders, planted=10), str(tmp_path))
    assert (facts["samples"], facts["replicas"], facts["null"], facts["planted"]) == (2, 1, 8, 10)
    assert facts["found"] >= 0.9
    first, second = (tmp_path / "memorized.csv").read_text().splitlines()[1:]
    assert "copy.wav" in first and "1.wav" in first.split(",")[3] and "own.wav" in second


def test_folders_that_say_nothing(folders, tmp_path):
    for name in ("training", "generated", "reference"):
        silent = tmp_path / name
        silent.mkdir()
        soundfile.write(silent / "a.wav", 1e-6 * np.ones(6 * RATE), RATE, subtype="FLOAT")
        with pytest.raises(UserError, match="nothing to compare there"):
            memorized(MemorizedRequest(**{**folders, name: str(silent)}, planted=0))


def test_folders_that_cannot_be_compared(folders, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    soundfile.write(short / "a.wav", music(0, 1), RATE)
    with pytest.raises(UserError, match="no file of 5.12 s"):
        memorized(MemorizedRequest(**{**folders, "generated": str(short)}))
    with pytest.raises(UserError, match="no file of .* s or more, as the samples have"):
        memorized(MemorizedRequest(**{**folders, "reference": str(short)}))
