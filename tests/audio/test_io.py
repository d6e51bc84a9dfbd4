"""Audio files: round trips, atomic writing, and files that are not audio."""

import os
import struct
import warnings

import numpy as np
import pytest
import soundfile
from reference import needs

from music_diffusion.audio.io import (
    AudioReader,
    AudioWriter,
    StreamResampler,
    check_writable,
    read_audio,
    write_audio,
)
from music_diffusion.audio.waveform import Waveform
from music_diffusion.errors import UserError


def tone(rate=16000, seconds=0.5, channels=1):
    time = np.arange(int(rate * seconds)) / rate
    parts = [0.5 * np.sin(2 * np.pi * 440 * (c + 1) * time) for c in range(channels)]
    return (parts[0] if channels == 1 else np.stack(parts, 1)).astype(np.float32)


@pytest.mark.parametrize("extension", [".wav", ".flac", ".WAV"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_round_trip(tmp_path, extension, channels):
    path = tmp_path / f"a{extension}"
    wave = Waveform(tone(22050, channels=channels), 22050)
    write_audio(path, wave)
    again = read_audio(path)
    assert again.sample_rate == 22050
    np.testing.assert_allclose(again.samples, wave.samples, atol=1 / 32767)
    assert os.listdir(tmp_path) == [path.name]


def test_mp3_round_trip_keeps_the_sound(tmp_path):
    write_audio(tmp_path / "a.mp3", Waveform(tone(seconds=1.0), 16000))
    again = read_audio(tmp_path / "a.mp3")
    assert again.sample_rate == 16000 and again.duration == pytest.approx(1.0, abs=0.15)
    spectrum = np.abs(np.fft.rfft(again.samples[2000:10000]))
    assert np.argmax(spectrum) == 220  # 2 Hz bins


@pytest.mark.parametrize("extension, kind, subtype", [
    (".ogg", "OGG", "VORBIS"), (".opus", "OGG", "OPUS"), (".aiff", "AIFF", "PCM_16")])
def test_more_formats_are_read(tmp_path, extension, kind, subtype):
    path = tmp_path / f"a{extension}"
    soundfile.write(path, tone(), 16000, format=kind, subtype=subtype)
    wave = read_audio(path).resample(16000)
    assert np.argmax(np.abs(np.fft.rfft(wave.samples[:8000]))) == 220


def test_blocks_written_and_read_are_the_whole(tmp_path):
    path, audio = tmp_path / "a.wav", tone(channels=2)
    with AudioWriter(path, 16000, channels=2, subtype="FLOAT") as writer:
        for part in np.array_split(audio, 7):
            writer.write(part)
        assert writer.samples == len(audio)
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(1000))
        assert (reader.sample_rate, reader.channels) == (16000, 2)
    assert max(map(len, blocks)) == 1000
    np.testing.assert_array_equal(np.concatenate(blocks), audio)


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    write_audio(tmp_path / "a.wav", Waveform(np.array([1.5, -1.5, 0.0]), 16000))
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, [1, -1, 0], atol=1e-4)


def test_nothing_is_left_of_an_aborted_file(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"the one before")
    with pytest.raises(KeyboardInterrupt), AudioWriter(path, 16000) as writer:
        writer.write(tone())
        assert len(os.listdir(tmp_path)) == 2
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.wav"] and path.read_bytes() == b"the one before"


def test_the_file_appears_complete_at_close(tmp_path):
    path = tmp_path / "a.wav"
    writer = AudioWriter(path, 16000)
    writer.write(tone())
    assert not path.exists()
    writer.close()
    writer.close()
    assert len(read_audio(path)) == 8000 and os.listdir(tmp_path) == ["a.wav"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_output_link_is_followed(tmp_path):
    (tmp_path / "real.wav").touch()
    (tmp_path / "link.wav").symlink_to("real.wav")
    write_audio(tmp_path / "link.wav", Waveform(tone(), 16000))
    assert (tmp_path / "link.wav").is_symlink() and len(read_audio(tmp_path / "real.wav")) == 8000


@pytest.mark.parametrize("name, word", [
    ("missing/a.wav", "does not exist"), ("a.xyz", ".wav, .flac, .mp3"), ("a", "extension"),
    (".", "folder"), ("x" * 300 + ".wav", "too long")])
def test_unwritable_outputs_are_found_beforehand(tmp_path, name, word):
    with pytest.raises(UserError, match=word) as error:
        check_writable(tmp_path / name)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
    assert os.listdir(tmp_path) == []


@needs.not_root
def test_a_folder_without_permission_is_found_beforehand(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        check_writable(tmp_path / "a.wav")


def test_a_writable_place_is_left_as_it_was(tmp_path):
    check_writable(tmp_path / "a.wav")
    check_writable(tmp_path / "a.png", extensions=(".png",))
    assert os.listdir(tmp_path) == []


def test_a_rate_that_the_format_cannot_hold_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="1234"):
        AudioWriter(tmp_path / "a.mp3", 1234)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name, content, word", [
    ("a.wav", None, "no such file"), ("a.wav", b"", "empty"), ("a.wav", b"RIFF", "cannot be read"),
    ("a.flac", b"fLaC" + bytes(50), "cannot be read"), ("a.txt", b"hello world", "convert")])
def test_what_is_not_audio_is_a_user_error(tmp_path, name, content, word):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        read_audio(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_folders_silent_headers_and_nan_are_user_errors(tmp_path):
    with pytest.raises(UserError, match="folder"):
        read_audio(tmp_path)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    with pytest.raises(UserError, match="no samples"):
        read_audio(tmp_path / "none.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(10, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav")


@pytest.mark.parametrize("rates", [(44100, 16000), (16000, 48000), (16000, 16000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_streamed_resampling_equals_the_whole(rates, channels):
    audio = tone(rates[0], channels=channels)
    resampler = StreamResampler(*rates, channels)
    parts = [resampler.push(part) for part in np.array_split(audio, [1, 1, 5000, 5001])]
    whole = Waveform(audio, rates[0]).resample(rates[1]).samples
    np.testing.assert_allclose(np.concatenate([*parts, resampler.finish()]), whole, atol=1e-5)


NAMES = ["caf\u00e9.wav", "cafe\u0301.wav", os.fsdecode(b"caf\xe9.wav"), "a\nb.wav", "$x.wav", " .wav"]


@pytest.mark.parametrize("name", NAMES)
def test_files_of_any_name(tmp_path, name):
    path = tmp_path / name
    write_audio(path, Waveform(tone(), 16000))
    assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(name)]
    assert len(read_audio(path)) == 8000
    path.write_bytes(b"no audio")
    with pytest.raises(UserError, match="cannot be read as audio") as error:
        read_audio(path)
    str(error.value).encode("utf-8")
    assert len(str(error.value).splitlines()) == 1 and "opening" not in str(error.value)


def test_a_name_in_its_other_spelling_is_found(tmp_path):
    write_audio(tmp_path / "cafe\u0301.wav", Waveform(tone(), 16000))
    assert len(read_audio(tmp_path / "caf\u00e9.wav")) == 8000


@pytest.mark.parametrize("kind, subtype", [
    ("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "ULAW"), ("WAV", "G721_32"),
    ("WAV", "NMS_ADPCM_16"), ("AIFF", "GSM610"), ("W64", "GSM610"), ("AU", "G723_24"), ("WAV", "DOUBLE"),
    ("WAV", "PCM_U8"), ("CAF", "ALAC_16")])
def test_codecs_that_cannot_be_searched_are_read_again_and_again(tmp_path, kind, subtype):
    path = tmp_path / "a.audio"
    soundfile.write(path, tone(8000, 2.0), 8000, format=kind, subtype=subtype)
    with AudioReader(path) as reader:
        first, again = (np.concatenate(list(reader.blocks(size))) for size in (1000, 777))
        part = next(reader.blocks(10))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(part, first[:10])
    assert 16000 <= len(first) < 16000 + 1024  # codecs with blocks fill the last one
    spectrum = np.abs(np.fft.rfft(first[:16000, 0]))
    assert np.argmax(spectrum) == 880


def wav_header(rate=16000, channels=1, bits=16, size=16000, kind=1):
    return b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack(
        "<IHHIIHH", 16, kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits
    ) + b"data" + struct.pack("<I", size)


@pytest.mark.parametrize("fields, word", [
    (dict(rate=1), "sample rate of 1 Hz"), (dict(rate=2_000_000_000), "sample rate of 2000000000 Hz"),
    (dict(rate=0), "r"), (dict(channels=0), "r"), (dict(channels=300), "300 channels"),
    (dict(bits=0), "r"), (dict(kind=3, bits=32), "NaN|full scale")])
def test_impossible_headers_are_user_errors(tmp_path, fields, word):
    samples = np.full(4000, 1e30, np.float32).tobytes()
    (tmp_path / "a.wav").write_bytes(wav_header(**fields) + samples)
    with pytest.raises(UserError, match=word) as error:
        read_audio(tmp_path / "a.wav")
    assert "a.wav: " in str(error.value)


@pytest.mark.parametrize("size", [16000, 2**31, 2**32 - 1 - 36])
def test_what_is_there_of_a_longer_file_is_read(tmp_path, size):
    samples = (1000 * np.sin(np.arange(3000))).astype("<i2")
    (tmp_path / "a.wav").write_bytes(wav_header(size=size) + samples.tobytes())
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, samples / 32768, atol=1e-6)


def test_a_low_rate_does_not_make_large_blocks(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100000), 100)
    with AudioReader(tmp_path / "a.wav") as reader:
        assert max(map(len, reader.blocks())) == 1600


def test_inverted_stereo_keeps_its_sound(tmp_path):
    left = tone(seconds=1.0)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], 1), 16000, subtype="FLOAT")
    with (AudioReader(tmp_path / "a.wav") as reader,
          pytest.warns(UserWarning, match="channel 2 was inverted")):
        mono = np.concatenate(list(reader.mono_blocks(1000)))
    np.testing.assert_allclose(mono, left, atol=1e-6)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").mono().samples, left, atol=1e-6)


def test_other_stereo_is_mixed_to_its_mean(tmp_path):
    stereo = tone(channels=2)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader, warnings.catch_warnings():
        warnings.simplefilter("error")
        mono = np.concatenate(list(reader.mono_blocks()))
    np.testing.assert_array_equal(mono, stereo.mean(axis=1))


def test_devices_and_pipes_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    for path in (tmp_path / "a.wav", "/dev/null"):
        with pytest.raises(UserError, match="device or a pipe"):
            AudioReader(path)
        with pytest.raises(UserError, match="device or a pipe"):
            check_writable(path)
