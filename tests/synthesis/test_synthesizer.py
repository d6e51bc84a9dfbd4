"""The synthesizer with a tiny untrained model; and, for long pieces, with no model at all."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pyloudnorm
import pytest
from reference.tiny_release import MODEL, tiny_params

from music_diffusion.audio.codec import MelCodec
from music_diffusion.audio.griffin_lim import GriffinLim
from music_diffusion.conditions.note_maps import draw_note_maps
from music_diffusion.diffusion.solvers import DDPM, DPMSolverPP2M
from music_diffusion.errors import UserError
from music_diffusion.notes.frames import FrameGrid, roll_features
from music_diffusion.notes.midi import write_midi
from music_diffusion.notes.notes import Notes
from music_diffusion.synthesis import overlap as module
from music_diffusion.synthesis.joining import Windows
from music_diffusion.synthesis.overlap import OverlapJoining
from music_diffusion.synthesis.synthesizer import Settings, Synthesizer

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


def test_a_compiled_synthesizer_compiles_no_more(synthesizer):
    settings = Settings(steps=3)
    synthesizer.compile(melody(), settings)
    compiled = module._sample._cache_size()
    joined(synthesizer.stream(melody(), settings))
    joined(synthesizer.stream(melody(count=20), dataclasses.replace(settings, seed=5)))
    assert module._sample._cache_size() == compiled


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
        np.testing.assert_allclose(batch["maps"], maps[first:first + w.span], atol=1e-4)
        np.testing.assert_array_equal(batch["roll"], roll[first:first + w.span])
        assert z_T.shape == (w.group, w.frames, 128) and bool(has_known) == bool(calls)
        calls.append(first)
        return jnp.full((w.span, 128), 0.1 * len(calls))

    monkeypatch.setattr(module, "_sample", spy)
    mel = joined(synthesizer.stream_mel(notes))
    assert len(calls) == 2
    step = w.group * w.stride
    want = MODEL.codec.unscale(np.where(np.arange(frames) < step, 0.1, 0.2))
    np.testing.assert_allclose(mel, np.broadcast_to(want[:, None], mel.shape), rtol=1e-5)


def test_an_hour_costs_a_group_what_a_minute_costs(monkeypatch):
    """Notes that a group looks at, and frames that it gives, do not grow with the piece."""
    synthesizer = Synthesizer(name="none", model=MODEL, params={"timbre": None}, inverter=FAST)
    w = synthesizer.joining.windows
    looked_at = []

    def maps(config, timbre, notes, start, frames, grid, performance):
        looked_at.append(len(notes))
        return np.zeros((frames, 2, 128), np.float32)

    monkeypatch.setattr(module, "draw_note_maps", maps)
    monkeypatch.setattr(module, "_sample", lambda *_: jnp.zeros((w.span, 128)))
    monkeypatch.setattr(module, "roll_features", lambda *_: None)
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
    assert synthesizer.joining.windows.for_length(synthesizer.frames_of(melody())).group == 1


def test_settings_replace_what_was_released_and_nothing_more():
    assert Settings().apply(MODEL) == MODEL
    changed = Settings(steps=7, guidance=2.0, solver=DPMSolverPP2M()).apply(MODEL)
    assert changed == dataclasses.replace(MODEL, num_steps=7, guidance_weight=2.0,
                                          solver=DPMSolverPP2M())


@pytest.mark.parametrize("settings", [
    {"steps": 3}, {"guidance": 2.0}, {"solver": DDPM(log_variance=0.0)}], ids=str)
def test_every_setting_is_heard_and_stays_deterministic(synthesizer, settings):
    plain = joined(synthesizer.stream_mel(melody()))
    a, b = (joined(synthesizer.stream_mel(melody(), Settings(**settings))) for _ in range(2))
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
    with pytest.raises(UserError, match="hop"):
        joining = OverlapJoining(grid=FrameGrid(hop=0.01))
        list(dataclasses.replace(synthesizer, joining=joining).stream_mel(melody()))


def test_a_waveform_is_normalised_unless_asked_otherwise(synthesizer, wave):
    assert abs(pyloudnorm.Meter(16000).integrated_loudness(wave.samples.astype(np.float64)) + 14) < 0.5
    raw = synthesizer.synthesize(melody(), seed=1, normalized=False)
    np.testing.assert_array_equal(raw.samples, joined(synthesizer.stream(melody(), Settings(seed=1))))
