"""Recordings through a model that changes them: as long, channel by channel, silence stays silence."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from reference.toy_generator import ToyGenerator

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.io import read_audio
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions.heard import LEVEL
from music_diffusion.conditions.note_frames import NoteFrames
from music_diffusion.conditions.spectrograms import SourceSpectrogram
from music_diffusion.errors import UserError
from music_diffusion.models.spaces import MelSpace
from music_diffusion.notes.activations import Activations, SparseClasses, draw_activations
from music_diffusion.notes.casting import parse_casting
from music_diffusion.notes.decoding import DecodeConfig
from music_diffusion.notes.heard import heard_frames, level
from music_diffusion.notes.notes import Notes
from music_diffusion.notes.programs import SLAKH_CLASS_OF_PROGRAM
from music_diffusion.synthesis.hearing import Hearing
from music_diffusion.synthesis.reconstruct import reconstruct_file
from music_diffusion.synthesis.recordings import FADE, HOLD, Gate, frame_levels
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer
from music_diffusion.synthesis.transfer import transfer_file

CODEC = MelCodec(sample_rate=8000, hop=160, window=320, fft=512, mels=32, fmax=4000.0)  # 50 frames a second
INVERTER = GriffinLim(codec=CODEC, iterations=2, upsample=1)
RATE = 8000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Louder(ToyGenerator):
    """The recording itself, louder; whatever it is, no quieter than `least`."""

    conditions = SourceSpectrogram()
    gain: float = 0.0  # nat
    least: float = -np.inf  # nat

    @property
    def space(self):
        return MelSpace(codec=CODEC)

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        mel = jnp.maximum(CODEC.unscale(batch["source"]) + self.gain, self.least)
        return CODEC.scale(mel) if x0_hook is None else x0_hook(CODEC.scale(mel))


def synthesizer(**options):
    return Synthesizer(name="toy", model=Louder(**options), params={}, inverter=INVERTER)


def tone(seconds, hertz=440.0, level=0.2, rate=RATE):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write(tmp_path):
    def write(samples, rate=RATE, name="in.wav"):
        soundfile.write(tmp_path / name, samples, rate, subtype="FLOAT")
        return str(tmp_path / name)
    return write


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "out.wav")


@pytest.mark.parametrize("channels", [1, 2])
def test_a_model_that_changes_nothing_gives_the_reconstruction(write, tmp_path, out, channels):
    # Noise, so that no frame counts as silent; longer than a group of segments.
    samples = 0.1 * np.random.default_rng(0).normal(size=(23 * RATE + 77, channels))
    done = transfer_file(synthesizer(), write(samples), out)
    again = str(tmp_path / "again.wav")
    reconstruct_file(INVERTER, write(samples), again)
    np.testing.assert_allclose(read_audio(out).samples, read_audio(again).samples, atol=2e-3)
    assert (done.channels, done.sample_rate) == (channels, RATE)
    assert done.audio_seconds == pytest.approx(len(samples) / RATE, abs=1e-3)


def test_channels_stay_apart_and_equal_ones_are_made_once(write, out, monkeypatch):
    both = np.stack([tone(1.0, 300), tone(1.0, 1500)], axis=1)
    transfer_file(synthesizer(), write(both), out)
    left, right = np.abs(np.fft.rfft(read_audio(out).samples.T)).argmax(axis=1)
    assert abs(left - 300) < 8 and abs(right - 1500) < 8
    asked = []
    made = Synthesizer.stream_mel
    monkeypatch.setattr(Synthesizer, "stream_mel",
                        lambda *arguments: asked.append(1) or made(*arguments))
    transfer_file(synthesizer(), write(np.stack([tone(1.0)] * 2, axis=1)), out)
    samples = read_audio(out).samples
    np.testing.assert_array_equal(samples[:, 0], samples[:, 1])
    assert len(asked) == 1
    transfer_file(synthesizer(), write(both), out, mono=True)
    assert read_audio(out).channels == 1


@pytest.mark.parametrize("channels", [1, 2])
def test_in_memory_it_is_the_same(write, out, channels):
    samples = np.stack([tone(1.0, 300), tone(1.0, 1500)], axis=1)[:, :channels]
    transfer_file(synthesizer(), write(samples), out, settings=RenderSettings(seed=3), subtype="FLOAT")
    want = read_audio(out).samples
    for given in (write(samples), Waveform(samples, RATE)):
        made = synthesizer().transfer(given, seed=3)
        assert made.sample_rate == RATE
        np.testing.assert_array_equal(made.samples, want)
    assert synthesizer().transfer(Waveform(samples, RATE), mono=True).channels == 1
    with pytest.raises(UserError, match="one timbre alone; leave --to out"):
        synthesizer().transfer(Waveform(samples, RATE), "piano")


@pytest.mark.parametrize("rate", [8000, 11025])
def test_it_is_as_long_as_the_recording(write, out, rate):
    transfer_file(synthesizer(), write(tone(0.777, rate=rate), rate), out)
    assert abs(len(read_audio(out).samples) - 0.777 * RATE) <= 1


def test_nothing_is_louder_than_full_scale(write, out):
    done = transfer_file(synthesizer(gain=5.0), write(tone(1.0, level=0.5)), out)
    assert 0.9 < np.abs(read_audio(out).samples).max() <= 1.0 and done.peak <= 1.0


def test_silence_stays_silence_and_a_sound_may_ring_on(write, out):
    samples = np.concatenate([tone(1.0), np.zeros(3 * RATE), tone(1.0)])
    transfer_file(synthesizer(least=-0.5), write(samples), out)  # which hums all the time
    made = read_audio(out).samples
    block = np.abs(made[:len(made) // 400 * 400]).reshape(-1, 400).max(axis=1)  # of 0.05 s
    seconds = 0.05 * np.arange(len(block))
    quiet = (seconds > 1 + HOLD + FADE + 0.1) & (seconds < 3.85)
    ringing = (seconds > 1.1) & (seconds < 1 + HOLD - 0.1)
    assert block[quiet].max() < 1e-3 < 0.01 < block[ringing].min()
    assert block[seconds > 4.05].min() > 0.05


def test_gate_by_hand():
    level = np.full(200, CODEC.log_min + 2.0)
    level[10:20] = 3.0  # the last frame with sound is 19
    gate = Gate(level, CODEC)
    mel = np.zeros((200, 2), np.float32)
    gained = np.concatenate([gate.push(mel[:7]), gate.push(mel[7:30]), gate.push(mel[30:])])
    gain = np.exp(gained[:, 0])
    hold, fade = round(HOLD * 50), round(FADE * 50)
    silent = pytest.approx(CODEC.clip_min, rel=1e-3)
    assert gain[:9].tolist() == [silent] * 9 and (gain[9:20 + hold] == 1).all()
    assert gain[19 + hold + fade // 2] == pytest.approx(0.5, abs=0.01)
    assert gain[19 + hold + fade:].tolist() == [silent] * (181 - hold - fade)


def test_a_recording_at_one_level_is_never_silent():
    gate = Gate(np.full(50, -4.0), CODEC)
    mel = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_array_equal(gate.push(mel), mel)


def test_levels_of_frames_are_half_the_logarithm_of_their_energy():
    mel = np.random.default_rng(0).normal(size=(11, 4))
    want = 0.5 * np.log((np.exp(mel) ** 2).sum(axis=1))
    np.testing.assert_allclose(frame_levels(mel, block=4), want, rtol=1e-6)
    assert frame_levels(mel[:0]).shape == (0,)


def test_settings_reach_the_model_or_are_refused(write, out):
    with pytest.raises(UserError, match="--strength 0.5"):
        transfer_file(synthesizer(), write(tone(1.0)), out, settings=RenderSettings(strength=0.5))
    done = transfer_file(synthesizer(), write(tone(1.0)), out, settings=RenderSettings(seed=7))
    assert (done.seed, done.strength, done.joining, done.model) == (7, None, "overlap", "toy")


@pytest.mark.parametrize("samples, word", [
    (np.zeros(RATE), "silent"), (tone(1.0, level=1e-6), "silent"), (tone(0.1), "0.10 s"),
    (np.zeros(0), "no samples")])
def test_what_is_no_music_is_refused(write, out, tmp_path, samples, word):
    with pytest.raises(UserError, match=word):
        transfer_file(synthesizer(), write(samples), out)
    assert not (tmp_path / "out.wav").exists()


def test_models_that_play_notes_are_refused(write, out):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Player(Louder):
        conditions = NoteFrames()

    player = Synthesizer(name="player", model=Player(), params={}, inverter=INVERTER)
    with pytest.raises(UserError, match="changes no recordings"):
        transfer_file(player, write(tone(1.0)), out)


def test_the_picture_shows_both_and_costs_no_audio(write, out, tmp_path, monkeypatch):
    picture = str(tmp_path / "out.png")
    done = transfer_file(synthesizer(), write(tone(1.0)), out, plot=picture)
    assert done.plot == picture and (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("music_diffusion.synthesis.transfer.plot_pair", lambda *_: 1 / 0)
    done = transfer_file(synthesizer(), write(tone(1.0)), out, plot=picture)
    assert done.plot is None and "ZeroDivisionError" in done.plot_error


NOTES = Notes([0.1, 0.5], [0.45, 0.9], [69, 71], [90, 90], [0, 0], [False, False])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spectrum:
    frame_seconds: float = 0.025


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listening:
    """Knows two notes, which an oboe plays more likely than a piano; hears in two parts."""

    sample_rate: int = 11025
    levels: list = dataclasses.field(default_factory=list)
    decode = DecodeConfig()
    spectrum = Spectrum()

    @property
    def model(self):
        return self

    def activations(self, blocks):
        samples = np.concatenate(list(blocks))
        self.levels.append(np.sqrt(np.mean(samples ** 2)))
        frames = -(-len(samples) // round(0.025 * self.sample_rate))
        drawn = draw_activations(NOTES, 0.0, frames, 0.025)
        for first, last in ((0, 17), (17, frames)):
            part = {name: getattr(drawn, name)[first:last]
                    for name in ("onset", "frame", "velocity", "drums")}
            at, pitch = np.nonzero(part["frame"])
            rows = np.zeros((len(at), 34), np.float16)
            rows[:, [int(SLAKH_CLASS_OF_PROGRAM[68]), 0]] = 0.9, 0.4
            yield Activations(**part, frame_seconds=0.025,
                              classes=SparseClasses.gather(at, pitch, rows, last - first))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told(SourceSpectrogram):
    """Keeps what it is given."""

    seen: list = dataclasses.field(default_factory=list, compare=False, hash=False)

    def of_piece(self, source, params):
        self.seen.append(source)
        return super().of_piece(source, params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hears(Louder):
    """The recording itself, by a model that wants it heard."""

    conditions: Told = Told()
    hears = True


def heard_by(write, out, samples, casting="harp", **more):
    """Facts of the transfer, and the sources that the model was given, without that of compiling."""
    told = Told()
    player = Synthesizer(name="toy", model=Hears(conditions=told), params={}, inverter=INVERTER)
    listening = Listening()
    done = transfer_file(player, write(samples), out, hearing=Hearing(
        transcriber=listening, casting=parse_casting(*np.atleast_1d(casting)), **more))
    return done, told.seen[1:], listening.levels


def test_a_recording_is_heard_at_one_level_and_comes_out_at_its_own(write, tmp_path, out):
    samples = 0.02 * np.random.default_rng(0).normal(size=(RATE, 2))
    _, sources, levels = heard_by(write, out, samples, reference=np.arange(3.0))
    assert len(sources) == 2 and len(levels) == 1  # it is heard once
    both = np.concatenate([source.mel for source in sources])
    assert level(both) == pytest.approx(LEVEL, abs=1e-3)
    reconstruct_file(INVERTER, write(samples), str(tmp_path / "again.wav"))
    np.testing.assert_allclose(read_audio(out).samples, read_audio(str(tmp_path / "again.wav")).samples,
                               atol=2e-3)
    _, sources, louder = heard_by(write, out, 10 * samples)
    assert level(np.concatenate([source.mel for source in sources])) == pytest.approx(LEVEL, abs=1e-3)
    assert louder[0] == pytest.approx(levels[0], rel=1e-3)
    assert sources[0].reference is None


def test_notes_are_put_on_the_instruments_that_are_asked_for(write, out):
    samples = tone(1.0)
    for casting, programs in (("harp", {46}), ("piano=harp", {46}), ("oboe=harp", {46}),
                              ("piano=harp,rest=flute", {73}), (["harp", "piano"], {46})):
        _, (source,), _ = heard_by(write, out, samples, casting)
        assert set(source.notes.program) == programs, casting
        assert source.notes.pitch.tolist() == [69, 71]
        np.testing.assert_allclose(source.notes.start, NOTES.start, atol=0.01)
    want = heard_frames(draw_activations(NOTES, 0.0, 40, 0.025), 50, 0.02)
    np.testing.assert_array_equal(source.heard, want)
    assert source.mel.shape == (50, 32)


def test_where_no_notes_are_heard_it_says_so(write, out, monkeypatch):
    monkeypatch.setattr(f"{__name__}.NOTES", Notes.empty())
    with pytest.warns(UserWarning, match="in.wav: no notes are heard"):
        _, (source,), _ = heard_by(write, out, tone(1.0))
    assert not len(source.notes) and not source.heard.any()


@pytest.mark.parametrize("wants", [True, False])
def test_what_it_should_become_is_said_to_models_that_want_it_and_no_others(write, out, wants):
    player = Synthesizer(name="toy", model=Hears() if wants else Louder(), params={}, inverter=INVERTER)
    hearing = None if wants else Hearing(transcriber=Listening())
    with pytest.raises(UserError, match="--to"):
        transfer_file(player, write(tone(1.0)), out, hearing=hearing)


def test_progress_reaches_the_end(write, out):
    shares = []
    transfer_file(synthesizer(), write(tone(1.0)), out, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0
