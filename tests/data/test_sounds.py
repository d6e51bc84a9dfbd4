"""Sounds against arrays: cutting is slicing, mixing is adding, whatever the blocks, rates and files."""

import functools
import pathlib
import pickle

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts.memory import Formula, Samples, sine

from music_diffusion.audio.waveform import Waveform
from music_diffusion.data.items import SoundFacts
from music_diffusion.data.sounds import AudioFile, EmbeddedAudio, Mixture, cut, read_sound
from music_diffusion.errors import UserError

RATE = 8000


def noise(seconds, rate=RATE, channels=1, seed=0):
    shape = (round(seconds * rate), channels)[:1 + (channels > 1)]
    return np.random.default_rng(seed).uniform(-0.5, 0.5, shape).astype(np.float32)


def write(path, samples, rate=RATE, **more):
    soundfile.write(path, samples, rate, **dict(subtype="FLOAT") | more)
    return str(path)


def of_file(path):
    return pathlib.Path(path).read_bytes()


def test_a_file_at_its_own_rate_is_read_bit_by_bit(tmp_path):
    samples = noise(9.0)  # more than one block
    sound = AudioFile(path=write(tmp_path / "a.wav", samples))
    np.testing.assert_array_equal(read_sound(sound, RATE), samples)
    assert sound.facts() == SoundFacts(sample_rate=RATE, channels=1, seconds=9.0)
    assert sound.files == (str(tmp_path / "a.wav"),)


def test_channels_become_their_mean(tmp_path):
    samples = noise(0.5, channels=3)
    sound = AudioFile(path=write(tmp_path / "a.wav", samples))
    np.testing.assert_allclose(read_sound(sound, RATE), samples.mean(axis=1), atol=1e-7)
    assert sound.facts().channels == 3


@pytest.mark.parametrize("rate", [5000, 16000, 44100])
def test_another_rate_is_that_of_the_whole_resampled_at_once(tmp_path, rate):
    samples = noise(2.0, channels=2)
    sound = AudioFile(path=write(tmp_path / "a.wav", samples))
    want = Waveform(samples.mean(axis=1), RATE).resample(rate).samples
    np.testing.assert_allclose(read_sound(sound, rate), want, atol=1e-6)


def test_a_resampled_sine_is_a_sine(tmp_path):
    time = np.arange(RATE) / RATE
    sound = AudioFile(path=write(tmp_path / "a.wav", sine(time, 700)))
    got = read_sound(sound, 11025)
    want = sine(np.arange(len(got)) / 11025, 700)
    np.testing.assert_allclose(got[500:-500], want[500:-500], atol=1e-3)  # the ends ring


@pytest.mark.parametrize("start, end", [
    (0.0, None), (0.3, None), (0.3, 0.8), (0.0, 0.8), (0.0, 9.0), (1.9, 2.0), (2.0, None), (0.5, 0.5)])
@pytest.mark.parametrize("rate", [RATE, 11025])
def test_a_stretch_is_a_slice_of_the_file(tmp_path, start, end, rate):
    path = write(tmp_path / "a.wav", noise(2.0))
    whole = read_sound(AudioFile(path=path), rate)
    sound = AudioFile(path=path, start=start, end=end)
    want = whole[round(start * rate):None if end is None else round(end * rate)]
    np.testing.assert_array_equal(read_sound(sound, rate), want)
    assert sound.facts().seconds == pytest.approx(len(want) / rate, abs=1.0 / rate)


@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8), start=st.floats(0, 12),
       length=st.none() | st.floats(0, 12))
def test_cutting_is_slicing_however_the_stream_comes(sizes, start, length):
    samples = np.arange(sum(sizes))
    end = None if length is None else start + length
    got = list(cut(iter(np.split(samples, np.cumsum(sizes)[:-1])), 10, start, end))
    want = samples[round(start * 10):None if end is None else round(end * 10)]
    np.testing.assert_array_equal(np.concatenate([np.zeros(0, int), *got]), want)


def test_a_stretch_before_the_start_is_an_error():
    with pytest.raises(UserError, match="-0.5 s"):
        list(cut(iter([np.ones(9)]), 10, -0.5, None))


def test_cutting_stops_reading_at_the_end():
    def endless():
        while True:
            yield np.ones(7)

    assert sum(map(len, cut(endless(), 10, 1.5, 4.0))) == 25


@pytest.mark.parametrize("name, more", [("a.wav", {}), ("a.flac", dict(subtype="PCM_16")),
                                        ("a.ogg", dict(subtype="VORBIS"))])
def test_audio_inside_of_another_file_is_that_audio(tmp_path, name, more):
    path = write(tmp_path / name, noise(1.0, channels=2), **more)
    inside = EmbeddedAudio(path="archive.tfrecord", name="7: audio", load=functools.partial(of_file, path))
    for start, end in ((0.0, None), (0.25, 0.5)):
        embedded = EmbeddedAudio(path="x", name="y", load=inside.load, start=start, end=end)
        file = AudioFile(path=path, start=start, end=end)
        np.testing.assert_array_equal(read_sound(embedded, 5000), read_sound(file, 5000))
        assert embedded.facts() == file.facts()
    assert inside.files == ("archive.tfrecord",)


def test_damaged_audio_inside_is_named_by_both():
    with pytest.raises(UserError, match="archive.tfrecord: 7: audio"):
        read_sound(EmbeddedAudio(path="archive.tfrecord", name="7: audio",
                                 load=functools.partial(bytes, 99)), RATE)


def test_missing_and_damaged_files_are_named(tmp_path):
    for path, content in ((tmp_path / "missing.wav", None), (tmp_path / "text.wav", b"no audio")):
        if content is not None:
            path.write_bytes(content)
        for read in (lambda sound: sound.facts(), lambda sound: read_sound(sound, RATE)):
            with pytest.raises(UserError, match=path.name):
                read(AudioFile(path=str(path)))
            with pytest.raises(UserError, match=path.name):
                read(Mixture(parts=(Formula(wave=sine, seconds=1.0), AudioFile(path=str(path)))))


# Lengths around the blocks that parts of a mixture are aligned to.
@settings(max_examples=30)
@given(data=st.data(), gain=st.sampled_from([1.0, 0.5, -0.25]))
def test_a_mixture_is_the_sum_of_its_parts(data, gain):
    length = st.sampled_from([0, 1, 999, 65535, 65536, 65537, 140000])
    lengths = data.draw(st.lists(length, min_size=1, max_size=4))
    parts = tuple(Samples(samples=noise(n / RATE, seed=i), sample_rate=RATE,
                          block=data.draw(st.sampled_from([777, 65536, 200000])))
                  for i, n in enumerate(lengths))
    want = np.zeros(max(lengths))
    for part in parts:
        want[:len(part.samples)] += part.samples
    got = read_sound(Mixture(parts=parts, gain=gain), RATE)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, gain * want, atol=1e-6)


def test_parts_of_any_rate_and_channels_are_resampled_and_added(tmp_path):
    shapes = [(1.0, 44100, 2), (2.5, 8000, 1), (0.3, 22050, 1)]  # seconds, rate, channels
    files = [AudioFile(path=write(tmp_path / f"{i}.wav", noise(*shape, seed=i), shape[1]))
             for i, shape in enumerate(shapes)]
    mixture = Mixture(parts=(*files, Mixture(parts=(files[0],), gain=2.0)), gain=0.5)
    alone = [read_sound(file, 16000) for file in files]
    want = np.zeros(max(map(len, alone)))
    for samples, gain in zip(alone, (1.5, 0.5, 0.5), strict=True):
        want[:len(samples)] += gain * samples
    np.testing.assert_allclose(read_sound(mixture, 16000), want, atol=1e-6)
    assert mixture.facts() == SoundFacts(sample_rate=8000, channels=2, seconds=2.5)
    assert mixture.files == tuple(str(tmp_path / f"{i}.wav") for i in (0, 1, 2, 0))


def test_a_mixture_of_nothing_is_an_error():
    with pytest.raises(UserError, match="at least one"):
        Mixture(parts=())


def test_a_mixture_holds_no_more_than_it_hands_out():
    hour = Formula(wave=sine, seconds=3600.0)
    blocks = Mixture(parts=(hour, hour)).blocks(16000)
    assert max(len(next(blocks)) for _ in range(3)) <= 65536


@pytest.mark.parametrize("rate", [RATE, 16000])
def test_an_empty_file_is_no_samples(tmp_path, rate):
    sound = AudioFile(path=write(tmp_path / "a.wav", np.zeros(0)))
    assert len(read_sound(sound, rate)) == 0 and sound.facts().seconds == 0


def test_sounds_go_to_other_processes(tmp_path):
    path = write(tmp_path / "ä b.wav", noise(0.2))
    for sound in (AudioFile(path=path, start=0.1), Mixture(parts=(AudioFile(path=path),), gain=0.5),
                  EmbeddedAudio(path="x", name="y", load=functools.partial(of_file, path))):
        again = pickle.loads(pickle.dumps(sound))
        assert again == sound or isinstance(sound, EmbeddedAudio)
        np.testing.assert_array_equal(read_sound(again, RATE), read_sound(sound, RATE))
