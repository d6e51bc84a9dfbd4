"""Degradations by what can be measured of them: spectra, ratios, static curves, lags."""

import numpy as np
import pytest
import scipy.signal

from music_diffusion.data.degradations import (
    HUM,
    MP3,
    OPUS,
    PINK,
    VORBIS,
    WHITE,
    BandLimit,
    Chain,
    Clipping,
    Codec,
    Compressor,
    Level,
    MicrophoneEQ,
    Noise,
    aligned,
    draw_chain,
)
from music_diffusion.errors import UserError

RATE = 16000


def music(seconds=2.0, rate=RATE, seed=0):
    """Decaying chords over soft noise: attacks, partials, all bands."""
    rng, samples = np.random.default_rng(seed), np.zeros(round(seconds * rate))
    for start in np.arange(0.1, seconds, 0.35):
        time = np.arange(len(samples)) / rate - start
        for hertz in rng.uniform(100, 2500, 4):
            tone = np.sin(2 * np.pi * hertz * time) * np.exp(-4 * np.maximum(time, 0))
            samples += np.where(time >= 0, tone, 0)
    samples += 0.02 * rng.normal(size=len(samples))
    return (0.7 * samples / np.abs(samples).max()).astype(np.float32)


def lag_of(moved, samples):
    """Lag of the best cross-correlation, by the slow sum, in samples and parts of them."""
    lags, most = np.arange(-80, 81), 80
    padded, other = np.pad(moved.astype(np.float64), most), samples.astype(np.float64)
    product = np.array([np.dot(padded[most + k:most + k + len(other)], other) for k in lags])
    i = int(np.argmax(product))
    a, b, c = product[i - 1:i + 2]
    return lags[i] + 0.5 * (a - c) / (a - 2 * b + c)


@pytest.mark.parametrize("kind", [MP3, OPUS, VORBIS])
@pytest.mark.parametrize("rate, quality", [(16000, 0.1), (16000, 0.6), (22050, 0.3), (44100, 0.1)])
def test_codecs_are_in_time(kind, rate, quality):
    samples = music(1.0, rate)
    coded = Codec(kind=kind, quality=quality)(samples, rate)
    assert coded.shape == samples.shape and coded.dtype == np.float32
    assert abs(lag_of(coded, samples)) < 0.5  # measured: 0.34 for opus at 44.1 kHz, else less than 0.1
    error = np.sqrt(np.mean((coded - samples) ** 2) / np.mean(samples ** 2))
    assert 1e-4 < error < 0.75


@pytest.mark.parametrize("kind", [MP3, OPUS, VORBIS])
def test_lower_quality_loses_more_and_levels_beyond_full_scale_pass(kind):
    samples = music()

    def loss(quality, gain=1.0):
        coded = Codec(kind=kind, quality=quality)(gain * samples, RATE)
        return np.sqrt(np.mean((coded / gain - samples) ** 2))

    assert loss(0.0) > 1.2 * loss(1.0)
    assert loss(0.8, 4.0) == pytest.approx(loss(0.8), rel=0.5)
    assert len(Codec(kind=kind)(np.zeros(0, np.float32), RATE)) == 0


@pytest.mark.parametrize("lag", [-700, -1, 0, 13, 1105])
def test_lags_are_taken_back(lag):
    samples = music(1.0)
    moved = np.roll(np.pad(samples, 2000), lag)[2000:2000 + len(samples) + 1200]
    found = aligned(moved, samples)
    inner = slice(800, len(samples) - 1300)
    np.testing.assert_allclose(found[inner], samples[inner], atol=1e-6)
    assert len(found) == len(samples)


@pytest.mark.parametrize("kind", [WHITE, PINK, HUM])
@pytest.mark.parametrize("snr", [10.0, 30.0])
def test_noise_has_its_ratio(kind, snr):
    samples = music()
    noise = Noise(kind=kind, snr_db=snr, seed=1)(samples, RATE) - samples
    assert 10 * np.log10(np.mean(samples ** 2) / np.mean(noise ** 2)) == pytest.approx(snr, abs=0.05)
    other = [Noise(kind=kind, seed=seed)(samples, RATE) for seed in (2, 3)]
    assert not np.array_equal(*other)
    assert not Noise(kind=kind)(np.zeros(100, np.float32), RATE).any()


def test_spectra_of_noise():
    samples = music(8.0)
    noise = {k: Noise(kind=k, snr_db=0.0, mains=60.0)(samples, RATE) - samples for k in (WHITE, PINK, HUM)}

    def slope(x):  # dB an octave, 100..6400 Hz
        hertz, power = scipy.signal.welch(x, RATE, nperseg=4096)
        inside = (hertz > 100) & (hertz < 6400)
        return np.polyfit(np.log2(hertz[inside]), 10 * np.log10(power[inside]), 1)[0]

    assert slope(noise[WHITE]) == pytest.approx(0, abs=0.3)
    assert slope(noise[PINK]) == pytest.approx(-3.01, abs=0.3)
    spectrum = np.abs(np.fft.rfft(noise[HUM] * np.hanning(len(noise[HUM]))))
    peaks = np.sort(np.argsort(spectrum)[-1:]) * RATE / len(noise[HUM])
    assert peaks % 60 == pytest.approx(0, abs=0.2)
    between = spectrum[np.abs((np.fft.rfftfreq(len(noise[HUM]), 1 / RATE) % 60) - 30) < 10]
    assert between.max() < 1e-3 * spectrum.max()


def test_a_microphones_response_is_the_one_given_and_delays_nothing():
    eq = MicrophoneEQ(hertz=(100.0, 1000.0, 4000.0), db=(-12.0, 0.0, 6.0))
    click = np.zeros(8000, np.float32)
    click[4000] = 1
    heard = eq(click, RATE)
    assert len(heard) == 8000 and np.argmax(np.abs(heard)) == 4000
    gain = 20 * np.log10(np.abs(np.fft.rfft(heard)))
    hertz = np.fft.rfftfreq(8000, 1 / RATE)
    for at, db in ((100, -12), (316.2, -6), (1000, 0), (2000, 3), (4000, 6), (7000, 6)):
        assert np.interp(at, hertz, gain) == pytest.approx(db, abs=0.6)


@pytest.mark.parametrize("level_db, want_db", [(-40.0, -40.0), (-24.0, -24.0), (-12.0, -21.0), (0, -18)])
def test_steady_tones_follow_the_compressors_curve(level_db, want_db):
    """Threshold -24 dBFS, ratio 4: a quarter of what is above it remains."""
    tone = 10 ** (level_db / 20) * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    heard = Compressor()(tone, RATE)
    assert 20 * np.log10(np.abs(heard[RATE // 2:]).max()) == pytest.approx(want_db, abs=0.5)


def test_a_compressor_takes_its_time():
    at = np.arange(RATE)
    tone = np.sin(2 * np.pi * 1000 * at / RATE) * np.where(at < RATE // 2, 1.0, 0.05)
    compressor = Compressor(threshold_db=-20, ratio=1000, attack=0.02, release=0.1)
    heard = compressor(tone.astype(np.float32), RATE)
    gain = 20 * np.log10(np.abs(scipy.signal.hilbert(heard)) / np.abs(scipy.signal.hilbert(tone)))
    assert gain[round(0.02 * RATE)] == pytest.approx(-20 * (1 - np.exp(-1)), abs=1.5)
    assert gain[RATE // 2 - 400] == pytest.approx(-20, abs=0.5)
    assert gain[RATE // 2 + round(0.1 * RATE)] == pytest.approx(-20 * np.exp(-1), abs=1.5)


def test_clipping_level_and_band_limit():
    samples = music()
    clipped = Clipping(over_db=6.0)(samples, RATE)
    assert np.abs(clipped).max() == pytest.approx(np.abs(samples).max() / 1.9953, rel=1e-4)
    inside = np.abs(samples) < np.abs(clipped).max()
    np.testing.assert_array_equal(clipped[inside], samples[inside])
    np.testing.assert_allclose(Level(db=-20.0)(samples, RATE), samples / 10, rtol=1e-5)
    limited = BandLimit(rate=8000)(samples, RATE)
    power = np.abs(np.fft.rfft(limited)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    assert power[hertz > 4100].sum() < 1e-6 * power.sum()
    assert abs(lag_of(limited, samples)) < 0.05 and len(limited) == len(samples)
    np.testing.assert_array_equal(BandLimit(rate=44100)(samples, RATE), samples)


def test_chains_apply_in_order_and_are_functions_of_their_seed():
    samples = music(1.0)
    chain = Chain(steps=(Level(db=6.0), Clipping(over_db=3.0)))
    one_by_one = Clipping(over_db=3.0)(Level(db=6.0)(samples, RATE), RATE)
    np.testing.assert_array_equal(chain(samples, RATE), one_by_one)
    np.testing.assert_array_equal(Chain()(samples, RATE), samples)
    drawn = [draw_chain(np.random.default_rng(i)) for i in range(60)]
    assert drawn == [draw_chain(np.random.default_rng(i)) for i in range(60)]
    assert {type(step).__name__ for chain in drawn for step in chain.steps} == {
        "Noise", "MicrophoneEQ", "Compressor", "Clipping", "BandLimit", "Codec", "Level"}
    for chain in drawn[:12]:
        heard = chain(samples, RATE)
        assert heard.shape == samples.shape and np.isfinite(heard).all()
        np.testing.assert_array_equal(heard, chain(samples, RATE))
    assert not any(type(s).__name__ == "Codec" for i in range(60)
                   for s in draw_chain(np.random.default_rng(i), codecs=()).steps)


@pytest.mark.parametrize("make", [
    lambda: Codec(kind="flac"), lambda: Codec(quality=2.0), lambda: Noise(kind="brown"),
    lambda: Compressor(ratio=0.5), lambda: BandLimit(rate=0),
    lambda: MicrophoneEQ(hertz=(2.0, 1.0), db=(0, 0))])
def test_impossible_settings_are_one_line_errors(make):
    with pytest.raises(UserError) as error:
        make()
    assert "\n" not in str(error.value)
