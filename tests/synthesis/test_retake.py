"""A bar played again: the rest sample for sample as it was, at the same loudness, by any model of notes."""

import numpy as np
import pytest
from reference import tiny_release
from reference.midi_bytes import BEAT, midi, off, on, track

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError
from music_diffusion.notes.midi import read_midi_file
from music_diffusion.synthesis.edits import FADE, Stretch
from music_diffusion.synthesis.render import render_file
from music_diffusion.synthesis.retake import retake, retake_file, stretch_of
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

RATE = MelCodec().sample_rate


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer(name="tiny", model=tiny_release.MODEL, params=tiny_release.tiny_params(),
                       inverter=GriffinLim(iterations=2), tail=0.5)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("song") / "song.mid"
    notes = [event for k in range(16) for event in ((0, *on(60 + k)), (BEAT, *off(60 + k)))]
    path.write_bytes(midi(track(*notes)))
    return read_midi_file(path)


@pytest.fixture(scope="module")
def take(synthesizer, file, tmp_path_factory):
    path = tmp_path_factory.mktemp("takes") / "take.wav"
    render_file(synthesizer, file, str(path))
    return str(path)


def test_a_bar_is_played_again(synthesizer, file, take, tmp_path):
    stretch = stretch_of(file, None, "2")
    assert stretch == Stretch(begin=2.0, end=4.0)
    facts = retake_file(synthesizer, file, take, str(tmp_path / "new.wav"), stretch=stretch,
                        settings=RenderSettings(seed=5))
    assert (facts.seed, facts.lufs, facts.notes) == (5, None, 16)
    old, new = read_audio(take), read_audio(tmp_path / "new.wav")
    time = np.arange(len(old)) / RATE
    outside = (time < 2 - FADE / 2 - 1e-6) | (time > 4 + FADE / 2 + 1e-6)
    np.testing.assert_array_equal(new.samples[outside], old.samples[outside])
    inside = (time > 2 + FADE) & (time < 4 - FADE)
    assert np.abs(new.samples - old.samples)[inside].mean() > 0.02 * np.abs(old.samples[inside]).mean()


def test_level_is_that_of_the_rendering(synthesizer, file, take):
    old = read_audio(take)
    quiet = Waveform(0.1 * old.samples, RATE)
    stretch = Stretch(begin=2.0, end=4.0)
    inside = slice(round(2.1 * RATE), round(3.9 * RATE))
    levels = [np.sqrt(np.mean(retake(synthesizer, file, wave, stretch).samples[inside] ** 2))
              / np.sqrt(np.mean(wave.samples[inside] ** 2)) for wave in (old, quiet)]
    # Another seed of an untrained network, whose level may wander by some dB; soft and loud takes alike.
    assert levels[0] == pytest.approx(1, abs=0.3) and levels[1] == pytest.approx(levels[0], rel=0.05)


def test_what_is_played_again_hears_what_stays(synthesizer, file, take):
    """Another rendering around the same stretch changes what is played in it."""
    old = read_audio(take)
    other = Waveform(old.samples[::-1].copy(), RATE)
    inside = slice(round(2.1 * RATE), round(3.9 * RATE))
    made = [retake(synthesizer, file, wave, Stretch(begin=2.0, end=4.0)).samples[inside]
            for wave in (old, other)]
    assert np.abs(made[0] - made[1]).max() > 1e-4 * np.abs(made[0]).max()


def test_a_stereo_rendering_at_another_rate(synthesizer, file, take):
    old = read_audio(take).resample(44100)
    stereo = Waveform(np.stack([old.samples, 0.5 * old.samples], axis=1), 44100)
    new = retake(synthesizer, file, stereo, Stretch(begin=3.0, end=3.5))
    assert new.samples.shape == stereo.samples.shape and new.sample_rate == 44100
    np.testing.assert_array_equal(new.samples[:130000], stereo.samples[:130000])


def test_bad_input(synthesizer, file, take):
    for make, words in (
            (lambda: stretch_of(file, None, None), "--keep: say what"),
            (lambda: stretch_of(file, "1:2", "3"), "--keep: say what"),
            (lambda: stretch_of(file, "2:1", None), "--anew 2:1"),
            (lambda: stretch_of(file, None, "9"), "bars 1 to 4"),
            (lambda: retake(synthesizer, file, Waveform(np.zeros(RATE, np.float32), RATE),
                            Stretch(begin=0.1, end=0.5)), "silent"),
            (lambda: retake(synthesizer, file, read_audio(take), Stretch(begin=90.0, end=91.0)),
             "ends at")):
        with pytest.raises(UserError, match=words):
            make()
