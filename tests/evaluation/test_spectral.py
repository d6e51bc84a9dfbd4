"""Distances and attack times against what is known of analytic signals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from music_diffusion.audio.codec import MelCodec
from music_diffusion.errors import UserError
from music_diffusion.evaluation.spectral import (
    FineSpectralDistance,
    LogMelDistance,
    attack_offsets,
    attack_times,
    fine_spectral_distance,
    log_mel_distance,
    match_attacks,
)

RATE = 16000


def noise(size, seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=size)


def test_equal_signals_have_no_distance():
    a = noise(5000)
    assert log_mel_distance(MelCodec(), a, a) == fine_spectral_distance(a, a) == 0.0


@pytest.mark.parametrize("factor", [0.5, 2.0, -3.0])
def test_a_gain_is_its_logarithm(factor):
    """In every bin, since noise is far above the floors."""
    a = noise(8000)
    expected = abs(math.log(abs(factor)))
    assert log_mel_distance(MelCodec(), a, factor * a) == pytest.approx(expected, rel=1e-5)
    # Some bin is below -80 dBFS by chance.
    assert fine_spectral_distance(a, factor * a) == pytest.approx(expected, rel=1e-3)


def test_log_mel_is_the_codecs():
    codec = MelCodec(hop=160)
    a, b = noise(5000), noise(5000, seed=1)
    expected = np.abs(codec.encode(a).astype(np.float64) - codec.encode(b)).mean()
    assert log_mel_distance(codec, a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_the_fine_distance_is_that_of_short_spectra(rate):
    """Frame by frame, in a loop, from the definition; a sine of amplitude 1 has magnitude 1."""
    window, hop = round(0.016 * rate), round(0.004 * rate)
    assert (window, hop) == {16000: (256, 64), 44100: (706, 176)}[rate]
    a, b = noise(3000), np.zeros(3000)
    hann = np.sin(np.pi * np.arange(window) / window) ** 2
    total, count = 0.0, 0
    for start in range(0, 3000, hop):
        logs = []
        for x in (a, b):
            part = np.zeros(window)
            part[:len(x[start:start + window])] = x[start:start + window]
            logs.append(np.log(np.maximum(np.abs(np.fft.rfft(part * hann)) * 2 / hann.sum(), 1e-4)))
        total, count = total + np.abs(logs[0] - logs[1]).sum(), count + len(logs[0])
    assert fine_spectral_distance(a, b, rate) == pytest.approx(total / count, rel=1e-12)


def test_the_floor_is_the_amplitude_of_a_sine():
    """A sine in the middle of a bin against silence: its bin differs by ln(amplitude / floor)."""
    sine = 0.5 * np.sin(2 * np.pi * 32 / 256 * np.arange(25600))
    one = FineSpectralDistance(floor=0.4999)
    one.push(sine, np.zeros(25600))
    expected = math.log(0.5 / 0.4999) / 129  # in one bin
    assert one.finish() == pytest.approx(expected, rel=0.02)  # less in the last four frames
    assert fine_spectral_distance(sine, np.zeros(25600), floor=0.5001) == 0.0


def test_time_smearing_is_seen():
    """A click and its reversed-in-time reverberation have the same long-term spectrum."""
    click = np.zeros(16000)
    click[8000] = 1.0
    smeared = np.convolve(click, noise(1000), "same")
    assert fine_spectral_distance(click, np.roll(click, 640)) > 0.1
    assert fine_spectral_distance(click, smeared) > 0.1


@given(cuts=st.lists(st.integers(0, 4000), max_size=5))
@settings(max_examples=15)
def test_streamed_distances_are_those_of_the_whole(cuts):
    a, b = noise(4000), noise(4000, seed=1)
    cuts = sorted(cuts)
    for distance, whole in ((LogMelDistance(MelCodec()), log_mel_distance(MelCodec(), a, b)),
                            (FineSpectralDistance(), fine_spectral_distance(a, b))):
        for parts in zip(np.split(a, cuts), np.split(b, cuts), strict=True):
            distance.push(*parts)
        assert distance.finish() == pytest.approx(whole, rel=1e-6)


def test_without_samples_there_is_no_distance():
    assert math.isnan(log_mel_distance(MelCodec(), np.zeros(0), np.zeros(0)))
    assert math.isnan(fine_spectral_distance(np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize("compare", [
    lambda a, b: log_mel_distance(MelCodec(), a, b), fine_spectral_distance,
    lambda a, b: attack_offsets(a, b, RATE)], ids=["log_mel", "fine", "attacks"])
def test_signals_that_cannot_be_compared_are_refused(compare):
    with pytest.raises(UserError, match="10 and 11 samples"):
        compare(np.zeros(10), np.zeros(11))
    with pytest.raises(UserError, match="one channel"):
        compare(np.zeros((10, 2)), np.zeros((10, 2)))
    with pytest.raises(UserError, match="NaN"):
        compare(np.zeros(10), np.full(10, np.nan))


@pytest.mark.parametrize("bad", [{"window": 0.001}, {"hop": 0.0}, {"floor": 0.0}])
def test_unusable_settings_are_refused(bad):
    with pytest.raises(ValueError, match="need"):
        FineSpectralDistance(**bad)


def clicks(at, size=RATE, rate=RATE):
    out = np.zeros(size)
    out[(np.asarray(at) * rate / RATE).astype(int)] = 1.0
    return out


@pytest.mark.parametrize("shift", [-300, -37, 0, 1, 80, 600])
def test_shifted_clicks_are_off_by_exactly_that(shift):
    at = np.array([2000, 5000, 9001, 12345])
    found = attack_offsets(clicks(at), clicks(at + shift), RATE)
    assert (found.attacks, found.matched, found.extra) == (4, 1.0, 0)
    expected = 1000 * shift / RATE
    for value in (found.mean_ms, math.copysign(found.median_abs_ms, shift),
                  math.copysign(found.p95_abs_ms, shift), math.copysign(found.max_abs_ms, shift)):
        assert value == pytest.approx(expected, abs=1e-6)


def test_shifts_below_a_sample_are_seen():
    """A click between samples: energy 3/4 on one and 1/4 on the next is a quarter sample later."""
    between = clicks([4000]) * math.sqrt(0.75) + clicks([4001]) * 0.5
    found = attack_offsets(clicks([4000]), between, RATE)
    assert found.mean_ms == pytest.approx(1000 * 0.25 / RATE, abs=1e-4)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_click_is_found_a_width_before_it_and_a_step_at_it(rate):
    assert attack_times(clicks([8000], rate, rate), rate) == pytest.approx([0.5 - 0.005], abs=1e-4)
    time = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 1000 * time) * (time >= 0.3)
    assert attack_times(tone, rate) == pytest.approx([0.3], abs=5e-4)
    louder = np.sin(2 * np.pi * 1000 * time) * np.where(time >= 0.3, 1.0, 0.5)
    found = attack_times(louder, rate)
    assert found[-1] == pytest.approx(0.3, abs=5e-4) and len(found) == 2  # the beginning, too


def test_attacks_at_the_edges_are_found():
    assert attack_times(clicks([0, RATE - 1]), RATE) == pytest.approx([-0.005, 1 - 1 / RATE - 0.005],
                                                                      abs=1e-4)


def test_level_and_polarity_do_not_matter():
    decay = np.convolve(clicks([3000, 9000]), np.exp(-np.arange(2000) / 400) * noise(2000))[:RATE]
    np.testing.assert_allclose(attack_times(decay, RATE), attack_times(-1e-3 * decay, RATE), atol=1e-9)


def test_what_is_no_attack():
    time = np.arange(RATE) / RATE
    fade = np.minimum(1, time / 0.5)  # slower than the least rise but at its beginning
    assert (attack_times(fade * np.sin(2 * np.pi * 440 * time), RATE) < 0.1).all()
    # Two harmonics of 100 Hz beat, and do not attack but at their beginning.
    low = np.sin(2 * np.pi * 100 * time) + np.sin(2 * np.pi * 200 * time)
    assert attack_times(low, RATE) == pytest.approx([0.0], abs=0.01)
    assert not len(attack_times(np.zeros(1000), RATE)) and not len(attack_times(np.zeros(0), RATE))
    # 46 dB below the loudest.
    assert len(attack_times(clicks([4000]) + 0.005 * clicks([12000]), RATE)) == 1
    assert len(attack_times(clicks([4000]) + 0.05 * clicks([12000]), RATE)) == 2


def test_of_close_attacks_the_steepest_counts():
    pair = clicks([8000]) + 0.9 * clicks([8300])  # 19 ms apart
    assert attack_times(pair, RATE) == pytest.approx([0.5 - 0.005], abs=1e-3)


def test_the_times_of_plucks_in_noise():
    rng = np.random.default_rng(0)
    onsets = np.array([0.1, 0.35, 0.52, 0.8])
    time = np.arange(RATE) / RATE
    audio = 1e-3 * rng.normal(size=RATE)
    for onset, hertz in zip(onsets, (220, 330, 523, 880), strict=True):
        since = time - onset
        audio += (since >= 0) * np.exp(-12 * np.maximum(since, 0)) * np.sin(2 * np.pi * hertz * since)
    np.testing.assert_allclose(attack_times(audio, RATE), onsets, atol=2e-3)


def test_missed_and_extra_attacks_are_counted_and_do_not_move_the_offsets():
    reference, signal = clicks([2000, 6000, 10000]), clicks([2016, 10016, 14000])
    found = attack_offsets(reference, signal, RATE)
    assert (found.attacks, found.matched, found.extra) == (3, pytest.approx(2 / 3), 1)
    assert found.max_abs_ms == pytest.approx(1.0, abs=1e-6)
    silent = attack_offsets(np.zeros(RATE), clicks([100]), RATE)
    assert silent.attacks == 0 and silent.extra == 1
    assert math.isnan(silent.matched) and math.isnan(silent.mean_ms) and math.isnan(silent.max_abs_ms)


def brute(reference, times, tolerance):
    """All pairs that are each other's nearest."""
    return [t - r for r in reference for t in times
            if abs(t - r) == min(abs(t - x) for x in reference) == min(abs(x - r) for x in times)
            and abs(t - r) <= tolerance]


@given(reference=st.lists(st.integers(0, 1000), max_size=8, unique=True),
       times=st.lists(st.integers(0, 1000), max_size=8, unique=True))
@settings(max_examples=100)
def test_matches_are_mutually_nearest(reference, times):
    # Shifted by irrational amounts, so that no two distances are equal.
    reference = np.sort(reference) * 1.0
    times = np.sort(times) + 0.1 * np.sqrt(2) + 1e-3 * np.sin(np.sort(times))
    np.testing.assert_allclose(match_attacks(reference, times, 50.0), brute(reference, times, 50.0))
