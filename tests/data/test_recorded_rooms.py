"""Rooms from files whose direct sound, decay and licence are known."""

import numpy as np
import pytest
import soundfile

from music_diffusion.data.recorded_rooms import find_room, measure_room, read_rooms
from music_diffusion.data.rooms import Room, Shelf, in_turn
from music_diffusion.errors import UserError

RATE = 44100


def response(path, rt60=0.5, before=0.0123, wet_db=-3.0, rate=RATE, sign=1, seed=0):
    """Writes silence, a direct sound, a gap of 4 ms and a tail of noise, peak 0.9."""
    rng, at = np.random.default_rng(seed), round(before * rate)
    time = np.arange(round(1.2 * rt60 * rate)) / rate
    tail = rng.normal(size=len(time)) * np.exp(-np.log(1000) * time / rt60)
    samples = np.zeros(at + round(0.004 * rate) + len(tail))
    samples[at] = sign
    samples[-len(tail):] = 10 ** (wet_db / 20) * tail / np.sqrt(np.sum(tail ** 2))
    soundfile.write(path, 0.9 * samples / np.abs(samples).max(), rate, subtype="PCM_24")
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("hall", "cave", "shed")):
        response(tmp_path / f"{name}.wav", rt60=0.3 + 0.2 * i, seed=i)
    (tmp_path / "impulse_responses.csv").write_text(
        "file,licence,note\nhall.wav,Public Domain,x\ncave.wav,CC BY 4.0,y\nshed.wav,CC BY-SA 3.0,z\n")
    return str(tmp_path)


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_direct_sound_is_at_sample_0(tmp_path, rate, sign):
    """So attacks stay where they are, whatever silence the file begins with."""
    heard = []
    for before in (0.0, 0.005, 0.31):
        room = measure_room(response(tmp_path / "a.wav", before=before, wet_db=-12.0, sign=sign))
        made = room.impulse_response(rate)
        assert np.argmax(np.abs(made)) == 0 and made[0] > 0.8
        click = np.zeros(rate, np.float32)
        click[500] = 1
        heard.append(room(click, rate))
        assert np.argmax(np.abs(heard[-1])) == 500 and len(heard[-1]) == rate


@pytest.mark.parametrize("wet_db", [-15.0, -6.0, 3.0])
def test_energies_are_those_of_the_file_and_of_room(tmp_path, wet_db):
    path = response(tmp_path / "a.wav", wet_db=wet_db)
    room = measure_room(path)
    assert room.wet_db == pytest.approx(wet_db, abs=0.1)
    for rate in (RATE, 16000):
        made = room.impulse_response(rate).astype(np.float64)
        direct = round(0.0025 * rate)
        assert np.sum(made[:direct] ** 2) == pytest.approx(1.0, rel=1e-3)
        wet = 10 * np.log10(np.sum(made[direct:] ** 2))
        assert wet == pytest.approx(room.wet_db, abs=0.01)
        same = Room(wet_db=room.wet_db).impulse_response(rate).astype(np.float64)
        assert np.sum(made ** 2) == pytest.approx(np.sum(same ** 2), rel=2e-3)


@pytest.mark.parametrize("rt60", [0.3, 0.9, 1.6])
def test_decay_is_measured(tmp_path, rt60):
    assert measure_room(response(tmp_path / "a.wav", rt60=rt60)).rt60 == pytest.approx(rt60, rel=0.1)


def test_rooms_go_with_other_effects(folder):
    room = read_rooms(folder)[0]
    x = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    shelf = Shelf(low_db=-5.0, high_db=5.0)
    whole = np.convolve(x, in_turn([room, shelf], 16000))[:8000]
    np.testing.assert_allclose(whole, shelf(room(x, 16000), 16000), atol=1e-4)


def test_licences_choose(folder):
    assert [r.name for r in read_rooms(folder)] == ["hall", "cave", "shed"]
    free = read_rooms(folder, ("public domain", " CC by 4.0"))
    assert [(r.name, r.licence) for r in free] == [("hall", "Public Domain"), ("cave", "CC BY 4.0")]
    with pytest.raises(UserError, match="no response has the licence 'CC0'; there are CC BY 4.0") as error:
        read_rooms(folder, ("CC0",))
    assert "\n" not in str(error.value)
    assert find_room(free, "cave.wav") is find_room(free, "cave") is free[1]
    with pytest.raises(UserError, match="'shed' is no impulse response that may be used; there are hall"):
        find_room(free, "shed")


def test_without_a_table_all_audio_is_read(tmp_path):
    response(tmp_path / "b.wav")
    response(tmp_path / "a.flac", rate=96000)
    (tmp_path / "read.me").write_text("x")
    assert [r.name for r in read_rooms(str(tmp_path))] == ["a", "b"]
    with pytest.raises(UserError, match="there are none"):
        read_rooms(str(tmp_path), ("CC0",))


def test_what_is_no_room(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_rooms(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no audio there"):
        read_rooms(str(tmp_path))
    for name, samples, message in (("silent", np.zeros(1000), "is silent"),
                                   ("click", np.eye(1, 400)[0], "nothing follows")):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        with pytest.raises(UserError, match=message):
            measure_room(str(tmp_path / f"{name}.wav"))
    (tmp_path / "impulse_responses.csv").write_text("file,licence\ngone.wav,CC0\n")
    with pytest.raises(UserError, match="gone.wav"):
        read_rooms(str(tmp_path))
