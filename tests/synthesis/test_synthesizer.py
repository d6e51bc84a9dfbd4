"""The synthesizer with a tiny untrained model; and, for long pieces, with no model at all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pyloudnorm
import pytest
from reference.tiny_release import MODEL, tiny_params
from reference.toy_generator import ToyGenerator

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.audio.waveform import Waveform
from music_diffusion.conditions import note_frames
from music_diffusion.conditions.base import Source
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.conditions.spectrograms import Nothing, SourceSpectrogram
from music_diffusion.diffusion.sampling import UniformTime
from music_diffusion.diffusion.solvers import DDPM, DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.models.base import Sampling
from music_diffusion.models.spaces import MelSpace
from music_diffusion.notes.frames import FrameGrid, roll_features
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import overlap as module
from music_diffusion.synthesis.context import ChainJoining
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.settings import RenderSettings
from music_diffusion.synthesis.synthesizer import Synthesizer

RATE = 16000
FAST = GriffinLim(iterations=1, chunk_frames=32)


def melody(count=6, gap=0.25):
    start = gap * np.arange(count)
    return Notes(start, start + 0.8 * gap, 60 + np.arange(count) % 12, np.full(count, 90),
                 np.full(count, 40), np.zeros(count))


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer(name="tiny", model=MODEL, params=tiny_params(), inverter=FAST, tail=0.5,
                       joining=OverlapJoining(windows=Windows(frames=64, overlap=32, group=2)))


@pytest.fixture(scope="module")
def wave(synthesizer):
    return synthesizer.synthesize(melody(), seed=1)


def joined(parts):
    return np.concatenate(list(parts))


def test_audio_lasts_as_long_as_the_notes_and_the_tail(synthesizer, wave):
    frames = synthesizer.frames_of(melody())
    assert frames == int(np.ceil((melody().duration + 0.5) * 50))
    assert wave.sample_rate == RATE and len(wave) == frames * 320
    assert joined(synthesizer.stream_mel(melody())).shape == (frames, 128)


def test_the_seed_decides_and_nothing_else(synthesizer, wave):
    np.testing.assert_array_equal(synthesizer.synthesize(melody(), seed=1).samples, wave.samples)
    assert np.abs(synthesizer.synthesize(melody(), seed=2).samples - wave.samples).max() > 1e-3


def test_the_notes_matter(synthesizer):
    a, b = (joined(synthesizer.stream_mel(notes)) for notes in (melody(), dataclasses.replace(
        melody(), pitch=melody().pitch + 7)))
    assert np.abs(a - b).max() > 0.1


def test_a_midi_file_is_its_notes(synthesizer, wave, tmp_path):
    write_midi(melody(), tmp_path / "song.mid")
    np.testing.assert_allclose(synthesizer.synthesize(str(tmp_path / "song.mid"), seed=1).samples,
                               wave.samples, atol=0.05)
    with pytest.raises(UserError, match="nowhere.mid"):
        synthesizer.synthesize("nowhere.mid")


def test_the_mel_is_in_the_codecs_range_and_told_as_it_comes(synthesizer):
    seen = []
    samples = joined(synthesizer.stream(melody(), on_mel=seen.append))
    mel = joined(seen)
    assert len(mel) * 320 == len(samples) and len(seen) > 1
    assert mel.min() >= MelCodec().log_min - 1e-4 and mel.max() <= 4.0 + 1e-4
    np.testing.assert_array_equal(mel, joined(synthesizer.stream_mel(melody())))


def test_progress_rises_to_one(synthesizer):
    done = []
    joined(synthesizer.stream(melody(), progress=done.append))
    assert done == sorted(done) and done[-1] == 1 and len(done) > 1 and done[0] > 0


@pytest.mark.slow
def test_a_compiled_synthesizer_compiles_no_more(synthesizer):
    settings = RenderSettings(steps=3)
    synthesizer.compile(melody(), settings)
    compiled = list(module._SAMPLE._programs)
    joined(synthesizer.stream(melody(), settings))
    joined(synthesizer.stream(melody(count=20), dataclasses.replace(settings, seed=5)))
    assert set(module._SAMPLE._programs) == set(compiled)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audible(ToyGenerator):
    """Nothing becomes its noise; the host hears of every sample."""

    conditions = Nothing()
    heard = []  # noqa: RUF012 of the class, so that equal models are one program

    def sample(self, params, batch, z_T, rng, *, x0_hook=None, progress=None):
        jax.debug.callback(lambda: self.heard.append(1))
        return z_T


class Changer(Audible):
    """The same of a recording."""

    conditions = SourceSpectrogram()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halved(MelSpace):
    """Every frame of the space stands for two."""

    step = 2

    def to_mel(self, params, x):
        return self.codec.unscale(np.repeat(x, 2, axis=0))


class Slow(Audible):
    """The same where frames are twice as long."""

    @property
    def space(self):
        return Halved(codec=super().space.codec)


@pytest.mark.parametrize("joining", [
    OverlapJoining(windows=Windows(frames=64, overlap=32, group=1)),
    ChainJoining(frames=40, context=False)])
def test_audio_is_no_longer_than_the_piece_whatever_a_frame_of_the_space_stands_for(joining):
    model = Slow()
    codec = model.space.codec
    synthesizer = Synthesizer(name="slow", model=model, params={}, joining=joining,
                              inverter=GriffinLim(codec=codec, iterations=1))
    parts = list(synthesizer.stream_mel(Source(codec=codec, frames=301)))
    mel = np.concatenate(parts)
    assert len(mel) == 301 and len(parts) > 1 and all(len(part) for part in parts)
    np.testing.assert_array_equal(mel[0:300:2], mel[1:301:2])  # each stood for two


def test_compiling_samples_nothing():
    model = Audible()
    model.heard.clear()
    synthesizer = Synthesizer(name="none", model=model, params={},
                              inverter=GriffinLim(codec=model.space.codec, iterations=1))
    nothing = Source(codec=model.space.codec, frames=100)
    synthesizer.compile(nothing)
    jax.effects_barrier()
    assert not model.heard
    joined(synthesizer.stream_mel(nothing))
    jax.effects_barrier()
    assert model.heard == [1]


def test_windows_get_the_maps_rolls_and_noise_of_their_frames(synthesizer, monkeypatch):
    """What the sampler is given for every group, against features of the whole piece."""
    notes, w = melody(), synthesizer.joining.windows
    frames = synthesizer.frames_of(notes)
    padded = frames + w.span
    maps = draw_note_maps(MODEL.config.timbre, synthesizer.params["timbre"], notes, 0.0, padded,
                          FrameGrid())
    roll = roll_features(notes, 0.0, padded, FrameGrid())
    calls = []

    def spy(model, windows, params, batch, z_T, key, known, has_known):
        first = len(calls) * w.group * w.stride
        for k in range(w.group):
            window = slice(first + k * w.stride, first + k * w.stride + w.frames)
            np.testing.assert_allclose(batch["maps"][k], maps[window], atol=1e-4)
            np.testing.assert_array_equal(batch["roll"][k], roll[window])
        assert z_T.shape == (w.group, w.frames, 128) and bool(has_known) == bool(calls)
        calls.append(first)
        return jnp.full((w.span, 128), 0.1 * len(calls))

    monkeypatch.setattr(module, "_SAMPLE", spy)
    mel = joined(synthesizer.stream_mel(notes))
    assert len(calls) == 2
    step = w.group * w.stride
    want = MODEL.codec.unscale(np.where(np.arange(frames) < step, 0.1, 0.2))
    np.testing.assert_allclose(mel, np.broadcast_to(want[:, None], mel.shape), rtol=1e-5)


@pytest.mark.slow
def test_an_hour_costs_a_group_what_a_minute_costs(monkeypatch):
    """Notes that a group looks at, and frames that it gives, do not grow with the piece."""
    synthesizer = Synthesizer(name="none", model=MODEL, params={"timbre": None}, inverter=FAST)
    w = synthesizer.joining_of().windows
    looked_at = []

    def maps(config, timbre, notes, start, frames, grid, performance):
        looked_at.append(len(notes))
        return np.zeros((frames, 2, 128), np.float32)

    monkeypatch.setattr(note_frames, "draw_note_maps", maps)
    monkeypatch.setattr(module, "_SAMPLE", lambda *_: jnp.zeros((w.span, 128)))
    monkeypatch.setattr(note_frames, "roll_features", lambda notes, start, frames, grid: np.zeros(frames))
    done, frames = [], 0
    notes = melody(count=4 * 3600)
    for mel in synthesizer.stream_mel(notes, progress=done.append):
        assert len(mel) <= w.span
        frames += len(mel)
    assert frames == synthesizer.frames_of(notes) > 3600 * 50 and done[-1] == 1
    # 18.56 s of span, 3 s before and 1 s after, four notes a second.
    assert max(looked_at) < 4 * 24 and len(looked_at) == len(done) > 100


def test_short_pieces_take_one_small_group():
    synthesizer = Synthesizer(name="none", model=MODEL, params={}, inverter=FAST)
    assert synthesizer.joining_of().windows.for_length(synthesizer.frames_of(melody())).group == 1


def test_settings_replace_what_was_released_and_nothing_more(synthesizer):
    assert synthesizer.sampled_by(RenderSettings()) == MODEL
    changed = synthesizer.sampled_by(RenderSettings(steps=7, guidance=2.0, solver=DPMSolverPP2M(),
                                                    temperature=0.3, texture=0.7))
    assert changed == dataclasses.replace(MODEL, num_steps=7, guidance_weight=2.0,
                                          solver=DPMSolverPP2M(), temperature=0.3, texture=0.7)
    assert changed.sampling == Sampling(steps=7, solver=DPMSolverPP2M(), grid=UniformTime(), guidance=2.0,
                                        passes=1, temperature=0.3, texture=0.7)


@pytest.mark.parametrize("settings", [
    {"steps": 3}, {"guidance": 2.0}, {"solver": DDPM(log_variance=0.0)}, {"temperature": 0.5},
    {"texture": 1.0}], ids=str)
def test_a_generator_that_samples_in_one_way_takes_no_others(settings):
    model = Audible()
    model.heard.clear()
    synthesizer = Synthesizer(name="none", model=model, params={},
                              inverter=GriffinLim(codec=model.space.codec))
    assert synthesizer.sampled_by(RenderSettings(seed=4)) is model
    with pytest.raises(UserError, match=f"--{next(iter(settings))} .* nothing of this kind"):
        synthesizer.sampled_by(RenderSettings(**settings))


@pytest.mark.slow
def test_without_temperature_a_deterministic_sampler_hears_no_seed(synthesizer):
    cold = dataclasses.replace(synthesizer, model=dataclasses.replace(MODEL, temperature=0.0))
    a, b = (joined(cold.stream_mel(melody(), RenderSettings(seed=seed))) for seed in (1, 2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    {"steps": 3}, {"guidance": 2.0}, {"solver": DDPM(log_variance=0.0)}], ids=str)
def test_every_setting_is_heard_and_stays_deterministic(synthesizer, settings):
    plain = joined(synthesizer.stream_mel(melody()))
    a, b = (joined(synthesizer.stream_mel(melody(), RenderSettings(**settings))) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - plain).max() > 1e-3


@pytest.mark.parametrize("settings", [{"steps": 0}, {"guidance": float("nan")}])
def test_settings_out_of_range_are_errors(synthesizer, settings):
    with pytest.raises(UserError):
        synthesizer.synthesize(melody(), **settings)


def test_no_notes_are_an_error(synthesizer):
    with pytest.raises(UserError, match="no notes"):
        synthesizer.synthesize(Notes.empty())


def test_parts_that_do_not_fit_are_refused(synthesizer):
    with pytest.raises(UserError, match="codecs differ"):
        dataclasses.replace(synthesizer, inverter=GriffinLim(codec=MelCodec(log_max=5.0)))
    other = MelCodec(hop=160)
    with pytest.raises(UserError, match="codecs differ"):
        synthesizer.source_of(Source(codec=other, frames=9, notes=melody()))


def test_what_a_model_is_not_made_for_is_refused(synthesizer):
    wave = Waveform(np.zeros(RATE, np.float32), RATE)
    for given in (wave, None):
        with pytest.raises(UserError, match="plays notes"):
            synthesizer.source_of(given)
    model = Changer()
    changer = Synthesizer(name="none", model=model, params={}, inverter=GriffinLim(codec=model.space.codec))
    assert changer.frames_of(wave) == RATE // 320
    with pytest.raises(UserError, match="changes recordings"):
        changer.source_of(melody())


def test_a_waveform_is_normalised_unless_asked_otherwise(synthesizer, wave):
    assert abs(pyloudnorm.Meter(16000).integrated_loudness(wave.samples.astype(np.float64)) + 14) < 0.5
    raw = synthesizer.synthesize(melody(), seed=1, normalized=False)
    np.testing.assert_array_equal(raw.samples, joined(synthesizer.stream(melody(), RenderSettings(seed=1))))
