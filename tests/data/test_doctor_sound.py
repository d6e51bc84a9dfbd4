"""Checks of the sound alone, on signals whose faults are known exactly."""

import dataclasses
import functools

import numpy as np
import pytest
import soundfile
import soxr
from layouts.common import scale, write_wav
from layouts.faulty_folder import melody, play

from music_diffusion.audio.codec import MelCodec
from music_diffusion.data.checks import across, fingerprints, signals
from music_diffusion.data.checks.hearing import (
    PART_SECONDS,
    PARTS,
    RATE,
    Hearing,
    Stretch,
    hear,
    measure,
)
from music_diffusion.data.items import SoundFacts
from music_diffusion.data.sounds import AudioFile, EmbeddedAudio, Mixture, read_sound
from music_diffusion.notes.notes import Notes

CODEC = MelCodec(sample_rate=44100, hop=882, window=1764, fft=2048, fmax=20000.0)


def measured(samples, rate=44100, bits=16):
    """As a file of that many bits holds it; [n] or [n, channels]."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    steps = 2.0 ** (bits - 1)
    stored = np.round(samples * steps).clip(-steps, steps - 1) / steps
    blocks = (stored[i:i + 65536].astype(np.float32) for i in range(0, len(stored), 65536))
    return measure("a.wav", rate, samples.shape[1], blocks)


def clipped(samples, **options):
    return [f.kind for f in signals.check_clipped("item", (measured(samples, **options),))]


def tone(hertz, amplitude=1.0, seconds=2.0, rate=44100):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("level", [1.0, 0.7, 0.1])
def test_flat_tops_are_clipping_at_any_level(level):
    music = play(melody(1), rate=44100)
    assert clipped(level * np.clip(3 * music, -1, 1)) == ["clipped"]
    assert clipped(level * music) == []


def test_one_clipped_channel_is_enough():
    music = play(melody(1), rate=44100)
    assert clipped(np.stack([0.3 * music, np.clip(4 * music, -1, 1)], 1)) == ["clipped"]


@pytest.mark.parametrize("samples, bits", [
    (tone(40.0), 16),  # its tops are rounded to runs of equal samples
    (tone(440.0), 16), (tone(40.0, 0.8), 8), (tone(300.0, 0.01), 16),
    (0.5 * (tone(441.0) > 0), 16),  # a square wave is flat throughout
    (np.zeros(88200), 16), (np.full(88200, 0.5), 16),
], ids=["low", "a4", "8 bits", "faint", "square", "silence", "constant"])
def test_rounded_tops_and_square_waves_are_not_clipping(samples, bits):
    assert clipped(samples, bits=bits) == []


def test_single_peaks_at_full_scale_are_not_clipping():
    rng = np.random.default_rng(0)
    music = 0.3 * rng.normal(size=88200)
    music[rng.choice(88200, 500, replace=False)] = 1.0
    assert clipped(music) == []
    for k in range(12):  # a dozen flat tops in two seconds
        music[7000 * k:7000 * k + 9] = 1.0
    assert clipped(music) == []


def test_flat_tops_are_counted():
    rng = np.random.default_rng(0)
    samples = 0.2 * rng.uniform(-1, 1, 44100)
    for k in range(30):
        samples[1000 * k + 100:1000 * k + 103 + k % 3] = 0.75
    signal = measured(samples)
    assert (signal.flat_runs, signal.flat_samples) == (30, sum(3 + k % 3 for k in range(30)))
    assert signal.flat_top == pytest.approx(0.75)
    assert signal.peak == pytest.approx(0.75) and signal.samples == 44100


@pytest.mark.parametrize("low", [8000, 11025, 16000, 22050])
def test_upsampled_audio_ends_at_the_old_half_rate(low):
    rng = np.random.default_rng(0)
    music = play(melody(1), rate=44100) + 0.003 * rng.normal(size=8 * 44100)
    signal = measured(soxr.resample(soxr.resample(music, 44100, low), low, 44100))
    assert signals.cutoff(signal) == pytest.approx(low / 2, rel=0.06)
    found = signals.check_rate("item", (signal,), CODEC)
    assert [f.kind for f in found] == ["wrong rate"]
    mostly_silent = np.concatenate([np.zeros(40 * 44100), music])
    upsampled = soxr.resample(soxr.resample(mostly_silent, 44100, low), low, 44100)
    assert signals.cutoff(measured(upsampled)) == pytest.approx(low / 2, rel=0.06)
    # A codec that looks no higher loses nothing.
    codec = MelCodec(sample_rate=8000, fmax=0.45 * low) if low == 8000 else dataclasses.replace(
        CODEC, fmax=0.45 * low)
    assert signals.check_rate("item", (signal,), codec) == []


def roll_off(samples, decibel_per_octave):
    spectrum = np.fft.rfft(samples)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(samples), 1 / 44100), 1000) / 1000)
    return np.fft.irfft(spectrum * 10 ** (-decibel_per_octave * octave / 20), len(samples))


@pytest.mark.parametrize("samples", [
    play(melody(1), rate=44100),  # five partials and a faint noise
    roll_off(0.1 * np.random.default_rng(0).normal(size=8 * 44100), 18.0),
    tone(220.0, 0.5), np.zeros(44100)], ids=["struck", "dull", "sine", "silence"])
def test_dark_sounds_are_not_upsampled(samples):
    assert signals.cutoff(measured(samples)) is None


def test_a_rate_below_the_codecs():
    found = signals.check_rate("item", (measured(tone(200.0, rate=8000), rate=8000),), MelCodec())
    assert [f.kind for f in found] == ["wrong rate"] and "8000 Hz" in found[0].measured
    assert signals.check_rate("item", (measured(tone(200.0)),), MelCodec()) == []


def hearing(samples):
    return Hearing(facts=SoundFacts(sample_rate=RATE, channels=1, seconds=len(samples) / RATE),
                   seconds=len(samples) / RATE, signals=(),
                   parts=(Stretch(start=0.0, samples=samples.astype(np.float32)),))


def test_silence_is_where_notes_are_not_heard():
    notes = melody(1)
    music = play(notes, rate=RATE)
    late = int(0.6 * len(music))
    muted = np.where(np.arange(len(music)) < late, 0, music)

    def kinds(samples, notes):
        return [f.kind for f in signals.check_silent("item", hearing(samples), notes)]

    assert kinds(music, notes) == kinds(music, None) == []
    assert kinds(muted, notes) == ["silent"]
    assert kinds(muted, notes[notes.start > 5.5]) == []  # it is silent where nothing is played
    assert kinds(muted, None) == []
    assert kinds(1e-4 * music, None) == kinds(0 * music, notes) == ["silent"]
    fifth = np.where(np.arange(len(music)) < 0.2 * len(music), 0, music)
    assert kinds(fifth, notes) == []
    # What counts is the half second after an onset: slow attacks, but not what faded before.
    early = np.where(np.arange(len(music)) < 4 * RATE, music, 0)
    assert kinds(early, notes[notes.start > 4.1]) == ["silent"]
    one = Notes([1.0], [3.0], [60], [80], [0], [False])
    slow = np.where(np.arange(4 * RATE) > 1.4 * RATE, 0.1 * tone(200.0, 1.0, 4.0, RATE), 0)
    assert kinds(slow, one) == [] and kinds(np.roll(slow, RATE // 5), one) == ["silent"]
    # A struck string has faded long before its note ends.
    struck = np.zeros(10 * RATE)
    struck[:RATE] = play(notes, rate=RATE)[:RATE]
    assert kinds(struck, dataclasses.replace(notes[:2], end=np.full(2, 10.0))) == []


def test_a_few_notes_after_the_end_are_no_fault():
    notes = melody(1)
    for length, found in ((6.4, []), (5.0, ["misaligned"])):
        late = (notes.start >= length + 0.5).mean()
        assert late > 0 and (late < signals.OUTSIDE_SHARE) == (not found)
        samples = play(notes, rate=RATE)[:round(length * RATE)]
        assert [f.kind for f in signals.check_outside("item", hearing(samples), notes)] == found


def test_velocities():
    notes = melody(1)
    assert signals.check_velocity("item", notes) == []
    assert [f.kind for f in signals.check_velocity("item", scale(count=12))] == ["velocity-less"]
    assert signals.check_velocity("item", scale(count=6)) == []  # too few to tell


def test_a_long_sound_is_heard_in_parts(tmp_path):
    seconds = PART_SECONDS + 10
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.normal(size=round(seconds * RATE))).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    heard = hear(AudioFile(path=str(tmp_path / "a.wav")), whole=20.0)
    assert len(heard.parts) == PARTS and heard.seconds == seconds
    assert heard.parts[0].start == 0 and heard.parts[-1].start == seconds - PART_SECONDS
    for part in heard.parts:
        first = round(part.start * RATE)
        np.testing.assert_array_equal(part.samples, samples[first:first + len(part.samples)])
        assert len(part.samples) == PART_SECONDS * RATE


@dataclasses.dataclass(frozen=True)
class Damaged:
    """Promises a minute and holds 45 seconds."""

    files: tuple[str, ...] = ()

    def facts(self):
        return SoundFacts(sample_rate=RATE, channels=1, seconds=60.0)

    def blocks(self, sample_rate):
        yield from np.full((45, RATE), 0.5, np.float32)


def test_what_a_header_promises_beyond_the_end_is_not_taken_for_silence():
    heard = hear(Damaged(), whole=20.0)
    assert heard.seconds == 45.0 and heard.signals[0].samples == 45 * RATE
    assert all((part.samples == 0.5).all() for part in heard.parts)
    assert max(part.start + len(part.samples) / RATE for part in heard.parts) == 45.0


def read(path):
    return path.read_bytes()


def test_all_kinds_of_sounds_are_measured_as_stored(tmp_path):
    stereo = np.stack([tone(440.0, 0.5, 1.0), np.clip(tone(300.0, 2.0, 1.0), -0.9, 0.9)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, 44100)
    write_wav(tmp_path / "b.wav", tone(200.0, 0.25, 2.0, 22050), 22050)
    first = AudioFile(path=str(tmp_path / "a.wav"), start=0.25, end=0.75)
    inside = EmbeddedAudio(path="x.tfrecord", name="b.wav",
                           load=functools.partial(read, tmp_path / "b.wav"))
    heard = hear(Mixture(parts=(first, inside)))
    assert [(s.sample_rate, s.channels, s.samples) for s in heard.signals] == [
        (44100, 2, 22050), (22050, 1, 44100)]
    assert heard.signals[0].flat_top == pytest.approx(0.9, abs=1e-4)
    np.testing.assert_array_equal(heard.parts[0].samples,
                                  read_sound(Mixture(parts=(first, inside)), RATE))


def portrait(name, rate):
    nothing = fingerprints.sketch(np.zeros(0, np.uint64), np.zeros(0))
    return across.Portrait(name=name, split=None, piece=None, sample_rate=rate, audio=nothing,
                           digest=None, notes=nothing)


def test_a_rate_far_below_the_others_stands_out():
    def odd(*rates):
        return [f.item for f in across.check_across([portrait(str(r), r) for r in rates])]

    assert odd(*[44100] * 9, 8000) == ["8000"]
    assert odd(*[44100] * 9, 48000) == odd(*[48000] * 9, 44100) == []
    assert odd(*[44100] * 3, *[22050] * 3) == []  # no rate is that of nearly all
    assert odd(44100, 44100, 8000) == []  # too few to tell
