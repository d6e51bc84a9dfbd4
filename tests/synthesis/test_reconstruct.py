"""Audio → mel → audio: level, length, channels and memory; with inverters whose truth is known."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
import soundfile

from music_diffusion.audio.chunked import ChunkedStream, ChunkGrid
from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.inverter import invert_by_stream
from music_diffusion.audio.io import AudioReader, read_audio
from music_diffusion.errors import UserError
from music_diffusion.synthesis import reconstruct
from music_diffusion.synthesis.reconstruct import (
    ReconstructionStream,
    reconstruct_blocks,
    reconstruct_file,
    resampled,
)

CODEC = MelCodec(sample_rate=8000, hop=80, window=160, fft=256, mels=20, fmax=4000.0)
RATE = CODEC.sample_rate


@dataclasses.dataclass(frozen=True)
class Loudness:
    """An inverter that plays every frame's highest bin as a level, times `gain`."""

    codec: MelCodec = CODEC
    gain: float = 0.02

    def stream(self):
        def decode(mel):
            return np.repeat(self.gain * np.exp(mel.max(axis=1)), self.codec.hop).astype(np.float32)

        return ChunkedStream(self.codec, decode, ChunkGrid(step_frames=16, context_frames=2))

    def invert(self, mel):
        return invert_by_stream(self, mel)


def sound(seconds=1.0, channels=1, rate=RATE, level=0.2):
    return level * np.random.default_rng(0).normal(size=(int(seconds * rate), channels)).clip(-2, 2)


def by_hand(inverter, channel):
    """The truth for one channel: encode, invert, cut."""
    return inverter.invert(inverter.codec.encode(channel))[:len(channel)]


def run(samples, cuts=(), inverter=Loudness()):
    pairs = list(reconstruct_blocks(inverter, np.split(samples, cuts), samples.shape[1]))
    return tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))


@pytest.mark.parametrize("size", [1, 79, 81, 4000, 8001])
def test_every_channel_is_encoded_and_inverted_alone(size):
    samples = sound(channels=3)[:1]
    samples = np.resize(sound(1.1, channels=3), (size, 3)) * np.array([1.0, 0.5, 0.0])
    stream = ReconstructionStream(Loudness(), 3)
    parts = [stream.push(part) for part in np.array_split(samples, 3)]
    out = np.concatenate([*parts, stream.finish()])
    assert out.shape == samples.shape
    for i in range(3):
        np.testing.assert_allclose(out[:, i], by_hand(Loudness(), samples[:, i]), atol=1e-5)
    assert not out[:, 2].any()


def test_input_and_output_come_aligned_and_at_the_inputs_level():
    samples = sound(1.0, channels=2).astype(np.float32)
    for cuts in ((), (1,), (100, 101, 5000)):
        given, made = run(samples, cuts)
        np.testing.assert_array_equal(given, samples)
        for i in range(2):  # below the ceiling nothing is changed
            np.testing.assert_allclose(made[:, i], by_hand(Loudness(), samples[:, i]), atol=1e-5)


def test_full_scale_is_kept_by_a_limiter_not_clipped():
    samples = sound(1.0)
    samples[:4000] *= 0.01
    _, quiet = run(samples, inverter=Loudness(gain=0.01))
    _, loud = run(samples, inverter=Loudness(gain=0.5))
    truth = by_hand(Loudness(gain=0.5), samples[:, 0])
    assert np.abs(truth).max() > 1.5 and np.abs(quiet).max() < 0.5
    assert np.abs(loud).max() <= 1.0
    np.testing.assert_allclose(loud[:3500, 0], truth[:3500], atol=1e-5)  # only the peaks


def test_resampling_block_by_block_is_that_of_the_whole():
    samples = sound(0.5, channels=2, rate=44100).astype(np.float32)
    parts = np.concatenate(list(resampled(np.array_split(samples, 7), 44100, RATE)))
    assert abs(len(parts) - 4000) <= 1
    mono = np.concatenate(list(resampled([samples[:, :1]], 44100, RATE)))
    np.testing.assert_allclose(parts[:, :1], mono, atol=1e-6)
    assert not list(resampled([], 44100, RATE))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "in.wav"
    soundfile.write(path, sound(0.7, channels=2, rate=16000), 16000, subtype="FLOAT")
    return path


def test_a_file_becomes_a_file_of_the_codecs_rate(source, tmp_path):
    shares, seen = [], []
    done = reconstruct_file(Loudness(), source, str(tmp_path / "out.wav"), name="loudness",
                            observe=lambda a, b: seen.append((a, b)), progress=shares.append)
    wave = read_audio(tmp_path / "out.wav")
    assert wave.sample_rate == RATE and wave.samples.shape == (5600, 2)
    given, made = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    np.testing.assert_allclose(wave.samples, made, atol=1e-4)  # 16 bits
    expected = read_audio(source).resample(RATE).samples
    np.testing.assert_allclose(given, expected, atol=1e-6)
    np.testing.assert_allclose(made[:, 1], by_hand(Loudness(), expected[:, 1]), atol=1e-5)
    assert (done.output, done.plot, done.inverter) == (str(tmp_path / "out.wav"), None, "loudness")
    assert (done.sample_rate, done.channels, done.audio_seconds) == (RATE, 2, 0.7)
    assert done.realtime_factor == pytest.approx(0.7 / done.wall_seconds, rel=0.2)
    assert done.peak == pytest.approx(np.abs(made).max(), abs=1e-5)
    assert shares[-1] == 1.0 and sorted(shares) == shares


def test_comparing_and_the_picture_are_no_part_of_the_wall_time(source, tmp_path, monkeypatch):
    now = [0.0]  # a clock that only the test moves
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Slow(Loudness):
        def stream(self):
            now[0] += 0.25  # for each of two channels
            return super().stream()

        def invert(self, mel):
            now[0] += 1000
            return np.zeros(self.codec.hop, np.float32)

    def wait(*_, **__):
        now[0] += 100

    monkeypatch.setattr(reconstruct, "plot_pair", wait)
    done = reconstruct_file(Slow(), source, str(tmp_path / "out.wav"), observe=wait,
                            plot=str(tmp_path / "out.png"))
    assert (done.wall_seconds, done.audio_seconds, done.realtime_factor) == (0.5, 0.7, 1.4)
    assert now[0] > 1200


def test_mono_mixes_first(source, tmp_path):
    done = reconstruct_file(Loudness(), source, str(tmp_path / "out.wav"), mono=True)
    wave = read_audio(tmp_path / "out.wav")
    assert done.channels == wave.channels == 1
    mix = read_audio(source).mono().resample(RATE).samples
    np.testing.assert_allclose(wave.samples, by_hand(Loudness(), mix), atol=1e-4)


def test_a_source_may_be_its_own_output(source):
    before = read_audio(source).resample(RATE).samples
    reconstruct_file(Loudness(), source, str(source))
    np.testing.assert_allclose(read_audio(source).samples[:, 0], by_hand(Loudness(), before[:, 0]),
                               atol=1e-4)


def test_silence_in_silence_out(tmp_path):
    soundfile.write(tmp_path / "in.wav", np.zeros(5000), RATE)
    done = reconstruct_file(Loudness(gain=1e4), tmp_path / "in.wav", str(tmp_path / "out.wav"))
    assert done.peak == 0.0 and not read_audio(tmp_path / "out.wav").samples.any()


def test_memory_does_not_grow_with_the_piece():
    block = sound(1.0, channels=1).astype(np.float32)

    def peak(seconds):
        tracemalloc.start()
        try:
            for _ in reconstruct_blocks(Loudness(), (block for _ in range(seconds)), 1):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)
    assert peak(30) < 1.3 * peak(6)


def test_the_picture_shows_input_over_output(source, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(reconstruct, "plot_pair", lambda *args, **more: drawn.append((args, more)))
    done = reconstruct_file(Loudness(), source, str(tmp_path / "out.wav"), name="loudness",
                            plot=str(tmp_path / "out.png"))
    ((path, (above, below), codec), more), = drawn
    assert path == done.plot == str(tmp_path / "out.png") and codec == CODEC
    assert more == {"titles": ("in.wav", "through loudness")}
    mono = read_audio(source).resample(RATE).samples.mean(axis=1)
    np.testing.assert_allclose(above.mel, CODEC.encode(mono), atol=1e-3)
    out = read_audio(tmp_path / "out.wav").samples.mean(axis=1)
    np.testing.assert_allclose(below.mel[5:-5], CODEC.encode(out)[5:-5], atol=0.2)  # 16 bits


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_if_anything_fails_nothing_appears(source, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UserError("disk full")

    out = str(tmp_path / "out.wav")
    with pytest.raises(UserError, match="disk full"):
        reconstruct_file(Loudness(), source, out, observe=fail)
    with pytest.raises(UserError, match="weights are broken"):
        reconstruct_file(Loudness(gain=np.nan), source, out)
    assert files(tmp_path) == ["in.wav"]
    monkeypatch.setattr(reconstruct, "plot_pair", fail)
    done = reconstruct_file(Loudness(), source, out, plot=str(tmp_path / "out.png"))
    assert files(tmp_path) == ["in.wav", "out.wav"]  # the picture is no part of the sound
    assert done.plot is None and done.plot_error is not None and "disk full" in done.plot_error


@pytest.mark.parametrize("name, make, word", [
    ("missing.wav", lambda p: None, "no such file"), ("empty.wav", lambda p: p.touch(), "is empty"),
    ("text.wav", lambda p: p.write_text("no sound"), "cannot be read as audio"),
    ("bare.wav", lambda p: soundfile.write(p, np.zeros(0), RATE), "has no samples"),
    ("nan.wav", lambda p: soundfile.write(p, np.full(9, np.nan), RATE, subtype="FLOAT"), "NaN")])
def test_bad_sources_are_found_before_the_work(tmp_path, name, make, word):
    make(tmp_path / name)
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"{name}.*{word}"):
        reconstruct_file(None, tmp_path / name, str(tmp_path / "out.wav"))
    assert files(tmp_path) == before


@pytest.mark.parametrize("output, plot, word", [
    ("out.xyz", None, "unknown extension"), ("none/out.wav", None, "does not exist"),
    ("out.wav", "out.jpg", "unknown extension"), ("out.wav", "none/out.png", "does not exist")])
def test_bad_outputs_are_found_before_the_work(source, tmp_path, output, plot, word):
    with pytest.raises(UserError, match=word):
        reconstruct_file(None, source, str(tmp_path / output), plot=plot and str(tmp_path / plot))
    assert files(tmp_path) == ["in.wav"]


def test_what_vanishes_in_resampling_is_an_error(tmp_path):
    soundfile.write(tmp_path / "in.wav", np.ones(1), 192000)
    with pytest.raises(UserError, match="shorter than a sample at 8000 Hz"):
        reconstruct_file(Loudness(), tmp_path / "in.wav", str(tmp_path / "out.wav"))
    assert files(tmp_path) == ["in.wav"]


def test_a_reader_stays_usable_after_the_check(source):
    with AudioReader(source) as reader:
        assert next(reader.blocks(1)).shape == (1, 2)
        assert sum(len(b) for b in reader.blocks()) == 11200
