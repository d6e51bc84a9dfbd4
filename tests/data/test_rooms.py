"""Rooms by room acoustics' own measure (Schroeder), shelves by SciPy's filter design."""

import numpy as np
import pytest
import scipy.signal

from music_diffusion.data.rooms import Room, Shelf, convolve, draw_room, draw_shelf, in_turn
from music_diffusion.errors import UserError


def measured_rt60(response, rate, centre=None):
    """Seconds for 60 dB, from the slope of Schroeder's backward integral between -5 and -35 dB,
    of the octave around `centre` (Hz) or of all."""
    if centre is not None:
        octave = scipy.signal.butter(4, (centre / 2 ** 0.5, centre * 2 ** 0.5), "bandpass",
                                     fs=rate, output="sos")
        response = scipy.signal.sosfilt(octave, response)
    decay = np.cumsum(np.square(response.astype(np.float64))[::-1])[::-1]
    decibel = 10 * np.log10(decay / decay[0] + 1e-30)
    first, last = np.argmax(decibel < -5), np.argmax(decibel < -35)
    slope = np.polyfit(np.arange(first, last) / rate, decibel[first:last], 1)[0]
    return -60 / slope


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("rt60", [0.3, 0.8, 1.8])
def test_decay_time_is_as_asked(rate, rt60):
    """Measured over 12 seeds: within 6 %, and within 10 % for the shortest at 44.1 kHz."""
    wet = Room(rt60=rt60, seed=1).impulse_response(rate)[1:]
    assert measured_rt60(wet, rate, 700) == pytest.approx(rt60, rel=0.1)
    plain = Room(rt60=rt60, damping=0.0, seed=2).impulse_response(rate)[1:]
    assert measured_rt60(plain, rate) == pytest.approx(rt60, rel=0.1)


def test_high_frequencies_die_sooner():
    wet = Room(rt60=1.5, damping=0.5, early=0.0, seed=3).impulse_response(44100)[1:]
    times = [measured_rt60(wet, 44100, hertz) for hertz in (1000, 4000, 9000)]
    # Measured: 9 % more, because half of an octave's noise decays like the slower octave below.
    assert times == pytest.approx([1.5, 0.75, 0.5], rel=0.15)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_nothing_comes_before_the_pre_delay_so_attacks_keep_their_time(rate):
    room = Room(pre_delay=0.02, wet_db=0.0, seed=4)
    response = room.impulse_response(rate)
    first = round(0.02 * rate)
    assert response[0] == 1 and not response[1:first].any() and response[first] != 0
    click = np.zeros(rate, np.float32)
    click[500] = 1
    heard = room(click, rate)
    assert len(heard) == rate and np.argmax(np.abs(heard)) == 500
    np.testing.assert_allclose(heard[:500 + first], click[:500 + first], atol=1e-6)


@pytest.mark.parametrize("wet_db", [-20.0, -6.0, 3.0])
@pytest.mark.parametrize("early", [0.0, 0.5])
def test_the_wet_part_has_the_energy_asked_for(wet_db, early):
    response = Room(wet_db=wet_db, early=early, seed=5).impulse_response(16000).astype(np.float64)
    assert 10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(wet_db, abs=1e-3)


def test_early_reflections_stand_out_from_the_tail():
    def largest(early):
        wet = np.abs(Room(early=early, reflections=4, seed=6).impulse_response(16000)[1:])
        return np.sort(wet[wet > 0])[-4:].min() / np.sqrt(np.mean(wet ** 2))

    assert largest(0.9) > 2 * largest(0.0)


def test_a_dry_room_leaves_the_signal_untouched():
    samples = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    room = Room(wet_db=None)
    np.testing.assert_array_equal(room(samples, 16000), samples)
    np.testing.assert_array_equal(room.impulse_response(16000), [1])


def test_rooms_are_functions_of_their_seed():
    a, b, c = (Room(seed=s).impulse_response(16000) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


@pytest.mark.parametrize("signal, response", [
    (1, 1), (100, 7), (7, 100), (1000, 1025), (50000, 1), (40000, 3000), (8193, 8192), (24576, 2)])
def test_convolution_is_the_sum_of_products(signal, response):
    """In single precision: to some 1e-7 of the largest value, in signals of one block and of many."""
    rng = np.random.default_rng(0)
    x, h = rng.normal(size=signal), rng.normal(size=response)
    want = np.convolve(x, h)[:signal]
    np.testing.assert_allclose(convolve(x, h), want, atol=2e-6 * np.abs(want).max())


def test_the_convolution_of_nothing_is_nothing():
    assert len(convolve(np.zeros(0, np.float32), np.ones(5, np.float32))) == 0


def test_effects_in_turn_are_one_response():
    x = np.random.default_rng(3).normal(size=20000).astype(np.float32)
    room, shelf = Room(seed=7, wet_db=-3.0), Shelf(low_db=-5.0, high_db=5.0)
    want = shelf(room(x, 16000), 16000)
    np.testing.assert_allclose(convolve(x, in_turn([room, shelf], 16000)), want, atol=2e-5)
    np.testing.assert_allclose(in_turn([room], 16000), room.impulse_response(16000), atol=1e-6)
    np.testing.assert_array_equal(in_turn([], 16000), [1])


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("hertz, low_db, high_db", [
    (300, 6.0, 0.0), (1000, -4.0, 4.0), (3000, 0.0, -9.0), (6000, 3.0, -3.0)])
def test_shelves_are_the_bilinear_first_order_filter(rate, hertz, low_db, high_db):
    x = np.random.default_rng(1).normal(size=3000)
    shelf = Shelf(hertz=hertz, low_db=low_db, high_db=high_db)
    low, high = 10 ** (low_db / 20), 10 ** (high_db / 20)
    warped = 2 * rate * np.tan(np.pi * hertz / rate)
    b, a = scipy.signal.bilinear([high / warped, low], [1 / warped, 1], rate)
    np.testing.assert_allclose(shelf(x, rate), scipy.signal.lfilter(b, a, x), atol=1e-5)

    gain = np.abs(np.fft.rfft(shelf.impulse_response(rate), 4 * rate))  # bins of 1 / 4 Hz
    assert gain[0] == pytest.approx(low, rel=1e-3) and gain[-1] == pytest.approx(high, rel=1e-3)
    assert gain[4 * hertz] == pytest.approx(np.hypot(low, high) / 2 ** 0.5, rel=1e-3)


def test_a_flat_shelf_changes_nothing():
    x = np.random.default_rng(2).normal(size=500).astype(np.float32)
    np.testing.assert_allclose(Shelf()(x, 16000), x, atol=1e-6)


def test_draws_spread_over_their_ranges_and_work_at_low_rates():
    rng = np.random.default_rng(0)
    rooms = [draw_room(rng) for _ in range(300)]
    rt60, wet = (np.array([getattr(r, f) for r in rooms]) for f in ("rt60", "wet_db"))
    assert rt60.min() < 0.2 and rt60.max() > 1.7 and 0.4 < np.median(rt60) < 0.75
    assert wet.min() < -16 and wet.max() > -4
    assert len({r.seed for r in rooms}) == 300
    shelves = [draw_shelf(rng) for _ in range(300)]
    tilts = np.array([s.high_db - s.low_db for s in shelves])
    assert tilts.min() < -6 and tilts.max() > 6 and abs(np.mean(tilts)) < 1
    for room, shelf in zip(rooms[:5], shelves[:5], strict=True):
        assert np.isfinite(room.impulse_response(8000)).all()
        assert np.isfinite(shelf.impulse_response(8000)).all()


@pytest.mark.parametrize("field, value", [
    ("rt60", 0.0), ("pre_delay", 0.0), ("damping", -1.0), ("reflections", 0), ("early", 1.0)])
def test_impossible_rooms_are_refused(field, value):
    with pytest.raises(UserError, match=field):
        Room(**{field: value})


def test_a_shelf_above_half_the_rate_is_refused():
    with pytest.raises(UserError, match="9000"):
        Shelf(hertz=9000).impulse_response(16000)
