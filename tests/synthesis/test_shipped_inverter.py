"""The inverter that comes with the package, on sounds made here."""

import dataclasses

import numpy as np
import pytest

from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.evaluation.spectral import fine_spectral_distance
from music_diffusion.synthesis import hub

pytestmark = pytest.mark.optimized
RATE = 16000


def chords(seconds=4.0, seed=0):
    """Struck chords with harmonics that fade."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    sound = np.zeros_like(time)
    for start in np.arange(0.1, seconds - 0.5, 0.5):
        since = time - start
        for pitch in rng.integers(48, 76, 3):
            f0 = 440 * 2 ** ((pitch - 69) / 12)
            for k in range(1, 9):
                if k * f0 < RATE / 2:
                    decay = np.exp(-since.clip(0) * (2 + k)) * (since > 0)
                    sound += 0.06 / k * decay * np.sin(2 * np.pi * k * f0 * since + rng.uniform(0, 6))
    return sound


@pytest.fixture(scope="module")
def inverter():
    return dataclasses.replace(hub.load_inverter("inverter"), chunk_frames=64)


@pytest.fixture(scope="module")
def audio():
    return chords()


@pytest.fixture(scope="module")
def made(inverter, audio):
    return inverter.invert(inverter.codec.encode(audio))[:len(audio)]


@pytest.mark.slow
def test_it_is_closer_in_time_and_frequency_than_both_griffin_lims(made, audio):
    codec = GriffinLim().codec
    mine = fine_spectral_distance(made, audio)
    for upsample in (1, 2):
        theirs = GriffinLim(upsample=upsample).invert(codec.encode(audio))[:len(audio)]
        assert mine < fine_spectral_distance(theirs, audio)


@pytest.mark.slow
def test_partials_stay_steady_and_in_tune():
    """A held A: most of the energy within 4 Hz of its harmonics, and more than with Griffin-Lim."""
    inverter = hub.load_inverter("inverter")
    time = np.arange(3 * RATE) / RATE
    tone = sum(0.2 / k * np.sin(2 * np.pi * 440 * k * time + k) for k in range(1, 18))
    hertz = np.fft.rfftfreq(2 * RATE, 1 / RATE)
    on_harmonics = (np.abs(hertz - 440 * np.round(hertz / 440)) < 4) & (hertz > 400)

    def share_and_spectrum(its):
        out = its.invert(its.codec.encode(tone))[RATE // 2:-RATE // 2]
        spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out)))) ** 2
        return spectrum[on_harmonics].sum() / spectrum.sum(), spectrum

    share, spectrum = share_and_spectrum(inverter)
    assert share > 0.97 and share > share_and_spectrum(GriffinLim())[0]
    for k in range(1, 5):
        near = np.abs(hertz - 440 * k) < 20
        top = hertz[near][spectrum[near].argmax()]
        assert abs(1200 * np.log2(top / (440 * k))) < 5  # cents


@pytest.mark.slow
def test_no_clicks_where_chunks_join(inverter, made, audio):
    other = dataclasses.replace(inverter, chunk_frames=100)
    again = other.invert(other.codec.encode(audio))[:len(audio)]
    np.testing.assert_allclose(again, made, atol=1e-4)
    bend = np.abs(np.diff(made, 3))
    joins = np.arange(64 * 320, len(made) - 100, 64 * 320)
    at_joins = np.array([bend[j - 20:j + 20].max() for j in joins])
    elsewhere = np.array([bend[j - 20:j + 20].max() for j in joins - 32 * 320])
    assert at_joins.max() < 3 * max(elsewhere.max(), 1e-4)


@pytest.mark.slow
def test_silence_and_level(inverter):
    codec = inverter.codec
    assert np.abs(inverter.invert(codec.encode(np.zeros(RATE)))).max() < 1e-4  # -80 dBFS
    sine = np.sin(2 * np.pi * 880 * np.arange(RATE) / RATE)
    loud = inverter.invert(codec.encode(sine))[4800:-4800]
    assert np.abs(loud).max() == pytest.approx(1.0, abs=0.1)  # not held down to full scale


@pytest.mark.slow
def test_it_is_the_default_and_griffin_lim_serves_other_codecs():
    synthesizer = hub.load("default")
    assert type(synthesizer.inverter) is type(hub.load_inverter("inverter"))
    assert isinstance(hub.load("default", inverter="griffin_lim").inverter, GriffinLim)
    other = dataclasses.replace(synthesizer.codec, hop=160)
    assert hub.default_inverter(other) == GriffinLim(codec=other)
