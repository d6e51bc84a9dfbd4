"""The transcriber and the tagger that come with the package, on sounds made here."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.evaluation.frechet import frechet_audio_distance
from music_diffusion.evaluation.transcription import note_scores
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import hub
from music_diffusion.workflows.embedders import load_embedder

RATE = 16000
HARMONICS = 12


def struck(notes: Notes, seconds: float, seed: int = 0) -> np.ndarray:
    """Harmonic tones that begin at once and fade, as of a piano; [S]."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros_like(time)
    for start, end, pitch, velocity in zip(notes.start, notes.end, notes.pitch, notes.velocity,
                                           strict=True):
        since, hertz = time - start, 440 * 2 ** ((pitch - 69) / 12)
        gate = np.clip(since / 0.002, 0, 1) * np.clip((end + 0.05 - time) / 0.05, 0, 1)
        for k in range(1, HARMONICS + 1):
            if k * hertz < 0.45 * RATE:
                wave = np.sin(2 * np.pi * k * hertz * since + rng.uniform(0, 6))
                sound += velocity / 127 * 0.1 / k * gate * np.exp(-(1 + 0.5 * k) * since.clip(0)) * wave
    return sound


def melody(seed: int, count: int = 24, step: float = 0.4) -> Notes:
    """Two voices of tones from one octave below to one above middle C."""
    rng = np.random.default_rng(seed)
    start = np.repeat(0.2 + step * np.arange(count // 2), 2)
    low, high = rng.integers(48, 60, count // 2), rng.integers(62, 76, count // 2)
    pitch = np.stack([low, high], axis=1).ravel()
    return Notes(start, start + 0.9 * step, pitch, np.full(count, 90), np.zeros(count),
                 np.zeros(count, bool))


@pytest.fixture(scope="module")
def transcriber():
    return hub.load_transcriber()


@pytest.fixture(scope="module")
def heard(transcriber):
    """(notes, what is heard of them, what is heard of them when they are quiet)."""
    notes = melody(0)
    return (notes, transcriber.transcribe(struck(notes, 5.5)),
            transcriber.transcribe(0.1 * struck(notes, 5.5, seed=1)))


def test_the_transcriber_hears_the_notes(heard):
    notes, here, quiet = heard
    for one in (here, quiet):
        scores = note_scores(notes, one.notes[~one.notes.is_drum])
        assert scores.onset_f1 > 0.85 and scores.frame_f1 > 0.8
    offsets = here.notes.start[:, None] - notes.start[None]
    nearest = np.abs(offsets).min(axis=0)
    assert np.median(nearest) < 0.012  # finer than its frames of 25 ms


def test_other_notes_are_not_heard(heard):
    _, here, _ = heard
    others = melody(7)
    shifted = Notes(others.start + 0.2, others.end + 0.2, others.pitch, others.velocity, others.program,
                    others.is_drum)
    assert note_scores(shifted, here.notes).onset_f1 < 0.1


@pytest.mark.slow
def test_silence_and_faint_noise_have_no_notes(transcriber):
    assert len(transcriber.transcribe(np.zeros(RATE)).notes) == 0
    noise = 1e-4 * np.random.default_rng(0).normal(size=2 * RATE)
    assert len(transcriber.transcribe(noise).notes) == 0


@pytest.mark.slow
def test_chunks_do_not_matter(transcriber, heard):
    notes, here, _ = heard
    again = dataclasses.replace(transcriber, chunk_frames=37).transcribe(struck(notes, 5.5))
    np.testing.assert_allclose(again.frames, here.frames, atol=1e-3)
    assert len(again.notes) == len(here.notes)


@pytest.mark.slow
def test_more_noise_is_further_in_the_embedding():
    embed = load_embedder()
    assert embed.stand_in and embed.sample_rate == RATE
    sound = np.concatenate([struck(melody(seed), 5.0, seed) for seed in range(4)])
    rng = np.random.default_rng(0)
    clean = embed(sound)
    assert clean.shape[1] == embed.dim and frechet_audio_distance(clean, clean) < 1e-6
    power = np.square(sound).mean()
    distances = []
    for snr in (40, 20, 10, 0):
        noise = np.sqrt(power * 10 ** (-snr / 10)) * rng.normal(size=len(sound))
        distances.append(frechet_audio_distance(embed(sound + noise), clean))
    assert np.all(np.diff(distances) > 0)
